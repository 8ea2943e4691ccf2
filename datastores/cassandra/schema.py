"""A server's schema as it tells it itself, with the ids of tables: what a backup keeps, compares, and makes again."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blake3 import blake3

from datastores.cassandra.client import Session
from datastores.contract import Mismatch

SCHEMA = "schema.json"
_OWN = ("auth", "distributed", "ostler", "schema", "traces", "views", "virtual_schema")
SERVERS = frozenset(("system", *(f"system_{each}" for each in _OWN)))
"""The server's own keyspaces, and ours; it lets a tenant make others that begin as they do."""
KEYSPACE, TABLE, VIEW, INDEX = "keyspace", "table", "materialized_view", "index"
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|\$\$.*?\$\$|;\s*""", re.DOTALL)


@dataclass(frozen=True)
class Made:
    """One thing of a schema: its keyspace, what it is, its name as written in CQL, and the statements that make it."""

    keyspace: str
    kind: str
    name: str
    statement: str

    @property
    def plain(self) -> str:
        """Return the name as it is."""
        return self.name[1:-1].replace('""', '"') if self.name.startswith('"') else self.name


@dataclass(frozen=True)
class Table:
    """A table, or a view on the table ``base``: its id as its folder has it, columns with types, names of indexes."""

    keyspace: str
    name: str
    id: str
    base: str
    columns: tuple[tuple[str, str, str], ...]
    indexes: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Return where its files lie below the folder of all data."""
        return f"{self.keyspace}/{self.name}-{self.id}"


@dataclass(frozen=True)
class Schema:
    """What tenants made, in an order in which things of one kind can be made again; all tables, the server's too."""

    made: tuple[Made, ...]
    tables: tuple[Table, ...]

    @classmethod
    def read(cls, session: Session) -> "Schema":
        """Return the schema of the server that answers."""
        told = session.execute("DESCRIBE FULL SCHEMA WITH INTERNALS")
        made = [Made(row.keyspace_name, row.type, row.name, row.create_statement) for row in told]
        return cls(
            tuple(each for each in made if tenants(each.keyspace)),
            tuple(sorted(_tables(session), key=lambda each: each.folder)),
        )

    @classmethod
    def load(cls, content: bytes) -> "Schema":
        """Read one back; ``Mismatch`` where it is not whole."""
        try:
            told = json.loads(content)
            tables = tuple(
                Table(keyspace, name, number, base, tuple((a, b, c) for a, b, c in columns), tuple(indexes))
                for keyspace, name, number, base, columns, indexes in told["tables"]
            )
            return cls(tuple(Made(*each) for each in told["made"]), tables)
        except (ValueError, TypeError, KeyError) as error:
            raise Mismatch("the backup's schema cannot be read") from error

    def dump(self) -> bytes:
        """Return the schema as a backup keeps it."""
        made = [[each.keyspace, each.kind, each.name, each.statement] for each in self.made]
        tables = [[each.keyspace, each.name, each.id, each.base, each.columns, each.indexes] for each in self.tables]
        return json.dumps({"made": made, "tables": tables}, separators=(",", ":")).encode()

    def digest(self) -> str:
        """Return what tells the tenants' schema from any other by names, ids of tables, columns and types.

        Where replicas lie and what options say does not count: a restore and a later patch release change that.
        """
        made = sorted([each.keyspace, each.kind, each.name] for each in self.made)
        tables = [[each.folder, each.base, sorted(each.columns)] for each in self.tables if tenants(each.keyspace)]
        return blake3(json.dumps([made, tables]).encode()).hexdigest(16)

    def of(self, keyspace: str, *kinds: str) -> list[Made]:
        """Return what a keyspace has of these kinds."""
        return [each for each in self.made if each.keyspace == keyspace and each.kind in kinds]

    def table(self, table: Table) -> list[Made]:
        """Return what a table is made of, in order: itself, its indexes, views on it."""
        views = {each.name for each in self.tables if each.keyspace == table.keyspace and each.base == table.name}
        names = {TABLE: {table.name}, INDEX: set(table.indexes), VIEW: views}
        return [
            each for kind in (TABLE, INDEX, VIEW) for each in self.of(table.keyspace, kind) if each.plain in names[kind]
        ]


def tenants(keyspace: str) -> bool:
    """Say whether a keyspace is a tenant's."""
    return keyspace not in SERVERS


def statements(text: str) -> Sequence[str]:
    """Return the statements of a text in which names and strings may hold anything at all."""
    found, begin = list[str](), 0
    for each in _QUOTED.finditer(text):
        if each[0].startswith(";"):
            found.append(text[begin : each.start()].strip())
            begin = each.end()
    found.append(text[begin:].strip())
    return [each for each in found if each]


def _tables(session: Session) -> Iterator[Table]:
    columns: dict[tuple[str, str], list[tuple[str, str, str]]] = {}
    for row in session.execute("SELECT keyspace_name, table_name, column_name, kind, type FROM system_schema.columns"):
        columns.setdefault((row.keyspace_name, row.table_name), []).append((row.column_name, row.kind, row.type))
    indexes: dict[tuple[str, str], list[str]] = {}
    for row in session.execute("SELECT keyspace_name, table_name, index_name FROM system_schema.indexes"):
        indexes.setdefault((row.keyspace_name, row.table_name), []).append(row.index_name)
    tables = session.execute("SELECT keyspace_name, table_name, id FROM system_schema.tables")
    views = session.execute("SELECT keyspace_name, view_name, id, base_table_name FROM system_schema.views")
    for keyspace, name, number, base in [*((*row, "") for row in tables), *(tuple(row) for row in views)]:
        place = keyspace, name
        there = tuple(columns.get(place, ())), tuple(indexes.get(place, ()))
        yield Table(keyspace, name, number.hex, base, *there)
