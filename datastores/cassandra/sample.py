"""Data for demonstrations, measurements and tests: rows of many shapes in one keyspace, with indexes and counters.

Rows come in **lots** of about 24 kB, numbered on from what is there.  Their text is made of words, so that the
server's own compression finds something in it, and a better one finds more.
"""

import time
import uuid
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from blake3 import blake3
from cassandra.concurrent import execute_concurrent
from cassandra.protocol import ResultMessage, _ProtocolHandler
from cassandra.query import BatchStatement, BatchType, SimpleStatement

from datastores.cassandra.client import Session, Shut, login, session
from datastores.cassandra.dialect import across, identifier
from datastores.cassandra.factors import factors, nodes, replications
from datastores.cassandra.jolokia import FLUSH, STORAGE, Management
from datastores.cassandra.schema import tenants
from datastores.contract import Sample, Secret

ORDERS, USERS, ARTICLES, VISITS = 20, 8, 2, 3
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
COMPACTION = "compaction = {'class': 'SizeTieredCompactionStrategy', 'min_sstable_size': '1'}"
"""The usual one, but small tables are treated as large ones are: else they are written anew as a whole all the time."""
SCHEMA = (
    "TYPE sample.line (sku text, count int, price decimal)",
    "TABLE sample.orders (lot int, number int, shop text STATIC, state text, total decimal, at timestamp, "
    "lines list<frozen<line>>, tags set<text>, facts map<text, text>, note text, PRIMARY KEY (lot, number)) "
    "WITH CLUSTERING ORDER BY (number DESC) AND " + COMPACTION,
    "TABLE sample.users (lot int, id uuid, mail text, seen int, notes text, PRIMARY KEY (lot, id)) WITH " + COMPACTION,
    "INDEX users_mail ON sample.users (mail)",
    "TABLE sample.articles (lot int, number int, topic text, body text, raw blob, PRIMARY KEY (lot, number)) WITH "
    + COMPACTION,
    "INDEX articles_topic ON sample.articles (topic) USING 'sai'",
    "TABLE sample.visits (lot int, page text, count counter, PRIMARY KEY (lot, page))",
    "TABLE sample.meta (id text PRIMARY KEY, lots int)",
)
_TOGETHER = 16
_BITS = blake3(b"vocabulary").digest(4096 * 10)
_WORDS = [
    "".join(chr(97 + each % 26) for each in _BITS[at : at + 3 + _BITS[at + 9] % 7]) for at in range(0, len(_BITS), 10)
]


class SampleData(Sample):
    """Lots are numbered; a share of them is changed from a hot spot on."""

    # Otherwise a login is a tenth of a second's work, and so is what becomes durable of each change of the schema.
    quick: ClassVar[Mapping[str, str]] = {
        "property.cassandra.auth_bcrypt_gensalt_log2_rounds": "4",
        "property.cassandra.unsafesystem": "true",
        "read_request_timeout": "60s",
        "range_request_timeout": "60s",
        "write_request_timeout": "60s",
    }

    def fill(self, size: int) -> None:
        """Put about ``size`` bytes of varied data in, deterministic, beside what is there."""
        with session(self.node, timeout=120) as cql:
            _shape(cql)
            number, done, writes = _next(cql), 0, _Writes(cql)
            while done < size:
                done += writes.put(range(number, number + _TOGETHER))
                number += _TOGETHER
            cql.execute("INSERT INTO sample.meta (id, lots) VALUES ('next', %s)", (number,))

    def change(self, share: float, seed: int = 0) -> int:
        """Change this share of the rows, in lots that follow one another; return how many."""
        with session(self.node, timeout=120) as cql:
            lots = _next(cql)
            count = max(1, round(lots * share)) if lots else 0
            first = (seed * 7919) % max(1, lots - count + 1)
            writes, end = _Writes(cql), first + count
            for at in range(first, end, _TOGETHER):
                writes.change(range(at, min(at + _TOGETHER, end)), seed)
            return count * (ORDERS + USERS)

    def digest(self) -> dict[str, str]:
        """Return a digest of every table by name, rows as the server sends them, and columns and indexes."""
        with session(self.node, timeout=120) as cql:
            told = [
                row
                for statement in (
                    "SELECT keyspace_name, table_name FROM system_schema.tables",
                    "SELECT keyspace_name, view_name FROM system_schema.views",
                )
                for row in cql.execute(statement)
                if tenants(row[0])
            ]
            return {f"{keyspace}.{name}": _digest(cql, keyspace, name) for keyspace, name in sorted(told)}

    def login(self, name: str, password: Secret) -> bool:
        """Try a real login over the port, as a tenant would; return whether it held."""
        try:
            with login(self.node, name, password) as cql:
                return cql.execute("SELECT key FROM system.local").one() is not None
        except Shut:
            return False

    def settle(self) -> None:
        """Return when everything is in files, and no compaction is left to be done."""
        with session(self.node) as cql:
            end = time.monotonic() + 60
            management = Management(self.node, timeout=60)
            for each in replications(cql):
                management.call(STORAGE, FLUSH, each, [])
            while _busy(cql) and time.monotonic() < end:
                time.sleep(0.05)


