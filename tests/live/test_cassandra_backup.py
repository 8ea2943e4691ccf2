"""Cassandra's backups on a real server: every kind of row, what was acknowledged, accounts, ids, servers that die."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from datastores.cassandra.backup import TAKE, CassandraBackup
from datastores.cassandra.client import Session, session
from datastores.cassandra.jolokia import FLUSH, STORAGE, Management
from datastores.cassandra.position import Position
from datastores.cassandra.snapshot import TAG
from datastores.contract import Databases, DatastoreError, Incomplete, Limits, Mismatch, Node, Secret, Users
from datastores.manager import Manager
from tests.fakes_host import Keeper, Taken, restore
from tests.guests import Guests, node_in, sample

KILLED = 20 * int(os.environ.get("OSTLER_COUNT", "1"))
PILED = 2_000_000
VIEWS = {"materialized_views_enabled": "true"}
PATIENT = {f"{each}_request_timeout": "60s" for each in ("read", "range", "write", "counter_write")}
"""Others want the cores, too: two seconds are soon over."""
DROPPED = 'CREATE TABLE kinds."Odd" ("we;\n""ird" int PRIMARY KEY, x text, y text) WITH comment = \'a;\n\'\'b\''
SHAPE = (
    "CREATE KEYSPACE kinds WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 1}",
    "CREATE TYPE kinds.zone (name text, at frozen<set<int>>)",
    "CREATE TYPE kinds.address (street text, zone frozen<zone>)",
    "CREATE TABLE kinds.rows (p int, c int, s text STATIC, v text, a frozen<address>, l list<int>, m map<text, int>, "
    "t set<text>, o int, PRIMARY KEY (p, c)) WITH CLUSTERING ORDER BY (c DESC)",
    "CREATE INDEX by_v ON kinds.rows (v)",
    "CREATE INDEX by_o ON kinds.rows (o) USING 'sai'",
    "CREATE MATERIALIZED VIEW kinds.seen AS SELECT p, c, v, o FROM kinds.rows "
    "WHERE v IS NOT NULL AND p IS NOT NULL AND c IS NOT NULL PRIMARY KEY (v, p, c)",
    "CREATE TABLE kinds.counts (p int, c text, n counter, PRIMARY KEY (p, c))",
    "CREATE TABLE kinds.packed (p int PRIMARY KEY, v text) WITH compression = {'class': 'ZstdCompressor'}",
    "CREATE TABLE kinds.bare (p int PRIMARY KEY, v text) WITH compression = {'enabled': 'false'}",
    "CREATE TABLE kinds.empty (p int PRIMARY KEY)",
    "CREATE KEYSPACE wide WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 3}",
    "CREATE TABLE wide.t (p int PRIMARY KEY)",
    "CREATE TABLE kinds.live (p int, c int, v text, PRIMARY KEY (p, c))",
    "CREATE INDEX live_v ON kinds.live (v)",
    DROPPED,
    'ALTER TABLE kinds."Odd" DROP y',
)
READ = (
    "SELECT p, c, s, v, a, l, m, t, o, writetime(v) FROM kinds.rows",
    "SELECT ttl(v) FROM kinds.rows WHERE p = 4 AND c = 4",
    "SELECT p, c FROM kinds.rows WHERE v = 'v3'",
    "SELECT p, c FROM kinds.rows WHERE o = 7",
    "SELECT * FROM kinds.seen",
    "SELECT * FROM kinds.counts",
    "SELECT * FROM kinds.packed",
    "SELECT * FROM kinds.bare",
    "SELECT * FROM kinds.empty",
    'SELECT * FROM kinds."Odd"',
)


def shape(cql: Session) -> None:
    """Have rows of every kind, in files of more than one age."""
    for statement in SHAPE:
        cql.execute(statement)
    for turn in range(2):
        for n in range(60):
            cql.execute(
                "INSERT INTO kinds.rows (p, c, s, v, a, l, m, t, o) VALUES "
                "(%s, %s, %s, %s, {street: %s, zone: {name: 'z', at: {1, 2}}}, [1, 2], {'k': 1}, {'x'}, %s)",
                (n % 6, n, f"s{turn}", f"v{(n + turn) % 7}", f"street {n}", n % 9),
            )
            cql.execute("UPDATE kinds.counts SET n = n + %s WHERE p = %s AND c = %s", (n, n % 5, f"c{n % 3}"))
            for table in ("packed", "bare"):
                cql.execute(f"INSERT INTO kinds.{table} (p, v) VALUES (%s, %s)", (n, "text " * 50))  # noqa: S608
        flush(cql.node)
    cql.execute("INSERT INTO kinds.rows (p, c, v) VALUES (4, 4, 'soon gone') USING TTL 86400")
    cql.execute("UPDATE kinds.rows SET l = l + [3], m['n'] = 5, t = t - {'x'} WHERE p = 1 AND c = 1")
    cql.execute("DELETE FROM kinds.rows WHERE p = 2 AND c > 10 AND c < 40")
    cql.execute("DELETE FROM kinds.rows WHERE p = 5")
    cql.execute("DELETE v FROM kinds.rows WHERE p = 3 AND c = 3")
    cql.execute('INSERT INTO kinds."Odd" ("we;\n""ird", x) VALUES (1, \'x\')')


def flush(node: Node) -> None:
    Management(node).call(STORAGE, FLUSH, "kinds", [])


def indexed(cql: Session) -> bool:
    """Say whether every index can be asked: after a start, or a statement that makes one, the server still builds."""
    wanted = cql.execute("SELECT keyspace_name, index_name FROM system_schema.indexes WHERE keyspace_name = 'kinds'")
    built = cql.execute('SELECT table_name, index_name FROM system."IndexInfo"')
    return {tuple(each) for each in wanted} <= {tuple(each) for each in built}


def rows(node: Node) -> dict[str, list[str]]:
    """Return everything that can be read, by how; a time to live only shrinks."""
    with session(node, timeout=60) as cql:
        until(lambda: indexed(cql))
        found = {each: sorted(map(repr, cql.execute(each))) for each in READ}
        [left] = cql.execute(READ[1])
        assert left[0] is None or 0 < left[0] <= 86400
    return {each: told for each, told in found.items() if each != READ[1]}


def links(node: Node) -> list[Path]:
    return list((node.places.data / "data").glob(f"*/*/snapshots/{TAG}*"))


class Writer:
    """Write for as long as a backup is taken, and know what was acknowledged."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.begun = 0
        self.done = list[int]()

    def __enter__(self) -> "Writer":
        self._thread.start()
        until(lambda: len(self.done) > 50)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def _run(self) -> None:
        with session(self._node) as cql:
            while not self._over.is_set():
                self.begun += 1
                cql.execute("INSERT INTO kinds.live (p, c, v) VALUES (1, %s, 'w')", (len(self.done),))
                self.done.append(len(self.done))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def served(inn: Guests) -> Manager:
    manager = inn.manager("cassandra", start=False)
    manager.settings.switch(manager.settings.write(VIEWS | PATIENT))
    manager.admin.initialise()
    manager.service.start()
    manager.admin.secure()
    with session(manager.node, timeout=120) as cql:
        shape(cql)
    return manager


