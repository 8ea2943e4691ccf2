"""Data for demonstrations, measurements and tests: every type of value, expiries, three databases, a function.

Keys come in **lots** of about 24 kB, numbered on from what is there; text is half as long when compressed.
"""

import json
import time
from collections.abc import Iterator, Sequence

from blake3 import blake3

from datastores.contract import Sample, Secret
from datastores.redis.client import Connection, ServerError, Word, agent, info, login, outside
from datastores.redis.digest import digests

_NEXT = "sample:next"
_DATABASES = 3
_CENTURY = 4102444800000
_BATCH = 16
_LIBRARY = "#!lua name=sample\nredis.register_function('sample_sum', function(keys, args) return args[1] + args[2] end)"


class SampleData(Sample):
    """Lots go to the databases in turn; a share of them is changed from a hot spot on."""

    def fill(self, size: int) -> None:
        """Put about ``size`` bytes of varied data in, deterministic, beside what is there."""
        with agent(self.node, timeout=120) as connection:
            number, done = self._next(connection), 0
            if info(connection, "server")["redis_version"].startswith("7"):
                connection.call("FUNCTION", "LOAD", "REPLACE", _LIBRARY)
            while done < size:
                batch = range(number, number + _BATCH)
                done += _send(connection, [word for lot in batch for word in _lot(lot)])
                number += _BATCH
            _send(connection, [("SELECT", 0), ("SET", _NEXT, number)])

    def change(self, share: float, seed: int = 0) -> int:
        """Change this share of the keys, in lots that follow one another; return how many."""
        with agent(self.node, timeout=120) as connection:
            lots = self._next(connection)
            count = max(1, round(lots * share)) if lots else 0
            first = (seed * 7919) % max(1, lots - count + 1)
            changed = 0
            for lot in range(first, first + count):
                commands = list(_changes(lot, seed))
                _send(connection, commands)
                changed += len(commands) - 1
            return changed

    def digest(self) -> dict[str, str]:
        """Return a digest of every database by name, and of the functions: equal when the data is."""
        with agent(self.node, timeout=120) as connection:
            return digests(connection)

    def login(self, name: str, password: Secret) -> bool:
        """Try a real login over the port, as a tenant would; return whether it held."""
        connection = outside(self.node.endpoint)
        try:
            login(connection, name, password)
            return connection.call("PING") == b"PONG"
        except ServerError:
            return False
        finally:
            connection.close()

    def settle(self) -> None:
        """Return when the server has no child at work and its log is written."""
        while True:
            with agent(self.node) as connection:
                told = info(connection, "persistence")
            busy = ("loading", "rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
            if all(told[each] == "0" for each in busy):
                return
            time.sleep(0.05)

    def _next(self, connection: Connection) -> int:
        connection.call("SELECT", 0)
        found = connection.call("GET", _NEXT)
        return int(found) if isinstance(found, bytes) else 0


def _send(connection: Connection, commands: Sequence[Sequence[Word]]) -> int:
    """Send commands, check every reply; return about how many bytes they carried."""
    for reply in connection.pipeline(commands):
        if isinstance(reply, ServerError):
            raise reply
    return sum(len(each) if isinstance(each, str | bytes) else 4 for words in commands for each in words)


def _text(*place: object, size: int) -> str:
    return blake3(repr(place).encode()).digest((size + 1) // 2).hex()[:size]


class _Words:
    """Text of one lot, drawn once and given out in pieces."""

    def __init__(self, lot: int, kind: str, size: int) -> None:
        self._all = _text(lot, kind, size=size)
        self._at = 0

    def next(self, size: int) -> str:
        self._at += size
        return self._all[self._at - size : self._at]


def _lot(lot: int) -> Iterator[Sequence[Word]]:
    """Yield the commands that make one lot."""
    words = _Words(lot, "common", 16000)
    yield "SELECT", lot % _DATABASES
    for n in range(24):
        order = {"id": lot * 24 + n, "state": ("new", "paid", "sent")[n % 3], "note": words.next(420)}
        yield "SET", f"order:{lot}:{n}", json.dumps(order)
    for n in range(8):
        yield "HSET", f"user:{lot}:{n}", *(word for f in range(6) for word in (f"field{f}", words.next(60)))
    yield "RPUSH", f"queue:{lot}", *(words.next(64) for n in range(24))
    yield "SADD", f"tags:{lot}", *(words.next(12) for n in range(20))
    yield "SADD", f"numbers:{lot}", *(lot * 40 + n for n in range(40))
    yield "ZADD", f"ranks:{lot}", *(word for n in range(20) for word in (str(n * 1.5), f"{n}-{words.next(14)}"))
    yield "PEXPIREAT", f"order:{lot}:0", _CENTURY + lot
    yield "PEXPIREAT", f"user:{lot}:0", _CENTURY + lot
    yield from _rare(lot)


def _rare(lot: int) -> Iterator[Sequence[Word]]:
    """Yield what only some lots have: streams with groups, and values too big for the packed forms."""
    words = _Words(lot, "rare", 60000)
    if lot % 8 == 0:
        for n in range(20):
            yield "XADD", f"events:{lot}", f"{1000 + n}-{lot}", "kind", n % 3, "body", words.next(80)
        yield "XGROUP", "CREATE", f"events:{lot}", "readers", 0
        yield "XREADGROUP", "GROUP", "readers", "one", "COUNT", 5, "STREAMS", f"events:{lot}", ">"
        yield "XACK", f"events:{lot}", "readers", f"1000-{lot}"
    if lot % 32 == 0:
        yield "HSET", f"table:{lot}", *(word for n in range(600) for word in (f"f{n}", words.next(24)))
        yield "SADD", f"crowd:{lot}", *(words.next(20) for n in range(300))
        yield "ZADD", f"scores:{lot}", *(word for n in range(200) for word in (str(n / 7), words.next(40)))
        yield "RPUSH", f"log:{lot}", *(words.next(70) for n in range(200))
        yield "PFADD", f"seen:{lot}", *range(lot, lot + 50)
        yield "SETBIT", f"bits:{lot}", 4000 + lot, 1


def _changes(lot: int, seed: int) -> Iterator[Sequence[Word]]:
    """Yield one small change of every common key of a lot."""
    yield "SELECT", lot % _DATABASES
    for n in range(24):
        yield "SETRANGE", f"order:{lot}:{n}", 60, _text(seed, lot, n, size=24)
    for n in range(8):
        yield "HSET", f"user:{lot}:{n}", f"field{seed % 6}", _text(seed, lot, n, size=24)
    yield "LPUSH", f"queue:{lot}", _text(seed, lot, "q", size=24)
    yield "SADD", f"tags:{lot}", _text(seed, lot, "t", size=12)
    yield "SREM", f"numbers:{lot}", lot * 40 + seed % 40
    yield "ZADD", f"ranks:{lot}", seed, _text(seed, lot, "z", size=16)


SAMPLE = SampleData
