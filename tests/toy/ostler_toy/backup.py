"""Backup of a toy server: its files, read while it holds still; slots are compared by their hash."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from datastores.contract import (
    Backup,
    Blocks,
    Checkpoint,
    Extent,
    File,
    Identity,
    Incomplete,
    Kept,
    Limits,
    Mismatch,
    Node,
    Since,
    Snapshot,
    Whole,
)
from ostler_toy.wire import Ask, connection

SLOT = 1024
WIDTH = 16
PIECE = 64 * SLOT
STAMPS = ".toy/stamps.json"


class ToySnapshot(Snapshot):
    """The files of a server that writes nothing until the connection ends."""

    def __init__(self, node: Node, since: Since | None, ask: Ask, state: dict[str, str | int]) -> None:
        self.kind = "incremental" if since is not None else "full"
        self._node = node
        self._since = since
        self._state = state
        self._ask = ask
        self._paths = sorted(each for each in node.places.data.iterdir() if not each.name.startswith("."))
        self.estimate = sum(each.stat().st_size for each in self._paths)
        self._files: list[File] = []

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield each file: changed ones by their bytes."""
        stamps: dict[str, str] = {}
        parents = json.loads(self._since.private(STAMPS)) if self._since is not None else {}
        for path in self._paths:
            found = path.stat()
            stamps[path.name] = f"{found.st_ino}.{found.st_mtime_ns}.{found.st_size}"
            size = found.st_size
            if parents.get(path.name) == stamps[path.name]:
                yield Kept(path.name)
            else:
                yield from _pieces(path)
            self._files.append(File(path.name, path.name, size, found.st_mode & 0o777))
        private = json.dumps(stamps, sort_keys=True).encode()
        self._files.insert(0, File(STAMPS, STAMPS, len(private), private=True))
        yield STAMPS, 0, private

    def blocks(self, path: str, head: memoryview) -> Blocks | Whole:
        """Compare tables by the slot."""
        if not path.endswith(".tbl"):
            return Whole()
        return Blocks(SLOT, WIDTH, f"{self._state['identity']}:{self._node.epoch}:blake2b", _fingerprints)

    def files(self) -> Iterable[File]:
        """Return the inventory."""
        if not self._files:
            raise Incomplete("the inventory was asked for before the files")
        return self._files

    def checkpoint(self) -> Checkpoint:
        """Return where the server has stood all the time."""
        if self._ask("state") != self._state:
            raise Incomplete("the server moved during the backup")
        return Checkpoint(str(self._state["identity"]), {"sequence": self._state["sequence"]})


class ToyBackup(Backup):
    """Snapshots by holding the server still."""

    def server_id(self) -> str:
        """Return the identity that was made with the data."""
        with connection(self.node) as ask:
            return str(ask("state")["identity"])

    @contextlib.contextmanager
    def snapshot(self, since: Since | None, limits: Limits) -> Iterator[Snapshot]:
        """Hold the server; its end of the connection lets go whatever happens."""
        with connection(self.node) as ask:
            ask("freeze")
            state = ask("state")
            if since is not None and since.checkpoint.server_id != state["identity"]:
                raise Mismatch("the parent is another server's")
            yield ToySnapshot(self.node, since, ask, state)

    def restore(
        self, files: Sequence[File], extents: Iterator[Extent], checkpoint: Checkpoint, into: Path, identity: Identity
    ) -> None:
        """Write the files back."""
        write(self.node, files, extents, into)

    def confirm(self, checkpoint: Checkpoint) -> None:
        """Raise ``Mismatch`` unless the server stands where the backup did."""
        with connection(self.node) as ask:
            state = ask("state")
        if (state["identity"], state["sequence"]) != (checkpoint.server_id, checkpoint.position["sequence"]):
            raise Mismatch(f"the server stands at {state}, not at {dict(checkpoint.position)}")

    def sweep(self) -> None:
        """Nothing is ever left: the hold ends with its connection."""


def write(node: Node, files: Sequence[File], extents: Iterator[Extent], into: Path) -> None:
    """Write what is not private below ``into``, for the server's account."""
    private = {each.path for each in files if each.private}
    modes = {each.path: each.mode for each in files}
    for path, offset, buffer in extents:
        if path in private:
            continue
        number = os.open(into / path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, modes[path])
        with os.fdopen(number, "r+b", buffering=0) as file:
            file.seek(offset)
            file.write(buffer)
    node.host.own(into)


def _pieces(path: Path) -> Iterator[Extent]:
    offset, buffer = 0, bytearray(PIECE)
    with path.open("rb", buffering=0) as file:
        while (count := file.readinto(buffer)) or offset == 0:
            yield path.name, offset, memoryview(buffer)[:count]
            offset += count
            if count == 0:
                return


def _fingerprints(view: memoryview) -> bytes:
    blocks = (view[at : at + SLOT] for at in range(0, len(view), SLOT))
    return b"".join(hashlib.blake2b(each, digest_size=WIDTH).digest() for each in blocks)
