"""Tables of a backup into a running Cassandra server: replaced, made anew, with all that belongs to them."""

import pytest

from datastores.cassandra.client import Session, session, told
from datastores.cassandra.factors import replications
from datastores.cassandra.imports import making
from datastores.cassandra.schema import Made
from datastores.contract import BadInput, Mismatch, NotFound, ToolFailed
from datastores.manager import Manager
from tests.conformance.test_parts_imports import take_in
from tests.fakes_host import Keeper, Taken
from tests.guests import Guests
from tests.live.test_cassandra_backup import PATIENT, VIEWS, flush, in_view, later, move, rows, seen, shape


@pytest.fixture(scope="module")
def served(inn: Guests) -> Manager:
    manager = inn.manager("cassandra", start=False)
    manager.settings.switch(manager.settings.write(VIEWS | PATIENT))
    manager.admin.initialise()
    manager.service.start()
    manager.admin.secure()
    with session(manager.node, timeout=120) as cql:
        shape(cql)
        cql.execute("CREATE KEYSPACE bystander WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 1}")
        cql.execute("CREATE TABLE bystander.t (p int PRIMARY KEY)")
        cql.execute("INSERT INTO bystander.t (p) VALUES (1)")
    return manager


@pytest.fixture(scope="module")
def taken(served: Manager) -> Taken:
    return Keeper().take(served.backup)


@pytest.fixture(scope="module")
def then(served: Manager, taken: Taken) -> dict[str, list[str]]:
    """All that could be read when the backup was taken."""
    return rows(served.node)


def names(cql: Session, column: str, table: str) -> set[str]:
    found = cql.execute(f"SELECT {column} FROM system_schema.{table} WHERE keyspace_name = 'kinds'")  # noqa: S608
    return {each[0] for each in found}


def test_a_table_is_replaced_with_its_views_and_indexes_and_no_other_is(
    served: Manager, taken: Taken, then: dict[str, list[str]]
) -> None:
    with session(served.node) as cql:
        cql.execute("UPDATE kinds.rows SET v = 'changed', o = 7 WHERE p = 1 AND c = 7")
        cql.execute("INSERT INTO kinds.rows (p, c, v) VALUES (99, 1, 'v3')")
        cql.execute("DELETE FROM kinds.rows WHERE p = 3")
        cql.execute("INSERT INTO kinds.packed (p, v) VALUES (2000, 'later')")
        flush(served.node)
        assert rows(served.node) != then
        take_in(served, taken, "kinds.rows")
        assert cql.execute("SELECT v FROM kinds.packed WHERE p = 2000").one() is not None
        cql.execute("DELETE FROM kinds.packed WHERE p = 2000")
    assert rows(served.node) == then


def test_a_view_is_what_its_table_says(served: Manager) -> None:
    with later(served, "kinds.rows", lambda: move(served.node)):
        apart = Keeper().take(served.backup)
    wanted = seen(served.node)
    for change in ("", "DROP MATERIALIZED VIEW kinds.seen", "DROP KEYSPACE kinds"):
        with session(served.node, timeout=60) as cql:
            cql.execute("INSERT INTO kinds.rows (p, c, v) VALUES (99, 1, 'v3')")
            if change:
                cql.execute(change)
            take_in(served, apart, "kinds.rows")
        assert seen(served.node) == in_view(served.node) == wanted


def test_a_keyspace_that_is_gone_is_made_again(served: Manager, taken: Taken, then: dict[str, list[str]]) -> None:
    with session(served.node, timeout=60) as cql:
        cql.execute("DROP KEYSPACE kinds")
        take_in(served, taken, "kinds")
        assert cql.execute("SELECT p FROM bystander.t").one().p == 1
    assert rows(served.node) == then
    later = Keeper().take(served.backup)
    assert {each.path.split("/")[1] for each in later.files if each.path.startswith("kinds/")} == {
        each.path.split("/")[1] for each in taken.files if each.path.startswith("kinds/")
    }


