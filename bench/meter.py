"""What work costs: CPU seconds of a process tree, the peak of its memory, and the wall clock."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PAUSE = 0.1


@dataclass
class Cost:
    """CPU seconds (user and system, children that ended included), wall seconds, peak PSS and stored bytes.

    ``tools`` is the part of ``cpu`` that the database's own programs took, where it is known.
    """

    cpu: float = 0.0
    tools: float = 0.0
    wall: float = 0.0
    pss_bytes: int = 0
    anonymous_bytes: int = 0
    stored_bytes: int = 0


@contextmanager
def metered(roots: Callable[[], list[int]], besides: Callable[[], set[int]], cost: Cost) -> Iterator[None]:
    """Watch the trees below ``roots()`` (without the processes of ``besides()``, the servers) for their peak PSS."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(PAUSE):
            cost.pss_bytes = max(cost.pss_bytes, sum(pss(each) for each in tree(roots(), besides())))

    watcher = threading.Thread(target=watch)
    began = time.monotonic()
    watcher.start()
    try:
        yield
    finally:
        cost.wall = time.monotonic() - began
        done.set()
        watcher.join()


@contextmanager
def anonymous(pid: int, cost: Cost) -> Iterator[None]:
    """Watch one process's anonymous memory; ``cost`` has its peak."""
    done, path = threading.Event(), Path(f"/proc/{pid}/smaps_rollup")

    def watch() -> None:
        while not done.wait(PAUSE / 2):
            lines = path.read_text().splitlines()
            sizes = [int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:")]
            cost.anonymous_bytes = max(cost.anonymous_bytes, *sizes)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def tree(roots: list[int], besides: set[int]) -> set[int]:
    """Return the processes of these trees that run now."""
    found: set[int] = set()
    for pid in roots:
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(pid)
            found |= {pid, *(each.pid for each in family.children(recursive=True))}
    return found - besides


def running(program: Path) -> set[int]:
    """Return the processes of one program, such as the database's server, private ones of a restore too."""
    return {each.pid for each in psutil.process_iter(["exe"]) if each.info["exe"] == str(program)}


def pss(pid: int) -> int:
    """Return a process's proportional set size in bytes, 0 where it has gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def spent(pid: int) -> tuple[float, float]:
    """Return the CPU seconds of a running process, and of its children that have ended."""
    used = psutil.Process(pid).cpu_times()
    return used.user + used.system, used.children_user + used.children_system


def waited(pid: int) -> tuple[int, float]:
    """Wait for a child of ours; return its exit status and the CPU seconds of it and its own ended children."""
    _, status, usage = os.wait4(pid, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
