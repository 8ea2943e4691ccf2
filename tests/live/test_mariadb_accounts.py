"""MariaDB's accounts on the real server: doors closed, names exact, root restricted."""

import json
from collections.abc import Iterator

import pymysql
import pytest

from datastores.contract import BadInput, Databases, Grants, NotFound, Root, Secret, Users
from datastores.manager import Manager
from datastores.mariadb.client import agent_account, session
from tests.guests import Guests


@pytest.fixture(scope="module")
def server(inn: Guests) -> Manager:
    return inn.manager("mariadb")


@pytest.fixture
def databases(server: Manager) -> Databases:
    return server.part("databases")


@pytest.fixture
def users(server: Manager) -> Users:
    return server.part("users")


@pytest.fixture
def root(server: Manager) -> Iterator[Root]:
    made = server.part("root")
    yield made
    made.disable()


def login(server: Manager, name: str, password: str, database: str | None = None) -> pymysql.Connection:
    return pymysql.connect(
        host="127.0.0.1",
        port=server.node.endpoint.port,
        user=name.encode(),
        password=password.encode(),
        database=database,
        charset="utf8mb4",
        connect_timeout=5,
        autocommit=True,
    )


def code(server: Manager, *args: str) -> int:
    with pytest.raises(pymysql.err.MySQLError) as caught:
        login(server, *args).close()
    return int(caught.value.args[0])


def refused(connection: pymysql.Connection, statement: str) -> int:
    with pytest.raises(pymysql.err.MySQLError) as caught, connection.cursor() as cursor:
        cursor.execute(statement)
    return int(caught.value.args[0])


def ask(connection: pymysql.Connection, statement: str) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def accounts(server: Manager) -> set[tuple[str, str]]:
    with session(server.node) as cursor:
        cursor.execute("SELECT User, Host FROM mysql.global_priv")
        return {(str(name), str(host)) for name, host in cursor.fetchall()}


def test_a_new_server_has_one_agent_account_and_no_open_door(server: Manager) -> None:
    server.admin.ping()
    server.admin.probe()
    assert server.admin.version().startswith("10.11.")
    allowed = {(agent_account(), "localhost"), ("mariadb.sys", "localhost"), ("PUBLIC", "")}
    assert accounts(server) <= allowed
    for name in ("", "root", "mysql", agent_account(), "ostler"):
        assert code(server, name, "") in (1045, 1130, 1698)


def test_secure_closes_what_was_opened_and_nothing_else(server: Manager, users: Users) -> None:
    users.create("kept", Secret("pw-kept"))
    with session(server.node) as cursor:
        for each in ("''@'%'", "root@'10.%'", "nopass@'%'"):
            cursor.execute(f"CREATE USER {each}")
        cursor.execute("CREATE USER foreign_agent@localhost IDENTIFIED VIA unix_socket")
        cursor.execute("CREATE DATABASE test")
        cursor.execute("GRANT ALL ON `test%`.* TO ''@'%'")
    for _ in range(2):
        server.admin.secure()
        left = {name for name, _ in accounts(server)}
        assert left - {"PUBLIC"} == {agent_account(), "mariadb.sys", "kept"}
    with login(server, "kept", "pw-kept") as connection:
        assert refused(connection, "USE test") == 1044
    with session(server.node) as cursor:
        # It may be a tenant's.
        cursor.execute("DROP DATABASE test")
    users.delete("kept")


def test_users_get_what_the_request_says(server: Manager, databases: Databases, users: Users) -> None:
    for each in ("a_b", "axb", "c"):
        databases.create(each)
    users.create("u", Secret("one"), databases=("a_b",))
    with login(server, "u", "one", "a_b") as connection:
        ask(connection, "CREATE TABLE t (a INT)")
        assert refused(connection, "USE axb") == 1044
        assert refused(connection, "GRANT SELECT ON a_b.* TO u@'%'") in (1044, 1410)
    users.create("u", Secret("two"), databases=("c",))
    assert code(server, "u", "one") == 1045
    assert users.list() == [{"name": "u", "host": "%", "databases": ["c"]}]
    users.set_password("u", Secret("three"))
    login(server, "u", "three", "c").close()
    users.delete("u")
    for missing in (lambda: users.delete("u"), lambda: users.set_password("u", Secret("x"))):
        with pytest.raises(NotFound):
            missing()
    for each in ("a_b", "axb", "c"):
        databases.delete(each)
    with pytest.raises(NotFound):
        databases.delete("c")


def test_a_grant_is_literal(server: Manager, databases: Databases, users: Users) -> None:
    grants: Grants = server.part("grants")
    names = ["p_q", "pxq", "p%q", "p\\q", "p\\_q", "pq"]
    for each in names:
        databases.create(each)
    users.create("g", Secret("pw"))
    for each in names:
        grants.grant("g", database=each)
        with login(server, "g", "pw") as connection:
            seen = {row[0] for row in ask(connection, "SHOW DATABASES")} - {"information_schema"}
        assert seen == {each}
        assert users.list(after="f")[0]["databases"] == [each]
        grants.revoke("g", database=each)
        with pytest.raises(NotFound):
            grants.revoke("g", database=each)
    with pytest.raises(NotFound):
        grants.grant("g", database="absent")
    with pytest.raises(NotFound):
        grants.grant("nobody", database="pq")
    databases.create("_" * 64)
    with pytest.raises(BadInput) as caught:
        grants.grant("g", database="_" * 64)
    assert caught.value.field == "database"
    for each in [*names, "_" * 64]:
        databases.delete(each)
    users.delete("g")


