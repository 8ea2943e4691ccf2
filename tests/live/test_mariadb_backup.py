"""MariaDB's backups on the real server: whatever a tenant makes, and whatever changes while it is copied."""

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from datastores.contract import (
    Backup,
    Blocks,
    Checkpoint,
    Command,
    DatastoreError,
    Extent,
    File,
    Incomplete,
    Limits,
    Mismatch,
    NotReady,
    Root,
    Secret,
    Since,
    Snapshot,
    Users,
    Whole,
)
from datastores.manager import Manager
from datastores.mariadb.client import agent_account, session
from datastores.mariadb.pages import page_size
from tests.fakes_host import Keeper, Taken, restore
from tests.guests import Guests, sample

SHAPES = (
    "CREATE DATABASE shop",
    "CREATE DATABASE `bücher und mehr`",
    "CREATE TABLE shop.plain (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT, FULLTEXT KEY words (b)) ENGINE=InnoDB",
    "CREATE TABLE shop.zip8 (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
    "CREATE TABLE shop.zip2 (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=2",
    "CREATE TABLE shop.holes (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ENGINE=InnoDB PAGE_COMPRESSED=1",
    "CREATE TABLE shop.old (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ROW_FORMAT=REDUNDANT",
    "CREATE TABLE shop.parts (id INT AUTO_INCREMENT, b TEXT, PRIMARY KEY (id)) PARTITION BY HASH (id) PARTITIONS 4",
    "CREATE TABLE shop.aria (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ENGINE=Aria",
    "CREATE TABLE shop.loose (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ENGINE=Aria TRANSACTIONAL=0",
    "CREATE TABLE shop.isam (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ENGINE=MyISAM",
    "CREATE TABLE `bücher und mehr`.`l'été \\ 漢` (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT)",
    "CREATE SEQUENCE shop.numbers",
    "CREATE VIEW shop.seen AS SELECT COUNT(*) AS n FROM shop.plain",
    "CREATE PROCEDURE shop.add_one() INSERT INTO shop.aria (b) VALUES ('by procedure')",
    "CREATE FUNCTION shop.twice(n INT) RETURNS INT DETERMINISTIC RETURN 2 * n",
    "CREATE TRIGGER shop.follow AFTER INSERT ON shop.isam FOR EACH ROW SET @last = NEW.id",
    "CREATE EVENT shop.later ON SCHEDULE EVERY 1 DAY DO DELETE FROM shop.isam WHERE id < 0",
)
TABLES = ("plain", "zip8", "zip2", "holes", "old", "parts", "aria", "loose", "isam")


def do(server: Manager, *statements: str) -> None:
    with session(server.node) as cursor:
        for each in statements:
            cursor.execute(each)


def ask(server: Manager, statement: str) -> list[tuple[object, ...]]:
    with session(server.node) as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def rows_into(server: Manager, count: int, tables: tuple[str, ...] = TABLES) -> None:
    text = f"SELECT CONCAT(seq, ' ', REPEAT(MD5(seq), 12), ' ', MD5(seq * 7)) FROM mysql.seq_1_to_{count}"
    do(server, *(f"INSERT INTO shop.{each} (b) {text}" for each in tables))
    do(server, f"INSERT INTO `bücher und mehr`.`l'été \\ 漢` (b) {text}", "SELECT NEXTVAL(shop.numbers)")


def objects(server: Manager) -> dict[str, object]:
    """Return everything of a tenant's that is not in a table's rows."""
    return {
        "views": ask(server, "SELECT * FROM shop.seen"),
        "routines": ask(server, "SELECT db, name, body, definer FROM mysql.proc WHERE db = 'shop' ORDER BY 1, 2"),
        "called": ask(server, "SELECT shop.twice(21)"),
        "triggers": ask(server, "SELECT TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS"),
        "events": ask(server, "SELECT db, name, body FROM mysql.event"),
        "charset": ask(
            server, "SELECT SCHEMA_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA ORDER BY 1"
        ),
        "digest": sample(server).digest(),
    }


