"""Databases, the tenant's users and what they may use.

A database comes into being with its first collection, so one that was made and is still empty stands in our
own register.  Users are made in one database, ``admin``, and hold roles on others.
"""

import builtins
import re
from collections.abc import Iterable

from datastores.contract import JSON, BadInput, Databases, Grants, NameRule, NotFound, Secret, Users
from datastores.mongodb.client import ACCOUNT, AUTH, MECHANISM, Client, Document, agent, told
from datastores.mongodb.root import NAME as ROOT

SYSTEM = ("admin", "local", "config")
REGISTER = "ostler.databases"
ROLES = ("readWrite", "dbAdmin")
"""All rights on a database but those over its users: not dbOwner, which could grant."""

NAMES = {
    "database": NameRule(length=63, unit="bytes", forbidden='/\\. "$', reserved=SYSTEM),
    # The server's commands take a user's name for a collection's first, and none of those begins with a dot.
    "user": NameRule(length=128, pattern=r"(?s)[^.].*", reserved=(ACCOUNT, ROOT, "__system")),
    # A login normalises a password (SASLprep); among these characters no two passwords become one.
    "password": NameRule(length=1024, pattern=r"[ -~]+"),
    "host": NameRule(length=1, pattern="%"),
}


class MongoDatabases(Databases):
    """Databases, their names exactly as they were given; no two that differ in case alone, the server has none."""

    def create(
        self, name: str, *, charset: str | None = None, collate: str | None = None, replication: str | None = None
    ) -> None:
        """Create a database; an existing one is left as it is."""
        NAMES["database"].check(name, "database")
        for field, value in (("charset", charset), ("collate", collate), ("replication", replication)):
            if value is not None:
                raise BadInput(f"a mongodb database has no {field} of its own", field=field)
        with agent(self.node) as client, told("database"):
            twin = next((each for each in names(client) if each != name and _folded(each) == _folded(name)), None)
            if twin is not None:
                raise BadInput(
                    f"database {name!r} is refused: it differs from {twin!r} in case alone", field="database"
                )
            client[name].command("listCollections", nameOnly=True)
            client[AUTH][REGISTER].replace_one({"_id": name}, {}, upsert=True)

    def delete(self, name: str) -> None:
        """Delete a database and all it holds."""
        NAMES["database"].check(name, "database")
        with agent(self.node, timeout=600) as client, told("database"):
            if name not in names(client):
                raise NotFound(f"there is no database {name!r}", field="database")
            client.drop_database(name)
            client[AUTH][REGISTER].delete_one({"_id": name})

    def list(self, *, after: str | None = None, limit: int = 1000) -> "builtins.list[dict[str, JSON]]":
        """List databases in the order of their names."""
        _limited(limit)
        with agent(self.node) as client:
            found = sorted(each for each in names(client) if after is None or each > after)
        return [{"name": each} for each in found[:limit]]


class MongoUsers(Users):
    """The tenant's users; the host is always ``%``."""

    def create(self, name: str, password: Secret, *, host: str = "%", databases: tuple[str, ...] = ()) -> None:
        """Make a user with this password and these databases, and nothing else it may have had."""
        _checked(name, host)
        _check_password(password)
        for each in databases:
            NAMES["database"].check(each, "database")
        with agent(self.node) as client, told("user"):
            _require_databases(client, databases)
            account: Document = {"pwd": password.reveal(), "roles": _roles(databases), "mechanisms": [MECHANISM]}
            there = _found(client, name) is not None
            client[AUTH].command("updateUser" if there else "createUser", name, **account)

    def delete(self, name: str, *, host: str = "%") -> None:
        """Delete a user and its roles."""
        _checked(name, host)
        with agent(self.node) as client, told("user"):
            _require_user(client, name)
            client[AUTH].command("dropUser", name)

    def list(self, *, after: str | None = None, limit: int = 1000) -> "builtins.list[dict[str, JSON]]":
        """List users by name with the databases they hold all our roles on."""
        _limited(limit)
        hidden = [ACCOUNT, ROOT, "__system"]
        with agent(self.node) as client:
            wanted = {"db": AUTH, "user": {"$nin": hidden}}
            rows = builtins.list(client[AUTH]["system.users"].find(wanted, {"user": 1, "roles": 1}))
        rows = sorted((each for each in rows if after is None or each["user"] > after), key=lambda each: each["user"])
        return [{"name": each["user"], "host": "%", "databases": [*_granted(each)]} for each in rows[:limit]]

    def set_password(self, name: str, password: Secret, *, host: str = "%") -> None:
        """Change a user's password; connections that are open stay open."""
        _checked(name, host)
        _check_password(password)
        with agent(self.node) as client, told("user"):
            _require_user(client, name)
            client[AUTH].command("updateUser", name, pwd=password.reveal(), mechanisms=[MECHANISM])