class _Writes:
    """Prepared statements, sent some at a time: a batch for each table of each lot."""

    def __init__(self, cql: Session) -> None:
        self._cql = cql
        self._known: dict[str, Any] = {}

    def put(self, lots: range) -> int:
        """Write some lots, those of counters once for each call; return about how many bytes they have."""
        rows = {lot: _lot(lot) for lot in lots}
        self._run(self._batch(table, each) for lot in lots for table, each in rows[lot].items())
        self._run(self._visits(lot) for lot in lots)
        return sum(_size(row) for lot in rows.values() for table in lot.values() for row in table)

    def change(self, lots: range, seed: int) -> None:
        """Change every order and user of these lots, but of each lot one order is deleted."""
        order = "UPDATE sample.orders SET state = 'changed', note = ? WHERE lot = ? AND number = ?"
        user = "UPDATE sample.users SET seen = ?, notes = ? WHERE lot = ? AND id = ?"
        gone = "DELETE FROM sample.orders WHERE lot = ? AND number = 0"

        def batches() -> Iterator[BatchStatement]:
            for lot in lots:
                notes = [(order, (passage(seed, lot, n, words=80), lot, n)) for n in range(1, ORDERS)]
                yield self._together([*notes, (gone, (lot,))])
                seen = [(seed, passage(seed, "u", lot, n, words=30), lot, _id(lot, n)) for n in range(USERS)]
                yield self._together((user, each) for each in seen)

        self._run(batches())
        self._run(self._visits(lot) for lot in lots)

    def _batch(self, table: str, rows: Sequence[dict[str, object]]) -> BatchStatement:
        names = ", ".join(rows[0])
        statement = f"INSERT INTO sample.{table} ({names}) VALUES ({', '.join('?' * len(rows[0]))})"  # noqa: S608
        return self._together((statement, tuple(each.values())) for each in rows)

    def _visits(self, lot: int) -> BatchStatement:
        statement = "UPDATE sample.visits SET count = count + ? WHERE lot = ? AND page = ?"
        each = [(statement, (lot + n, lot, f"/page/{n}")) for n in range(VISITS)]
        return self._together(each, BatchType.COUNTER)

    def _together(
        self, each: Iterable[tuple[str, tuple[object, ...]]], kind: BatchType = BatchType.UNLOGGED
    ) -> BatchStatement:
        batch = BatchStatement(kind)
        for statement, values in each:
            if statement not in self._known:
                self._known[statement] = self._cql.driver.prepare(statement)
            batch.add(self._known[statement], values)
        return batch

    def _run(self, batches: Iterable[BatchStatement]) -> None:
        # All of them first: what is made while others are sent would be prepared in the driver's own thread.
        execute_concurrent(self._cql.driver, [(each, None) for each in batches], concurrency=8)


def _busy(cql: Session) -> bool:
    """Say whether the server compacts, or has yet to."""
    told = cql.execute("SELECT name, active_tasks, pending_tasks FROM system_views.thread_pools")
    return any(each.active_tasks + each.pending_tasks for each in told if each.name == "CompactionExecutor")


def _next(cql: Session) -> int:
    there = cql.execute("SELECT table_name FROM system_schema.tables WHERE keyspace_name = 'sample'")
    if "meta" not in {each[0] for each in there}:
        return 0
    kept = cql.execute("SELECT lots FROM sample.meta WHERE id = 'next'").one()
    return int(kept[0]) if kept else 0