def whole(server: Manager) -> None:
    """Let the server itself look through every table."""
    for name in sample(server).digest():
        database, _, table = name.partition(".")
        found = ask(server, f"CHECK TABLE `{database}`.`{table}` EXTENDED")
        assert found[-1][3] == "OK" or "doesn't support" in str(found[-1][3]), (name, found)


def brought_back(inn: Guests, taken: Taken, *, into: Manager | None = None) -> Manager:
    manager = into or inn.manager("mariadb")
    manager.service.stop()
    places, host = manager.node.places, manager.node.host
    host.folder(places.staging, mode=0o700)
    restore(manager.backup, taken, places.staging)
    host.exchange(places.staging, places.data)
    host.remove(places.staging)
    manager.service.start()
    manager.admin.secure()
    manager.backup.confirm(taken.checkpoint)
    return manager


@dataclass
class Watched(Snapshot):
    """A snapshot that tells of every extent it has sent."""

    inner: Snapshot
    seen: Callable[[int, str], None]

    def extents(self) -> Iterator[Extent]:
        for number, each in enumerate(self.inner.extents()):
            assert isinstance(each, tuple)
            yield each
            self.seen(number, each[0])

    def blocks(self, path: str, head: memoryview) -> Blocks | Whole:
        return self.inner.blocks(path, head)

    def files(self) -> list[File]:
        return list(self.inner.files())

    def checkpoint(self) -> Checkpoint:
        return self.inner.checkpoint()


class Watching(Backup):
    """A backup during which something happens after each extent."""

    def __init__(self, inner: Backup, seen: Callable[[int, str], None]) -> None:
        super().__init__(inner.node)
        self.inner, self.seen = inner, seen

    def server_id(self) -> str:
        return self.inner.server_id()

    @contextmanager
    def snapshot(self, since: Since | None, limits: Limits) -> Iterator[Snapshot]:
        with self.inner.snapshot(since, limits) as made:
            watched = Watched(made, self.seen)
            watched.kind = made.kind
            yield watched

    def restore(self, files: object, extents: object, checkpoint: object, into: object, identity: object) -> None:
        raise AssertionError("only snapshots are watched")

    def confirm(self, checkpoint: Checkpoint) -> None:
        self.inner.confirm(checkpoint)

    def sweep(self) -> None:
        self.inner.sweep()


@pytest.fixture(scope="module")
def server(inn: Guests) -> Manager:
    made = inn.manager("mariadb")
    do(made, *SHAPES)
    rows_into(made, 3000)
    return made


def test_a_new_server_that_has_logged_nothing_is_backed_up(inn: Guests) -> None:
    made = inn.manager("mariadb")
    taken = Keeper().take(made.backup)
    assert taken.checkpoint.position["gtid"] == ""
    back = brought_back(inn, taken)
    do(back, "CREATE DATABASE first")
    with pytest.raises(Mismatch):
        back.backup.confirm(taken.checkpoint)
    back.service.stop()
    made.service.stop()


def test_everything_a_tenant_makes_comes_back(server: Manager, inn: Guests) -> None:
    users = server.part("users")
    assert isinstance(users, Users)
    users.create("tenant", Secret("tenant's pass word"), databases=("shop",))
    wanted = objects(server)
    taken = Keeper().take(server.backup)
    back = brought_back(inn, taken)
    assert objects(back) == wanted
    whole(back)
    do(back, "CALL shop.add_one()", "INSERT INTO shop.isam (b) VALUES ('new')", "SELECT NEXTVAL(shop.numbers)")
    assert sample(back).login("tenant", Secret("tenant's pass word"))
    assert ask(back, "SHOW GRANTS FOR tenant")[1][0] == "GRANT ALL PRIVILEGES ON `shop`.* TO `tenant`@`%`"
    left = {each.name for each in back.node.places.data.iterdir()}
    assert not {each for each in left if each.startswith(("xtrabackup_", "backup-my"))}
    assert list(back.node.places.temp.iterdir()) == []
    back.service.stop()


