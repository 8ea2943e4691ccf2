"""Cassandra's keyspaces, roles and functions on the real server: what holds at once, who may do what, root's limits."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from cassandra import InvalidRequest, Unauthorized
from cassandra.protocol import SyntaxException

from datastores.cassandra.client import login, session
from datastores.cassandra.root import KEPT
from datastores.contract import BadInput, Databases, Functions, Grants, NotFound, Root, Secret, Users
from datastores.manager import Manager
from tests.guests import Guests, sample

WORD = Secret("a good pass word")
HELD = ["ks_held", "ks_other"]


@pytest.fixture(scope="module")
def server(inn: Guests) -> Manager:
    manager = inn.manager("cassandra", start=False)
    manager.settings.switch(manager.settings.write({"user_defined_functions_enabled": "true"}))
    manager.admin.initialise()
    manager.service.start(timeout=60)
    manager.admin.secure()
    part = manager.part("databases")
    assert isinstance(part, Databases)
    for name in HELD:
        part.create(name)
    with session(manager.node) as cql:
        for name in HELD:
            cql.execute(f"CREATE TABLE {name}.t (a int PRIMARY KEY, b text)")
            cql.execute(f"INSERT INTO {name}.t (a, b) VALUES (1, 'one')")
    return manager


@pytest.fixture
def databases(server: Manager) -> Databases:
    part = server.part("databases")
    assert isinstance(part, Databases)
    return part


@pytest.fixture
def users(server: Manager) -> Iterator[Users]:
    part = server.part("users")
    assert isinstance(part, Users)
    yield part
    for each in part.list():
        with contextlib.suppress(BadInput):
            part.delete(str(each["name"]))


@pytest.fixture
def grants(server: Manager) -> Grants:
    part = server.part("grants")
    assert isinstance(part, Grants)
    return part


@pytest.fixture
def functions(server: Manager) -> Functions:
    part = server.part("functions")
    assert isinstance(part, Functions)
    return part


@pytest.fixture
def root(server: Manager) -> Iterator[Root]:
    part = server.part("root")
    assert isinstance(part, Root)
    yield part
    part.disable()


@contextlib.contextmanager
def as_user(server: Manager, name: str, password: Secret = WORD) -> Iterator[Any]:
    """Yield the driver's own session, so that its own errors are seen."""
    with login(server.node, name, password) as known:
        yield known.driver


def refused(cql: Any, *statements: str) -> None:
    for each in statements:
        with pytest.raises(Unauthorized):
            cql.execute(each)


def replication(server: Manager, name: str) -> dict[str, str]:
    with session(server.node) as cql:
        found = cql.execute("SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s", (name,))
        return dict(found.one().replication)


def listed(part: Users, name: str) -> object:
    return next(each["databases"] for each in part.list() if each["name"] == name)


NETWORK = "org.apache.cassandra.locator.NetworkTopologyStrategy"


@pytest.mark.parametrize("asked", [None, "1", "dc1:1"])
def test_a_keyspace_is_replicated_by_data_centre(server: Manager, databases: Databases, asked: str | None) -> None:
    databases.create("placed", replication=asked)
    assert replication(server, "placed") == {"class": NETWORK, "dc1": "1"}
    assert {"name": "placed", "replication": "dc1:1"} in databases.list()
    databases.delete("placed")


@pytest.mark.parametrize("asked", ["2", "dc1:2", "nodc:1", "0", "all"])
def test_more_copies_than_nodes_are_refused_and_nothing_is_made(databases: Databases, asked: str) -> None:
    with pytest.raises(BadInput) as caught:
        databases.create("placed", replication=asked)
    assert caught.value.field == "replication"
    assert not [each for each in databases.list() if each["name"] == "placed"]


def test_a_keyspace_has_no_character_set(databases: Databases) -> None:
    with pytest.raises(BadInput) as caught:
        databases.create("placed", charset="utf8")
    assert caught.value.field == "charset"


def test_the_server_s_keyspaces_are_neither_listed_nor_touched(databases: Databases) -> None:
    assert [each["name"] for each in databases.list()] == HELD
    for name in ("system", "system_auth", "System_Schema", "system_new"):
        with pytest.raises(BadInput):
            databases.create(name)
        with pytest.raises(BadInput):
            databases.delete(name)


