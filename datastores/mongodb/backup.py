"""Backups of a MongoDB server: which snapshot is due, data folders, and what a kill left behind."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from datastores.contract import Backup, Checkpoint, Extent, File, Identity, Limits, Mismatch, NotReady, Since, Snapshot
from datastores.mongodb import oplog, private, standing
from datastores.mongodb.client import Client, agent
from datastores.mongodb.position import Position, set_id
from datastores.mongodb.reading import Reader, end_cursors
from datastores.mongodb.restore import Restored
from datastores.mongodb.snapshot import AfterHole, Full, Increment, Taken

LONG = 3600.0


class MongoBackup(Backup):
    """Full by raw batches, increments as slices of the oplog."""

    def server_id(self) -> str:
        """Return the identity of the replica set whose member answers: made with it, and anew by every restore."""
        with agent(self.node) as client:
            return set_id(client)

    @contextlib.contextmanager
    def snapshot(self, since: Since | None, limits: Limits) -> Iterator[Snapshot]:
        """Read the server; on leaving, also by an error, no cursor is left on it.

        ``Hole`` where the oplog since the parent has a gap; with ``on_hole`` ``full`` a full that sends what changed.
        """
        with agent(self.node, timeout=LONG) as client:
            server_id = set_id(client)
            if since is not None and since.checkpoint.server_id != server_id:
                raise Mismatch("the parent is a backup of other data", hint="take a full: --parent none")
            with contextlib.closing(Reader(client)) as reader:
                yield self._due(client, reader, server_id, since, limits)

    def restore(
        self, files: Sequence[File], extents: Iterator[Extent], checkpoint: Checkpoint, into: Path, identity: Identity
    ) -> None:
        """Fill the empty folder ``into`` by a private server on it; the agent's own account is this guest's."""
        Restored(self.node, into, checkpoint).fill(files, extents)

    def confirm(self, checkpoint: Checkpoint) -> None:
        """Raise ``Mismatch`` unless the running server stands exactly at ``checkpoint``.

        The server whose backup it is: by its oplog, in which nothing of the tenant's may have come after.  A restored
        one: by what it has now, collection by collection; what tenants wrote since does not count.
        """
        position = Position.of(checkpoint.position)
        with agent(self.node, timeout=LONG) as client:
            standing.serves(client, self.node.places.data)
            if set_id(client) == checkpoint.server_id:
                standing.stands(client, position)
            else:
                standing.restored(client, checkpoint)

    def sweep(self) -> None:
        """Remove what a killed restore left, and end the cursors of a killed snapshot.

        The server would keep those for ten minutes: they belong to a session, not to the connection that is gone.
        """
        private.sweep(self.node)
        with contextlib.suppress(NotReady), agent(self.node) as client:
            end_cursors(client)

    def _due(self, client: Client, reader: Reader, server_id: str, since: Since | None, limits: Limits) -> Taken:
        if since is not None:
            position = Position.of(since.checkpoint.position)
            hole = oplog.gap(client, position)
            if hole is None:
                return Increment(server_id, reader, limits, tuple(since.files), position)
            if since.on_hole != "full":
                raise hole
        if since is None:
            made = Full(server_id, reader, limits)
        else:
            made = AfterHole(server_id, reader, limits, since, self.node.places.temp)
        made.estimate = sum(int(client[each].command("dbStats")["dataSize"]) for each in client.list_database_names())
        return made
