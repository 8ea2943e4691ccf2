"""Threads that share one failure: the first error of any of them reaches everyone who waits.

Nothing here waits without looking at the failure, so nothing hangs on a thread that died.
"""

import mmap
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress


class Monitor:
    """One condition and one failure for all the threads of a draft."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.error: BaseException | None = None

    def wait(self, ready: Callable[[], bool]) -> None:
        """Wait, holding ``changed``, until ``ready`` or the failure, which is raised."""
        self.changed.wait_for(lambda: self.error is not None or ready())
        self.check()

    def check(self) -> None:
        """Raise the failure, if there is one."""
        if self.error is not None:
            raise self.error

    def fail(self, error: BaseException) -> None:
        """Make ``error`` the failure, unless there is one already."""
        with self.changed:
            self.error = self.error or error
            self.changed.notify_all()


class Crew:
    """A few threads and the bounded line of jobs before them."""

    def __init__(self, monitor: Monitor, name: str, size: int, line: int, nice: int = 0) -> None:
        self._monitor = monitor
        self._most = size + line
        self._pending = 0
        self._pool = ThreadPoolExecutor(size, name, initializer=_be_nice, initargs=(nice,))

    def submit(self, job: Callable[[], None]) -> None:
        """Hand over a job; wait while the line is full; raise the failure, if there is one."""
        with self._monitor.changed:
            self._monitor.wait(lambda: self._pending < self._most)
            self._pending += 1
        self._pool.submit(job).add_done_callback(self._done)

    def drain(self) -> None:
        """Wait until every job is done; raise the failure, if there is one."""
        with self._monitor.changed:
            self._monitor.wait(lambda: self._pending == 0)

    def stop(self) -> None:
        """Drop what has not begun, and end the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _done(self, future: "Future[None]") -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._monitor.fail(error)
        with self._monitor.changed:
            self._pending -= 1
            self._monitor.changed.notify_all()


class Buffers:
    """A fixed number of buffers that are used again and again; one takes memory as far as it was ever filled."""

    def __init__(self, monitor: Monitor, count: int, size: int) -> None:
        self._monitor = monitor
        self._left = count
        self._size = size
        self._free: list[mmap.mmap] = []

    def take(self) -> mmap.mmap:
        """Return a buffer, its content undefined; wait for one; raise the failure, if there is one."""
        with self._monitor.changed:
            self._monitor.wait(lambda: bool(self._free) or self._left > 0)
            if self._free:
                return self._free.pop()
            self._left -= 1
        return mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def give(self, buffer: mmap.mmap) -> None:
        """Give a buffer back."""
        with self._monitor.changed:
            self._free.append(buffer)
            self._monitor.changed.notify_all()

    def close(self) -> None:
        """Let the memory go now: what a cycle of objects holds is freed only when the collector comes by."""
        self._free.clear()


def _be_nice(nice: int) -> None:
    if nice:
        with suppress(OSError):  # a limit that cannot be had is no reason to fail
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