def test_a_login_that_was_just_used_ends_at_once(server: Manager, users: Users) -> None:
    """The server remembers a login for seconds: each of these was remembered the moment before."""
    entered = sample(server).login
    for number in range(3):
        first, second = Secret(f"first {number}"), Secret(f"second {number}")
        users.create("ann", first, databases=("ks_held",))
        assert entered("ann", first)
        users.set_password("ann", second)
        assert not entered("ann", first)
        assert entered("ann", second)
        users.delete("ann")
        assert not entered("ann", second)


def test_a_grant_and_its_end_hold_at_once_in_an_open_session(server: Manager, users: Users, grants: Grants) -> None:
    users.create("ann", WORD)
    with as_user(server, "ann") as cql:
        for _ in range(3):
            refused(cql, "SELECT * FROM ks_held.t")
            grants.grant("ann", database="ks_held")
            assert cql.execute("SELECT * FROM ks_held.t").one() == (1, "one")
            refused(cql, "SELECT * FROM ks_other.t")
            grants.revoke("ann", database="ks_held")
        refused(cql, "SELECT * FROM ks_held.t")
        grants.grant("ann", database="ks_held")
        users.delete("ann")
        refused(cql, "SELECT * FROM ks_held.t")


def test_a_user_has_all_of_a_keyspace_but_the_right_to_grant(server: Manager, users: Users) -> None:
    users.create("ann", WORD, databases=("ks_held",))
    users.create("ben", WORD)
    with as_user(server, "ann") as cql:
        for statement in (
            "CREATE TABLE ks_held.mine (a int PRIMARY KEY, b int)",
            "INSERT INTO ks_held.mine (a, b) VALUES (1, 2)",
            "ALTER TABLE ks_held.mine ADD c int",
            "CREATE INDEX mine_b ON ks_held.mine (b)",
            "TRUNCATE ks_held.mine",
            "CREATE TYPE ks_held.kind (a int)",
            "DROP TYPE ks_held.kind",
        ):
            cql.execute(statement)
        refused(
            cql,
            "GRANT SELECT ON KEYSPACE ks_held TO ben",
            "GRANT SELECT ON ks_held.t TO ben",
            "SELECT * FROM ks_other.t",
            "SELECT * FROM system_auth.roles",
            "SELECT * FROM system_views.settings",
            "CREATE KEYSPACE more WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 1}",
            "CREATE ROLE more",
            "DROP ROLE ben",
            "ALTER ROLE ben WITH PASSWORD = 'other'",
        )
        cql.execute("DROP TABLE ks_held.mine")


def test_what_a_user_made_itself_is_taken_with_the_keyspace(server: Manager, users: Users, grants: Grants) -> None:
    """The server gives who makes a table or a function all rights on that one."""
    users.create("ann", WORD, databases=("ks_held",))
    with as_user(server, "ann") as cql:
        cql.execute("CREATE TABLE ks_held.mine (a int PRIMARY KEY)")
        cql.execute("CREATE FUNCTION ks_held.mine(a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return a;'")
        assert listed(users, "ann") == ["ks_held"]
        grants.revoke("ann", database="ks_held")
        assert listed(users, "ann") == []
        refused(cql, "SELECT * FROM ks_held.mine", "DROP TABLE ks_held.mine", "DROP FUNCTION ks_held.mine(int)")
    with session(server.node) as cql:
        assert not list(cql.execute("SELECT * FROM system_auth.role_permissions WHERE role = 'ann'"))
        cql.execute("DROP TABLE ks_held.mine")
        cql.execute("DROP FUNCTION ks_held.mine")


def test_a_table_is_granted_alone(server: Manager, users: Users, grants: Grants) -> None:
    users.create("ann", WORD, databases=("ks_held.t",))
    assert listed(users, "ann") == ["ks_held.t"]
    with session(server.node) as cql:
        cql.execute("CREATE TABLE IF NOT EXISTS ks_held.beside (a int PRIMARY KEY)")
    with as_user(server, "ann") as cql:
        assert cql.execute("SELECT * FROM ks_held.t").one() == (1, "one")
        refused(cql, "SELECT * FROM ks_held.beside", "CREATE TABLE ks_held.more (a int PRIMARY KEY)")
        grants.grant("ann", database="ks_other")
        assert listed(users, "ann") == ["ks_held.t", "ks_other"]
        grants.revoke("ann", database="ks_held.t")
        refused(cql, "SELECT * FROM ks_held.t")
    for missing in ("ks_held.nothing", "nothing.t", "nothing"):
        with pytest.raises(NotFound):
            grants.grant("ann", database=missing)
    for odd in ("ks_held.t.x", "ks_held.", ".t", "ks_held.t; DROP", "system_auth.roles", "ks_held." + "x" * 49):
        with pytest.raises(BadInput):
            grants.grant("ann", database=odd)
    with pytest.raises(NotFound):
        grants.revoke("ann", database="ks_other.t")


