"""Leases and tombstones: small open records that a collection reads.

A lease says that an attempt is at work, so that nothing it may refer to is freed; it
runs out by itself.  A tombstone says that a backup was deleted, so that a manifest that
comes back with a cluster is not believed.
"""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from objectstore.archive.index import parse
from objectstore.archive.model import JSON, Header
from objectstore.archive.names import Names
from objectstore.store import Corrupt, Denied, Store, Unavailable

HOLDS = 24 * 3600.0
"""Seconds for which a lease holds."""


@dataclass(frozen=True)
class LeaseRecord:
    """What a lease says; times are seconds since 1970."""

    attempt: str
    backup: str
    generation: str
    expires: float

    def to_bytes(self) -> bytes:
        """Return the record as it is stored."""
        row: dict[str, JSON] = {**asdict(self), "format": 1, "expires_at": moment(self.expires)}
        return json.dumps(row, sort_keys=True).encode() + b"\n"

    @classmethod
    def of(cls, attempt: str, data: bytes) -> "LeaseRecord":
        """Return what a lease says; one that cannot be read holds for ever, for it protects."""
        with suppress(Corrupt):
            match parse(data):
                case {"backup": str(backup), "generation": str(generation), "expires": int() | float() as expires}:
                    return cls(attempt, backup, generation, float(expires))
        return cls(attempt, "", "", float("inf"))


class Lease:
    """The lease of one attempt."""

    def __init__(self, store: Store, names: Names, header: Header) -> None:
        self._store = store
        self._name = names.lease(header.attempt)
        self._header = header
        self._until = 0.0

    def take(self) -> None:
        """Put the lease, good for a day from now."""
        until = time.time() + HOLDS
        record = LeaseRecord(self._header.attempt, self._header.backup, self._header.generation, until)
        self._store.put(self._name, [record.to_bytes()])
        self._until = until

    def renew(self) -> None:
        """Put it again where half of its time is over."""
        if self._until and self._until - time.time() < HOLDS / 2:
            self.take()

    def end(self) -> None:
        """Remove it where that can be done now."""
        self._until = 0.0
        release(self._store, self._name)


def release(store: Store, name: str) -> None:
    """Remove a lease; where a cluster is away, or we may only add, it runs out by itself."""
    with suppress(Unavailable, Denied):
        store.delete(name)


def tombstone(backup: str, attempts: list[str]) -> bytes:
    """Return the record that a backup was deleted."""
    row = {
        "backup": backup,
        "attempts": attempts,
        "deleted": time.time(),
        "deleted_at": moment(time.time()),
        "format": 1,
    }
    return json.dumps(row, sort_keys=True).encode() + b"\n"


def deleted_at(data: bytes) -> float:
    """Return when a tombstone says that its backup was deleted; 0.0 where it cannot be read."""
    with suppress(Corrupt):
        match parse(data):
            case {"deleted": int() | float() as deleted}:
                return float(deleted)
    return 0.0


def moment(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