@pytest.fixture
def running(served: Manager) -> Iterator[Manager]:
    served.service.start()
    yield served
    served.service.start()


@pytest.fixture(scope="module")
def other(inn: Guests) -> Manager:
    """A guest whose data is always somebody else's; it has no server between two tests."""
    manager = inn.manager("cassandra", start=False)
    manager.settings.switch(manager.settings.write(VIEWS | PATIENT))
    manager.node.host.folder(manager.node.places.data)
    return manager


def brought_back(other: Manager, taken: Taken, identity: str = "new") -> Manager:
    """Restore as the operation does, in place of what is there."""
    places, host = other.node.places, other.node.host
    other.service.stop()
    host.remove(places.staging)
    host.folder(places.staging)
    restore(other.backup, taken, places.staging, "same" if identity == "same" else "new")
    host.exchange(places.staging, places.data)
    other.service.start()
    other.admin.secure()
    other.backup.confirm(taken.checkpoint)
    return other


def test_every_row_that_was_acknowledged_comes_back_and_new_files_only_are_sent(
    running: Manager, other: Manager
) -> None:
    users = running.part("users")
    assert isinstance(users, Users)
    users.create("reader", Secret("a word"), databases=("kinds",))
    full = Keeper().take(running.backup)
    with session(running.node) as cql:
        cql.execute("INSERT INTO kinds.packed (p, v) VALUES (1000, 'late')")
    with Writer(running.node) as writer:
        acknowledged = len(writer.done)
        taken = Keeper(full).take(running.backup)
    new = {each.path for each in taken.files} - {each.path for each in full.files}
    assert any("/packed-" in each for each in new) and not any("/bare-" in each for each in new)
    assert taken.kept > 10
    wanted = rows(running.node)
    back = brought_back(other, taken)
    assert rows(back.node) == wanted
    position = Position.of(taken.checkpoint.position)
    with session(back.node) as cql:
        here = cql.execute("SELECT tokens, host_id FROM system.local").one()
        views = {each.view_name for each in cql.execute("SELECT view_name FROM system_schema.views")}
        live = {each.c for each in cql.execute("SELECT c FROM kinds.live WHERE p = 1")}
        assert {each.c for each in cql.execute("SELECT c FROM kinds.live WHERE v = 'w'")} == live
    assert set(range(acknowledged)) <= live <= set(range(writer.begun))
    assert set(here.tokens) == set(position.tokens)
    assert str(here.host_id) != position.host_id
    assert views == {"seen"}
    databases = back.part("databases")
    assert isinstance(databases, Databases)
    # Where it lay three times, and one node was left, nothing could be read.
    assert {each["name"]: each["replication"] for each in databases.list()} == {"kinds": "dc1:1", "wide": "dc1:1"}
    assert sample(back).login("reader", Secret("a word"))
    assert not sample(back).login("cassandra", Secret("cassandra"))
    with pytest.raises(Mismatch):
        running.backup.confirm(full.checkpoint)
    users.delete("reader")
    back.service.stop()


