"""Snapshots by ``mariadb-backup``, and data folders of what they held.

The tool reads the data folder beside the running server and sends an xbstream; nothing is spooled.  It
copies all of the redo log since the last checkpoint, so a checkpoint is made first.  What is copied is
consistent at the stream's end: that position is the checkpoint's.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pymysql.err import MySQLError

from datastores.contract import (
    Backup,
    Blocks,
    Checkpoint,
    Command,
    Extent,
    File,
    Identity,
    Incomplete,
    Limits,
    Mismatch,
    Node,
    NotReady,
    Since,
    Snapshot,
    Stream,
    Whole,
)
from datastores.mariadb import pages
from datastores.mariadb.admin import identity
from datastores.mariadb.client import agent_account, rows, session
from datastores.mariadb.position import Gtids, Told, goes_on
from datastores.mariadb.restore import COMPLETED, Restored, last_line, written
from datastores.mariadb.xbstream import Demultiplexer, plain

SCRATCH = "backup"
ATTEMPTS = 3
NOT_COPIED = ("ib_logfile", "ibtmp", "binlog.", "aria_log")
SMALL = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Have the tool's C library give large buffers back: it takes a sixth less memory, and no more time."""


class MariaDBSnapshot(Snapshot):
    """What the tool sends; run again where it cannot have told the truth."""

    def __init__(self, node: Node, server: str, run: Callable[[], Stream], speed: int) -> None:
        self._node = node
        self._server = server
        self._run = run
        self._bandwidth = speed
        self._told = Told()
        self._demultiplexer = Demultiplexer(lambda _: 0)

    def extents(self) -> Iterator[Extent]:
        """Yield the stream's extents; the tool must have ended well, have said so, and have kept up with the tenant."""
        for attempt in range(ATTEMPTS):
            self._told = Told()
            stream = self._run()
            self._demultiplexer = Demultiplexer(stream.readinto, attempt)
            yield from self._paced()
            stream.finish()
            if not last_line(stream.errors).endswith(COMPLETED):
                raise Incomplete("mariadb-backup ended without saying that it completed")
            doubtful = self._doubtful()
            if doubtful is None:
                return
        raise NotReady(
            f"while it was copied, {doubtful} was replaced {ATTEMPTS} times",
            hint="tables that are not InnoDB cannot be replaced for ever while a backup is taken",
        )

    def blocks(self, path: str, head: memoryview) -> Blocks | Whole:
        """Compare InnoDB by pages, the rest by hashes; what is new every time not at all."""
        return pages.blocks(plain(path), head, f"{self._server}.{self._node.epoch}")

    def files(self) -> list[File]:
        """Return the files there are at the stream's end."""
        return self._demultiplexer.files()

    def checkpoint(self) -> Checkpoint:
        """Return what the tool wrote of its position; anything missing in it is an error."""
        self.files()
        return Checkpoint(self._server, self._told.position())

    def _paced(self) -> Iterator[Extent]:
        began, sent = time.monotonic(), 0
        for path, offset, piece in self._demultiplexer.extents():
            self._told.listen(plain(path), offset, piece)
            yield path, offset, piece
            sent += len(piece)
            if self._bandwidth:
                time.sleep(max(0.0, sent / self._bandwidth - (time.monotonic() - began)))

    def _doubtful(self) -> str | None:
        over, missing = self._demultiplexer.replaced()
        there = (each for each in sorted(missing) if (self._node.places.data / each).exists())
        return next(iter(sorted(over)), None) or next(there, None)


