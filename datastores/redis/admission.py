"""Letting the tenants in after a restore.

A restored folder's ACL file knows the agent alone; the backup's users wait beside it, in ``WAITING``, until
``secure`` has counted the keys against the checkpoint (``RESTORED``).  So nobody writes before.  Then they are
``LET_IN``, which may be done again after a kill, and without counting: some may be at work already.
"""

import json

from datastores.contract import Mismatch, Node
from datastores.redis import acl
from datastores.redis.client import ACCOUNT, Connection, info
from datastores.redis.conf import FILE, read
from datastores.redis.moment import Position, counts

WAITING = "ostler.users"
LET_IN = "ostler.users.in"
RESTORED = "ostler.restored"


def waiting(node: Node) -> bool:
    """Say whether this data was restored and its users are not let in yet."""
    return (node.places.data / WAITING).exists()


def stands(node: Node, connection: Connection, wanted: Position | None = None) -> None:
    """Raise ``Mismatch`` unless this data was restored to ``wanted`` and, while nobody is in, holds its keys.

    Keys that expire may have gone since the backup; all others must be there, and no more.
    """
    path = node.places.data / RESTORED
    made = Position.of(json.loads(path.read_bytes())) if path.exists() else None
    if made is None or (wanted is not None and made != wanted):
        raise Mismatch("the server's data is not what was restored from this checkpoint")
    if made.counts is None or not waiting(node):
        return
    found = counts(connection.text("INFO", "keyspace"))
    for database in found.keys() | made.counts.keys():
        keys, expire = found.get(database, (0, 0))
        most, mortal = made.counts.get(database, (0, 0))
        if keys > most or keys - expire != most - mortal:
            raise Mismatch(
                f"database {database} holds {keys} keys ({expire} expire), the backup {most} ({mortal})",
                hint="a maxmemory too small for the backup makes the server drop keys",
            )
    if info(connection, "persistence").get("aof_last_write_status") != "ok":
        raise Mismatch("the server could not open its log")


def admit(node: Node, connection: Connection) -> None:
    """Make the users that wait, as the backup had them; no error where none do."""
    data = node.places.data
    if waiting(node):
        stands(node, connection)
        node.host.write(data / LET_IN, (data / WAITING).read_bytes())
        node.host.remove(data / WAITING)
    if not (data / LET_IN).exists():
        return
    for text in (data / LET_IN).read_bytes().split(b"\n"):
        words = text.split(b" ")
        if len(words) > 2 and words[1] not in (ACCOUNT.encode(), acl.ROOT.encode()):
            connection.call("ACL", "SETUSER", words[1], "reset", *words[2:])


def done(node: Node, connection: Connection) -> None:
    """Forget the users, who are in the server's own file now, and what held for the first start."""
    if (node.places.data / LET_IN).exists():
        wanted = read((node.places.config / FILE).read_bytes()).get("aof-load-truncated", "yes")
        connection.call("CONFIG", "SET", "aof-load-truncated", wanted)
        node.host.remove(node.places.data / LET_IN)
