"""The server itself: its first folder, its command, its one agent role.

A new server has one role, with a password that everybody knows.  It is shut by a private start on an address of this
machine, before the real one listens where others reach it.
"""

import secrets
import signal

from datastores.cassandra import jolokia, jvm
from datastores.cassandra.client import ACCOUNT, agent_password, forget, login, reached, session
from datastores.contract import Admin, Command, NotReady, Secret, ToolFailed

FIRST, OPEN = "cassandra", Secret("cassandra")
"""The role every new server has."""


class CassandraAdmin(Admin):
    """One agent role, and a way to the server's management."""

    def initialise(self) -> None:
        """Make a new data folder with the password of the server's management; what a killed attempt left is removed."""
        host, data = self.node.host, self.node.places.data
        host.remove(data)
        host.folder(data, mode=0o700)
        jolokia.write_access(self.node, data)

    def command(self) -> Command:
        """Return the server's command."""
        places = self.node.places
        return jvm.command(self.node, places.config, places.data, *jolokia.agent_options(self.node, places.data))

    def ping(self) -> None:
        """Return when a login as our role reads; on a new server the first role is asked for."""
        try:
            with session(self.node, timeout=10) as cql:
                cql.execute("SELECT release_version FROM system.local").one()
        except NotReady:
            with login(self.node, FIRST, OPEN, timeout=10) as cql:
                cql.execute("SELECT release_version FROM system.local").one()

    def version(self) -> str:
        """Return the running server's version, as ``5.0.6``."""
        with session(self.node, timeout=10) as cql:
            return str(cql.execute("SELECT release_version FROM system.local").one().release_version)

    def secure(self) -> None:
        """Have our role alone; the first one is shut, which a login that fails proves."""
        password = agent_password(self.node)
        try:
            with session(self.node) as cql:
                cql.execute("SELECT release_version FROM system.local")
        except NotReady:
            with login(self.node, FIRST, OPEN) as cql:
                cql.execute(
                    f"CREATE ROLE IF NOT EXISTS {ACCOUNT} WITH PASSWORD = '{password.reveal()}' "
                    "AND SUPERUSER = true AND LOGIN = true"
                )
        with session(self.node) as cql:
            cql.execute(
                f"ALTER ROLE IF EXISTS {FIRST} WITH PASSWORD = '{secrets.token_hex(32)}' "
                "AND SUPERUSER = false AND LOGIN = false"
            )
            forget(cql)
        try:
            with login(self.node, FIRST, OPEN):
                raise ToolFailed("the server's first role can still log in")
        except NotReady:
            return

    def quiesce(self) -> None:
        """Have everything written to tables, so that nothing is left in the log."""
        jolokia.Management(self.node, timeout=120).call(jolokia.STORAGE, "drain")

    def stop_signal(self) -> int:
        """SIGTERM is a clean shutdown."""
        return signal.SIGTERM

    def probe(self) -> None:
        """Write a mark of our own and read it back."""
        with session(self.node, timeout=15) as cql:
            cql.execute("SELECT release_version FROM system.local")
_ = reached
