"""Unpacking a backup into a directory, with nothing but the store and the key."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from objectstore.archive.contents import Contents
from objectstore.archive.model import Entry, check_path
from objectstore.store import BadRequest, Corrupt, NoRoom

Progress = Callable[[int, int], None]


def extract(contents: Contents, into: Path, progress: Progress | None = None) -> None:
    """Write every file of a backup below ``into``, which is new or empty; durable on return.

    ``BadRequest`` where ``into`` holds something.  Nothing is written outside it.  ``progress`` gets the bytes that
    were written and those that will have been.
    """
    total, done = sum(entry.size for entry in contents.files), 0
    entries = {entry.path: entry for entry in contents.files}
    writer = _Writer(_prepared(into), entries)
    try:
        for path, offset, data in contents.extents():
            writer.write(path, offset, data)
            done += len(data)
            if progress is not None:
                progress(done, total)
        writer.finish()
    except OSError as error:
        kind = NoRoom if error.errno in (errno.ENOSPC, errno.EDQUOT) else BadRequest
        raise kind(f"extract into {into}: {error.strerror}", field="into") from error
    finally:
        writer.leave()


def _prepared(into: Path) -> Path:
    try:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(into.iterdir()):
            raise BadRequest(f"{into} is not empty", field="into", hint="give a new or empty directory")
    except OSError as error:
        raise BadRequest(f"{into} cannot be used: {error.strerror}", field="into") from error
    return into


class _Writer:
    """Write one file after the other; no path leads out of the root, and no link is followed."""

    def __init__(self, root: Path, entries: dict[str, Entry]) -> None:
        self._root = root
        self._entries = entries
        self._path = ""
        self._fd = -1
        self._at = 0
        self._folders = {root}

    def write(self, path: str, offset: int, data: memoryview) -> None:
        if path != self._path:
            self.leave()
            self._open(path)
        if offset != self._at:
            raise Corrupt(f"{path!r:.120} continues at {offset}, not at {self._at}")
        while len(data):
            written = os.write(self._fd, data)
            self._at += written
            data = data[written:]

    def finish(self) -> None:
        """Make every directory durable, too."""
        self.leave()
        for folder in sorted(self._folders, reverse=True):
            _synchronise(folder)

    def leave(self) -> None:
        """Make the file that is open durable, and close it."""
        if self._fd >= 0:
            fd, self._fd, self._path = self._fd, -1, ""
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def _open(self, path: str) -> None:
        target = self._root / check_path(path)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folders.update(folder for folder in target.parents if self._root in folder.parents)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW
        self._fd = os.open(target, flags, 0o600)
        os.fchmod(self._fd, (self._entries[path].mode & 0o777) | 0o600)
        self._path, self._at = path, 0


def _synchronise(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
