"""``ProcessService``: the database server as a process of its own, which outlives the agent.

The server is started detached, under its own account, and recorded with its id, its start and
the boot, so that a restarted agent adopts it.  Before anything is started, the machine is
searched for a server on the same data: one whose record was lost in a kill, or one started by
hand.  A second server is therefore never started on the same data.
"""

import contextlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path

from datastores.contract import Admin, DatastoreError, Fate, Node, NotReady, ToolFailed
from guestagent.files import durable
from guestagent.host import LocalHost, account, switched
from guestagent.processes import Identity, end, identify, serving, wait_until
from guestagent.programs import STARTER, printable

KILLED_AFTER = 10.0
YOUNG = 300.0
"""Seconds within which a server that was started and never answered has failed when it ends."""
LOG_LIMIT = 16 * 1024 * 1024
_QUOTED = 1500


class ProcessService:
    """Keep ``contract.Service`` for one node; ``record`` is the agent's own file, not the server's."""

    def __init__(self, node: Node, admin: Admin, record: Path) -> None:
        self._node = node
        self._admin = admin
        self._record = record
        self._host = LocalHost(
            node.installation.owner,
            node.installation.group,
            temp=node.places.temp,
            within=(),
            libraries=node.installation.libraries,
        )
        self._guard = threading.RLock()
        self._child: subprocess.Popen[bytes] | None = None
        self._launched: float | None = None
        """When the server was started that has not answered yet, by the monotonic clock."""
        self._known = self._recorded()

    @property
    def log(self) -> Path:
        """Return the file that has what the server says of itself."""
        return self._node.places.log / "server.log"

    def start(self, *, timeout: float = 120.0) -> None:
        """Start, or adopt, and wait until it answers; ``ToolFailed`` quotes the log of one that died."""
        until = time.monotonic() + timeout
        with self._guard:
            found = self.pid() is not None or self._adopt()
            if not found:
                self._launch()
            young = self._launched is not None and time.monotonic() - self._launched < YOUNG
            try:
                self._wait_for_answer(until, timeout)
            except ToolFailed:
                # One that was found may have been about to end: killed, it takes a while to be gone.  One that we
                # have started, and that never answered, has failed.
                if young or self._adopt():
                    raise
                self._launch()
                self._wait_for_answer(until, timeout)

    def stop(self, *, timeout: float = 120.0, data: Fate = "kept") -> None:
        """Quiesce, end it and wait until it is gone; it is killed when ``timeout`` seconds were not enough.

        ``data`` that is replaced: it is abandoned, as its datastore sees fit; that is discarded: it is not quiesced.
        """
        until = time.monotonic() + timeout
        with self._guard:
            if self.pid() is None and not self._adopt():
                return
            server = self._known
            if server is None:
                return
            number = self._admin.stop_signal()
            with contextlib.suppress(DatastoreError):
                if data == "replaced":
                    number = self._admin.abandon()
                elif data == "kept":
                    self._admin.quiesce()
            if not end(server, number, wait_until(until)) and not end(server, 9, KILLED_AFTER):
                raise NotReady(f"server {server.pid} does not end, not even killed")
            self._forget()

    def pid(self) -> int | None:
        """Return the server's own process id, or None where it does not run."""
        self._reap()
        server = self._known
        return server.pid if server is not None and server.alive() else None

    def _launch(self) -> None:
        command = self._admin.command()
        self._node.places.log.mkdir(parents=True, exist_ok=True)
        argv = [*switched(*self._ids(), as_owner=True, dies=False), *command.argv]
        number = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        with os.fdopen(number, "ab", buffering=0) as log:
            if os.geteuid() == 0:
                os.fchown(number, *self._ids())
            if os.fstat(number).st_size > LOG_LIMIT:
                os.ftruncate(number, 0)
            self._child = STARTER.start(
                argv,
                env={**self._host.environment, **command.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._launched = time.monotonic()
        self._remember(identify(self._child.pid))

    def _adopt(self) -> bool:
        """Take over a server on our data that we have no record of."""
        places = self._node.places
        found = serving(self._node.installation.tools["server"], places.data, places.config)
        if found is not None:
            self._launched = None
            self._remember(found)
        return found is not None

    def _wait_for_answer(self, until: float, timeout: float) -> None:
        pause, last = 0.01, NotReady("it is starting")
        while True:
            try:
                self._admin.ping()
                if self.pid() is not None:
                    self._launched = None
                    return
            except NotReady as error:
                last = error
            if self.pid() is None:
                raise ToolFailed(f"the server ended before it answered: {self._last_words()}")
            if wait_until(until) == 0.0:
                raise NotReady(f"the server (pid {self.pid()}) did not answer within {timeout:g} s: {last}") from last
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def _last_words(self) -> str:
        """Quote the end of the newest log."""
        logs = dict[float, Path]()
        for each in self._node.places.log.iterdir():
            # A server may put its log away meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if each.is_file() and not each.is_symlink():
                    logs[each.stat().st_mtime] = each
        with contextlib.suppress(FileNotFoundError, ValueError), logs[max(logs)].open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            return printable(file.read(), _QUOTED)
        return "it left no log"

    def _ids(self) -> tuple[int, int]:
        return account(self._node.installation.owner, self._node.installation.group)

    def _reap(self) -> None:
        child = self._child
        if child is not None and child.poll() is not None:
            self._child = None

    def _recorded(self) -> Identity | None:
        try:
            kept = json.loads(self._record.read_text())
            return Identity(int(kept["pid"]), int(kept["started"]), str(kept["boot"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _remember(self, server: Identity | None) -> None:
        self._known = server
        if server is None:
            return
        kept = {"pid": server.pid, "started": server.started, "boot": server.boot}
        durable(self._record, json.dumps(kept).encode())

    def _forget(self) -> None:
        self._reap()
        self._known = None
        self._record.unlink(missing_ok=True)
