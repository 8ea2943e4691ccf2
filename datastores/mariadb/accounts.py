"""Databases, the tenant's users and what they may use."""

from collections.abc import Iterable

from pymysql.cursors import Cursor
from pymysql.err import MySQLError

from datastores.contract import JSON, BadInput, Databases, Grants, NameRule, NotFound, Secret, Users
from datastores.mariadb.client import agent_account, code_of, rows, session, told
from datastores.mariadb.dialect import account, identifier, literal, native_hash, pattern

SYSTEM_DATABASES = ("mysql", "sys", "information_schema", "performance_schema")
RESERVED_USERS = ("root", "ostler", "mariadb.sys", "mysql", "public", "mysql.sys", "mysql.session", "mysql.infoschema")

# A database's name may not end with white space of ASCII; a login strips the quotes from a name between two of them.
BLANK = " \t\n\v\f\r"
UNQUOTED = r"(?s)(?!'.*'\Z).*"

NAMES = {
    "database": NameRule(length=64, trailing=BLANK, reserved=SYSTEM_DATABASES, prefixes=("#mysql50#",), bmp=True),
    "user": NameRule(length=80, trailing=" ", reserved=RESERVED_USERS, bmp=True, pattern=UNQUOTED),
    "host": NameRule(length=60, pattern=r"[a-z0-9._:%/-]+"),
    "password": NameRule(length=1024, unit="bytes"),
}

DROP_MISSING, NO_SUCH_DATABASE, NO_SUCH_GRANT = 1008, 1049, 1141
PAGE = 10_000


class MariaDBDatabases(Databases):
    """Databases, their names exactly as they were given."""

    def create(
        self, name: str, *, charset: str | None = None, collate: str | None = None, replication: str | None = None
    ) -> None:
        """Create a database; an existing one is left as it is."""
        NAMES["database"].check(name, "database")
        if replication is not None:
            raise BadInput("a mariadb database has no replication: the whole server has", field="replication")
        with session(self.node) as cursor, told("database"):
            options = _known(cursor, "charset", charset) + _known(cursor, "collate", collate)
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS {identifier(name)}{options}")

    def delete(self, name: str) -> None:
        """Delete a database and all it holds."""
        NAMES["database"].check(name, "database")
        with session(self.node, timeout=600) as cursor, told("database"):
            try:
                cursor.execute(f"DROP DATABASE {identifier(name)}")
            except MySQLError as error:
                if code_of(error) == DROP_MISSING:
                    raise NotFound(f"there is no database {name!r}", field="database") from None
                raise

    def list(self, *, after: str | None = None, limit: int = 1000) -> "list[dict[str, JSON]]":
        """List databases in the order of their names' bytes, character set and collation with each."""
        statement = (
            "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA "
            "WHERE CAST(SCHEMA_NAME AS BINARY) > CAST(%s AS BINARY) AND SCHEMA_NAME NOT IN %s "
            "AND SCHEMA_NAME NOT LIKE '#mysql50#%%' ORDER BY CAST(SCHEMA_NAME AS BINARY) LIMIT %s"
        )
        with session(self.node) as cursor:
            found = rows(cursor, statement, (after or "", SYSTEM_DATABASES, _limit(limit)))
        return [{"name": str(name), "charset": str(charset), "collate": str(order)} for name, charset, order in found]


class MariaDBUsers(Users):
    """The tenant's users; the server is told no password, just its hash."""

    def create(self, name: str, password: Secret, *, host: str = "%", databases: tuple[str, ...] = ()) -> None:
        """Make a user with this password and these databases, and nothing else it may have had."""
        who = checked(name, host)
        NAMES["password"].check(password.reveal(), "password")
        patterns = {each: pattern(each) for each in databases}
        with session(self.node) as cursor, told("user"):
            for each in patterns:
                _require_database(cursor, each)
            cursor.execute(f"CREATE OR REPLACE USER {who} IDENTIFIED BY PASSWORD '{native_hash(password)}'")
            for each in patterns.values():
                cursor.execute(f"GRANT ALL PRIVILEGES ON {identifier(each)}.* TO {who}")

    def delete(self, name: str, *, host: str = "%") -> None:
        """Delete a user and its grants."""
        who = checked(name, host)
        with session(self.node) as cursor, told("user"):
            _require_user(cursor, name, host)
            cursor.execute(f"DROP USER {who}")

    def list(self, *, after: str | None = None, limit: int = 1000) -> "list[dict[str, JSON]]":
        """List users by name, then host.  A name's hosts stay together on one page, so that the next misses none."""
        statement = (
            "SELECT User, Host FROM mysql.global_priv "
            "WHERE CAST(User AS BINARY) > CAST(%s AS BINARY) AND User NOT IN %s "
            "AND COALESCE(JSON_VALUE(Priv, '$.is_role'), '') <> '1' ORDER BY CAST(User AS BINARY), CAST(Host AS BINARY)"
        )
        with session(self.node) as cursor:
            found = rows(cursor, statement, (after or "", (*RESERVED_USERS, agent_account(), "")))
            page = _whole_names([(str(name), str(host)) for name, host in found], _limit(limit))
            granted = _granted(cursor, page)
        return [{"name": name, "host": host, "databases": [*granted[name, host]]} for name, host in page]

    def set_password(self, name: str, password: Secret, *, host: str = "%") -> None:
        """Change a password; connections that are open stay open."""
        who = checked(name, host)
        NAMES["password"].check(password.reveal(), "password")
        with session(self.node) as cursor, told("user"):
            _require_user(cursor, name, host)
            cursor.execute(f"ALTER USER {who} IDENTIFIED BY PASSWORD '{native_hash(password)}'")


