"""The server itself: made, started, asked, and its doors closed."""

import json
import re
import signal
import uuid
from pathlib import Path

from pymysql.cursors import Cursor

from datastores.contract import Admin, Command, Host, Node, NotReady, ToolFailed
from datastores.mariadb import root
from datastores.mariadb.client import HOST, agent_account, rows, session
from datastores.mariadb.dialect import account

IDENTITY = "ostler-identity"
"""A file in the data folder that names these data; no backup tool copies it."""
CONFIG = "my.cnf"
SYSTEM = ("mariadb.sys", "localhost")
BY_PASSWORD = frozenset({"", "mysql_native_password", "mysql_old_password"})
PROBE = "CREATE TABLE IF NOT EXISTS mysql.ostler_probe (id INT PRIMARY KEY, mark CHAR(32) NOT NULL) ENGINE=InnoDB"


class MariaDBAdmin(Admin):
    """One agent account over the socket, and no other way in but the tenant's own users."""

    def initialise(self) -> None:
        """Make a new data folder; what a killed attempt left is removed first."""
        host, data = self.node.host, self.node.places.data
        host.remove(data)
        host.folder(data, mode=0o700)
        host.folder(self.node.places.temp)
        host.run(install(self.node, data), as_owner=True, timeout=300)
        name(host, data)

    def command(self) -> Command:
        """Return the server's command line: only where things are; all else stands in the file."""
        places = self.node.places
        config, data = places.config / CONFIG, places.data
        return Command((*server(self.node, f"--defaults-file={config}"), f"--datadir={data}"))

    def ping(self) -> None:
        """Ask the server for anything at all, as our account."""
        with session(self.node, timeout=10) as cursor:
            cursor.execute("SELECT 1")

    def version(self) -> str:
        """Return the version without the distribution's additions."""
        with session(self.node, timeout=10) as cursor:
            return plain_version(str(rows(cursor, "SELECT VERSION()")[0][0]))

    def secure(self) -> None:
        """Close every door but ours, and make the tenant's root what it was on this guest."""
        with session(self.node, logged=False) as cursor:
            close_doors(cursor)
            root.restore(self.node, cursor)

    def quiesce(self) -> None:
        """Remember the tenant's root, so that a restore brings this guest's back and not the backup's."""
        with session(self.node, timeout=10) as cursor:
            root.remember(self.node, cursor)

    def stop_signal(self) -> int:
        """SIGTERM is a clean shutdown."""
        return signal.SIGTERM

    def probe(self) -> None:
        """Write a row of our own, outside the binary log, and read it back before another probe writes it."""
        mark = uuid.uuid4().hex
        with session(self.node, logged=False, timeout=10) as cursor:
            cursor.execute(PROBE)
            cursor.execute("START TRANSACTION")
            cursor.execute("REPLACE INTO mysql.ostler_probe VALUES (1, %s)", (mark,))
            found = rows(cursor, "SELECT mark FROM mysql.ostler_probe WHERE id = 1")
            cursor.execute("COMMIT")
            if found != [(mark,)]:
                raise NotReady("what was written to the server did not come back")


def server(node: Node, first: str) -> tuple[str, ...]:
    """Return the beginning of every server command: where its own files lie; ``first`` must come first."""
    installation = node.installation
    return (
        str(installation.tools["server"]),
        first,
        f"--basedir={installation.basedir}",
        f"--lc-messages-dir={installation.basedir}/share/mysql",
        f"--character-sets-dir={installation.basedir}/share/mysql/charsets",
        f"--plugin-dir={installation.basedir}/lib/mysql/plugin",
    )


def install(node: Node, data: Path) -> Command:
    """Return the command that makes a data folder in which only our account can log in, over the socket."""
    installation = node.installation
    return Command(
        (
            str(installation.tools["install"]),
            "--no-defaults",
            f"--basedir={installation.basedir}",
            f"--lc-messages-dir={installation.basedir}/share/mysql",
            f"--datadir={data}",
            "--auth-root-authentication-method=socket",
            f"--auth-root-socket-user={agent_account()}",
            "--skip-test-db",
            "--skip-name-resolve",
            "--force",  # a guest whose own name cannot be looked up
        )
    )


def name(host: Host, data: Path) -> None:
    """Give the data in this folder a name of their own."""
    host.write(data / IDENTITY, uuid.uuid4().hex.encode(), mode=0o640)


def identity(data: Path) -> str:
    """Return the name of the data in this folder."""
    try:
        found = (data / IDENTITY).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotReady(f"the data of this server have no name: {type(error).__name__}") from error
    if not re.fullmatch(r"[0-9a-f]{32}", found):
        raise ToolFailed(f"{IDENTITY} does not hold a name")
    return found


def plain_version(text: str) -> str:
    """Return ``10.11.6`` of ``10.11.6-MariaDB-…``."""
    found = re.match(r"\d+\.\d+\.\d+", text)
    if not found:
        raise ToolFailed(f"the server's version {text[:40]!r} is not understood")
    return found[0]


def close_doors(cursor: Cursor) -> None:
    """Remove anonymous and password-less accounts, other agents' accounts and what everybody may do.

    No database is dropped: one that is called ``test`` may be a tenant's, and nobody but its users gets in.
    """
    ensure_agent(cursor)
    for user, host, raw in rows(cursor, "SELECT User, Host, Priv FROM mysql.global_priv"):
        if open_door(str(user), str(host), str(raw)):
            cursor.execute(f"DROP USER IF EXISTS {account(str(user), str(host))}")
    cursor.execute("DELETE FROM mysql.db WHERE User = ''")
    cursor.execute("DELETE FROM mysql.proxies_priv")
    cursor.execute("FLUSH PRIVILEGES")


def ensure_agent(cursor: Cursor) -> None:
    """Make our own account what it must be."""
    for statement in agent_statements():
        cursor.execute(statement)


def agent_statements() -> tuple[str, ...]:
    """Return the statements that make our account: one a line, for a file the server reads as well."""
    ours = account(agent_account(), HOST)
    return (
        f"CREATE USER IF NOT EXISTS {ours} IDENTIFIED VIA unix_socket",
        f"ALTER USER {ours} IDENTIFIED VIA unix_socket ACCOUNT UNLOCK PASSWORD EXPIRE NEVER",
        f"GRANT ALL PRIVILEGES ON *.* TO {ours} WITH GRANT OPTION",
    )


def open_door(user: str, host: str, raw: str) -> bool:
    """Say whether an account, as ``mysql.global_priv`` describes it, is a way in that must not be."""
    if (user, host) in ((agent_account(), HOST), SYSTEM):
        return False
    found = json.loads(raw)
    if found.get("is_role"):
        return False
    ways = {str(each.get("plugin", "")) for each in (found, *found.get("auth_or", ()))}
    empty = not found.get("authentication_string") and not found.get("account_locked") and bool(ways & BY_PASSWORD)
    ours = user == agent_account() != root.NAME
    return user == "" or ours or "unix_socket" in ways or empty
