"""A data folder made of a backup's files: written, prepared, and its doors closed before anyone can knock.

A backup brings the accounts of the guest it was taken on.  So a private server, which listens on no network and on a
socket of its own only, is run on the folder once: before it takes any connection it makes the account
of this guest's agent (an init file), then the agent closes the doors through it and sets the GTID.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from pymysql.cursors import Cursor

from datastores.contract import Command, Extent, File, Incomplete, Mismatch, Node, NotReady, ToolFailed
from datastores.direct import DirectFile
from datastores.mariadb import root
from datastores.mariadb.admin import agent_statements, close_doors, name, server
from datastores.mariadb.client import rows, session
from datastores.mariadb.position import Gtids
from datastores.mariadb.settings import DOMAIN, LOG

COMPLETED = b"completed OK!"
DEFAULTS = "backup-my.cnf"
INIT, SOCKET, PID = "private-init.sql", "private.sock", "private.pid"
MEMORY = "32M"
PATIENCE = 120.0


def written(files: Sequence[File], extents: Iterator[Extent], into: Path) -> None:
    """Write each file, its bytes as they come; ``Incomplete`` where one is missing or not whole."""
    expected = iter([each for each in files if not each.private])
    for path, pieces in groupby(extents, key=itemgetter(0)):
        file = next(expected, None)
        if file is None or path not in (file.path, file.stored):
            raise Incomplete(f"the backup sends {path} where its inventory has {file.path if file else 'no more'}")
        _write(file, pieces, into)
    if (missing := next(expected, None)) is not None:
        raise Incomplete(f"the backup sends nothing of {missing.path}")


def last_line(errors: bytes) -> bytes:
    """Return the last line a tool wrote."""
    return errors.rstrip().rsplit(b"\n", 1)[-1]


class Restored:
    """The folder ``into`` on its way from a backup's files to a data folder of this guest."""

    def __init__(self, node: Node, into: Path) -> None:
        self._node = node
        self._into = into
        self._socket = node.places.run / SOCKET
        self._init = node.places.temp / INIT

    def finish(self, gtids: Gtids) -> None:
        """Apply the redo log, set the position, close the doors; durable: the server may then start on the folder."""
        host, into = self._node.host, self._into
        host.folder(self._node.places.temp)
        host.own(into)
        self._prepare()
        # Without any binary log the server takes its state from this file: GTIDs go on where the backup's ended.
        host.write(into / f"{LOG}.state", "".join(f"{each}\n" for each in str(gtids).split(",") if each).encode())
        name(host, into)
        try:
            self._close(gtids)
        finally:
            self.sweep()
        for each in (into / DEFAULTS, *into.glob("xtrabackup_*")):
            host.remove(each)
        # Once for all files: one by one, each of a thousand small tables would wait for the disk.
        os.sync()

    def sweep(self) -> None:
        """Remove what the private server needed."""
        for each in (self._socket, self._init, self._node.places.run / PID):
            self._node.host.remove(each)

    def _prepare(self) -> None:
        program = str(self._node.installation.tools["backup"])
        command = Command((program, "--prepare", f"--use-memory={MEMORY}", f"--target-dir={self._into}"))
        done = self._node.host.run(command, as_owner=True, timeout=24 * 3600.0)
        if not last_line(done.stderr).endswith(COMPLETED):
            raise ToolFailed("mariadb-backup --prepare ended without saying that it completed")

    def _close(self, gtids: Gtids) -> None:
        """Run the private server; its being answered by our own account proves that the init file was read."""
        node = self._node.at(endpoint=replace(self._node.endpoint, port=0, socket=self._socket))
        lines = ("SET sql_log_bin=0", *agent_statements())
        node.host.write(self._init, "".join(f"{each};\n" for each in lines).encode())
        with node.host.stream(self._private(), as_owner=True) as running:
            self._answered(node)
            with session(node, logged=False) as cursor:
                close_doors(cursor)
                root.restore(node, cursor)
                self._place(cursor, gtids)
                cursor.execute("SHUTDOWN")
            running.finish()

    def _private(self) -> Command:
        first = f"--defaults-file={self._into / DEFAULTS}"
        return Command(
            (
                *server(self._node, first),
                f"--datadir={self._into}",
                f"--socket={self._socket}",
                f"--pid-file={self._node.places.run / PID}",
                f"--tmpdir={self._node.places.temp}",
                f"--init-file={self._init}",
                f"--log-bin={LOG}",
                f"--server-id={self._node.server_number}",
                f"--gtid-domain-id={DOMAIN}",
                f"--innodb-buffer-pool-size={MEMORY}",
                "--skip-networking",
                "--skip-slave-start",
                "--event-scheduler=OFF",
                "--log-slave-updates",
                "--binlog-format=ROW",
            )
        )

    def _answered(self, node: Node) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with session(node, timeout=10) as cursor:
                    served = Path(str(rows(cursor, "SELECT @@datadir")[0][0]))
                if not served.samefile(self._into):
                    raise Mismatch(f"the private server serves {served}")
                return
            except NotReady:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def _place(self, cursor: Cursor, gtids: Gtids) -> None:
        """Set what was replayed; the binary log must have found its state already."""
        cursor.execute("SET GLOBAL gtid_slave_pos = %s", (str(gtids),))
        ((logged,),) = rows(cursor, "SELECT @@global.gtid_binlog_pos")
        if Gtids.parse(str(logged)) != gtids:
            raise Mismatch(f"the restored binary log stands at {logged!r}, not at {gtids}")


def _write(file: File, pieces: Iterator[Extent], into: Path) -> None:
    path = into / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with DirectFile(path, file.mode & 0o660, file.size) as target:
        for _, offset, piece in pieces:
            if offset != target.size:
                raise Incomplete(f"the backup sends {file.path} at {offset}, not at {target.size}")
            target.write(piece)
        if target.size != file.size:
            raise Incomplete(f"the backup has {target.size} bytes of {file.path}, its inventory {file.size}")
