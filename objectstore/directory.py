"""A store in a directory: ``dir://``.

``container/object`` is the file ``DIR/container/object`` with the bytes as they are;
every other file begins with a dot::

    DIR/.cluster                 the marker: who this cluster is (see ``root``)
    DIR/container/object
    DIR/container/.put-…         a write that goes on, or was killed (see ``drafts``)

An object is there whole or not at all, whatever dies and when.  What a killed writer
leaves is never listed, and a later writer removes it.  A missing or empty directory
is initialised by the first ``put``; one that was taken away is ``Unavailable``.

Nothing is followed out of the directory by symbolic links.  ``put`` needs no right
to list or to read what others wrote.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from objectstore import drafts
from objectstore.root import Root, folders
from objectstore.store import (
    BadName,
    BadRequest,
    Buffer,
    Denied,
    Exists,
    Missing,
    NoRoom,
    Stat,
    Store,
    StoreError,
    Unavailable,
    check_container,
    split,
)

_SWEEP = 600.0  # seconds between two looks for what killed writers left in a container

_KINDS: dict[int, type[StoreError]] = {
    errno.EACCES: Denied,
    errno.EPERM: Denied,
    errno.EROFS: Denied,
    errno.ENOTDIR: Denied,
    errno.EISDIR: Denied,
    errno.ELOOP: Denied,
    errno.ENOSPC: NoRoom,
    errno.EDQUOT: NoRoom,
    errno.EFBIG: NoRoom,
}
"""What may not be tried again; any other error of the system may."""


def _nobody() -> bool:
    return False


class Directory(Store):
    """Keep objects in the directory ``path`` (absolute).

    ``remembered`` is asked only where the directory is missing or empty: is this cluster
    known to have been there?  ``memory`` is a file in which that is kept for the processes to come.
    """

    def __init__(self, path: Path, remembered: Callable[[], bool] = _nobody, memory: Path | None = None) -> None:
        if not path.is_absolute():
            raise BadRequest(f"the directory {str(path)!r} of a store must be an absolute path", field="url")
        self._path = path
        self._root = Root(path, remembered, memory)
        self._swept: dict[str, float] = {}

    def put(self, name: str, data: Sequence[Buffer], *, only_new: bool = False) -> Stat:
        container, key = split(name)
        with self._errors(f"put {name}"), self._root.initialised() as root:
            try:
                size, crc = drafts.write_into(lambda: self._made(root, container), key, data, only_new=only_new)
            except FileExistsError:
                raise Exists(f"put {name}: it is in {self._path} already") from None
        return Stat(name, size, crc)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        if start < 0 or (length is not None and length < 0):
            raise BadRequest(f"get {name}: start {start} and length {length} must not be negative", field="start")
        with self._errors(f"get {name}"), self._object(name) as (fd, size):
            rest = max(0, size - start)
            return drafts.read_at(fd, start, rest if length is None else min(rest, length))

    def stat(self, name: str) -> Stat:
        with self._errors(f"stat {name}"), self._object(name) as (_, size):
            return Stat(name, size)

    def list(self, container: str, prefix: str = "") -> Iterator[Stat]:
        check_container(container)
        with self._errors(f"list {container}"):
            return iter(sorted(self._entries(container, prefix), key=lambda found: found.name))

    def containers(self) -> Iterator[str]:
        with self._errors("list the containers"), suppress(FileNotFoundError), self._root.existing() as root:
            return iter(folders(root))
        return iter(())

    def delete(self, name: str) -> None:
        container, key = split(name)
        with self._errors(f"delete {name}"), suppress(FileNotFoundError), self._root.existing() as root:
            with self._container(root, container) as folder:
                os.unlink(key, dir_fd=folder)
                drafts.synchronise(folder)
            with suppress(OSError):  # a container goes with its last object
                os.rmdir(container, dir_fd=root)
                drafts.synchronise(root)

    def _made(self, root: int, container: str) -> int:
        """Return the descriptor of a container, made where it is not there, swept now and then."""
        try:
            folder = drafts.enter(root, container)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(container, 0o750, dir_fd=root)
            with suppress(PermissionError):
                drafts.synchronise(root)
            folder = drafts.enter(root, container)
        now = time.monotonic()
        if now - self._swept.get(container, -_SWEEP) >= _SWEEP:
            self._swept[container] = now
            drafts.sweep(folder)
            drafts.sweep(root)
        return folder

    @contextmanager
    def _container(self, root: int, container: str) -> Iterator[int]:
        """Open a container for walking, or raise ``FileNotFoundError``."""
        try:
            folder = drafts.enter(root, container)
        except NotADirectoryError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
        with drafts.closing(folder):
            yield folder

    @contextmanager
    def _object(self, name: str) -> Iterator[tuple[int, int]]:
        """Open an object; yield its descriptor and size, or raise ``Missing``."""
        container, key = split(name)
        try:
            with self._root.existing() as root, self._container(root, container) as folder:
                fd = os.open(key, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                raise Missing(f"there is no {name} in {self._path}") from None
            raise
        with drafts.closing(fd):
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise Missing(f"{name} in {self._path} is not a file")
            yield fd, about.st_size

    def _entries(self, container: str, prefix: str) -> Iterator[Stat]:
        with (
            suppress(FileNotFoundError),
            self._root.existing() as root,
            self._container(root, container) as folder,
            drafts.listable(folder) as fd,
            os.scandir(fd) as rows,
        ):
            for row in rows:
                if row.name.startswith(prefix) and _is_object(container, row):
                    with suppress(FileNotFoundError):  # deleted since
                        yield Stat(f"{container}/{row.name}", row.stat(follow_symlinks=False).st_size)

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = _KINDS.get(error.errno or 0, Unavailable)
            raise kind(f"{what} in {self._path}: {error.strerror or error}") from error


def _is_object(container: str, row: "os.DirEntry[str]") -> bool:
    try:
        split(f"{container}/{row.name}")
    except BadName:
        return False
    return row.is_file(follow_symlinks=False)