def test_a_restored_guest_goes_on_and_is_backed_up_itself(server: Manager, inn: Guests) -> None:
    taken = Keeper().take(server.backup)
    back = brought_back(inn, taken)
    before = str(taken.checkpoint.position["gtid"])
    assert ask(back, "SELECT @@gtid_binlog_pos, @@gtid_slave_pos, @@gtid_current_pos") == [(before,) * 3]
    do(back, "CREATE DATABASE onward")
    back.backup.confirm(taken.checkpoint)
    again = Keeper(taken).take(back.backup)
    assert again.checkpoint.server_id != taken.checkpoint.server_id
    domain, number, sequence = str(again.checkpoint.position["gtid"]).split("-")
    assert (int(number), int(sequence)) == (back.node.server_number, int(before.split("-")[2]) + 1)
    third = brought_back(inn, again)
    assert ask(third, "SELECT @@gtid_binlog_pos") == [(again.checkpoint.position["gtid"],)]
    for each in (back, third):
        each.service.stop()


def test_the_accounts_of_another_agent_stay_outside(inn: Guests) -> None:
    other = inn.manager("mariadb")
    do(
        other,
        "CREATE USER stranger@localhost IDENTIFIED VIA unix_socket",
        "GRANT ALL ON *.* TO stranger@localhost",
        "CREATE USER ''@'%'",
        f"CREATE USER {agent_account()}@'%' IDENTIFIED BY 'theirs'",
        f"GRANT ALL ON *.* TO {agent_account()}@'%' WITH GRANT OPTION",
    )
    theirs = other.part("root")
    assert isinstance(theirs, Root)
    password = theirs.enable()["password"]
    # The agent's own account is gone: what a tenant with more rights than we give could have done.
    taken = Keeper().take(other.backup)
    back = inn.manager("mariadb")
    ours = back.part("root")
    assert isinstance(ours, Root)
    for enabled in (False, True):
        mine = ours.enable()["password"] if enabled else None
        back = brought_back(inn, taken, into=back)
        left = {(str(user), str(host)) for user, host in ask(back, "SELECT User, Host FROM mysql.global_priv")}
        allowed = {(agent_account(), "localhost"), ("mariadb.sys", "localhost"), ("PUBLIC", ""), ("root", "%")}
        assert left - {("root", "localhost")} <= allowed
        assert ours.show() == {"enabled": enabled}
        assert not sample(back).login("root", Secret(str(password)))
        assert mine is None or sample(back).login("root", Secret(str(mine)))
    for each in (other, back):
        each.service.stop()


def test_a_backup_whose_agent_account_is_missing_lets_us_in(inn: Guests) -> None:
    other = inn.manager("mariadb")
    do(other, "CREATE DATABASE kept")
    with session(other.node, logged=False) as cursor:
        # In the tables alone: the running server still knows us and can be backed up.
        cursor.execute("DELETE FROM mysql.global_priv WHERE Host = 'localhost' AND User <> 'mariadb.sys'")
    taken = Keeper().take(other.backup)
    back = brought_back(inn, taken)
    back.admin.ping()
    assert ask(back, "SHOW DATABASES LIKE 'kept'") == [("kept",)]
    for each in (other, back):
        each.service.stop()


def test_definitions_between_two_backups_are_followed(server: Manager, inn: Guests) -> None:
    sample(server).settle()
    first = Keeper().take(server.backup)
    do(
        server,
        "CREATE TABLE shop.gone (id INT)",
        "RENAME TABLE shop.plain TO shop.renamed",
        "CREATE TABLE shop.plain (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT)",
        "TRUNCATE TABLE shop.zip8",
        "ALTER TABLE shop.zip2 ADD COLUMN c INT DEFAULT 7",
        "ALTER TABLE shop.parts DROP PRIMARY KEY, MODIFY id INT",
        "ALTER TABLE shop.parts PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN (1000), "
        "PARTITION high VALUES LESS THAN MAXVALUE)",
        "ALTER TABLE shop.old ROW_FORMAT=DYNAMIC",
        "ALTER TABLE shop.holes PAGE_COMPRESSED=0",
        "DROP TABLE shop.gone, shop.loose",
        "CREATE TABLE shop.loose (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ENGINE=MyISAM",
        "RENAME TABLE shop.isam TO shop.was_isam",
        "CREATE TABLE shop.isam (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ENGINE=Aria",
        "DROP VIEW shop.seen",
        "CREATE VIEW shop.seen AS SELECT MAX(id) AS n FROM shop.renamed",
        "CREATE OR REPLACE FUNCTION shop.twice(n INT) RETURNS INT DETERMINISTIC RETURN 4 * n",
        "DROP EVENT shop.later",
    )
    rows_into(server, 500, ("plain", "aria", "isam", "loose"))
    wanted = objects(server)
    second = Keeper(first).take(server.backup)
    assert second.kind == "incremental"
    back = brought_back(inn, second)
    assert objects(back) == wanted
    whole(back)
    back.service.stop()


