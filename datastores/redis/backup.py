"""Backups of a Redis server: which snapshot is due, data folders, and what a kill left behind."""

import contextlib
import json
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from datastores.contract import (
    Backup,
    BadInput,
    Checkpoint,
    Extent,
    File,
    Hole,
    Identity,
    Limits,
    Mismatch,
    Since,
    Snapshot,
)
from datastores.redis import acl, admission
from datastores.redis.admin import IDENTITY, agent_hash, root_hash
from datastores.redis.borrowed import borrowed, settle
from datastores.redis.chain import Chain
from datastores.redis.client import Connection, agent, info
from datastores.redis.conf import FILE, read
from datastores.redis.fingerprints import Table
from datastores.redis.folder import Folder
from datastores.redis.moment import Position
from datastores.redis.psync import Feed
from datastores.redis.snapshot import AfterHole, Full, Increment
from datastores.redis.versions import traits


class RedisBackup(Backup):
    """Full over PSYNC, increments as slices of the stream, a full after a hole by fingerprints."""

    def server_id(self) -> str:
        """Return the identity of this data: made with it, and made anew by every restore."""
        try:
            return (self.node.places.data / IDENTITY).read_text()
        except FileNotFoundError as error:
            raise Mismatch("this data was not made here: it has no identity") from error

    @contextlib.contextmanager
    def snapshot(self, since: Since | None, limits: Limits) -> Iterator[Snapshot]:
        """Follow the server; on leaving, also by an error, no trace is left on it.

        ``BadInput`` where ``min-replicas-to-write`` is set: for the server a backup looks like a replica
        that is up to date, so it would take writes that the setting forbids.  The pace is the caller's:
        the server waits for a slow reader.
        """
        identity = self.server_id()
        if since is not None and since.checkpoint.server_id != identity:
            raise Mismatch("the parent is a backup of other data", hint="take a full: --parent none")
        with agent(self.node) as connection:
            _refuse(connection)
            if since is not None:
                with contextlib.closing(Feed(self.node)) as feed:
                    hole = self._hole(connection, feed, since)
                    if not hole:
                        chain, start = Chain.of(since.files), Position.of(since.checkpoint.position)
                        yield Increment(identity, connection, feed, chain, start)
                        return
                if since.on_hole != "full":
                    raise Hole(hole, hint="--on-hole full takes a full that stores only what changed")
            with borrowed(self.node, connection), contextlib.closing(Feed(self.node)) as feed:
                yield self._full(identity, connection, feed, since)

    def restore(
        self, files: Sequence[File], extents: Iterator[Extent], checkpoint: Checkpoint, into: Path, identity: Identity
    ) -> None:
        """Fill the empty folder ``into`` with a data folder that the server starts on.

        Only the agent's account (and this guest's root) is in its ACL file; the backup's users wait
        until ``secure`` has seen that the data is what the checkpoint says.
        """
        position, host = Position.of(checkpoint.position), self.node.host
        Chain.of(files).prove(position)
        self._fits(position)
        users = Folder(files, traits(self.node.installation.version), into).fill(extents)
        host.write(into / acl.FILE, acl.initial(agent_hash(self.node), root_hash(self.node)))
        host.write(into / admission.WAITING, users)
        host.write(into / admission.RESTORED, json.dumps(position.to_json()).encode())
        host.write(into / IDENTITY, str(uuid.uuid4()).encode())
        host.own(into)

    def confirm(self, checkpoint: Checkpoint) -> None:
        """Raise ``Mismatch`` unless the running server stands exactly at ``checkpoint``.

        The server whose backup it is: by replication id and offset.  A restored one: its folder was made
        for that very position (dump and slices proven gapless, the log read to its last byte at start), and
        until its users are let in the keys of every database are counted, too.
        """
        wanted = Position.of(checkpoint.position)
        with agent(self.node) as connection:
            told = info(connection, "replication")
            if told["master_replid"] == wanted.replication_id:
                if int(told["master_repl_offset"]) != wanted.offset:
                    raise Mismatch(f"the server stands at {told['master_repl_offset']}, not at {wanted.offset}")
                return
            admission.stands(self.node, connection, wanted)

    def sweep(self) -> None:
        """Put back the settings a killed dump had borrowed; its connection is gone with its process."""
        settle(self.node)

    def _full(self, identity: str, connection: Connection, feed: Feed, since: Since | None) -> Snapshot:
        ways = traits(self.node.installation.version)
        estimate = int(info(connection, "memory")["used_memory_dataset"])
        if since is not None:
            parent = Chain.of(since.files)
            table = _table(parent, since)
            if table is not None and table.version == ways.rdb:
                return AfterHole(identity, connection, feed, ways, estimate, parent, table)
        return Full(identity, connection, feed, ways, estimate)

    def _hole(self, connection: Connection, feed: Feed, since: Since) -> str:
        """Return what the hole is, or "" where the stream goes on from the parent's end."""
        start, told = Position.of(since.checkpoint.position), info(connection, "replication")
        if not traits(self.node.installation.version).exact_expiry:
            return (
                f"redis {self.node.installation.version} streams spans instead of moments of expiry,"
                " so what came since the parent could not be replayed exactly"
            )
        missing = (
            f"the replication stream {start.replication_id} from {start.offset + 1} on is gone: the server has"
            f" {told['master_replid']} from {told['repl_backlog_first_byte_offset']} to {told['master_repl_offset']}"
        )
        # Asked for what it has not, the server would begin a dump at once; so it is asked only where it may have it.
        if start.replication_id not in (told["master_replid"], told["master_replid2"]):
            return missing
        if told["repl_backlog_active"] != "1" or int(told["repl_backlog_first_byte_offset"]) > start.offset + 1:
            return missing
        return "" if feed.resume(start.replication_id, start.offset) == start.replication_id else missing

    def _fits(self, position: Position) -> None:
        """Raise ``Mismatch`` where the backup uses database numbers that this server's settings do not have."""
        path = self.node.places.config / FILE
        written = read(path.read_bytes()) if path.exists() else {}
        most = max((int(each) for each in position.counts or {}), default=0)
        if most >= int(written.get("databases", "16")):
            raise Mismatch(f"the backup uses database {most}: set databases to more than that", field="databases")


def _table(parent: Chain, since: Since) -> Table | None:
    """Return the fingerprints the parent had, or None where it has none."""
    if parent.table is None:
        return None
    table = Table.load(since.private(parent.table.path))
    for each in parent.deltas:
        table.change(since.private(each.path))
    return table


def _refuse(connection: Connection) -> None:
    found = connection.items("CONFIG", "GET", "min-replicas-to-write")
    if len(found) == 2 and found[1] != b"0":
        raise BadInput(
            "a backup would count as a good replica for min-replicas-to-write",
            field="min-replicas-to-write",
            hint="set min-replicas-to-write to 0 for the time, or back up a replica",
        )
