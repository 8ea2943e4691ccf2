"""The directory of a cluster: is it new, is it ours, or was it taken away?

The marker ``DIR/.cluster`` names the cluster.  Without it there are three cases:

* the directory is missing or empty, and nobody remembers it: a new cluster; it reads as
  empty and is initialised by its first write (the parent must be there),
* the same, but this process has seen the marker before, or a process before it
  that kept a memory, or its witness (the other clusters of the federation)
  remembers the cluster: it was taken away, and that is ``Unavailable``, never
  silently a new and empty one,
* there are containers: objects were copied here by hand; it is taken as it is.

An operator who has lost a directory for good begins it anew by a repair, which opens it
without witness and memory, or by removing the memory, which is a file.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from objectstore import drafts
from objectstore.store import BadName, Unavailable, check_container

MARKER = ".cluster"
_UNREAD = "unread"  # the marker of a cluster that lets us add but not read


class Root:
    """The way into a cluster's directory; ``remembered`` is the witness, ``memory`` a file that says: it was there."""

    def __init__(self, path: Path, remembered: Callable[[], bool], memory: Path | None = None) -> None:
        self.path = path
        self._remembered = remembered
        self._memory = memory
        self._seen: str | None = None
        with suppress(OSError, Unavailable):  # it may be away now and come back
            self._look()

    @contextmanager
    def existing(self) -> Iterator[int]:
        """Open the directory for walking.

        Raises ``FileNotFoundError`` where the cluster is new, ``Unavailable`` where it is away.
        """
        with drafts.closing(self._open()) as root:
            yield root

    @contextmanager
    def initialised(self) -> Iterator[int]:
        """Open the directory for walking, made and marked where it is new."""
        try:
            root = self._open()
        except FileNotFoundError:
            self._make()
            root = self._open()
        with drafts.closing(root):
            if self._seen is None:
                self._mark(root)
            yield root

    def _look(self) -> None:
        with drafts.closing(os.open(self.path, os.O_PATH | os.O_DIRECTORY)) as root:
            self._see(_identity(root))

    def _see(self, identity: str | None) -> None:
        """Know the cluster from now on; what cannot be kept is known to this process alone."""
        if self._memory is not None and identity is not None and self._seen is None:
            with suppress(OSError):
                self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._memory.touch(mode=0o600)
        self._seen = identity

    def _open(self) -> int:
        seen = self._seen is not None  # before we look: another thread may be marking it just now
        try:
            root = os.open(self.path, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            self._refuse_lost(seen, "is not there")
            if not self.path.parent.is_dir():
                raise Unavailable(
                    f"{self.path.parent} is not there", hint="make it, or mount what belongs there"
                ) from None
            raise
        except NotADirectoryError:
            raise Unavailable(f"{self.path} is not a directory", hint="bring the directory back") from None
        with ExitStack() as unless_known:
            unless_known.callback(os.close, root)
            self._recognise(root, seen)
            unless_known.pop_all()
        return root

    def _recognise(self, root: int, seen: bool) -> None:
        identity = _identity(root)
        if identity is not None:
            self._see(identity)
        elif not folders(root):
            self._refuse_lost(seen, "is empty")
        elif seen:
            raise Unavailable(
                f"{self.path} has lost its marker {MARKER}", hint="bring back the directory that was here"
            )

    def _refuse_lost(self, seen: bool, how: str) -> None:
        kept = self._memory is not None and self._memory.exists()
        if seen or kept or self._remembered():
            forget = f", or remove {self._memory} and start the agent again" if kept else ""
            raise Unavailable(
                f"{self.path} {how}, though a cluster was there",
                hint=f"bring it back; if it is lost for good, `ostler backup repair` begins it anew{forget}",
            )

    def _make(self) -> None:
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o750)
        with drafts.closing(os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY)) as parent, suppress(PermissionError):
            drafts.synchronise(parent)

    def _mark(self, root: int) -> None:
        text = json.dumps({"format": 1, "cluster": str(uuid.uuid4())}) + "\n"
        with suppress(FileExistsError):  # another process was first: the cluster is as it named it
            drafts.write_file(root, MARKER, [text.encode()], only_new=True)
        self._see(_identity(root))


def folders(root: int) -> list[str]:
    """Return the containers below ``root`` by name; of one we may not list: nothing."""
    try:
        with drafts.listable(root) as fd, os.scandir(fd) as rows:
            return sorted(row.name for row in rows if _is_container(row))
    except PermissionError:
        return []


def _is_container(row: "os.DirEntry[str]") -> bool:
    try:
        return check_container(row.name) == row.name and row.is_dir(follow_symlinks=False)
    except BadName:
        return False


def _identity(root: int) -> str | None:
    """Return who the cluster is by its marker, or None where there is none."""
    try:
        with drafts.closing(os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=root)) as fd:
            return drafts.read_at(fd, 0, 4096).decode("utf-8", "replace").strip() or _UNREAD
    except FileNotFoundError:
        return None
    except PermissionError:
        return _UNREAD
