"""A keyspace or a table of a backup into the running server: its schema made as it was, its SSTables imported."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from datastores.cassandra.client import Session, session, told
from datastores.cassandra.dialect import across, identifier
from datastores.cassandra.factors import fitting, nodes
from datastores.cassandra.jolokia import Management
from datastores.cassandra.private import BUILT
from datastores.cassandra.restore import runs, write
from datastores.cassandra.root import admit
from datastores.cassandra.schema import KEYSPACE, SCHEMA, TABLE, VIEW, Made, Schema, Table, statements, tenants
from datastores.contract import BadInput, Checkpoint, Extent, File, Import, Mismatch, Node, NotFound, ToolFailed

LONG = 24 * 3600.0
VIEWS = "materialized_views_enabled"
IMPORT = f"importNewSSTables(java.util.Set{7 * ',boolean'})"
_NAME = re.compile(r"([A-Za-z0-9_]{1,48})(?:\.([A-Za-z0-9_]{1,222}))?")
_ID = re.compile(r"WITH ID = [0-9a-f-]{36}")
_PAIR = re.compile(r"'([^']*)': '([^']*)'")
_TABLE = re.compile(r'(?:CREATE TABLE(?: IF NOT EXISTS)?|ALTER TABLE) ("?\w+"?\."?\w+"?)\s')


class CassandraImport(Import):
    """Tables that stand as they did are emptied, others are made anew; indexes come with their table.

    Views are made anew of their table: their own files are of another moment than the table's.
    """

    def choose(self, files: Sequence[File], name: str, private: Callable[[str], bytes]) -> Sequence[File]:
        """Return the schema and the SSTables of ``keyspace`` or ``keyspace.table``."""
        chosen = {each.folder for each in _chosen(Schema.load(private(SCHEMA)), name)}
        return [each for each in files if each.path == SCHEMA or each.path.rpartition("/")[0] in chosen]

    def receive(self, files: Sequence[File], extents: Iterator[Extent], into: Path) -> None:
        """Write the chosen files below the empty folder ``into``; nothing of the server changes."""
        for file, pieces in runs(files, extents):
            if file.private:
                self.node.host.write(into / file.path, b"".join(bytes(each) for each in pieces))
            else:
                write(into, file, pieces)
        self.node.host.own(into)

    def load(self, files: Sequence[File], checkpoint: Checkpoint, into: Path, name: str) -> None:
        """Make the part as it was in the backup; rights on what had to be made anew must be given again."""
        schema = Schema.load((into / SCHEMA).read_bytes())
        tables = _chosen(schema, name)
        with session(self.node, timeout=LONG) as cql, told():
            part = _Part(cql, schema, name.partition(".")[0], tables)
            part.make(whole="." not in name)
            for each in tables:
                if (into / each.folder).is_dir():
                    _take_in(self.node, each, into / each.folder)
            part.make_views()


class _Part:
    """What stands on the server, on its way to what the backup has."""

    def __init__(self, cql: Session, wanted: Schema, keyspace: str, tables: Sequence[Table]) -> None:
        self._cql = cql
        self._wanted = wanted
        self._there = Schema.read(cql)
        self._keyspace = keyspace
        self._tables = tables

    def make(self, *, whole: bool) -> None:
        """Have the tables, empty, and what they need; where the keyspace is meant ``whole``, nothing else in it.

        What cannot be is refused before anything is dropped.  No view is left on the tables.
        """
        kinds = ("type", "function", "aggregate") if whole else ("type",)
        missing = self._missing(kinds, whole)
        if self._views() and (set_to := _setting(self._cql, VIEWS)) != "true":
            raise Mismatch(f"the backup has views, and here {VIEWS} is {set_to}", hint=f"set {VIEWS} to true")
        self._needs(missing)
        old = {each.name: each for each in self._there.tables if each.keyspace == self._keyspace and not each.base}
        new = {each.name: each for each in self._tables}
        for name, table in old.items():
            if (name in new and not self._same(table, new[name])) or (name not in new and whole):
                self._drop(table)
        for each in reversed(self._there.of(self._keyspace, *kinds)) if whole else ():
            if each.name not in {made.name for made in self._wanted.of(self._keyspace, each.kind)}:
                self._cql.execute(f"DROP {each.kind} IF EXISTS {identifier(each.keyspace)}.{each.name}")
        for name, table in new.items():
            if name in old and self._same(old[name], table):
                self._drop_views(old[name])
                self._cql.execute(f"TRUNCATE TABLE {identifier(self._keyspace)}.{identifier(name)}")
            else:
                self._run(_but_views(self._wanted.table(table)))

    def make_views(self) -> None:
        """Make the tables' views and return when they are whole."""
        made = self._views()
        self._run(made)
        wanted = {(self._keyspace, each.plain) for each in made}
        while wanted - {(row.keyspace_name, row.view_name) for row in self._cql.execute(BUILT)}:
            time.sleep(0.1)

    def _views(self) -> list[Made]:
        return [each for table in self._tables for each in self._wanted.table(table) if each.kind == VIEW]

    def _same(self, old: Table, new: Table) -> bool:
        made = _but_views(self._there.table(old)), _but_views(self._wanted.table(new))
        one, other = (sorted(_ID.sub("", each.statement, count=1) for each in some) for some in made)
        return one == other

    def _drop(self, table: Table) -> None:
        self._drop_views(table)
        self._cql.execute(f"DROP TABLE IF EXISTS {identifier(self._keyspace)}.{identifier(table.name)}")

    def _drop_views(self, table: Table) -> None:
        for each in self._there.table(table):
            if each.kind == VIEW:
                name = f"{identifier(self._keyspace)}.{identifier(each.plain)}"
                self._cql.execute(f"DROP MATERIALIZED VIEW IF EXISTS {name}")

    def _missing(self, kinds: Sequence[str], whole: bool) -> list[Made]:
        """Return what has to be made before the tables; ``Mismatch`` where something else stands under its name."""
        stand = {(each.kind, each.name): each.statement for each in self._there.of(self._keyspace, *kinds)}
        wanted = [each for kind in kinds for each in self._wanted.of(self._keyspace, kind)]
        needed = wanted if whole else _used(wanted, self._tables)
        for each in needed:
            if stand.get((each.kind, each.name), each.statement) != each.statement:
                raise Mismatch(f"the {each.kind} {each.keyspace}.{each.name} is not the backup's: drop it first")
        return [each for each in needed if (each.kind, each.name) not in stand]

    def _needs(self, missing: Sequence[Made]) -> None:
        """Have the keyspace, with as many copies as there are nodes for, and what is missing in it."""
        if not self._there.of(self._keyspace, KEYSPACE):
            [made] = self._wanted.of(self._keyspace, KEYSPACE)
            copies = across(fitting(dict(_PAIR.findall(made.statement)), nodes(self._cql)))
            durable = "false" if "durable_writes = false" in made.statement else "true"
            name = identifier(self._keyspace)
            self._cql.execute(f"CREATE KEYSPACE {name} WITH replication = {copies} AND durable_writes = {durable}")
            admit(self._cql, [self._keyspace])
        self._run(missing)

    def _run(self, made: Sequence[Made]) -> None:
        for statement in (statement for each in made for statement in making(each)):
            self._cql.execute(statement)


