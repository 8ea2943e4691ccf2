"""Where the values of a dump end: one function a type, each taking a buffer and where the value begins.

A function returns where the value ends, maybe beyond the buffer, or raises ``IndexError``; in both
cases more bytes are needed.  ``pulled`` is the same for a record too big to be held.
"""

from collections.abc import Callable, Generator

Skip = Callable[[bytes | bytearray, int], int]
Pull = Generator[int, bytes, int]


class Unwalkable(Exception):
    """This dump has something that the walker does not know."""


def length(buffer: bytes | bytearray, at: int) -> tuple[int, int]:
    """Read a length; return it and where it ends."""
    first = buffer[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | buffer[at + 1], at + 2
    if first in (0x80, 0x81):
        size = 4 if first == 0x80 else 8
        return int.from_bytes(buffer[at + 1 : at + 1 + size], "big"), at + 1 + size
    raise Unwalkable(f"the dump has an unknown length {first:#x}")


def string(buffer: bytes | bytearray, at: int) -> int:
    """Return where a string ends: plain, a number, or compressed."""
    first = buffer[at]
    if first < 0x40:
        return at + 1 + first
    if first < 0x80:
        return at + 2 + ((first & 0x3F) << 8 | buffer[at + 1])
    if first < 0xC0:
        size, at = length(buffer, at)
        return at + size
    if first <= 0xC2:
        return at + (2, 3, 5)[first & 3]
    if first != 0xC3:
        raise Unwalkable(f"the dump has an unknown string {first:#x}")
    packed, at = length(buffer, at + 1)
    return length(buffer, at)[1] + packed


def _many(per: int, extra: int = 0) -> Skip:
    """Return the function for a counted run of ``per`` strings and ``extra`` bytes each."""

    def skip(buffer: bytes | bytearray, at: int) -> int:
        count, at = length(buffer, at)
        for _ in range(count):
            for _ in range(per):
                at = string(buffer, at)
            at += extra
        return at

    return skip


def _scored(buffer: bytes | bytearray, at: int) -> int:
    """Pass an old sorted set: a string, and a score as text (253 to 255: not a number, infinities)."""
    count, at = length(buffer, at)
    for _ in range(count):
        at = string(buffer, at)
        size = buffer[at]
        at += 1 if size >= 253 else 1 + size
    return at


def _nodes(buffer: bytes | bytearray, at: int) -> int:
    """Pass a list: each node with its kind of container."""
    count, at = length(buffer, at)
    for _ in range(count):
        at = string(buffer, length(buffer, at)[1])
    return at


def _stream(second: bool, third: bool) -> Skip:
    """Return the function for a stream: ``second`` and ``third`` are what later formats added."""

    def skip(buffer: bytes | bytearray, at: int) -> int:
        count, at = length(buffer, at)
        for _ in range(2 * count):
            at = string(buffer, at)
        at = _lengths(buffer, at, 8 if second else 3)
        groups, at = length(buffer, at)
        for _ in range(groups):
            at = _lengths(buffer, string(buffer, at), 3 if second else 2)
            at = _pending(buffer, at)
            consumers, at = length(buffer, at)
            for _ in range(consumers):
                at = string(buffer, at) + (16 if third else 8)
                owned, at = length(buffer, at)
                at += 16 * owned
        return at

    return skip


def _pending(buffer: bytes | bytearray, at: int) -> int:
    count, at = length(buffer, at)
    for _ in range(count):
        at = length(buffer, at + 24)[1]
    return at


def _lengths(buffer: bytes | bytearray, at: int, count: int) -> int:
    for _ in range(count):
        at = length(buffer, at)[1]
    return at


VALUES: dict[int, Skip] = {
    0: string,
    1: _many(1),
    2: _many(1),
    3: _scored,
    4: _many(2),
    5: _many(1, 8),
    **dict.fromkeys((9, 10, 11, 12, 13, 16, 17, 20), string),
    14: _many(1),
    15: _stream(second=False, third=False),
    18: _nodes,
    19: _stream(second=True, third=False),
    21: _stream(second=True, third=True),
}

_RUNS = {1: (1, 0), 2: (1, 0), 4: (2, 0), 5: (1, 8), 14: (1, 0)}


def members(buffer: bytes | bytearray, at: int, per: int) -> list[bytes | bytearray]:
    """Return the members of a set (``per`` 1) or the pairs of a hash (2), each as the dump has it."""
    count, at = length(buffer, at)
    found = []
    for _ in range(count):
        start = at
        for _ in range(per):
            at = string(buffer, at)
        found.append(buffer[start:at])
    return found


def pulled() -> Pull:
    """Walk one record by wishes: yield ``n`` to be sent ``n`` bytes, ``-n`` to have ``n`` bytes passed over.

    Return its type.
    """
    kind = yield from _pull_type()
    yield from _pull_string()
    if kind in _RUNS:
        per, extra = _RUNS[kind]
        for _ in range((yield from _pull_length())):
            for _ in range(per):
                yield from _pull_string()
            if extra:
                yield -extra
    elif kind == 18:
        for _ in range((yield from _pull_length())):
            yield from _pull_length()
            yield from _pull_string()
    elif kind == 3:
        for _ in range((yield from _pull_length())):
            yield from _pull_string()
            score = (yield 1)[0]
            yield -score if 0 < score < 253 else 0
    elif kind in (15, 19, 21):
        yield from _pull_stream(kind)
    elif VALUES.get(kind) is string:
        yield from _pull_string()
    else:
        raise Unwalkable(f"the dump has a value of the unknown type {kind}")
    return kind


def _pull_type() -> Pull:
    while (kind := (yield 1)[0]) >= 0xF5:
        if kind == 0xF8:
            yield from _pull_length()
        else:
            yield -{0xFC: 8, 0xFD: 4, 0xF9: 1}[kind]
    return kind


def _pull_length() -> Pull:
    head = yield 1
    more = {0: 0, 1: 1}.get(head[0] >> 6, {0x80: 4, 0x81: 8}.get(head[0], 0))
    rest = (yield more) if more else b""
    return length(head + rest, 0)[0]


def _pull_string() -> Pull:
    head = (yield 1)[0]
    if head >= 0xC3:
        size = yield from _pull_length()
        yield from _pull_length()
    elif head >= 0xC0:
        size = (1, 2, 4)[head & 3]
    else:
        more = {0: 0, 1: 1}.get(head >> 6, 4 if head == 0x80 else 8)
        rest = (yield more) if more else b""
        size = length(bytes([head]) + rest, 0)[0]
    if size:
        yield -size
    return size


def _pull_stream(kind: int) -> Pull:
    second, third = kind >= 19, kind >= 21
    for _ in range(2 * (yield from _pull_length())):
        yield from _pull_string()
    for _ in range(8 if second else 3):
        yield from _pull_length()
    for _ in range((yield from _pull_length())):
        yield from _pull_string()
        for _ in range(3 if second else 2):
            yield from _pull_length()
        for _ in range((yield from _pull_length())):
            yield -24
            yield from _pull_length()
        for _ in range((yield from _pull_length())):
            yield from _pull_string()
            yield -(16 if third else 8)
            owned = yield from _pull_length()
            if owned:
                yield -16 * owned
    return kind