def test_root_reaches_neither_the_accounts_nor_the_machine(server: Manager, databases: Databases, root: Root) -> None:
    assert root.show() == {"enabled": False}
    databases.create("before")
    first = root.enable()
    given = root.enable()
    assert first["password"] != given["password"]
    assert root.show() == {"enabled": True}
    assert code(server, "root", str(first["password"])) == 1045
    agent = f"{agent_account()}@localhost"
    with login(server, "root", str(given["password"])) as connection:
        for statement in ("CREATE DATABASE fresh", "CREATE TABLE fresh.t (a INT)", "INSERT INTO fresh.t VALUES (1)"):
            ask(connection, statement)
        ask(connection, "CREATE TABLE `before`.t AS SELECT * FROM fresh.t")
        ask(connection, "DROP DATABASE fresh")
        ask(connection, "SHOW PROCESSLIST")
        for statement in (
            f"DROP USER {agent}",
            f"SET PASSWORD FOR {agent} = PASSWORD('x')",
            f"ALTER USER {agent} ACCOUNT LOCK",
            f"RENAME USER {agent} TO gone@localhost",
            f"REVOKE ALL PRIVILEGES ON *.* FROM {agent}",
            "CREATE USER mine@'%'",
            "GRANT ALL ON `mys_l`.* TO root@'%'",
            "GRANT ALL ON *.* TO root@'%'",
            "UPDATE mysql.global_priv SET Priv = '{}'",
            "DELETE FROM mysql.global_priv",
            "INSERT INTO mysql.db (Host, Db, User) VALUES ('%', 'mysql', 'root')",
            "SELECT * FROM mysql.global_priv",
            "DROP TABLE mysql.global_priv",
            "DROP DATABASE mysql",
            "DROP DATABASE sys",
            "CREATE TABLE mysql.t (a INT)",
            "SELECT 1 INTO OUTFILE '/tmp/ostler-never'",
            "LOAD DATA INFILE '/etc/passwd' INTO TABLE `before`.t",
            "INSTALL SONAME 'ha_archive'",
            "CREATE FUNCTION f RETURNS STRING SONAME 'x.so'",
            "SET GLOBAL max_connections = 11",
            "SET GLOBAL general_log_file = '/tmp/x'",
            "SET SESSION sql_log_bin = 0",
            "SHUTDOWN",
            "FLUSH PRIVILEGES",
            "RESET MASTER",
            "PURGE BINARY LOGS BEFORE NOW()",
            f"CREATE DEFINER={agent} PROCEDURE `before`.p() DROP USER {agent}",
            "BACKUP STAGE START",
        ):
            assert refused(connection, statement) in (1044, 1045, 1142, 1227, 1410, 1095, 1370, 1290), statement
        assert ask(connection, "SELECT LOAD_FILE('/etc/passwd')") == [(None,)]
    server.admin.ping()
    root.disable()
    root.disable()
    assert root.show() == {"enabled": False}
    # A name that is not there is refused as any of those that are, which may have no password at all.
    assert code(server, "root", str(given["password"])) in (1045, 1698)
    databases.delete("before")


def test_root_is_put_back_and_keeps_a_password_it_chose(server: Manager, root: Root) -> None:
    given = root.enable()
    with login(server, "root", str(given["password"])) as connection:
        ask(connection, "SET PASSWORD = PASSWORD('chosen by root')")
    server.admin.quiesce()
    with session(server.node) as cursor:
        cursor.execute("DROP USER root@'%'")
        cursor.execute("CREATE USER root@'%' IDENTIFIED BY 'of another guest'")
        cursor.execute("GRANT ALL PRIVILEGES ON *.* TO root@'%' WITH GRANT OPTION")
    server.admin.secure()
    assert code(server, "root", "of another guest") == 1045
    with login(server, "root", "chosen by root") as connection:
        assert refused(connection, "SET GLOBAL max_connections = 11") == 1227


def test_paging_is_exact(server: Manager, databases: Databases, users: Users) -> None:
    names = sorted(["a", "A", "b", "B", "ä", "Ä", "z", "_", "%", "é", "ß", "ss", "ſ", "a b", "a\x01", "aa"])
    for each in names:
        databases.create(each)
        for host in ("%", "10.0.0.1", "10.0.0.2"):
            users.create(each, Secret("pw"), host=host)
    for limit in (1, 2, 3, 4, 7, 1000):
        paged, after = [], None
        while page := databases.list(after=after, limit=limit):
            assert len(page) <= limit
            paged += [each["name"] for each in page]
            after = str(page[-1]["name"])
        assert paged == names
        found, after = [], None
        while people := users.list(after=after, limit=limit):
            assert len(people) <= max(limit, 3)
            found += [(each["name"], each["host"]) for each in people]
            after = str(people[-1]["name"])
        assert found == [(each, host) for each in names for host in ("%", "10.0.0.1", "10.0.0.2")]
    for each in names:
        databases.delete(each)
        for host in ("%", "10.0.0.1", "10.0.0.2"):
            users.delete(each, host=host)
    for limit in (0, -1, 10_001):
        with pytest.raises(BadInput):
            databases.list(limit=limit)


def test_charsets_are_the_servers_own(server: Manager, databases: Databases) -> None:
    databases.create("swedish", charset="latin1", collate="latin1_swedish_ci")
    assert databases.list() == [{"name": "swedish", "charset": "latin1", "collate": "latin1_swedish_ci"}]
    for bad in ({"charset": "latin1; DROP DATABASE swedish"}, {"collate": "nonsense"}):
        with pytest.raises(BadInput) as caught:
            databases.create("other", **bad)
        assert caught.value.field in bad
    with pytest.raises(BadInput):
        databases.create("other", charset="utf8mb4", collate="latin1_swedish_ci")
    assert json.dumps(databases.list()).count("name") == 1
    databases.delete("swedish")
