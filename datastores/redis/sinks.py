"""What is done with the records of a dump: learn their fingerprints, or write some of them out as a dump.

A dump that is written here has the head of the one it came from, then only the records that were
chosen, and a trailer of zeros: the server takes that for a dump without a checksum.  Its bytes are
sealed by the archive.
"""

from collections.abc import Callable

from datastores.redis.fingerprints import Table

END = b"\xff" + bytes(8)


class Learn:
    """Put every record's fingerprint in a table."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def other(self, raw: bytes) -> None:
        """Pass."""

    def record(self, database: int, fingerprint: bytes, buffer: bytearray, start: int, end: int) -> None:
        """Learn one."""
        self._table.add(fingerprint)

    def giant(self, database: int, fingerprint: bytes) -> None:
        """Learn one."""
        self._table.add(fingerprint)

    def part(self, raw: bytes) -> None:
        """Pass."""


class Write:
    """Write the records that ``choose`` wants; ``taken`` gives what was written since it was last asked.

    ``others``: whether functions and auxiliary fields are written, too.
    """

    def __init__(self, choose: Callable[[bytes], bool], *, others: bool = True) -> None:
        self._choose = choose
        self._others = others
        self._out = bytearray()
        self._database: int | None = None
        self._chosen = False

    def other(self, raw: bytes) -> None:
        """Write it where wanted."""
        if self._others:
            self._out += raw

    def record(self, database: int, fingerprint: bytes, buffer: bytearray, start: int, end: int) -> None:
        """Write a record where chosen."""
        if self._choose(fingerprint):
            self._select(database)
            self._out += buffer[start:end]

    def giant(self, database: int, fingerprint: bytes) -> None:
        """Choose a giant."""
        self._chosen = self._choose(fingerprint)
        if self._chosen:
            self._select(database)

    def part(self, raw: bytes) -> None:
        """Write a part of the giant where it was chosen."""
        if self._chosen:
            self._out += raw

    def taken(self) -> bytes:
        """Return what was written since, and forget it."""
        found = bytes(self._out)
        self._out.clear()
        return found

    def _select(self, database: int) -> None:
        if database != self._database:
            self._database = database
            self._out += b"\xfe" + _length(database)


def head(version: int) -> bytes:
    """Return the first bytes of a dump."""
    return b"REDIS%04d" % version


def _length(number: int) -> bytes:
    if number < 0x40:
        return bytes([number])
    return bytes([0x40 | number >> 8, number & 0xFF]) if number < 0x4000 else b"\x80" + number.to_bytes(4, "big")
