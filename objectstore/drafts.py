"""Writing a file below an open directory so that it is there whole or not at all.

A draft is a dot file that its writer holds a lock on.  It is filled and
synchronised, then published under its name, and last the directory is
synchronised.  Names are relative to a directory's descriptor (``folder``, opened for
walking only), so nothing is followed out of it and nobody can exchange the path
under a writer.
"""

import errno
import fcntl
import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from objectstore.store import Buffer, checksum

PREFIX = ".put-"
_GRACE = 60.0  # seconds between a draft's making and its lock; many times what it takes
_BATCH = 1024  # buffers in one writev: the least that Linux promises
_CHUNK = 1 << 20
_LARGE = 1 << 18  # bytes from which the page cache is worth a thought
_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW  # O_PATH: walking needs no right to list
_TURNS = 20  # a folder may be removed under a writer by who deletes its last object
_numbers = itertools.count()


@contextmanager
def closing(fd: int) -> Iterator[int]:
    """Close a descriptor at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


def enter(folder: int, name: str) -> int:
    """Open a directory below ``folder`` for walking; a symbolic link is none."""
    return os.open(name, _WALK, dir_fd=folder)


@contextmanager
def listable(folder: int) -> Iterator[int]:
    """Open ``folder`` again for listing or synchronising."""
    with closing(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)) as fd:
        yield fd


def synchronise(folder: int) -> None:
    """Make the names in ``folder`` durable."""
    with listable(folder) as fd:
        os.fsync(fd)


def write_file(folder: int, name: str, data: Sequence[Buffer], *, only_new: bool) -> tuple[int, int]:
    """Write a file, durable on return; return its size and the CRC-32 of what can be read back.

    ``only_new``: raise ``FileExistsError`` where there is one.
    """
    return write_into(lambda: os.dup(folder), name, data, only_new=only_new)


def write_into(opened: Callable[[], int], name: str, data: Sequence[Buffer], *, only_new: bool) -> tuple[int, int]:
    """Write as ``write_file`` into the folder that ``opened`` gives; it is asked again where the folder went away."""
    folder, draft, fd = _begin(opened)
    with closing(folder), closing(fd):
        try:
            size, crc = _fill(fd, data)
            _publish(folder, draft, name, only_new)
            _settle(folder, fd)
        finally:
            with suppress(OSError):
                os.unlink(draft, dir_fd=folder)
    return size, crc


def sweep(folder: int) -> None:
    """Remove what killed writers left; no error where that is not allowed."""
    with suppress(OSError), listable(folder) as fd, os.scandir(fd) as rows:
        for row in rows:
            if row.name.startswith(PREFIX) and time.time() - row.stat(follow_symlinks=False).st_mtime > _GRACE:
                _sweep_one(folder, row.name)


def read_at(fd: int, start: int, length: int) -> bytes:
    """Return ``length`` bytes from ``start``, fewer only at the end."""
    parts: list[bytes] = []
    while length > 0 and (part := os.pread(fd, length, start)):
        parts.append(part)
        _forget(fd, start, len(part))
        start, length = start + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _begin(opened: Callable[[], int]) -> tuple[int, str, int]:
    """Return a folder's descriptor, and name and descriptor of a new locked draft in it."""
    for turn in range(_TURNS):
        try:
            with ExitStack() as unless_begun:
                folder = opened()
                unless_begun.callback(os.close, folder)
                begun = (folder, *_new_draft(folder))
                unless_begun.pop_all()
                return begun
        except FileNotFoundError:  # the folder was removed, empty, since it was opened
            if turn == _TURNS - 1:
                raise
    raise AssertionError("the last turn returns or raises")


def _new_draft(folder: int) -> tuple[str, int]:
    draft = f"{PREFIX}{os.getpid()}-{next(_numbers)}-{secrets.token_hex(8)}"
    fd = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o640, dir_fd=folder)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return draft, fd


def _fill(fd: int, data: Sequence[Buffer]) -> tuple[int, int]:
    """Write the buffers without joining them, synchronise, and read back size and checksum."""
    waiting = [view for buffer in data if (view := memoryview(buffer).cast("B")).nbytes]
    _reserve(fd, sum(view.nbytes for view in waiting))
    while waiting:
        written = os.writev(fd, waiting[:_BATCH])
        while waiting and written >= waiting[0].nbytes:
            written -= waiting.pop(0).nbytes
        if written:
            waiting[0] = waiting[0][written:]
    os.fsync(fd)
    size, crc, chunk = 0, 0, memoryview(bytearray(_CHUNK))
    while got := os.preadv(fd, [chunk], size):
        size, crc = size + got, checksum([chunk[:got]], crc)
    _forget(fd, 0, size)
    return size, crc


def _reserve(fd: int, size: int) -> None:
    """Have a large file's room before its bytes: that there is none is known at once, and it lies in one piece."""
    try:
        if size >= _LARGE:
            os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise


def _forget(fd: int, start: int, length: int) -> None:
    """Give back the system's memory for what passed through: it belongs to the database beside us."""
    if length >= _LARGE:
        os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)


def _publish(folder: int, draft: str, name: str, only_new: bool) -> None:
    if only_new:  # a link is the one move that is atomic and never replaces
        os.link(draft, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    else:
        os.replace(draft, name, src_dir_fd=folder, dst_dir_fd=folder)


def _settle(folder: int, fd: int) -> None:
    """Make the new name durable."""
    try:
        synchronise(folder)
    except PermissionError:  # a grant that only adds: the journal takes the name along with the file
        os.fsync(fd)


def _sweep_one(folder: int, name: str) -> None:
    with suppress(OSError), closing(os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its writer lives: BlockingIOError
        os.unlink(name, dir_fd=folder)