def during(name: str, engine: str) -> list[str]:
    """Return what a tenant does to a family of tables while they are copied."""
    return [
        f"RENAME TABLE churn.{name}_a TO churn.{name}_moved",
        f"DROP TABLE churn.{name}_b",
        f"TRUNCATE TABLE churn.{name}_c",
        f"ALTER TABLE churn.{name}_d ADD COLUMN x INT DEFAULT 4",
        f"CREATE TABLE churn.{name}_new (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ENGINE={engine}",
        f"INSERT INTO churn.{name}_new (b) SELECT REPEAT(MD5(seq), 20) FROM mysql.seq_1_to_300",
    ]


def reused(name: str, engine: str) -> list[str]:
    """Return the same where names are used again at once."""
    return [
        f"CREATE OR REPLACE TABLE churn.{name}_e (id INT PRIMARY KEY, c INT) ENGINE={engine}",
        f"INSERT INTO churn.{name}_e SELECT seq, seq FROM mysql.seq_1_to_100",
        f"CREATE TABLE churn.{name}_a (id INT PRIMARY KEY, again INT) ENGINE={engine}",
        f"INSERT INTO churn.{name}_a VALUES (1, 2)",
        f"RENAME TABLE churn.{name}_f TO churn.{name}_g, churn.{name}_moved TO churn.{name}_f",
        f"UPDATE churn.{name}_g SET b = REVERSE(b) WHERE id % 3 = 0",
    ]


@pytest.fixture(scope="module")
def churned(server: Manager) -> Manager:
    do(server, "CREATE DATABASE churn")
    sample(server).fill(12_000_000)
    return server


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("engine", ["InnoDB", "Aria", "MyISAM"])
def test_definitions_during_a_backup_are_followed(churned: Manager, inn: Guests, engine: str, again: bool) -> None:
    server, times = churned, 4
    names = [f"{engine}{number}{again}" for number in range(times)]
    for name, each in itertools.product(names, "abcdef"):
        do(
            server,
            f"CREATE TABLE churn.{name}_{each} (id INT PRIMARY KEY AUTO_INCREMENT, b TEXT) ENGINE={engine}",
            f"INSERT INTO churn.{name}_{each} (b) SELECT REPEAT(MD5(seq), 20) FROM mysql.seq_1_to_200",
        )
    parent = Keeper().take(server.backup)
    rest = list(names)

    def tenant(number: int, path: str) -> None:
        if number % 2 == 1 and rest:
            name = rest.pop()
            do(server, *during(name, engine), *(reused(name, engine) if again else []))

    taken = Keeper(parent).take(Watching(server.backup, tenant))
    assert not rest
    if engine == "InnoDB":
        assert any(each.path.endswith((".new", ".ren", ".del")) for each in taken.files), "InnoDB saw no change"
    wanted = sample(server).digest()
    back = brought_back(inn, taken)
    assert sample(back).digest() == wanted
    whole(back)
    back.service.stop()
    do(server, "DROP DATABASE churn", "CREATE DATABASE churn")


def test_a_table_that_is_replaced_all_the_time_gives_no_backup(churned: Manager) -> None:
    statement = "CREATE OR REPLACE TABLE churn.restless (id INT PRIMARY KEY) ENGINE=MyISAM"
    do(churned, statement)

    attempts: dict[str, int] = {}

    def tenant(number: int, path: str) -> None:
        attempt = path.split("/")[1].partition(".")[0] if path.startswith(".again/") else "0"
        attempts[attempt] = attempts.get(attempt, 0) + 1
        if attempts[attempt] < 10:
            do(churned, statement)

    with pytest.raises(NotReady, match="restless"):
        Keeper().take(Watching(churned.backup, tenant))
    assert set(attempts) == {"0", "1", "2"}