class MariaDBGrants(Grants):
    """All rights on one database, named literally, without the right to grant."""

    def grant(self, name: str, *, database: str, host: str = "%") -> None:
        """Give a user all rights on one database; both must be there."""
        who, what = checked(name, host), pattern(NAMES["database"].check(database, "database"))
        with session(self.node) as cursor, told("database"):
            _require_user(cursor, name, host)
            _require_database(cursor, database)
            cursor.execute(f"GRANT ALL PRIVILEGES ON {identifier(what)}.* TO {who}")

    def revoke(self, name: str, *, database: str, host: str = "%") -> None:
        """Take a user's rights on one database back, also where that database is gone."""
        who, what = checked(name, host), pattern(NAMES["database"].check(database, "database"))
        with session(self.node) as cursor, told("database"):
            _require_user(cursor, name, host)
            try:
                cursor.execute(f"REVOKE ALL PRIVILEGES ON {identifier(what)}.* FROM {who}")
            except MySQLError as error:
                if code_of(error) == NO_SUCH_GRANT:
                    raise NotFound(f"user {name!r} has no rights on {database!r}", field="database") from None
                raise


def checked(name: str, host: str) -> str:
    """Return the account quoted, or raise ``BadInput`` that names ``user`` or ``host``."""
    NAMES["user"].check(name, "user")
    NAMES["host"].check(host, "host")
    if name == agent_account():
        raise BadInput(f"user {name!r} is refused: the agent's own account has this name", field="user")
    return account(name, host)


def _limit(limit: int) -> int:
    if not 1 <= limit <= PAGE:
        raise BadInput(f"limit must be 1 to {PAGE}", field="limit")
    return limit


def _known(cursor: Cursor, kind: str, name: str | None) -> str:
    """Return a clause of CREATE DATABASE, once the server itself has said that it knows the name."""
    if name is None:
        return ""
    column, table, clause = {
        "charset": ("CHARACTER_SET_NAME", "CHARACTER_SETS", "CHARACTER SET"),
        "collate": ("COLLATION_NAME", "COLLATIONS", "COLLATE"),
    }[kind]
    found = rows(cursor, f"SELECT {column} FROM information_schema.{table} WHERE {column} = %s", (name,))  # noqa: S608
    if not found:
        raise BadInput(f"{kind} {name[:80]!r} is not one the server knows", field=kind)
    return f" {clause} {identifier(str(found[0][0]))}"


def _require_database(cursor: Cursor, name: str) -> None:
    NAMES["database"].check(name, "database")
    try:
        cursor.execute(f"SHOW CREATE DATABASE {identifier(name)}")
    except MySQLError as error:
        if code_of(error) == NO_SUCH_DATABASE:
            raise NotFound(f"there is no database {name!r}", field="database") from None
        raise


def _require_user(cursor: Cursor, name: str, host: str) -> None:
    found = rows(
        cursor,
        "SELECT 1 FROM mysql.global_priv WHERE CAST(User AS BINARY) = CAST(%s AS BINARY) AND Host = %s",
        (name, host),
    )
    if not found:
        raise NotFound(f"there is no user {name!r} at host {host!r}", field="user")


def _whole_names(found: list[tuple[str, str]], limit: int) -> list[tuple[str, str]]:
    """Cut a page that ends with a name's last host; one name with more hosts than the limit stays whole."""
    if len(found) <= limit:
        return found
    last = found[limit][0]
    before = [each for each in found[:limit] if each[0] != last]
    return before or [each for each in found if each[0] == last]


def _granted(cursor: Cursor, accounts: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    """Return the databases each account may use, sorted."""
    granted: dict[tuple[str, str], list[str]] = {each: [] for each in accounts}
    if granted:
        names = tuple({name for name, _ in granted})
        for name, host, found in rows(cursor, "SELECT User, Host, Db FROM mysql.db WHERE User IN %s", (names,)):
            if (str(name), str(host)) in granted:
                granted[str(name), str(host)].append(literal(str(found)))
    return {each: sorted(databases) for each, databases in granted.items()}
