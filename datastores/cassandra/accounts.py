"""Keyspaces, the tenant's roles and what they may use.

What a role was is remembered by the server for seconds after it changed, logins too; so whatever changes a role here
forgets that memory before it returns.  Other nodes of a ring forget by themselves, within two seconds.
"""

import builtins
from collections.abc import Iterator, Mapping

from datastores.cassandra import functions
from datastores.cassandra.client import ACCOUNT, Session, forget, session, told
from datastores.cassandra.dialect import across, dotted, grants, identifier, literal, resources, rights
from datastores.cassandra.factors import factors, nodes, replications
from datastores.cassandra.root import NAME as ROOT
from datastores.cassandra.root import admit
from datastores.cassandra.schema import tenants
from datastores.contract import JSON, BadInput, Databases, Grants, NameRule, NotFound, Secret, Users

FIRST = "cassandra"
WORD = r"[A-Za-z0-9_]{1,48}"
SYSTEM = ("system",)

NAMES = {
    "database": NameRule(length=48, pattern=WORD, reserved=SYSTEM, prefixes=("system_",)),
    # Of a role named with a quote the server writes a row that is another's.
    "user": NameRule(length=128, forbidden="'", reserved=(ACCOUNT, ROOT, FIRST)),
    # More than these bytes the server does not look at: another end would log in, too.
    "password": NameRule(length=72, unit="bytes"),
    "host": NameRule(length=1, pattern="%"),
}
TABLE = NameRule(length=48, pattern=WORD)


class CassandraDatabases(Databases):
    """Keyspaces, their names exactly as they were given, with a replication by data centre."""

    def create(
        self, name: str, *, charset: str | None = None, collate: str | None = None, replication: str | None = None
    ) -> None:
        """Create a keyspace of three copies in each data centre, or of as many as it has nodes, or as asked for."""
        NAMES["database"].check(name, "database")
        for field, value in (("charset", charset), ("collate", collate)):
            if value is not None:
                raise BadInput(f"a cassandra keyspace has no {field}: all text is UTF-8", field=field)
        with session(self.node) as cql, told("database"):
            wanted = across(factors(replication, nodes(cql)))
            cql.execute(f"CREATE KEYSPACE IF NOT EXISTS {identifier(name)} WITH replication = {wanted}")
            admit(cql, [name])

    def delete(self, name: str) -> None:
        """Delete a keyspace, all it holds, and all rights on it."""
        NAMES["database"].check(name, "database")
        with session(self.node, timeout=600) as cql, told("database"):
            _require_database(cql, name)
            cql.execute(f"DROP KEYSPACE IF EXISTS {identifier(name)}")
            forget(cql)

    def list(self, *, after: str | None = None, limit: int = 1000) -> "builtins.list[dict[str, JSON]]":
        """List keyspaces by name with the replication each has."""
        _limited(limit)
        with session(self.node) as cql:
            found = replications(cql)
        names = sorted(each for each in found if after is None or each > after)
        return [{"name": each, "replication": found[each]} for each in names[:limit]]


class CassandraUsers(Users):
    """The tenant's roles; the host is always ``%``.  A database may be a table, too, as ``keyspace.table``."""

    def create(self, name: str, password: Secret, *, host: str = "%", databases: tuple[str, ...] = ()) -> None:
        """Make a role that logs in with this password and has these databases, and nothing else it may have had."""
        _checked(name, host)
        _check_password(password)
        for each in databases:
            check_database(each)
        with session(self.node) as cql, told("user"):
            for each in databases:
                _require_database(cql, each)
            cql.execute(f"DROP ROLE IF EXISTS {identifier(name)}")
            cql.execute(f"CREATE ROLE {identifier(name)} WITH {_login(password)}")
            for statement in (statement for each in databases for statement in grants(each, name)):
                cql.execute(statement)
            forget(cql)

    def delete(self, name: str, *, host: str = "%") -> None:
        """Delete a role and its rights; it logs in no more once this returns."""
        _checked(name, host)
        with session(self.node) as cql, told("user"):
            _require_user(cql, name)
            cql.execute(f"DROP ROLE IF EXISTS {identifier(name)}")
            forget(cql)

    def list(self, *, after: str | None = None, limit: int = 1000) -> "builtins.list[dict[str, JSON]]":
        """List roles by name with the databases and tables they hold all our rights on, whoever made them."""
        _limited(limit)
        with session(self.node) as cql:
            names = sorted(each.role for each in cql.execute("SELECT role FROM system_auth.roles"))
            held = _held(cql)
        hidden = NAMES["user"].reserved
        page = [each for each in names if each not in hidden and (after is None or each > after)][:limit]
        return [{"name": each, "host": "%", "databases": [*_granted(held.get(each, {}))]} for each in page]

    def set_password(self, name: str, password: Secret, *, host: str = "%") -> None:
        """Change a role's password; the old one is refused once this returns, connections that are open stay open."""
        _checked(name, host)
        _check_password(password)
        with session(self.node) as cql, told("user"):
            _require_user(cql, name)
            cql.execute(f"ALTER ROLE {identifier(name)} WITH {_login(password)}")
            forget(cql)


