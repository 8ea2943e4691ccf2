"""Letting the tenants in after a restore.

A restored folder's ACL file knows the agent alone; the backup's users wait beside it, in ``WAITING``,
until ``secure`` lets them in.  So nobody writes before the restored data was looked at.
"""

from datastores.contract import Node
from datastores.redis import acl
from datastores.redis.conf import read
from datastores.redis.wire import ACCOUNT, Connection

WAITING = "ostler.users"


def waiting(node: Node) -> bool:
    """Say whether this data was restored and its users are not let in yet."""
    return (node.places.data / WAITING).exists()


def admit(node: Node, connection: Connection) -> None:
    """Make the users that wait, as the backup had them; no error where none do."""
    if not waiting(node):
        return
    for text in (node.places.data / WAITING).read_bytes().split(b"\n"):
        words = text.split(b" ")
        if len(words) > 2 and words[1] not in (ACCOUNT.encode(), acl.ROOT.encode()):
            connection.call("ACL", "SETUSER", words[1], "reset", *words[2:])


def done(node: Node, connection: Connection) -> None:
    """Forget the waiting users, who are in the server's own file now, and what held for the first start."""
    if waiting(node):
        wanted = read((node.places.config / "redis.conf").read_bytes()).get("aof-load-truncated", "yes")
        connection.call("CONFIG", "SET", "aof-load-truncated", wanted)
        node.host.remove(node.places.data / WAITING)
