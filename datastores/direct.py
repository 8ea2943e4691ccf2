"""Writing the large files of a restore past the page cache.

The bytes are written once and read by nobody soon, while the old data is still being served: in the page cache they
would push out what its server needs, and a page that is fresh costs more processor time than what is put there.
"""

import fcntl
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Self

ALIGNMENT = 4096
WINDOW = 1 << 20


class DirectFile:
    """A new file that is written from its beginning to its end; small ones, and file systems that cannot, as ever.

    ``size`` is how much will come.  Nothing is durable until somebody syncs the folder's file system.
    """

    def __init__(self, path: Path, mode: int, size: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._number = os.open(path, flags, mode)
        self._window: mmap.mmap | None = mmap.mmap(-1, WINDOW) if size >= WINDOW and self._ask(True) else None
        self._used = 0
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` after what was written before."""
        rest = memoryview(data)
        self.size += len(rest)
        if self._window is None:
            self._put(rest)
            return
        while len(rest):
            room = min(len(rest), WINDOW - self._used)
            self._window[self._used : self._used + room] = rest[:room]
            self._used += room
            rest = rest[room:]
            if self._used == WINDOW:
                self._flush(self._window, WINDOW)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._window is not None:
                self._finish(self._window)
        finally:
            os.close(self._number)
            if self._window is not None:
                self._window.close()

    def _finish(self, window: mmap.mmap) -> None:
        """Write what is left: whole blocks as the others, the rest through the cache."""
        whole = self._used - self._used % ALIGNMENT
        rest = bytes(window[whole : self._used])
        if whole:
            self._flush(window, whole)
        self._ask(False)
        self._put(memoryview(rest))

    def _flush(self, window: mmap.mmap, length: int) -> None:
        with memoryview(window) as view, view[:length] as full:
            self._put(full)
        self._used = 0

    def _put(self, rest: memoryview) -> None:
        while len(rest):
            rest = rest[os.write(self._number, rest) :]

    def _ask(self, direct: bool) -> bool:
        """Turn direct writing on or off; say whether the file system does it."""
        flags = fcntl.fcntl(self._number, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._number, fcntl.F_SETFL, flags | os.O_DIRECT if direct else flags & ~os.O_DIRECT)
        except OSError:
            return False
        return True