class CassandraGrants(Grants):
    """All rights on one keyspace, or one table of it, without the right to grant.

    Who makes a table is given all rights on that table by the server itself, that one too.
    """

    def grant(self, name: str, *, database: str, host: str = "%") -> None:
        """Give a role all rights on a keyspace or a table; both must be there."""
        _checked(name, host)
        check_database(database)
        with session(self.node) as cql, told("database"):
            _require_user(cql, name)
            _require_database(cql, database)
            for statement in grants(database, name):
                cql.execute(statement)
            forget(cql)

    def revoke(self, name: str, *, database: str, host: str = "%") -> None:
        """Take them back, and what the role may have had there beside them."""
        _checked(name, host)
        check_database(database)
        with session(self.node) as cql, told("database"):
            _require_user(cql, name)
            held = _held(cql, name).get(name, {})
            if database not in _granted(held):
                raise NotFound(f"user {name!r} has no rights on {database!r}", field="database")
            for where in [*rights(database), *_below(cql, database, held)]:
                cql.execute(f"REVOKE ALL PERMISSIONS ON {where} FROM {identifier(name)}")
            forget(cql)


def check_database(database: str) -> None:
    """Hold ``keyspace`` or ``keyspace.table`` to the rules."""
    keyspace, dot, table = database.partition(".")
    NAMES["database"].check(keyspace, "database")
    if dot:
        TABLE.check(table, "database")


def _login(password: Secret) -> str:
    return f"PASSWORD = {literal(password.reveal())} AND LOGIN = true"


def _require_database(cql: Session, database: str) -> None:
    keyspace, dot, table = database.partition(".")
    statement = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s AND table_name = %s"
    found = cql.execute(statement, (keyspace, table)).one() is not None if dot else keyspace in replications(cql)
    if not found:
        raise NotFound(f"there is no database {database!r}", field="database")


def _require_user(cql: Session, name: str) -> None:
    if cql.execute("SELECT role FROM system_auth.roles WHERE role = %s", (name,)).one() is None:
        raise NotFound(f"there is no user {name!r}", field="name")


def _held(cql: Session, role: str | None = None) -> dict[str, dict[str, frozenset[str]]]:
    """Return what roles may do, by role and resource; of all of them, or of one."""
    statement = "SELECT role, resource, permissions FROM system_auth.role_permissions"
    told = cql.execute(statement) if role is None else cql.execute(f"{statement} WHERE role = %s", (role,))
    found: dict[str, dict[str, frozenset[str]]] = {}
    for each in told:
        found.setdefault(each.role, {})[each.resource] = frozenset(each.permissions or ())
    return found


def _granted(held: Mapping[str, frozenset[str]]) -> "builtins.list[str]":
    """Return the keyspaces, and the tables of other keyspaces, that all our rights are held on."""
    named = [each.split("/")[1:] for each in held if each.startswith("data/")]
    whole = {".".join(each) for each in named if _covers(held, ".".join(each)) and tenants(each[0])}
    return sorted(each for each in whole if "." not in each or each.partition(".")[0] not in whole)


def _covers(held: Mapping[str, frozenset[str]], database: str) -> bool:
    return all(what <= held.get(where, frozenset()) for where, what in resources(database).items())


def _below(cql: Session, database: str, held: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """Yield what a keyspace holds that a role has rights on by itself: it was given these as their maker."""
    for each in held:
        if each.startswith(f"data/{database}/"):
            yield f"TABLE {dotted(each.removeprefix('data/').replace('/', '.', 1))}"
    if any(each.startswith(f"functions/{database}/") for each in held):
        yield from (f"FUNCTION {each.quoted}" for each in functions.found(cql) if each.keyspace == database)


def _checked(name: str, host: str) -> None:
    NAMES["user"].check(name, "user")
    if host != "%":
        raise BadInput("a cassandra role has no host: only % is accepted", field="host")


def _check_password(password: Secret) -> None:
    """Hold a password to its rule; ``BadInput`` never shows it."""
    NAMES["password"].check(password.reveal(), "password")


def _limited(limit: int) -> None:
    if limit < 1:
        raise BadInput("limit must be at least 1", field="limit")
