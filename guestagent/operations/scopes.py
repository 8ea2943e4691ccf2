"""Which changing verbs exclude which.

Two operations of one scope always exclude each other.  Data (a backup) excludes settings, because a snapshot
may borrow a setting of the server's and must put back what it found; it leaves accounts alone.
"""

from typing import Final

EXCLUDES: Final[dict[str, frozenset[str]]] = {
    "lifecycle": frozenset({"lifecycle", "data", "accounts", "settings", "topology", "none"}),
    "data": frozenset({"lifecycle", "data", "settings", "topology"}),
    "accounts": frozenset({"lifecycle", "accounts"}),
    "settings": frozenset({"lifecycle", "data", "settings", "topology"}),
    "topology": frozenset({"lifecycle", "data", "settings", "topology"}),
    "none": frozenset({"lifecycle"}),
}


def exclude(one: str, other: str) -> bool:
    """Say whether operations of these two scopes may not run at the same time."""
    return other in EXCLUDES[one]
