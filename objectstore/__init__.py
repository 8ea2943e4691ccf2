"""Named byte strings, kept in clusters; and the archive that is made of them.

This library keeps extents.  It knows no database and nothing of the agent.
"""