def test_a_role_made_again_has_what_is_asked_for_and_nothing_else(server: Manager, users: Users) -> None:
    users.create("ann", WORD, databases=("ks_held", "ks_other"))
    users.create("group", WORD)
    with session(server.node) as cql:
        cql.execute("GRANT group TO ann")
        cql.execute("GRANT AUTHORIZE ON KEYSPACE ks_held TO ann")
    users.create("ann", WORD, databases=("ks_other",))
    assert listed(users, "ann") == ["ks_other"]
    with session(server.node) as cql:
        row = cql.execute("SELECT member_of, is_superuser FROM system_auth.roles WHERE role = 'ann'").one()
        assert (row.member_of, row.is_superuser) == (None, False)
        told = cql.execute("SELECT resource FROM system_auth.role_permissions WHERE role = 'ann'")
        assert {each.resource for each in told} == {"data/ks_other", "functions/ks_other"}


def test_the_rights_on_a_deleted_keyspace_do_not_come_back_with_its_name(
    server: Manager, databases: Databases, users: Users
) -> None:
    databases.create("passing")
    users.create("ann", WORD, databases=("passing",))
    databases.delete("passing")
    assert listed(users, "ann") == []
    databases.create("passing")
    with as_user(server, "ann") as cql:
        refused(cql, "CREATE TABLE passing.t (a int PRIMARY KEY)")
    databases.delete("passing")


def test_a_role_that_we_would_refuse_is_listed(server: Manager, users: Users) -> None:
    """The server writes such a role, and another's row, before it says that it does not."""
    with session(server.node) as cql, pytest.raises((SyntaxException, InvalidRequest)):
        cql.driver.execute("CREATE ROLE \"o'brien\" WITH PASSWORD = 'x' AND LOGIN = true")
    try:
        assert "o'brien" in [each["name"] for each in users.list()]
        with pytest.raises(BadInput, match="not allowed"):
            users.create("o'brien", WORD)
        with pytest.raises(BadInput, match="not allowed"):
            users.delete("o'brien")
    finally:
        with session(server.node) as cql:
            cql.driver.execute("DELETE FROM system_auth.roles WHERE role = 'o''brien'")


def test_a_password_counts_to_its_last_byte(server: Manager, users: Users) -> None:
    longest = "é" * 35 + "xy"
    users.create("ann", Secret(longest))
    assert sample(server).login("ann", Secret(longest))
    assert not sample(server).login("ann", Secret(longest[:-1] + "z"))
    for word in ("é" * 36 + "x", "", "a\0b"):
        with pytest.raises(BadInput) as caught:
            users.create("ann", Secret(word))
        assert caught.value.field == "password"
        assert not word or word not in str(caught.value)


def test_functions_are_listed_by_page_and_deleted(server: Manager, functions: Functions) -> None:
    body = "RETURNS int LANGUAGE java AS 'return 1;'"
    with session(server.node) as cql:
        cql.execute('CREATE TYPE ks_held."My ""kind"""(a int)')
        odd = '"Odd"(a "My ""kind""", b tuple<int, text>, c list<text>)'
        for arguments in ("plus(a int, b int)", "plus(a int)", odd):
            cql.execute(f"CREATE FUNCTION ks_held.{arguments} CALLED ON NULL INPUT {body}")
        cql.execute("CREATE FUNCTION ks_other.none() CALLED ON NULL INPUT RETURNS int LANGUAGE java AS 'return 1;'")
        cql.execute("CREATE AGGREGATE ks_held.total(int) SFUNC plus STYPE int")
    odd = 'Odd("My ""kind""", frozen<tuple<int, text>>, list<text>)'
    found = functions.list()
    assert [(each["database"], each["name"], each["kind"]) for each in found] == [
        ("ks_held", odd, "function"),
        ("ks_held", "plus(int)", "function"),
        ("ks_held", "plus(int, int)", "function"),
        ("ks_held", "total(int)", "aggregate"),
        ("ks_other", "none()", "function"),
    ]
    assert functions.list(after="ks_held.plus(int)", limit=2) == found[2:4]
    with pytest.raises(BadInput):
        functions.delete("plus(int, int)", database="ks_held")
    for name in ("total(int)", "plus(int, int)", odd):
        functions.delete(name, database="ks_held")
    assert [each["name"] for each in functions.list()] == ["plus(int)", "none()"]
    with pytest.raises(NotFound):
        functions.delete("none()", database="ks_held")
    functions.delete("plus(int)", database="ks_held")
    functions.delete("none()", database="ks_other")


