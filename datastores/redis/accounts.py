"""Users and root, as the server's own access control lists."""

import builtins
import secrets

from datastores.contract import JSON, BadInput, NameRule, NotFound, Root, Secret, Users
from datastores.redis import acl
from datastores.redis.admin import ROOT_HASH, root_hash
from datastores.redis.client import ACCOUNT, Connection, agent

NAMES = {
    # The server refuses white space (C isspace) and NUL in a name; everything else survives its ACL file.
    "user": NameRule(length=255, unit="bytes", forbidden=" \t\n\v\f\r", reserved=(ACCOUNT, acl.ROOT)),
    "password": NameRule(length=4096, unit="bytes"),
    "host": NameRule(length=1, pattern="%"),
}


class RedisUsers(Users):
    """A tenant's users; the host is always ``%`` and there are no databases to name."""

    def create(self, name: str, password: Secret, *, host: str = "%", databases: tuple[str, ...] = ()) -> None:
        """Make a user as the request says, password included; an existing one is made so."""
        _check(name, host)
        if databases:
            raise BadInput("redis has no databases: a user reaches all keys", field="databases")
        hashed = _hashed(password)
        with agent(self.node) as connection:
            connection.call("ACL", "SETUSER", name, *acl.tenant_rules(hashed))
            connection.call("ACL", "SAVE")

    def delete(self, name: str, *, host: str = "%") -> None:
        """Delete a user; ``NotFound`` where there is none."""
        _check(name, host)
        with agent(self.node) as connection:
            gone = connection.call("ACL", "DELUSER", name)
            # Saved also where there was none: a kill may have come between the two before.
            connection.call("ACL", "SAVE")
        if not gone:
            raise NotFound(f"there is no user {name!r}", field="name")

    def list(self, *, after: str | None = None, limit: int = 1000) -> "builtins.list[dict[str, JSON]]":
        """List users as name, host and databases, from the first name after ``after``."""
        if limit < 1:
            raise BadInput("limit must be at least 1", field="limit")
        with agent(self.node) as connection:
            found = connection.items("ACL", "USERS")
        names = sorted(each.decode("utf-8", "backslashreplace") for each in found if isinstance(each, bytes))
        rest = [each for each in names if each not in (ACCOUNT, acl.ROOT) and (after is None or each > after)]
        return [{"name": each, "host": "%", "databases": []} for each in rest[:limit]]

    def set_password(self, name: str, password: Secret, *, host: str = "%") -> None:
        """Change a user's password; ``NotFound`` where there is none."""
        _check(name, host)
        hashed = _hashed(password)
        with agent(self.node) as connection:
            _require(connection, name)
            connection.call("ACL", "SETUSER", name, "resetpass", f"#{hashed}")
            connection.call("ACL", "SAVE")


class RedisRoot(Root):
    """The ``default`` user with a password, restricted as ``acl`` says."""

    def enable(self) -> dict[str, JSON]:
        """Make root, with a new password each time; return its name and password, once."""
        password = Secret(secrets.token_urlsafe(24))
        self.node.secrets.keep(ROOT_HASH, Secret(acl.digest(password)))
        self._settle()
        return {"name": acl.ROOT, "password": password.reveal()}

    def disable(self) -> None:
        """Take root away; no error where it is not enabled."""
        self.node.secrets.drop(ROOT_HASH)
        self._settle()

    def show(self) -> dict[str, JSON]:
        """Return whether root is enabled, as ``{"enabled": bool}``."""
        with agent(self.node) as connection:
            found = connection.items("ACL", "GETUSER", acl.ROOT)
        flags = found[1] if len(found) > 1 else None
        return {"enabled": isinstance(flags, builtins.list) and b"on" in flags}

    def _settle(self) -> None:
        with agent(self.node) as connection:
            connection.call("ACL", "SETUSER", acl.ROOT, *acl.root_rules(root_hash(self.node)))
            connection.call("ACL", "SAVE")


def _check(name: str, host: str) -> None:
    NAMES["user"].check(name, "name")
    if host != "%":
        raise BadInput("a redis user has no host: only % is accepted", field="host")


def _hashed(password: Secret) -> str:
    """Return what the server keeps of a password; ``BadInput`` never shows it."""
    try:
        NAMES["password"].check(password.reveal(), "password")
    except BadInput:
        raise BadInput("the password must be 1 to 4096 bytes of UTF-8 without NUL", field="password") from None
    return acl.digest(password)


def _require(connection: Connection, name: str) -> None:
    if connection.call("ACL", "GETUSER", name) is None:
        raise NotFound(f"there is no user {name!r}", field="name")
