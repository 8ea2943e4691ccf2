"""The server itself: its first folder, its command, its one agent role.

A new server has one role, with a password that everybody knows.  Where others than this machine reach it, our role is
made by a private server before that, and the first one never comes to be; else it is dropped once the server answers.
"""

import contextlib
import signal
import time

from datastores.cassandra import jolokia, jvm, root
from datastores.cassandra.client import ACCOUNT, Session, Shut, agent_password, forget, hashed, login, session
from datastores.cassandra.conf import read
from datastores.cassandra.dialect import across, literal
from datastores.cassandra.factors import replications
from datastores.cassandra.position import AUTH
from datastores.cassandra.private import make_account
from datastores.cassandra.rules import FALSE, TRUE
from datastores.cassandra.settings import own
from datastores.contract import Admin, Command, Mismatch, Node, NotReady, Secret, ToolFailed

FIRST, OPEN = "cassandra", Secret("cassandra")
"""The role every new server has."""
STATE = "system_ostler"
"""A keyspace of our own, among the server's."""
WRITE = "INSERT INTO system_ostler.state (id, mark) VALUES ('probe', %s) USING TIMESTAMP %s"
READ = "SELECT mark FROM system_ostler.state WHERE id = 'probe'"
INSECURE = {
    "user_defined_functions_threads_enabled": "false",
    "enable_user_defined_functions_threads": "false",
    "allow_insecure_udfs": "true",
    "allow_extra_insecure_udfs": "true",
    "scripted_user_defined_functions_enabled": "true",
    "enable_scripted_user_defined_functions": "true",
}
"""With any of these a tenant's function is the server's own code, and reaches its files and its keys."""


class CassandraAdmin(Admin):
    """One agent role, and a way to the server's management."""

    def initialise(self) -> None:
        """Make a new data folder that knows our password; what a killed attempt left is removed first."""
        host, data = self.node.host, self.node.places.data
        host.remove(data)
        host.folder(data, mode=0o700)
        jolokia.write_access(self.node, data)
        if not own(self.node.endpoint.host):
            make_account(self.node, data)

    def command(self) -> Command:
        """Return the server's command."""
        places = self.node.places
        return jvm.command(self.node, places.config, places.data, *jolokia.agent_options(self.node, places.data))

    def ping(self) -> None:
        """Return when a login as our role reads; where the server knows no such role yet, its first one's."""
        try:
            self.version()
        except Shut:
            with login(self.node, FIRST, OPEN, timeout=10) as cql:
                _version(cql)

    def version(self) -> str:
        """Return the running server's version, as ``5.0.6``."""
        with session(self.node, timeout=10) as cql:
            return _version(cql)

    def secure(self) -> None:
        """Have our role, the tenant's root as it was here, and prove that a new server's own is shut."""
        self._harmless()
        password = agent_password(self.node)
        try:
            self.version()
        except Shut:
            _take_over(self.node, password)
        with session(self.node) as cql:
            # With it goes what it was given: who made our role may change its password.
            cql.execute(f"DROP ROLE IF EXISTS {FIRST}")
            root.restore(self.node, cql)
            forget(cql)
            _keep_state(cql)
        try:
            with login(self.node, FIRST, OPEN, timeout=10):
                raise ToolFailed("the role that every new server has can still log in")
        except Shut:
            return

    def quiesce(self) -> None:
        """Remember the tenant's root, and have everything written to tables, so that nothing is left in the log."""
        with contextlib.suppress(NotReady), session(self.node, timeout=10) as cql:
            root.remember(self.node, cql)
        jolokia.Management(self.node, timeout=60).call(jolokia.STORAGE, "drain")

    def abandon(self) -> int:
        """Shut its doors, have everything written to tables, and kill it: a drain waits for two seconds in between."""
        management = jolokia.Management(self.node, timeout=60)
        with session(self.node) as cql:
            root.remember(self.node, cql)
            keyspaces = [AUTH, *replications(cql)]
        for each in ("stopNativeTransport()", "stopGossiping"):
            management.call(jolokia.STORAGE, each)
        for each in keyspaces:
            management.call(jolokia.STORAGE, jolokia.FLUSH, each, [])
        return signal.SIGKILL

    def stop_signal(self) -> int:
        """SIGTERM is a clean shutdown."""
        return signal.SIGTERM

    def probe(self) -> None:
        """Write a mark of our own and read it back: a later one wins, and is as good."""
        mark = time.time_ns() // 1000
        with session(self.node, timeout=15) as cql:
            cql.execute(WRITE, (mark, mark))
            found = cql.execute(READ).one()
        if found is None or found.mark < mark:
            raise NotReady("what was written to the server did not come back")

    def _harmless(self) -> None:
        written = read(self.node.places.config)
        for name, value in INSECURE.items():
            # The server reads as a truth what a newer YAML takes for a word.
            words = TRUE if value == "true" else FALSE
            if written.get(name, "").strip().lower() in words:
                raise Mismatch(f"the configuration has {name}: {value}, which gives tenants the server's own rights")


def _version(cql: Session) -> str:
    return str(cql.execute("SELECT release_version FROM system.local").one().release_version)


def _take_over(node: Node, password: Secret) -> None:
    """Make our role by the first one."""
    with login(node, FIRST, OPEN) as cql:
        known = f"HASHED PASSWORD = {literal(hashed(password))} AND SUPERUSER = true AND LOGIN = true"
        cql.execute(f"CREATE ROLE IF NOT EXISTS {ACCOUNT} WITH {known}")
        cql.execute(f"ALTER ROLE {ACCOUNT} WITH {known}")


def _keep_state(cql: Session) -> None:
    """Have the keyspace that says that the server is ours; ``ToolFailed`` where somebody used the time before."""
    if cql.execute("SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s", (STATE,)).one() is None:
        there = {each.role for each in cql.execute("SELECT role FROM system_auth.roles")}
        if strangers := there - {ACCOUNT, root.NAME}:
            raise ToolFailed(f"while the server was open, somebody made the role {min(strangers)[:80]!r}")
        (center,) = cql.execute("SELECT data_center FROM system.local").one()
        cql.execute(f"CREATE KEYSPACE IF NOT EXISTS {STATE} WITH replication = {across({center: 1})}")
        cql.execute(f"CREATE TABLE IF NOT EXISTS {STATE}.state (id text PRIMARY KEY, mark bigint)")