class MongoGrants(Grants):
    """Reading, writing and keeping one database, without the right to grant."""

    def grant(self, name: str, *, database: str, host: str = "%") -> None:
        """Give a user our roles on one database; both must be there."""
        _checked(name, host)
        NAMES["database"].check(database, "database")
        with agent(self.node) as client, told("database"):
            _require_user(client, name)
            _require_databases(client, (database,))
            client[AUTH].command("grantRolesToUser", name, roles=_roles((database,)))

    def revoke(self, name: str, *, database: str, host: str = "%") -> None:
        """Take a user's roles on one database back, also where that database is gone."""
        _checked(name, host)
        NAMES["database"].check(database, "database")
        with agent(self.node) as client, told("database"):
            if database not in _granted(_require_user(client, name)):
                raise NotFound(f"user {name!r} has no rights on {database!r}", field="database")
            client[AUTH].command("revokeRolesFromUser", name, roles=_roles((database,)))


def names(client: Client) -> set[str]:
    """Return the tenant's databases: those that hold something, and those of the register."""
    registered = {str(each["_id"]) for each in client[AUTH][REGISTER].find({}, {"_id": 1})}
    return ({*client.list_database_names()} | registered) - {*SYSTEM}


def _folded(name: str) -> str:
    """Fold as the server does when it compares names: the letters of ASCII alone."""
    return re.sub("[A-Z]", lambda found: found[0].lower(), name)


def _roles(databases: Iterable[str]) -> list[Document]:
    return [{"role": role, "db": each} for each in dict.fromkeys(databases) for role in ROLES]


def _granted(user: Document) -> list[str]:
    held = {(each["role"], each["db"]) for each in user["roles"]}
    return sorted({database for _, database in held if all((role, database) in held for role in ROLES)})


def _found(client: Client, name: str) -> Document | None:
    user: Document | None = client[AUTH]["system.users"].find_one({"_id": f"{AUTH}.{name}"}, {"user": 1, "roles": 1})
    return user


def _require_user(client: Client, name: str) -> Document:
    user = _found(client, name)
    if user is None:
        raise NotFound(f"there is no user {name!r}", field="name")
    return user


def _require_databases(client: Client, databases: Iterable[str]) -> None:
    there = names(client)
    for each in databases:
        if each not in there:
            raise NotFound(f"there is no database {each!r}", field="database")


def _checked(name: str, host: str) -> None:
    NAMES["user"].check(name, "user")
    if host != "%":
        raise BadInput("a mongodb user has no host: only % is accepted", field="host")


def _check_password(password: Secret) -> None:
    """Hold a password to its rule; ``BadInput`` never shows it."""
    try:
        NAMES["password"].check(password.reveal(), "password")
    except BadInput:
        raise BadInput("the password must be 1 to 1024 printable characters of ASCII", field="password") from None


def _limited(limit: int) -> None:
    if limit < 1:
        raise BadInput("limit must be at least 1", field="limit")