def test_the_same_node_comes_back_with_its_id_its_tokens_and_its_roles(running: Manager) -> None:
    users = running.part("users")
    assert isinstance(users, Users)
    users.create("keeper", Secret("a word"))
    taken, wanted = Keeper().take(running.backup), rows(running.node)
    with session(running.node) as cql:
        cql.execute("DROP TABLE kinds.bare")
        cql.execute("DROP ROLE keeper")
    back = brought_back(running, taken, "same")
    assert rows(back.node) == wanted
    assert back.backup.server_id() == taken.checkpoint.server_id
    assert sample(back).login("keeper", Secret("a word"))
    again = Keeper(taken).take(back.backup)
    assert again.kept >= len([each for each in taken.files if each.identity and each.path.startswith("kinds/")])
    users.delete("keeper")


@contextmanager
def later(manager: Manager, table: str, happens: Callable[[], object]) -> Iterator[None]:
    """Have the server link one table's files later than all others, and something happen in between."""
    real = Management.call

    def call(self: Management, bean: str, operation: str, *arguments: object) -> object:
        told = real(self, bean, operation, *arguments)
        if operation == TAKE:
            happens()
            real(self, bean, operation, "later", {}, [table])
            keyspace, _, name = table.partition(".")
            for folder in (manager.node.places.data / "data" / keyspace).glob(f"{name}-*/snapshots"):
                shutil.rmtree(folder / str(arguments[0]))
                (folder / "later").rename(folder / str(arguments[0]))
        return told

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Management, "call", call)
        yield


def move(node: Node) -> None:
    """Change rows so that they lie elsewhere in the view, and are in it no more."""
    with session(node) as cql:
        cql.execute("UPDATE kinds.rows SET v = 'moved' WHERE p = 1 AND c = 7")
        cql.execute("DELETE v FROM kinds.rows WHERE p = 1 AND c = 13")


def seen(node: Node) -> set[tuple[object, ...]]:
    """Return what is in the view."""
    with session(node) as cql:
        return {tuple(each) for each in cql.execute("SELECT v, p, c, o FROM kinds.seen")}


def in_view(node: Node) -> set[tuple[object, ...]]:
    """Return what should be in it by its table."""
    with session(node) as cql:
        return {tuple(each) for each in cql.execute("SELECT v, p, c, o FROM kinds.rows") if each.v is not None}


def test_a_view_is_what_its_table_says(running: Manager, other: Manager) -> None:
    wanted = in_view(running.node)
    with later(running, "kinds.rows", lambda: move(running.node)):
        taken = Keeper().take(running.backup)
    assert seen(running.node) == in_view(running.node) != wanted
    wanted = seen(running.node)
    back = brought_back(other, taken)
    assert seen(back.node) == in_view(back.node) == wanted
    back.service.stop()
    back = brought_back(running, taken, "same")
    assert seen(back.node) == in_view(back.node) == wanted


