"""A walker over the RDB format: it finds the records of a dump without understanding their values.

Source: the server's own format, versions 9 and 10.  A **record** is a key with its value, as the dump
has it: expiry (``FC``/``FD``), idle time or frequency (``F8``/``F9``), type, key, value.  Value types 0 to
5 and 9 to 21 are known; a module's (6, 7, ``F7``) or a newer one ends the walk with ``Unwalkable``.

A record's **fingerprint** is a keyed hash over database, expiry, type, key and value; not over idle time
and frequency, and with the members of sets and hashes sorted, because a restarted server has them
in another order.  A record of more than ``giant`` bytes is never held: it is known by its file and its
place there, and so differs from every other.
"""

from typing import Protocol

from blake3 import blake3

from datastores.redis.rdbvalues import VALUES, Pull, Unwalkable, length, members, pulled, string

__all__ = ["GIANT", "WIDTH", "Sink", "Unwalkable", "Walker"]

WIDTH = 10
GIANT = 16 * 1024 * 1024
_MAGIC = 9
_TRAILER = 8
_FUNCTION, _IDLE, _FREQUENCY, _AUX, _SIZES = 0xF5, 0xF8, 0xF9, 0xFA, 0xFB
_MILLISECONDS, _SECONDS, _DATABASE, _END = 0xFC, 0xFD, 0xFE, 0xFF
_SORTED = {2: 1, 4: 2}


class Sink(Protocol):
    """What is told of the parts of a dump, in their order."""

    def other(self, raw: bytes) -> None:
        """Take a function or an auxiliary field."""

    def record(self, database: int, fingerprint: bytes, buffer: bytearray, start: int, end: int) -> None:
        """Take a record: these bytes of the buffer, until the call returns."""

    def giant(self, database: int, fingerprint: bytes) -> None:
        """Take the beginning of a giant record; its bytes come by ``part``."""

    def part(self, raw: bytes) -> None:
        """Take bytes of the giant record that was begun."""


