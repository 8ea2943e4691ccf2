"""The server itself: its first folder, its command, its one agent account."""

import secrets
import signal
import uuid

from datastores.contract import Admin, Command, Node, NotReady, Secret
from datastores.redis import acl, admission
from datastores.redis.client import ACCOUNT, PASSWORD, Connection, ServerError, agent, info

ROOT_HASH = "root-hash"
IDENTITY = "ostler.id"
CONFIG = "redis.conf"
_PROBE = "ostler:probe"


class RedisAdmin(Admin):
    """The agent's account stands in the very first ACL file, so that no open door ever exists."""

    def initialise(self) -> None:
        """Make ``places.data``, empty or half-made, the data of a new server; not while it runs."""
        host, data = self.node.host, self.node.places.data
        host.remove(data)
        host.folder(data)
        host.write(data / IDENTITY, str(uuid.uuid4()).encode())
        host.write(data / acl.FILE, acl.initial(agent_hash(self.node), root_hash(self.node)))

    def command(self) -> Command:
        """Return the server's command, to run in the foreground as its owner, reading ``places.config``.

        The first start after a restore refuses a log whose tail is damaged, whatever the settings say.
        """
        tool = str(self.node.installation.tools["server"])
        strict = ("--aof-load-truncated", "no") if admission.waiting(self.node) else ()
        return Command((tool, str(self.node.places.config / CONFIG), *strict))

    def ping(self) -> None:
        """Return when the server answers our account; else raise ``NotReady``."""
        with agent(self.node, timeout=10) as connection:
            try:
                connection.call("PING")
            except ServerError as error:
                raise NotReady(str(error)) from error

    def version(self) -> str:
        """Return the running server's version, as ``7.0.15``."""
        with agent(self.node) as connection:
            return info(connection, "server")["redis_version"]

    def secure(self) -> None:
        """Leave one agent account and no open door; idempotent.  Also after a restore.

        Users and passwords stay what they are (after a restore: the backup's, let in now); a user
        without a password loses the way in; ``default`` is this guest's root, or closed.
        """
        with agent(self.node) as connection:
            connection.call("ACL", "SETUSER", ACCOUNT, *acl.agent_rules(agent_hash(self.node)))
            connection.call("ACL", "SETUSER", acl.ROOT, *acl.root_rules(root_hash(self.node)))
            admission.admit(self.node, connection)
            _close_open_doors(connection)
            connection.call("ACL", "SAVE")
            admission.done(self.node, connection)

    def quiesce(self) -> None:
        """See that the server answers; it writes its log by itself when it is told to end."""
        with agent(self.node) as connection:
            connection.call("PING")

    def stop_signal(self) -> int:
        """Return the signal that ends the server cleanly."""
        return signal.SIGTERM

    def probe(self) -> None:
        """Write something of our own and read it back, unseen by others; ``NotReady`` where it does not hold."""
        nonce = secrets.token_hex(8).encode()
        with agent(self.node, timeout=10) as connection:
            commands = (("MULTI",), ("SET", _PROBE, nonce), ("GET", _PROBE), ("DEL", _PROBE), ("EXEC",))
            found = connection.pipeline(commands)[-1]
        if isinstance(found, ServerError):
            raise NotReady(str(found))
        if found != [b"OK", nonce, 1]:
            raise NotReady("what was written was not read back")


def agent_hash(node: Node) -> str:
    """Return the agent's password as the server keeps it; it is made where there is none yet."""
    secret = node.secrets.load(PASSWORD)
    if secret is None:
        secret = Secret(secrets.token_hex(32))
        node.secrets.keep(PASSWORD, secret)
    return acl.digest(secret)


def root_hash(node: Node) -> str | None:
    """Return root's password as the server keeps it, or None where root is not enabled."""
    kept = node.secrets.load(ROOT_HASH)
    return None if kept is None else kept.reveal()


def _close_open_doors(connection: Connection) -> None:
    for each in connection.items("ACL", "LIST"):
        text = each if isinstance(each, bytes) else b""
        words = text.split(b" ")
        if b"nopass" in words[2:]:
            connection.call("ACL", "SETUSER", words[1], "resetpass")