def test_a_server_that_dies_while_its_links_are_read_ends_the_backup_and_leaves_none(running: Manager) -> None:
    pid, wanted = running.service.pid(), rows(running.node)
    assert pid is not None
    with pytest.raises(DatastoreError):
        Keeper().take(running.backup, meanwhile=lambda: os.kill(pid, signal.SIGKILL))
    assert not links(running.node)
    running.service.stop()
    running.service.start()
    assert rows(running.node) == wanted


def test_links_of_killed_backups_are_swept_also_of_tables_that_are_gone(running: Manager) -> None:
    take = "takeSnapshot(java.lang.String,java.util.Map,[Ljava.lang.String;)"
    with session(running.node) as cql:
        cql.execute("CREATE TABLE kinds.short (p int PRIMARY KEY)")
        cql.execute("INSERT INTO kinds.short (p) VALUES (1)")
        for n in range(20):
            Management(running.node).call(STORAGE, take, f"{TAG}{n}", {}, [])
        cql.execute("DROP TABLE kinds.short")
        assert any("/short-" in str(each) for each in links(running.node))
        running.backup.sweep()
        assert not links(running.node)
        assert not [
            each for each in cql.execute("SELECT name FROM system_views.snapshots") if each.name.startswith(TAG)
        ]


def test_what_killed_backups_hold_of_the_disk_does_not_grow(running: Manager) -> None:
    """Each leaves links to files that the server has then deleted; the next one lets go of them."""
    places, held = running.node.places, list[int]()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with session(running.node) as cql:
        cql.execute("CREATE TABLE kinds.piled (p int PRIMARY KEY, v blob)")
        for n in range(KILLED):
            cql.execute("INSERT INTO kinds.piled (p, v) VALUES (%s, %s)", (n, os.urandom(PILED)))
            flush(running.node)
            there, here = context.Pipe()
            child = context.Process(target=hold_links, args=(places.root.parent, here))
            child.start()
            assert there.poll(60)
            child.kill()
            child.join()
            cql.execute("TRUNCATE kinds.piled")
            until(lambda: pinned(running.node) >= PILED)
            held.append(pinned(running.node))
        cql.execute("DROP TABLE kinds.piled")
    assert max(held) < 2 * PILED, held
    running.backup.sweep()
    assert not links(running.node)


def hold_links(home: Path, told: Connection) -> None:
    """Take a backup of a guest in a process of its own, and tell when its links are there, to be killed."""
    with CassandraBackup(node_in(home, "cassandra")).snapshot(None, Limits()) as snapshot:
        next(iter(snapshot.extents()))
        told.send("there")
        time.sleep(600)


def pinned(node: Node) -> int:
    """Return how many bytes of deleted files are held by links of ours alone."""
    told = [each.stat() for folder in links(node) for each in folder.rglob("nb-*")]
    return sum(each.st_size for each in told if each.st_nlink == 1)


def test_a_snapshot_that_the_server_refused_or_left_half_done_is_an_error(
    running: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("datastores.cassandra.backup.TAKE", "takeSnapshot(java.lang.String)")
        with pytest.raises(DatastoreError):
            Keeper().take(running.backup)
    real = Management.call

    def without(lost: str, named: str) -> None:
        def call(self: Management, bean: str, operation: str, *arguments: object) -> object:
            told = real(self, bean, operation, *arguments)
            for folder in links(running.node):
                for each in (folder, *folder.rglob("*")):
                    if fnmatch(str(each.relative_to(running.node.places.data / "data")), lost):
                        running.node.host.remove(each)
            return told

        with monkeypatch.context() as patched:
            patched.setattr(Management, "call", call)
            with pytest.raises(Incomplete, match=named):
                Keeper().take(running.backup)

    without("system_schema/*/snapshots/*", "system_schema")
    without("kinds/packed-*/snapshots/ostler-????????????????", r"nothing of the table kinds\.packed")
    without("kinds/packed-*/snapshots/*/nb-*", r"kinds\.packed lacks nb-.*-Data\.db")
    without("kinds/rows-*/snapshots/*/.by_v", r"kinds\.rows lacks \.by_v/nb-.*-Data\.db")
    assert not links(running.node)


def test_bytes_that_the_disk_changed_are_no_backup(running: Manager) -> None:
    flush(running.node)
    [data, *_] = sorted((running.node.places.data / "data").glob("kinds/bare-*/nb-*-Data.db"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(Mismatch, match="damaged"), running.backup.snapshot(None, Limits()) as snapshot:
        list(snapshot.extents())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    assert Keeper().take(running.backup).kind == "full"
