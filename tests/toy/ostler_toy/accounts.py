"""Databases, users, grants and root of a toy server."""

import secrets

from datastores.contract import JSON, BadInput, Databases, Grants, NotFound, Root, Secret, Users
from ostler_toy.wire import Ask, connection


def checked(kind: str, value: str) -> str:
    """Return a name that the declaration allows."""
    from ostler_toy import DATASTORE

    return DATASTORE.names[kind].check(value, kind)


def page(names: "list[str]", after: str | None, limit: int) -> "list[str]":
    """Return one page of sorted names."""
    return [each for each in sorted(names) if after is None or each > after][:limit]


class ToyDatabases(Databases):
    """One table each."""

    def create(
        self, name: str, *, charset: str | None = None, collate: str | None = None, replication: str | None = None
    ) -> None:
        """Create a database; creating what exists is no error."""
        for field, value in (("charset", charset), ("collate", collate), ("replication", replication)):
            if value is not None:
                raise BadInput(f"a toy database has no {field}", field=field)
        checked("database", name)
        with connection(self.node) as ask:
            ask("create", name=name)

    def delete(self, name: str) -> None:
        """Delete a database and all it holds."""
        checked("database", name)
        with connection(self.node) as ask:
            ask("drop", name=name)

    def list(self, *, after: str | None = None, limit: int = 1000) -> "list[dict[str, JSON]]":
        """List databases by name."""
        with connection(self.node) as ask:
            return [{"name": each} for each in page(ask("databases"), after, limit)]


class ToyUsers(Users):
    """Users with a list of databases."""

    def create(self, name: str, password: Secret, *, host: str = "%", databases: tuple[str, ...] = ()) -> None:
        """Make a user as the request says."""
        known_host(host)
        named, word = checked("user", name), checked("password", password.reveal())
        with connection(self.node) as ask:
            for each in databases:
                exists(ask, checked("database", each))
            ask("user", name=named, password=word, databases=list(databases), new=True)

    def delete(self, name: str, *, host: str = "%") -> None:
        """Delete a user."""
        known_host(host)
        checked("user", name)
        with connection(self.node) as ask:
            ask("forget", name=name)

    def list(self, *, after: str | None = None, limit: int = 1000) -> "list[dict[str, JSON]]":
        """List users by name."""
        with connection(self.node) as ask:
            users = ask("users")
        return [{"name": each, "host": "%", "databases": users[each]} for each in page(list(users), after, limit)]

    def set_password(self, name: str, password: Secret, *, host: str = "%") -> None:
        """Change a user's password."""
        known_host(host)
        word = checked("password", password.reveal())
        checked("user", name)
        with connection(self.node) as ask:
            ask("user", name=name, password=word)


class ToyGrants(Grants):
    """Which user may use which database."""

    def grant(self, name: str, *, database: str, host: str = "%") -> None:
        """Give a user one database."""
        known_host(host)
        with connection(self.node) as ask:
            exists(ask, checked("database", database))
            ask("user", name=name, databases=[*self._databases(ask, checked("user", name)), database])

    def revoke(self, name: str, *, database: str, host: str = "%") -> None:
        """Take it back."""
        known_host(host)
        with connection(self.node) as ask:
            had = self._databases(ask, checked("user", name))
            if checked("database", database) not in had:
                raise NotFound(f"{name!r} has no grant on {database!r}")
            ask("user", name=name, databases=[each for each in had if each != database])

    @staticmethod
    def _databases(ask: Ask, name: str) -> "list[str]":
        users = ask("users")
        if name not in users:
            raise NotFound(f"there is no user {name!r}")
        return [str(each) for each in users[name]]


class ToyRoot(Root):
    """The tenant's own superuser."""

    def enable(self) -> "dict[str, JSON]":
        """Make root with a new password."""
        word = secrets.token_urlsafe(24)
        with connection(self.node) as ask:
            ask("root", password=word)
        return {"name": "root", "password": word}

    def disable(self) -> None:
        """Take root away."""
        with connection(self.node) as ask:
            ask("root")

    def show(self) -> "dict[str, JSON]":
        """Return whether root is enabled."""
        with connection(self.node) as ask:
            return {"enabled": bool(ask("has_root"))}


def exists(ask: Ask, database: str) -> None:
    """Raise ``NotFound`` where there is no such database."""
    if database not in ask("databases"):
        raise NotFound(f"there is no database {database!r}")


def known_host(host: str) -> None:
    """Refuse what a toy server cannot tell apart."""
    checked("host", host)