class MariaDBBackup(Backup):
    """Full reads; what is kept of them is the archive's choice, page by page."""

    def server_id(self) -> str:
        """Return the name in the data folder, once the server has said that the folder is its own."""
        return running_identity(self.node)

    @contextmanager
    def snapshot(self, since: Since | None, limits: Limits) -> Iterator[Snapshot]:
        """Run the tool for the length of the ``with``; leaving early kills it, and its locks go with its connection."""
        server = running_identity(self.node)
        scratch = self.node.places.temp / SCRATCH
        self.sweep()
        self.node.host.folder(scratch, mode=0o700)
        keep_redo_small(self.node)
        command = tool(self.node, scratch, limits.workers)
        try:
            with ExitStack() as running:
                made = MariaDBSnapshot(
                    self.node,
                    server,
                    lambda: running.enter_context(self.node.host.stream(command, nice=limits.nice)),
                    limits.bandwidth,
                )
                made.kind = "full" if since is None else "incremental"
                made.estimate = estimate(self.node.places.data)
                yield made
        finally:
            self.node.host.remove(scratch)

    def restore(
        self, files: Sequence[File], extents: Iterator[Extent], checkpoint: Checkpoint, into: Path, identity: Identity
    ) -> None:
        """Write the files, let the tool apply the redo log, then let a private server close the doors."""
        gtids = Gtids.parse(str(checkpoint.position.get("gtid")))
        written(files, extents, into)
        Restored(self.node, into).finish(gtids)

    def confirm(self, checkpoint: Checkpoint) -> None:
        """Compare GTID and log position; what tenants wrote since a restore does not count against it."""
        wanted = Gtids.parse(str(checkpoint.position.get("gtid")))
        with session(self.node) as cursor:
            ((replayed, logged),) = rows(cursor, "SELECT @@global.gtid_slave_pos, @@global.gtid_binlog_pos")
            lsn = int(str(rows(cursor, "SHOW GLOBAL STATUS LIKE 'Innodb_lsn_current'")[0][1]))
        stands = Gtids.parse(str(logged))
        restored = bool(wanted.parts) and Gtids.parse(str(replayed)) == wanted
        if stands != wanted and not (restored and goes_on(stands, wanted, self.node.server_number)):
            raise Mismatch(f"the server stands at GTID {logged!r}, the backup was taken at {str(wanted)!r}")
        if lsn < int(str(checkpoint.position.get("end_lsn"))):
            raise Mismatch(f"the server stands at log position {lsn}, before the backup's")

    def sweep(self) -> None:
        """Remove what a killed snapshot or restore left in our folders; the server ends a gone tool's locks itself."""
        host, places = self.node.host, self.node.places
        host.remove(places.temp / SCRATCH)
        Restored(self.node, places.staging).sweep()


def running_identity(node: Node) -> str:
    """Return the name of the data that the answering server really serves."""
    with session(node) as cursor:
        served = Path(str(rows(cursor, "SELECT @@datadir")[0][0]))
    if not served.samefile(node.places.data):
        raise Mismatch(f"the server at our socket serves {served}, not {node.places.data}")
    return identity(node.places.data)


def keep_redo_small(node: Node) -> None:
    """Write out what is open and make a checkpoint, in a bounded time; only the backup's size depends on it."""
    with session(node, logged=False, timeout=120) as cursor:
        cursor.execute("SET SESSION lock_wait_timeout=3")
        with suppress(MySQLError):
            cursor.execute("FLUSH LOCAL TABLES")
        cursor.execute("SET GLOBAL innodb_log_checkpoint_now=ON")


def tool(node: Node, scratch: Path, workers: int) -> Command:
    """Return the tool's command line; it logs in as we do, so it knows no password."""
    return Command(
        (
            str(node.installation.tools["backup"]),
            "--no-defaults",
            "--backup",
            "--stream=xbstream",
            f"--parallel={max(1, workers)}",
            f"--user={agent_account()}",
            f"--socket={node.endpoint.socket}",
            f"--datadir={node.places.data}",
            f"--target-dir={scratch}",
            f"--tmpdir={scratch}",
        ),
        SMALL,
    )


def estimate(data: Path) -> int:
    """Return about how many bytes will come: the files there are, less those the tool does not copy."""
    total = 0
    for folder in (data, *(each for each in data.iterdir() if each.is_dir())):
        with suppress(FileNotFoundError), os.scandir(folder) as found:
            for each in found:
                # A table may be dropped while we look.
                with suppress(FileNotFoundError):
                    total += each.stat().st_size if each.is_file() and not each.name.startswith(NOT_COPIED) else 0
    return total