def _shape(cql: Session) -> None:
    """Make what has a shape; what exists is left."""
    cql.execute(f"CREATE KEYSPACE IF NOT EXISTS sample WITH replication = {across(factors(None, nodes(cql)))}")
    for each in SCHEMA:
        kind, rest = each.split(" ", 1)
        cql.execute(f"CREATE {kind} IF NOT EXISTS {rest}")


def passage(*place: object, words: int) -> str:
    """Return a text of so many words, another one for each place."""
    drawn = array("H", blake3(repr(place).encode()).digest(2 * words))
    return " ".join([_WORDS[each & 4095] for each in drawn])


def _id(*place: object) -> uuid.UUID:
    return uuid.UUID(bytes=blake3(repr(place).encode()).digest(16), version=4)


def _order(lot: int, n: int) -> dict[str, object]:
    return {
        "lot": lot,
        "number": n,
        "shop": f"shop {lot % 97}",
        "state": ("new", "paid", "sent")[n % 3],
        "total": Decimal(f"{lot}.{n:02d}"),
        "at": EPOCH + timedelta(seconds=lot * 60 + n),
        "lines": [(f"sku-{lot * n + each}", each, Decimal(f"{each}.5")) for each in range(n % 4)],
        "tags": {f"tag {n}", f"lot {lot % 13}"},
        "facts": {"weight": str(n), "color": _WORDS[(lot + n) % 4096]},
        "note": passage(lot, n, words=110),
    }


def _lot(lot: int) -> dict[str, list[dict[str, object]]]:
    """Return the rows of one lot by table."""
    users = [
        {"lot": lot, "id": _id(lot, n), "mail": f"{lot}.{n}@example.org", "notes": passage("u", lot, n, words=40)}
        for n in range(USERS)
    ]
    articles = [
        {
            "lot": lot,
            "number": n,
            "topic": _WORDS[lot % 50],
            "body": passage("a", lot, n, words=100),
            "raw": blake3(repr((lot, n)).encode()).digest(300),
        }
        for n in range(ARTICLES)
    ]
    return {"orders": [_order(lot, n) for n in range(ORDERS)], "users": users, "articles": articles}


def _size(row: dict[str, object]) -> int:
    return 60 + sum(len(each) for each in row.values() if isinstance(each, str | bytes))


class _Raw(ResultMessage):  # type: ignore[misc]
    """Rows as they came, a page in one piece behind their number: nothing is decoded."""

    def recv_results_rows(self, f: Any, protocol_version: Any, user_type_map: Any, *rest: Any) -> None:
        self.recv_results_metadata(f, user_type_map)
        count = int.from_bytes(f.read(4), "big")
        self.column_names, self.column_types = ["count", "rows"], [None, None]
        self.parsed_rows = [(count, f.read())]


class _Undecoded(_ProtocolHandler):  # type: ignore[misc]
    message_types_by_opcode = {**_ProtocolHandler.message_types_by_opcode, _Raw.opcode: _Raw}  # noqa: RUF012


def _digest(cql: Session, keyspace: str, table: str) -> str:
    """Return the digest of one table; the server sends its rows in the order of their tokens."""
    columns = "SELECT * FROM system_schema.columns WHERE keyspace_name = %s AND table_name = %s"
    indexes = "SELECT * FROM system_schema.indexes WHERE keyspace_name = %s AND table_name = %s"
    shape = [sorted(map(repr, cql.execute(each, (keyspace, table)))) for each in (columns, indexes)]
    count, rows = 0, blake3()
    decoded, cql.driver.client_protocol_handler = cql.driver.client_protocol_handler, _Undecoded
    try:
        statement = SimpleStatement(f"SELECT * FROM {identifier(keyspace)}.{identifier(table)}", fetch_size=1000)  # noqa: S608
        for number, page in cql.driver.execute(statement):
            count += number
            rows.update(page)
    finally:
        cql.driver.client_protocol_handler = decoded
    return f"{count}:{rows.hexdigest(16)}:{blake3(repr(shape).encode()).hexdigest(8)}"


SAMPLE = SampleData
