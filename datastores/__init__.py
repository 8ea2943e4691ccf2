"""Databases turned into extents and back.

This library knows databases. It knows no RPC, no configuration file and no
object store: what it needs from a machine it asks of a ``contract.Host``, and
the bytes it makes are ``contract.Extent`` tuples that anyone may keep.
"""