def making(made: Made) -> list[str]:
    """Return the statements that make a thing: of a table several, of all else one, and the server takes no two in one.

    What tenants wrote is in them, and we run them: ``Mismatch`` where one of a table's is about anything else.
    """
    if made.kind != TABLE:
        return [made.statement]
    found = list(statements(made.statement))
    for each in found:
        about = _TABLE.match(each)
        if about is None or about[1].replace('"', "") != f"{made.keyspace}.{made.plain}":
            raise Mismatch(
                f"the backup's schema has a statement that does not make the table {made.keyspace}.{made.name}"
            )
    return found


def _but_views(made: Sequence[Made]) -> list[Made]:
    return [each for each in made if each.kind != VIEW]


def _setting(cql: Session, name: str) -> str:
    row = cql.execute("SELECT value FROM system_views.settings WHERE name = %s", (name,)).one()
    return str(row.value) if row else "unknown"


def _used(types: Sequence[Made], tables: Sequence[Table]) -> list[Made]:
    """Return the types that columns of these tables have, and those within them."""
    texts = [told for table in tables for _, _, told in table.columns]
    used = list[Made]()
    while more := [each for each in types if each not in used and any(_names(text, each.plain) for text in texts)]:
        used += more
        texts = [each.statement.partition("(")[2] for each in more]
    return [each for each in types if each in used]


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _chosen(schema: Schema, name: str) -> list[Table]:
    """Return the tables that ``keyspace`` or ``keyspace.table`` means; views come with theirs."""
    found = _NAME.fullmatch(name)
    if found is None or not tenants(found[1]):
        raise BadInput(f"{name[:120]!r} is not a tenant's keyspace, or keyspace.table", field="only")
    keyspace, table = found[1], found[2]
    there = [each for each in schema.tables if each.keyspace == keyspace and not each.base]
    chosen = [each for each in there if table in (None, each.name)]
    if not chosen and (table or not schema.of(keyspace, KEYSPACE)):
        names = sorted({each.keyspace for each in schema.made})
        has = f"{keyspace} has {', '.join(each.name for each in there[:20])}" if there else f"it has {', '.join(names)}"
        raise NotFound(f"the backup has no {name}: {has}", field="only")
    return chosen


def _take_in(node: Node, table: Table, folder: Path) -> None:
    """Have the server move SSTables into a table; it answers with the folders it did not take."""
    bean = f"org.apache.cassandra.db:type=Tables,keyspace={table.keyspace},table={table.name}"
    options = {
        "resetLevel": True,
        "clearRepaired": True,
        # Each byte was verified when it was written there.
        "verifySSTables": False,
        "verifyTokens": True,
        "invalidateCaches": True,
        "extendedVerify": False,
        "copyData": False,
    }
    if Management(node, timeout=LONG).call(bean, IMPORT, [str(folder)], *options.values()):
        raise ToolFailed(f"the server did not take in the files of {table.keyspace}.{table.name}")