class Walker:
    """Walk one dump that comes in pieces of any size; ``name`` is its stored path, for giants."""

    def __init__(self, key: bytes, name: str, sink: Sink, *, giant: int = GIANT) -> None:
        self._key = key
        self._limit = giant
        self._name = name.encode()
        self._sink = sink
        self._buffer = bytearray()
        self._database = 0
        self._expected: int | None = None
        self._seen = 0
        self._giants = 0
        self._patience = 0
        self._giant: Pull | None = None
        self._wanted = _MAGIC
        self._head = True
        self.version = 0
        self.ended = False

    def feed(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the dump; ``Unwalkable`` where they cannot be walked."""
        self._buffer += chunk
        # A record that is not whole yet is looked at again when there is twice as much of it.
        if len(self._buffer) >= self._patience:
            self._advance()

    def finish(self) -> None:
        """Raise ``Unwalkable`` unless the dump was walked to its very end."""
        self._advance()
        if not self.ended or len(self._buffer) not in (0, _TRAILER):
            raise Unwalkable("the dump ends early")

    def _advance(self) -> None:
        while (self._giant is None or self._go_on()) and not self.ended:
            at = self._begin() if self._head else 0
            at = self._scan(at) if at >= 0 else 0
            del self._buffer[:at]
            rest = len(self._buffer)
            if rest <= self._limit or self._buffer[0] in (_AUX, _FUNCTION):
                self._patience = 0 if at else min(2 * rest, self._limit + 1)
                return
            self._name_giant()
            self._giant, self._patience = pulled(), 0
            self._wanted = next(self._giant)

    def _begin(self) -> int:
        if len(self._buffer) < _MAGIC:
            return -1
        if self._buffer[:5] != b"REDIS" or not self._buffer[5:_MAGIC].isdigit():
            raise Unwalkable("this is no RDB")
        self.version, self._head = int(self._buffer[5:_MAGIC]), False
        return _MAGIC

    def _scan(self, at: int) -> int:
        """Walk as far as whole parts go; return where the first part begins that is not whole."""
        buffer, end = self._buffer, len(self._buffer)
        while at < end and not self.ended:
            try:
                after = self._record(buffer, at, end) if buffer[at] < _FUNCTION else self._part(buffer, at, end)
            except IndexError:
                return at
            if after > end:
                return at
            at = after
        return at

    def _part(self, buffer: bytearray, at: int, end: int) -> int:
        """Take what is no record (or begins with an expiry or an idle time); return where it ends."""
        code = buffer[at]
        if code in (_MILLISECONDS, _SECONDS, _IDLE, _FREQUENCY):
            return self._record(buffer, at, end)
        if code == _DATABASE:
            number, after = length(buffer, at + 1)
            if after <= end:
                self._leave()
                self._database, self._seen = number, 0
            return after
        if code == _SIZES:
            expected, after = length(buffer, at + 1)
            after = length(buffer, after)[1]
            if after <= end:
                self._expected = expected
            return after
        if code == _END:
            self._leave()
            self.ended = True
            return at + 1
        if code not in (_AUX, _FUNCTION):
            raise Unwalkable(f"the dump has a part of the unknown kind {code:#x}")
        after = string(buffer, at + 1)
        after = string(buffer, after) if code == _AUX else after
        if after <= end:
            self._sink.other(bytes(buffer[at:after]))
        return after

    def _record(self, buffer: bytearray, start: int, end: int) -> int:
        at, expiry = start, b""
        while (code := buffer[at]) >= _FUNCTION:
            if code in (_MILLISECONDS, _SECONDS):
                size = 9 if code == _MILLISECONDS else 5
                expiry = bytes(buffer[at : at + size])
                at += size
            elif code == _IDLE:
                at = length(buffer, at + 1)[1]
            elif code == _FREQUENCY:
                at += 2
            else:
                raise Unwalkable(f"a record begins with the unknown kind {code:#x}")
        skip = VALUES.get(code)
        if skip is None:
            raise Unwalkable(f"the dump has a value of the unknown type {code}")
        value = string(buffer, at + 1)
        after = skip(buffer, value)
        if after <= end and after - start <= self._limit:
            self._seen += 1
            fingerprint = self._print(buffer, at, value, after, expiry)
            self._sink.record(self._database, fingerprint, buffer, start, after)
        elif after <= end:
            self._name_giant()
            self._sink.part(bytes(buffer[start:after]))
        return after

    def _print(self, buffer: bytearray, at: int, value: int, after: int, expiry: bytes) -> bytes:
        prefix = b"%d:%b:" % (self._database, expiry)
        per = _SORTED.get(buffer[at])
        if per is None:
            return blake3(prefix + buffer[at:after], key=self._key).digest(WIDTH)
        found = sorted(members(buffer, value, per))
        return blake3(prefix + buffer[at:value] + b"".join(found), key=self._key).digest(WIDTH)

    def _leave(self) -> None:
        if self._expected is not None and self._seen != self._expected:
            raise Unwalkable(f"{self._seen} keys of {self._expected} were found in database {self._database}")
        self._expected = None

    def _name_giant(self) -> None:
        self._giants += 1
        self._seen += 1
        place = b"giant:%b:%d" % (self._name, self._giants)
        self._sink.giant(self._database, blake3(place, key=self._key).digest(WIDTH))

    def _go_on(self) -> bool:
        """Give the giant's walker what it asks for; return whether the record is at its end."""
        while self._giant is not None:
            # A positive wish is bytes it looks at, a negative one is bytes to pass over.
            size = min(len(self._buffer), abs(self._wanted))
            if self._wanted >= 0 and size < self._wanted:
                return False
            piece = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._sink.part(piece)
            if self._wanted < 0 and size < -self._wanted:
                self._wanted += size
                return False
            try:
                self._wanted = self._giant.send(piece)
            except StopIteration:
                self._giant = None
        return True