def test_a_server_that_dies_gives_no_backup(server: Manager) -> None:
    pid = server.service.pid()
    assert pid is not None

    def kill(number: int, path: str) -> None:
        if number == 3:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(DatastoreError):
        Keeper().take(Watching(server.backup, kill))
    assert list(server.node.places.temp.iterdir()) == []
    server.service.start()
    server.admin.probe()
    assert Keeper().take(server.backup).kind == "full"


def test_leaving_early_leaves_neither_tool_nor_lock(server: Manager) -> None:
    with pytest.raises(RuntimeError, match="early"), server.backup.snapshot(None, Limits()) as snapshot:
        next(iter(snapshot.extents()))
        raise RuntimeError("early")
    with session(server.node) as cursor:
        cursor.execute("SET SESSION lock_wait_timeout=5")
        cursor.execute("CREATE TABLE shop.free (id INT)")
        cursor.execute("DROP TABLE shop.free")
        cursor.execute("BACKUP STAGE START")
        cursor.execute("BACKUP STAGE END")


def test_an_inventory_is_not_told_before_the_end(server: Manager) -> None:
    with server.backup.snapshot(None, Limits()) as snapshot:
        next(iter(snapshot.extents()))
        for early in (snapshot.files, snapshot.checkpoint):
            with pytest.raises(Incomplete):
                early()


def test_a_tool_that_fails_gives_no_backup(server: Manager, tmp_path: Path) -> None:
    """A tool of ours in the real one's place: it ends well, but does not say that it completed."""
    real = server.node.installation.tools["backup"]
    for ending, wanted in (("exit 0", Incomplete), ("echo 'completed OK!' >&2; exit 1", DatastoreError)):
        fake = tmp_path / "tool"
        fake.write_text(f'#!/bin/sh\n{real} "$@" 2>/dev/null\n{ending}\n')
        fake.chmod(0o755)
        tools = {**server.node.installation.tools, "backup": fake}
        facts = server.node.installation.__class__(**{**vars(server.node.installation), "tools": tools})
        with pytest.raises(wanted):
            Keeper().take(type(server.backup)(server.node.at(installation=facts)))


def test_the_bandwidth_is_kept(server: Manager) -> None:
    import time

    began = time.monotonic()
    taken = Keeper().take(server.backup, limits=Limits(bandwidth=40_000_000))
    assert time.monotonic() - began >= taken.size / 40_000_000 * 0.9


@pytest.mark.parametrize(
    ("options", "size"),
    [
        (("--innodb-page-size=4k",), 4096),
        (("--innodb-page-size=64k",), 65536),
        (("--innodb-checksum-algorithm=crc32",), 16384),
        (("--innodb-page-size=32k", "--innodb-checksum-algorithm=strict_crc32"), 32768),
    ],
)
def test_the_page_size_of_real_tablespaces_is_read(
    server: Manager, inn: Guests, options: tuple[str, ...], size: int
) -> None:
    node = inn.node("mariadb")
    data = node.places.data
    node.host.folder(data)
    program = str(node.installation.tools["server"])
    script = b"CREATE DATABASE IF NOT EXISTS d;\nCREATE TABLE d.t (id INT PRIMARY KEY) ENGINE=InnoDB;\n"
    (data / "mysql").mkdir()
    node.host.own(data)
    command = (program, "--no-defaults", "--bootstrap", f"--datadir={data}", "--innodb-log-file-size=4M", *options)
    node.host.run(Command(command), as_owner=True, stdin=script)
    for path in (data / "ibdata1", data / "d" / "t.ibd"):
        assert page_size(memoryview(path.read_bytes()[:65536])) == (size, True)
    shutil.rmtree(data)


def test_no_password_is_in_the_tool_s_arguments(server: Manager) -> None:
    with server.backup.snapshot(None, Limits()) as snapshot:
        next(iter(snapshot.extents()))
        tools = [each.cmdline() for each in psutil.Process().children(recursive=True) if "backup" in each.name()]
    assert tools and any("--stream=xbstream" in each for each in tools)
    assert not [word for each in tools for word in each if "password" in word or word.startswith("-p")]
