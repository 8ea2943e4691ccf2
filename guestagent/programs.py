"""Programs that die with the agent, whatever ends it.

A parent-death signal fires when the *thread* that forked ends, so every program is
started by one thread that lives as long as the process.  ``setpriv`` sets the signal
after it has changed the account (the kernel forgets it when credentials change), which
also spares us code between fork and exec.
"""

import contextlib
import fcntl
import os
import queue
import re
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import IO

from datastores.contract import ToolFailed

STDERR_KEPT = 64 * 1024
PIPE_SIZE = 1024 * 1024
_MESSAGE = 600
_F_SETPIPE_SZ = 1031


class Starter:
    """Start programs from one thread that never ends."""

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[tuple[Sequence[str], dict[str, object], Future[subprocess.Popen[bytes]]]]
        self._wanted = queue.SimpleQueue()
        self._once = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        stdin: int | IO[bytes] = subprocess.PIPE,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start ``argv`` in a session of its own; ``ToolFailed`` where it cannot be run."""
        with self._once:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="starter", daemon=True)
                self._thread.start()
        made: Future[subprocess.Popen[bytes]] = Future()
        options: dict[str, object] = {
            "env": dict(env),
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
            "pass_fds": pass_fds,
        }
        self._wanted.put((argv, options, made))
        try:
            return made.result()
        except OSError as error:
            raise ToolFailed(f"{argv[0]} could not be started: {error.strerror}") from error

    def _serve(self) -> None:
        while True:
            argv, options, made = self._wanted.get()
            try:
                made.set_result(
                    subprocess.Popen(argv, bufsize=0, cwd="/", start_new_session=True, **options)  # type: ignore[call-overload]
                )
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                made.set_exception(error)


STARTER = Starter()


class Program:
    """A running program: its output as it comes, its errors kept short, its whole group killed on ``end``.

    It satisfies ``contract.Stream``.  ``name`` is how messages call it, ``hidden`` what they must not show.
    """

    def __init__(self, process: subprocess.Popen[bytes], name: str, hidden: bytes = b"") -> None:
        self._process = process
        self._name = name
        self._hidden = hidden
        self._late: float | None = None
        self.errors = b""
        self._pump = threading.Thread(target=self._keep_errors, name=f"stderr of {name}", daemon=True)
        self._pump.start()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    _widen(pipe.fileno())

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from standard output; return 0 only at its end."""
        return _raw(self._process.stdout).readinto(buffer) or 0  # type: ignore[attr-defined]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` to standard input; ``ToolFailed`` says why the program has gone."""
        try:
            self.send(data)
        except BrokenPipeError:
            self.finish()
            raise ToolFailed(f"{self._name} stopped reading before the end") from None

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` to standard input; ``BrokenPipeError`` where nobody reads it."""
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[_raw(self._process.stdin).write(rest) :]

    def finish(self) -> None:
        """Close standard input, wait; raise ``ToolFailed`` unless the status is 0."""
        self.close_input()
        scrap = memoryview(bytearray(65536))
        while self.readinto(scrap):
            pass
        status = self._reap()
        if self._late is not None:
            raise ToolFailed(f"{self._name} did not end within {self._late:g} s")
        if status:
            raise ToolFailed(f"{self._name} ended with {_said(status)}{self._last_words()}")

    def close_input(self) -> None:
        """Let the program see the end of its input; a reader that has gone is no error here."""
        with contextlib.suppress(BrokenPipeError):
            _raw(self._process.stdin).close()

    def expire(self, seconds: float) -> None:
        """Kill the program's group because its time is over; ``finish`` will say so."""
        self._late = seconds
        self.kill()

    def kill(self) -> None:
        """Kill the whole group; the leader is not reaped yet, so the group's number is still ours."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Leave nothing behind: kill, reap and close."""
        if self._process.returncode is None:
            self.kill()
            self._reap()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _reap(self) -> int:
        if self._process.returncode is None:
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            self.kill()
        self._pump.join(timeout=5)
        return self._process.wait()

    def _keep_errors(self) -> None:
        source = _raw(self._process.stderr)
        kept = bytearray()
        while chunk := source.read(16384):
            kept += chunk
            del kept[:-STDERR_KEPT]
            self.errors = bytes(kept)
        source.close()

    def _last_words(self) -> str:
        words = printable(_without(self.errors, self._hidden), _MESSAGE)
        return f": {words}" if words else ""


def printable(raw: bytes, limit: int) -> str:
    """Return the last ``limit`` characters of what a program wrote, its control characters escaped."""
    text = raw.decode("utf-8", "backslashreplace").strip()
    clean = "".join(c if c.isprintable() else " | " if c == "\n" else f"\\x{ord(c):02x}" for c in text)
    return clean if len(clean) <= limit else "…" + clean[-limit:]


def _without(text: bytes, secret: bytes) -> bytes:
    """Take a secret out of a program's words: its lines, and what stands behind ``=`` in them."""
    lines = [line.strip() for line in secret.splitlines()]
    values = [line.partition(b"=")[2].strip().strip(b"\"'") for line in lines if b"=" in line]
    for part in sorted((each for each in (*lines, *values) if each), key=len, reverse=True):
        text = re.sub(re.escape(part), b"***", text)
    return text


def _said(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    return f"signal {signal.Signals(-status).name}"


def _raw(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ToolFailed("the program was started without this pipe")
    return pipe


def _widen(number: int) -> None:
    fcntl.fcntl(number, _F_SETPIPE_SZ, PIPE_SIZE)