def test_root_keeps_all_keyspaces_and_nothing_else(
    server: Manager, root: Root, databases: Databases, users: Users
) -> None:
    users.create("ben", WORD)
    told = root.enable()
    password = Secret(str(told["password"]))
    databases.create("later")
    with as_user(server, str(told["name"]), password) as cql:
        for name in (*HELD, "later"):
            cql.execute(f"CREATE TABLE {name}.of_root (a int PRIMARY KEY)")
            cql.execute(f"DROP TABLE {name}.of_root")
        cql.execute("CREATE KEYSPACE own WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 1}")
        cql.execute("CREATE TABLE own.t (a int PRIMARY KEY)")
        refused(
            cql,
            "SELECT * FROM system_auth.roles",
            "UPDATE system_auth.roles SET is_superuser = true WHERE role = 'root'",
            "CREATE TABLE system_distributed.t (a int PRIMARY KEY)",
            "ALTER KEYSPACE system_auth WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 0}",
            "SELECT * FROM system_ostler.state",
            "SELECT * FROM system_views.settings",
            "TRUNCATE system_views.roles_cache_keys",
            "CREATE ROLE more",
            "ALTER ROLE ostler WITH PASSWORD = 'other'",
            "ALTER ROLE ostler WITH LOGIN = false",
            "DROP ROLE ostler",
            "DROP ROLE ben",
            "GRANT ostler TO root",
            "GRANT SELECT ON ALL KEYSPACES TO root",
            "GRANT SELECT ON KEYSPACE ks_held TO ben",
            "ALTER ROLE root WITH SUPERUSER = true",
        )
    server.admin.probe()
    kept = server.node.secrets.load(KEPT)
    assert kept is not None
    assert password.reveal() not in kept.reveal()
    for name in ("later", "own"):
        databases.delete(name)


def test_root_is_again_what_is_kept_about_it(server: Manager, root: Root) -> None:
    told = root.enable()
    password = Secret(str(told["password"]))
    with session(server.node) as cql:
        cql.execute("ALTER ROLE root WITH PASSWORD = 'of another guest' AND SUPERUSER = true")
    server.admin.secure()
    assert sample(server).login("root", password)
    assert not sample(server).login("root", Secret("of another guest"))
    with as_user(server, "root", password) as cql:
        refused(cql, "SELECT * FROM system_auth.roles")
    with session(server.node) as cql:
        cql.execute("DROP ROLE root")
    server.admin.secure()
    assert sample(server).login("root", password)
    root.disable()
    with session(server.node) as cql:
        cql.execute("CREATE ROLE root WITH PASSWORD = 'of another guest' AND LOGIN = true")
    server.admin.secure()
    assert root.show() == {"enabled": False}


def test_root_s_own_new_password_is_kept(server: Manager, root: Root) -> None:
    told, changed = root.enable(), Secret("one that root chose")
    with as_user(server, "root", Secret(str(told["password"]))) as cql:
        cql.execute("ALTER ROLE root WITH PASSWORD = 'one that root chose'")
    server.service.stop()
    server.service.start()
    server.admin.secure()
    assert sample(server).login("root", changed)
    assert not sample(server).login("root", Secret(str(told["password"])))
    with session(server.node) as cql:
        cql.execute("ALTER ROLE root WITH PASSWORD = 'of data that does not stay'")
    server.service.stop(data="discarded")
    server.service.start()
    server.admin.secure()
    assert sample(server).login("root", changed)
    root.disable()
