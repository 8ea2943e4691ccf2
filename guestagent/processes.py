"""Processes as the kernel shows them: who is alive, since when, and who serves a data folder."""

import contextlib
import os
import re
import select
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Identity:
    """One process for all time: its id, its start (clock ticks since boot) and the boot."""

    pid: int
    started: int
    boot: str

    def alive(self) -> bool:
        """Say whether it still runs; a zombie has gone, with the last of its threads."""
        return self.boot == boot_id() and _started(self.pid) == self.started


def identify(pid: int) -> Identity | None:
    """Return who ``pid`` is now, or None where nobody (or a zombie) is."""
    started = _started(pid)
    return None if started is None else Identity(pid, started, boot_id())


@cache
def boot_id() -> str:
    """Return the kernel's own name of this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def end(process: Identity, number: int, timeout: float) -> bool:
    """Send a signal to exactly this process and wait; return whether it has gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        if not process.alive():
            return True
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        return bool(waiting.poll(timeout * 1000)) or not process.alive()
    finally:
        os.close(handle)


def serving(program: Path, data: Path, config: Path) -> Identity | None:
    """Find a process of this program on this data, whoever started it.

    It is known by its binary (or script) and by its working directory, an argument or an open
    file: some servers rewrite their arguments, others change their directory.
    """
    real = program.resolve()
    for pid in _pids():
        with contextlib.suppress(OSError):
            if _runs(pid, real) and _uses(pid, data, config):
                return identify(pid)
    return None


def at_work(programs: Iterable[Path], folder: Path, but: tuple[Path, Path]) -> list[Identity]:
    """Find the processes of these programs that use a folder, whoever started them; not one that serves ``but``.

    ``but`` are the data and the configuration of a server, which may have files of that folder open, too.
    """
    known, found = {each.resolve() for each in programs}, list[Identity]()
    for pid in _pids():
        with contextlib.suppress(OSError):
            mine = any(_runs(pid, each) for each in known) and _uses(pid, folder, folder)
            if mine and not _uses(pid, *but):
                found += filter(None, [identify(pid)])
    return found


def wait_until(moment: float) -> float:
    """Return the seconds left until a moment of the monotonic clock, never less than 0."""
    return max(0.0, moment - time.monotonic())


def _pids() -> Iterator[int]:
    return (int(each.name) for each in PROC.iterdir() if each.name.isdigit())


def _started(pid: int) -> int | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *rest = text.rpartition(")")[2].split()
    # Killed, its first thread may be a zombie while others still hold its port and its locks.
    gone = state in "Xx" or (state == "Z" and int(rest[16]) <= 1)
    return None if gone else int(rest[18])


def _arguments(pid: int) -> list[str]:
    raw = (PROC / str(pid) / "cmdline").read_bytes()
    return [os.fsdecode(each) for each in raw.split(b"\0") if each]


def _runs(pid: int, program: Path) -> bool:
    with contextlib.suppress(OSError):
        if (PROC / str(pid) / "exe").readlink() == program:
            return True
    return str(program) in (os.path.realpath(each) for each in _arguments(pid)[:4] if each.startswith("/"))


def _uses(pid: int, data: Path, config: Path) -> bool:
    folder = PROC / str(pid)
    with contextlib.suppress(OSError):
        if _below(folder / "cwd", data.resolve()):
            return True
    words = "\0".join(_arguments(pid))
    named = "|".join(re.escape(str(each)) for each in {data, data.resolve(), config})
    if re.search(rf"(?:{named})(?:/|\0|$)", words):
        return True
    with contextlib.suppress(OSError):
        return any(_below(each, data.resolve()) for each in (folder / "fd").iterdir())
    return False


def _below(link: Path, folder: Path) -> bool:
    try:
        return link.readlink().is_relative_to(folder)
    except OSError:
        return False
