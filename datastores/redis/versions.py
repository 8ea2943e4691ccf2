"""What differs between the versions, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from datastores.contract import BadInput


@dataclass(frozen=True)
class Traits:
    """One version's ways.

    ``log_folder``   the append-only file is a folder with a manifest; else one file that begins with an RDB.
    ``exact_expiry`` the replication stream names the moment of an expiry; else a span, which a later
                     replay would begin anew: no increment can be exact.
    ``rdb``          the version of the RDB format.
    ``own``          settings of the agent's layer that only this version has.
    """

    log_folder: bool
    exact_expiry: bool
    rdb: int
    own: Mapping[str, str] = field(default_factory=dict)


VERSIONS: Mapping[str, Traits] = {
    "6.2": Traits(log_folder=False, exact_expiry=False, rdb=9),
    "7.0": Traits(
        log_folder=True,
        exact_expiry=True,
        rdb=10,
        own={
            "appenddirname": "appendonlydir",
            "enable-debug-command": "no",
            "enable-module-command": "no",
            "enable-protected-configs": "no",
        },
    ),
}


def traits(version: str) -> Traits:
    """Return the ways of a version, or ``BadInput``."""
    found = VERSIONS.get(version)
    if found is None:
        raise BadInput(f"redis {version} is not one of {', '.join(VERSIONS)}", field="datastore_version")
    return found
