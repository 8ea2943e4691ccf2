"""Tables of fingerprints: which records a dump had.

A table is the private file ``table`` of a full backup, whole: magic, hash key, RDB version, 65 536 counts of
four bytes, then 8 bytes for each record, in the order of the first two bytes of its fingerprint (so 10 bytes
are compared and 8 are kept).  After a hole a ``delta.N`` is stored instead: magic, RDB version, two counts
of eight bytes, then the fingerprints that went and those that came, 10 bytes each.  Numbers are big-endian.
"""

import secrets
import struct
from collections.abc import Iterator

from datastores.contract import Mismatch
from datastores.redis.rdb import WIDTH

_TABLE, _DELTA = b"OSTLERFT", b"OSTLERFD"
_HEAD = struct.Struct(">8s32sI")
_DELTA_HEAD = struct.Struct(">8sIQQ")
_COUNTS = struct.Struct(">65536I")
_ROWS = 65536
_REST = WIDTH - 2
_LOT = 256 * 1024


class Table:
    """A set of fingerprints, small in memory; ``key`` is the key of its hashes."""

    def __init__(self, key: bytes = b"", version: int = 0) -> None:
        self.key = key or secrets.token_bytes(32)
        self.version = version
        self._rows: list[bytearray | None] = [None] * _ROWS

    def __len__(self) -> int:
        return sum(len(each) // _REST for each in self._rows if each)

    def __iter__(self) -> Iterator[bytes]:
        for number, row in enumerate(self._rows):
            head = number.to_bytes(2, "big")
            for at in range(0, len(row or b""), _REST):
                yield head + (row or b"")[at : at + _REST]

    def add(self, fingerprint: bytes) -> None:
        """Put a fingerprint in."""
        number = fingerprint[0] << 8 | fingerprint[1]
        row = self._rows[number]
        if row is None:
            self._rows[number] = bytearray(fingerprint[2:])
        else:
            row += fingerprint[2:]

    def take(self, fingerprint: bytes) -> bool:
        """Take a fingerprint out; return whether it was in."""
        row, rest = self._rows[fingerprint[0] << 8 | fingerprint[1]], fingerprint[2:]
        if row is None:
            return False
        at = row.find(rest)
        while at >= 0 and at % _REST:
            at = row.find(rest, at + 1)
        if at < 0:
            return False
        row[at : at + _REST] = row[-_REST:]
        del row[-_REST:]
        return True

    def dump(self) -> Iterator[bytes]:
        """Yield the bytes of the private file."""
        yield _HEAD.pack(_TABLE, self.key, self.version)
        yield _COUNTS.pack(*(len(each or b"") // _REST for each in self._rows))
        lot = bytearray()
        for row in self._rows:
            lot += row or b""
            if len(lot) >= _LOT:
                yield bytes(lot)
                lot.clear()
        yield bytes(lot)

    @classmethod
    def load(cls, data: bytes) -> "Table":
        """Read a private file; ``Mismatch`` where it is not one."""
        start = _HEAD.size + _COUNTS.size
        if len(data) < start or data[:8] != _TABLE:
            raise Mismatch("the parent's table of fingerprints cannot be read")
        _, key, version = _HEAD.unpack_from(data)
        counts = _COUNTS.unpack_from(data, _HEAD.size)
        if len(data) != start + _REST * sum(counts):
            raise Mismatch("the parent's table of fingerprints is not whole")
        table, at = cls(key, version), start
        for number, count in enumerate(counts):
            if count:
                table._rows[number] = bytearray(data[at : at + _REST * count])
                at += _REST * count
        return table

    def change(self, data: bytes) -> None:
        """Apply a delta; ``Mismatch`` where it does not belong to this table."""
        if len(data) < _DELTA_HEAD.size or data[:8] != _DELTA:
            raise Mismatch("the parent's delta of fingerprints cannot be read")
        _, self.version, gone, come = _DELTA_HEAD.unpack_from(data)
        if len(data) != _DELTA_HEAD.size + WIDTH * (gone + come):
            raise Mismatch("the parent's delta of fingerprints is not whole")
        for number in range(gone + come):
            at = _DELTA_HEAD.size + WIDTH * number
            fingerprint = data[at : at + WIDTH]
            if number >= gone:
                self.add(fingerprint)
            elif not self.take(fingerprint):
                raise Mismatch("the parent's delta of fingerprints belongs to another table")


def delta(version: int, gone: Table, come: bytes | bytearray) -> bytes:
    """Return a delta's private file."""
    went = b"".join(gone)
    return _DELTA_HEAD.pack(_DELTA, version, len(went) // WIDTH, len(come) // WIDTH) + went + come
