"""The tenant's root: everything in the tenant's keyspaces, and keyspaces of its own; it makes no roles.

The server has no superuser that is one in part: a superuser reads and writes the tables of roles, ends our account
and makes others.  So root is none.  Nor is it given rights on all keyspaces at once, for those of the
server, roles and all, are among them.  It holds a closed list on each keyspace of the tenant, those made later
included, and the right to make keyspaces; on one it has made itself the server lets it grant, too.

Root belongs to the guest, not to the data: its salted hash is kept among the agent's secrets, and after a restore
root is again what it was here, whatever the backup's was.
"""

import re
import secrets
from collections.abc import Iterable

from datastores.cassandra.client import Session, forget, hashed, session
from datastores.cassandra.dialect import grants, identifier, literal
from datastores.cassandra.factors import replications
from datastores.contract import JSON, Node, Root, Secret

NAME = "root"
KEPT = "tenant-root"
HASH = re.compile(r"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")


class CassandraRoot(Root):
    """Root as a role with a closed list of rights."""

    def enable(self) -> "dict[str, JSON]":
        """Make root with a new random password, kept nowhere but as its salted hash."""
        password = Secret(secrets.token_urlsafe(24))
        kept = Secret(hashed(password))
        with session(self.node) as cql:
            _have(cql, kept)
        self.node.secrets.keep(KEPT, kept)
        return {"name": NAME, "password": password.reveal()}

    def disable(self) -> None:
        """Take root away; no error where it is not enabled."""
        with session(self.node) as cql:
            _have(cql, None)
        self.node.secrets.drop(KEPT)

    def show(self) -> "dict[str, JSON]":
        """Ask the server, not our memory."""
        with session(self.node) as cql:
            return {"enabled": found(cql) is not None}


def restore(node: Node, cql: Session) -> None:
    """Make root what is kept about it: its hash and the closed list of rights, or gone."""
    _have(cql, node.secrets.load(KEPT))


def _have(cql: Session, kept: Secret | None) -> None:
    if found(cql) is not None:
        cql.execute(f"DROP ROLE IF EXISTS {identifier(NAME)}")
    if kept is not None:
        known = f"HASHED PASSWORD = {literal(kept.reveal())} AND LOGIN = true AND SUPERUSER = false"
        cql.execute(f"CREATE ROLE {identifier(NAME)} WITH {known}")
        cql.execute(f"GRANT CREATE ON ALL KEYSPACES TO {identifier(NAME)}")
        admit(cql, replications(cql))
    forget(cql)


def remember(node: Node, cql: Session) -> None:
    """Keep root's hash, which changes when it changes its own password."""
    kept, there = node.secrets.load(KEPT), found(cql)
    if kept is not None and there != kept.reveal() and HASH.fullmatch(there or ""):
        node.secrets.keep(KEPT, Secret(str(there)))


def admit(cql: Session, keyspaces: Iterable[str]) -> None:
    """Give root, where it is enabled, its rights on these keyspaces."""
    if found(cql) is not None:
        for statement in (statement for each in keyspaces for statement in grants(each, NAME)):
            cql.execute(statement)


def found(cql: Session) -> str | None:
    """Return root's salted hash, empty where it has none; None where root is not enabled."""
    row = cql.execute("SELECT salted_hash FROM system_auth.roles WHERE role = %s", (NAME,)).one()
    return None if row is None else str(row.salted_hash or "")
