"""Backups of a Cassandra node: links that the server makes of its files, data folders, and what a kill left."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from datastores.cassandra import jvm, private
from datastores.cassandra.client import session
from datastores.cassandra.jolokia import STORAGE, Management
from datastores.cassandra.layout import TABLES
from datastores.cassandra.position import Position, host_id, now, run
from datastores.cassandra.restore import Restored, restored
from datastores.cassandra.schema import Schema
from datastores.cassandra.snapshot import TAG, Linked, tag
from datastores.contract import (
    Backup,
    Checkpoint,
    Extent,
    File,
    Identity,
    Incomplete,
    Limits,
    Mismatch,
    Since,
    Snapshot,
)

ATTEMPTS = 3
LONG = 3600.0
TAKE = "takeSnapshot(java.lang.String,java.util.Map,[Ljava.lang.String;)"


class CassandraBackup(Backup):
    """Every backup has all that the server linked; SSTables that the parent has are not sent again."""

    identities: ClassVar[tuple[Identity, ...]] = ("same", "new")
    # It writes no table with less than 50 MiB free, and has two segments of the log beside.
    reserve: ClassVar[int] = 96 << 20

    def server_id(self) -> str:
        """Return the host id: made with the node's data; a restore keeps it, or has the server make another."""
        with session(self.node) as cql:
            return host_id(cql)

    @contextlib.contextmanager
    def snapshot(self, since: Since | None, limits: Limits) -> Iterator[Snapshot]:
        """Have the server link its files; on leaving, also by an error, no link is left.

        What was acknowledged before the ``with`` is entered is in it.
        """
        self.sweep()
        try:
            yield self._linked(since)
        finally:
            self.sweep()

    def restore(
        self, files: Sequence[File], extents: Iterator[Extent], checkpoint: Checkpoint, into: Path, identity: Identity
    ) -> None:
        """Fill the empty folder ``into``: ``same`` is the node itself once more, ``new`` another with its tokens."""
        Restored(self.node, into, checkpoint, identity).fill(files, extents)

    def confirm(self, checkpoint: Checkpoint) -> None:
        """Raise ``Mismatch`` unless the running server stands exactly at ``checkpoint``.

        A restored node: its tokens, its schema with the ids of tables, and its host id, kept or not as was asked for;
        what tenants did since does not count.  The node whose backup it is: also that nothing was written since.
        """
        wanted = Position.of(checkpoint.position)
        with session(self.node) as cql:
            here = now(cql, Schema.read(cql), self.node.places.data)
        wrong = wanted.differs(here, restored(self.node, wanted))
        if wrong:
            raise Mismatch(f"the server does not stand at {wanted}: {wrong}")

    def sweep(self) -> None:
        """Remove links under our tags, of tables that were dropped, too, and what a private server left."""
        for each in (self.node.places.data / TABLES).glob(f"*/*/snapshots/{TAG}*"):
            self.node.host.remove(each)
        private.sweep(self.node)
        jvm.sweep(self.node)

    def _run(self) -> int:
        with session(self.node) as cql:
            return run(cql)

    def _linked(self, since: Since | None) -> Linked:
        """Have links and a schema that belong together."""
        for _ in range(ATTEMPTS):
            with session(self.node, timeout=LONG) as cql:
                schema = Schema.read(cql)
                position = now(cql, schema, self.node.places.data)
                if since is not None and since.checkpoint.server_id != position.host_id:
                    raise Mismatch("the parent is a backup of other data", hint="take a full: --parent none")
                name = tag()
                Management(self.node, timeout=LONG).call(STORAGE, TAKE, name, {}, [])
                unchanged = Schema.read(cql) == schema
            if unchanged:
                data, parent = self.node.places.data / TABLES, since.files if since is not None else None
                return Linked(data, name, schema, position, private.mark(self.node), parent, self._run)
            self.sweep()
        raise Incomplete("the schema changed each time the server linked its files", hint="take it again")
