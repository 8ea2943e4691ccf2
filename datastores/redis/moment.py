"""Where a server stands at one moment, and where a backup stands."""

from collections.abc import Mapping
from dataclasses import dataclass

from datastores.contract import JSON, Mismatch, ToolFailed
from datastores.redis import acl
from datastores.redis.client import ACCOUNT, Connection, Reply, ServerError, fields

Counts = Mapping[str, tuple[int, int]]
"""Keys, and how many of them expire, by database number."""


@dataclass(frozen=True)
class Position:
    """A point of a replication stream; ``counts`` is None where they are not known for that very point."""

    replication_id: str
    offset: int
    counts: Counts | None = None

    def to_json(self) -> dict[str, JSON]:
        """Return it as a checkpoint's position."""
        found: dict[str, JSON] = {"replication_id": self.replication_id, "offset": self.offset}
        if self.counts is not None:
            found["keys"] = {db: list(pair) for db, pair in self.counts.items()}
        return found

    @classmethod
    def of(cls, position: Mapping[str, JSON]) -> "Position":
        """Read a checkpoint's position; ``Mismatch`` where it is none of ours."""
        name, offset, keys = position.get("replication_id"), position.get("offset"), position.get("keys")
        if not isinstance(name, str) or not isinstance(offset, int) or not isinstance(keys, dict | None):
            raise Mismatch("the checkpoint has no replication id and offset", field="position")
        return cls(name, offset, None if keys is None else {db: _pair(pair) for db, pair in keys.items()})


@dataclass(frozen=True)
class Moment:
    """One moment of a server: its position, and its tenants' users as lines of an ACL file."""

    position: Position
    users: bytes


def settled(connection: Connection) -> Moment:
    """Read position, counts and users in one transaction: no write comes between them."""
    commands = (("MULTI",), ("INFO", "replication"), ("INFO", "keyspace"), ("ACL", "LIST"), ("EXEC",))
    found = connection.pipeline(commands)[-1]
    if isinstance(found, ServerError) or not isinstance(found, list) or len(found) != 3:
        raise ToolFailed("the server did not tell where it stands")
    replication, keyspace, users = found
    told = fields(_text(replication))
    position = Position(told["master_replid"], int(told["master_repl_offset"]), counts(_text(keyspace)))
    return Moment(position, _tenants(users))


def counts(keyspace: str) -> Counts:
    """Return the counts in INFO's section keyspace."""
    found = {}
    for name, text in fields(keyspace).items():
        pairs = dict(each.split("=", 1) for each in text.split(","))
        found[name.removeprefix("db")] = (int(pairs["keys"]), int(pairs["expires"]))
    return found


def _tenants(users: Reply) -> bytes:
    lines = [each for each in users if isinstance(each, bytes)] if isinstance(users, list) else []
    ours = (ACCOUNT.encode(), acl.ROOT.encode())
    return b"".join(each + b"\n" for each in lines if each.split(b" ", 2)[1] not in ours)


def _text(reply: Reply) -> str:
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else ""


def _pair(value: JSON) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(each, int) for each in value):
        raise Mismatch("the checkpoint's counts of keys cannot be read", field="position")
    first, second = value
    return int(str(first)), int(str(second))
