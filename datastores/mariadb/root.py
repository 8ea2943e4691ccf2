"""The tenant's root: everything in the tenant's databases, nothing beside them.

The rights are a closed list.  Without CREATE USER, RELOAD, SUPER and their kin root can neither lock the
agent out nor end its work; without FILE and the right to load plugins it cannot reach the machine.
The server takes the most particular grant of those that fit a database, so the grants on the system
databases hide the one on ``%``: the tables of accounts are out of root's reach.  Root may not grant, because a
pattern such as ``mys_l`` would get around that; users are made through the agent.

Root belongs to the guest, not to the data: its hash is kept among the agent's secrets, and after a restore
root is again what it was here, whatever the backup's was.
"""

import json
import re
import secrets
import string

from pymysql.cursors import Cursor

from datastores.contract import JSON, Node, Root, Secret
from datastores.mariadb.client import HOST, agent_account, rows, session
from datastores.mariadb.dialect import account, identifier, native_hash

NAME = "root"
KEPT = "tenant-root"
LENGTH = 32
GLOBAL = "PROCESS, SHOW DATABASES, BINLOG MONITOR"
HIDDEN = {"mysql": "SHOW VIEW", "sys": "SELECT, EXECUTE, SHOW VIEW", "performance_schema": "SELECT"}
ALPHABET = string.ascii_letters + string.digits


class MariaDBRoot(Root):
    """Root at every host; over the socket only where the agent itself does not run as root."""

    def enable(self) -> "dict[str, JSON]":
        """Make root with a new random password, kept nowhere but as its hash."""
        password = Secret("".join(secrets.choice(ALPHABET) for _ in range(LENGTH)))
        self.node.secrets.keep(KEPT, Secret(native_hash(password)))
        with session(self.node) as cursor:
            restore(self.node, cursor)
        return {"name": NAME, "password": password.reveal()}

    def disable(self) -> None:
        """Take root away; its open connections keep what they have until they end."""
        self.node.secrets.drop(KEPT)
        with session(self.node) as cursor:
            restore(self.node, cursor)

    def show(self) -> "dict[str, JSON]":
        """Ask the server, not our memory."""
        with session(self.node) as cursor:
            return {"enabled": _hash(cursor) is not None}


def hosts() -> tuple[str, ...]:
    """Return the hosts of the tenant's root; ``root`` at localhost may be the agent's own account."""
    return ("%",) if agent_account() == NAME else ("%", HOST)


def restore(node: Node, cursor: Cursor) -> None:
    """Make root what is kept about it: its hash and the closed list of rights, or gone."""
    kept = node.secrets.load(KEPT)
    for (host,) in rows(cursor, "SELECT Host FROM mysql.global_priv WHERE User = %s", (NAME,)):
        if (str(host) not in hosts() or kept is None) and (NAME, str(host)) != (agent_account(), HOST):
            cursor.execute(f"DROP USER {account(NAME, str(host))}")
    if kept is not None:
        for who in (account(NAME, each) for each in hosts()):
            cursor.execute(f"CREATE OR REPLACE USER {who} IDENTIFIED BY PASSWORD '{kept.reveal()}'")
            for statement in _grants(who):
                cursor.execute(statement)


def remember(node: Node, cursor: Cursor) -> None:
    """Keep root's hash where root has changed its own password."""
    kept, found = node.secrets.load(KEPT), _hash(cursor)
    if kept is not None and found != kept.reveal() and re.fullmatch(r"\*[0-9A-F]{40}", found or ""):
        node.secrets.keep(KEPT, Secret(str(found)))


def _grants(who: str) -> list[str]:
    particular = [f"GRANT {rights} ON {identifier(database)}.* TO {who}" for database, rights in HIDDEN.items()]
    return [*particular, f"GRANT ALL PRIVILEGES ON `%`.* TO {who}", f"GRANT {GLOBAL} ON *.* TO {who}"]


def _hash(cursor: Cursor) -> str | None:
    found = rows(cursor, "SELECT Priv FROM mysql.global_priv WHERE User = %s AND Host = '%%'", (NAME,))
    return str(json.loads(str(found[0][0])).get("authentication_string", "")) if found else None