def test_a_keyspace_that_looks_otherwise_is_as_it_was(
    served: Manager, taken: Taken, then: dict[str, list[str]]
) -> None:
    with session(served.node, timeout=60) as cql:
        cql.execute("ALTER TABLE kinds.counts WITH comment = 'another'")
        cql.execute("DROP MATERIALIZED VIEW kinds.seen")
        cql.execute("ALTER TABLE kinds.rows ADD more text")
        cql.execute("CREATE TYPE kinds.later (a int)")
        cql.execute("CREATE TABLE kinds.besides (p int PRIMARY KEY, l frozen<later>)")
        cql.execute("INSERT INTO kinds.besides (p, l) VALUES (1, {a: 1})")
        take_in(served, taken, "kinds")
        tables = names(cql, "table_name", "tables")
        types = names(cql, "type_name", "types")
    assert "besides" not in tables
    assert types == {"zone", "address"}
    assert rows(served.node) == then
    served.service.stop()
    served.service.start()
    assert rows(served.node) == then


def test_a_keyspace_of_three_copies_gets_as_many_as_there_are_nodes(served: Manager, taken: Taken) -> None:
    with session(served.node, timeout=60) as cql:
        cql.execute("DROP KEYSPACE wide")
        take_in(served, taken, "wide")
        assert replications(cql)["wide"] == "dc1:1"


def test_what_cannot_be_made_is_refused_before_anything_is_dropped(
    served: Manager, taken: Taken, then: dict[str, list[str]]
) -> None:
    with session(served.node, timeout=60) as cql:
        cql.execute("ALTER TYPE kinds.zone ADD more text")
        cql.execute("CREATE TABLE kinds.besides (p int PRIMARY KEY)")
        for name in ("kinds", "kinds.rows"):
            with pytest.raises(Mismatch, match="drop it first"):
                take_in(served, taken, name)
        assert "besides" in names(cql, "table_name", "tables")
        take_in(served, taken, "kinds.packed")
        cql.execute("DROP KEYSPACE kinds")
        take_in(served, taken, "kinds")
    assert rows(served.node) == then


def test_views_are_refused_where_the_server_makes_none(served: Manager, taken: Taken) -> None:
    def views(enabled: str) -> None:
        served.service.stop()
        served.settings.switch(served.settings.write(PATIENT | {"materialized_views_enabled": enabled}))
        served.service.start()

    there = rows(served.node)
    views("false")
    try:
        with pytest.raises(Mismatch, match="materialized_views_enabled is false"):
            take_in(served, taken, "kinds.rows")
        assert rows(served.node) == there
        take_in(served, taken, "kinds.bare")
    finally:
        views("true")
    assert rows(served.node) == there


@pytest.mark.parametrize(
    ("kind", "statement"),
    [
        ("table", "CREATE TABLE k.t (p int PRIMARY KEY); ALTER ROLE ann WITH SUPERUSER = true;"),
        ("table", "CREATE TABLE k.t (p int PRIMARY KEY); ALTER TABLE k.other DROP v;"),
        ("table", "ALTER ROLE ann WITH SUPERUSER = true"),
    ],
)
def test_a_statement_that_makes_no_table_is_not_run(kind: str, statement: str) -> None:
    with pytest.raises(Mismatch):
        making(Made("k", kind, "t", statement))


def test_a_body_that_goes_on_after_its_end_makes_nobody_a_superuser(served: Manager) -> None:
    body = "CREATE FUNCTION k.f (a int) CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$return a; //$$;"
    hostile = f"{body} CREATE ROLE mallory WITH SUPERUSER = true; SELECT x FROM y --$$;"
    [statement] = making(Made("k", "function", "f(int)", hostile))
    with session(served.node) as cql:
        with pytest.raises(ToolFailed, match=r"line \d+:\d+"), told():
            cql.execute(statement)
        roles = {each.role for each in cql.execute("SELECT role FROM system_auth.roles")}
    assert "mallory" not in roles


@pytest.mark.parametrize("name", ["system", "system_auth.roles", "kinds.a.b", "kinds;", "", 'kinds."rows"'])
def test_a_name_that_can_be_no_tenants_is_refused(served: Manager, taken: Taken, name: str) -> None:
    with pytest.raises(BadInput):
        served.imports.choose(taken.files, name, taken.private)


def test_a_name_that_is_not_there_is_told_what_is(served: Manager, taken: Taken) -> None:
    with pytest.raises(NotFound, match="it has bystander, kinds"):
        served.imports.choose(taken.files, "kind", taken.private)
    with pytest.raises(NotFound, match="packed"):
        served.imports.choose(taken.files, "kinds.seen", taken.private)
