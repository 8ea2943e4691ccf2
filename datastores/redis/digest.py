"""A digest of what a server holds, whatever the order and the form in which it holds it."""

import itertools
from collections.abc import Callable, Iterator

from blake3 import blake3

from datastores.contract import ToolFailed
from datastores.redis.client import Connection, Reply, ServerError, info

_LOT = 512
_ALL = 1 << 128

_READ: dict[bytes, Callable[[bytes], tuple[str | bytes | int, ...]]] = {
    b"string": lambda key: ("GET", key),
    b"list": lambda key: ("LRANGE", key, 0, -1),
    b"set": lambda key: ("SMEMBERS", key),
    b"hash": lambda key: ("HGETALL", key),
    b"zset": lambda key: ("ZRANGE", key, 0, -1, "WITHSCORES"),
    b"stream": lambda key: ("XINFO", "STREAM", key, "FULL", "COUNT", 0),
}


def digests(connection: Connection) -> dict[str, str]:
    """Return a digest of every database that holds keys, and of the functions where there are any.

    Each key counts with its type, its value and the moment it expires (before 7.0: whether it does).
    """
    exact = not info(connection, "server")["redis_version"].startswith("6")
    found = {}
    for name in info(connection, "keyspace"):
        connection.call("SELECT", name.removeprefix("db"))
        # A key may be seen twice where the server's table is growing; nobody writes while a digest is taken.
        total = sum(set(_sums(connection, exact))) % _ALL
        found[name] = f"{total:032x}"
    if exact:
        functions = connection.items("FUNCTION", "LIST", "WITHCODE")
        if functions:
            found["functions"] = blake3(repr(sorted(map(repr, functions))).encode()).hexdigest()[:32]
    return found


def _sums(connection: Connection, exact: bool) -> Iterator[int]:
    cursor: Reply = b"0"
    while True:
        page = connection.items("SCAN", cursor if isinstance(cursor, bytes) else b"0", "COUNT", _LOT)
        cursor, keys = page[0], page[1]
        if isinstance(keys, list):
            yield from _keys(connection, [each for each in keys if isinstance(each, bytes)], exact)
        if cursor == b"0":
            return


def _keys(connection: Connection, keys: list[bytes], exact: bool) -> Iterator[int]:
    kinds = _all(connection, [("TYPE", each) for each in keys])
    ends = _all(connection, [("PEXPIRETIME" if exact else "PTTL", each) for each in keys])
    pairs = [(kind, key) for kind, key in zip(kinds, keys, strict=True) if isinstance(kind, bytes) and kind in _READ]
    values = _all(connection, [_READ[kind](key) for kind, key in pairs])
    for (kind, key), value, end in zip(pairs, values, ends, strict=True):
        moment = end if exact else isinstance(end, int) and end >= 0
        yield _hash(key, kind, _plain(kind, value), moment)


def _plain(kind: bytes, value: Reply) -> object:
    """Return a value in one form, whatever its order in the server."""
    if not isinstance(value, list):
        return value
    if kind == b"set":
        return sorted(map(repr, value))
    if kind == b"hash":
        return sorted(map(repr, itertools.zip_longest(value[::2], value[1::2])))
    return _without_forms(value) if kind == b"stream" else value


def _without_forms(value: list[Reply]) -> object:
    """Leave out how a stream is stored, when a consumer was seen last and what the server itself does not hand on.

    A read by a group is handed on as claims, which know neither the count of what was read nor the lag.
    """
    skipped = (b"radix-tree-keys", b"radix-tree-nodes", b"seen-time", b"active-time", b"entries-read", b"lag")
    out: list[object] = []
    rest = iter(value)
    for each in rest:
        if isinstance(each, bytes) and each in skipped:
            next(rest, None)
        else:
            out.append(_without_forms(each) if isinstance(each, list) else each)
    return out


def _hash(*parts: object) -> int:
    return int.from_bytes(blake3(repr(parts).encode()).digest(16), "big")


def _all(connection: Connection, commands: list[tuple[str | bytes | int, ...]]) -> list[Reply]:
    found: list[Reply] = []
    for each in connection.pipeline(commands) if commands else ():
        if isinstance(each, ServerError):
            raise ToolFailed(f"the data cannot be read: {each}")
        found.append(each)
    return found
