"""What a backup sends: the links that the server made of its files, and its schema; what the parent has is kept."""

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from datastores.cassandra.position import Position
from datastores.cassandra.private import MARK
from datastores.cassandra.schema import SCHEMA, Schema, Table
from datastores.cassandra.sstables import MANIFEST, Piece, compared, linked
from datastores.contract import (
    Blocks,
    Checkpoint,
    Extent,
    File,
    Incomplete,
    Kept,
    Snapshot,
    Whole,
)

TAG = "ostler-"
NEEDED = "system_schema"


def tag() -> str:
    """Return a name for a snapshot: the server takes it for a part of a path, whatever it is."""
    return TAG + secrets.token_hex(8)


class Linked(Snapshot):
    """The files of one tag, all there before the first is sent; ``run`` asks which start of the server this is."""

    def __init__(
        self,
        data: Path,
        name: str,
        schema: Schema,
        position: Position,
        account: bytes,
        parent: Sequence[File] | None,
        run: Callable[[], int],
    ) -> None:
        self._run = run
        self._pieces = tuple(linked(data, name))
        self._position = position
        self._private = {SCHEMA: schema.dump(), MARK: account}
        self._parent = {each.path: each for each in parent or ()}
        self._sent = False
        self._identities = {each.path: each.identity for each in self._pieces}
        self.kind = "full" if parent is None else "incremental"
        self.estimate = sum(each.size for each in self._pieces if self._old(each) is None)
        _whole(data, name, schema, self._pieces)

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield what the backup keeps for itself, then each file, or that it is the parent's."""
        for path, content in self._private.items():
            yield path, 0, content
        for each in self._pieces:
            old = self._old(each)
            if old is not None:
                yield Kept(old.stored)
            else:
                yield from each.extents()
        self._sent = True

    def blocks(self, path: str, head: memoryview) -> Blocks | Whole:
        """Compare by content what has no identity; a file that has one is either kept or new as a whole."""
        return Whole() if self._identities.get(path) else compared()

    def files(self) -> Iterable[File]:
        """Return the inventory, complete; ``Incomplete`` before the last extent."""
        if not self._sent:
            raise Incomplete("the backup's files are not all sent yet")
        private = [File(path, path, len(content), private=True) for path, content in self._private.items()]
        return (*private, *(self._listed(each) for each in self._pieces))

    def checkpoint(self) -> Checkpoint:
        """Return where the node stood when the links were made; ``Incomplete`` where its server has ended since."""
        if self._run() != self._position.run:
            raise Incomplete("the server was started anew while it was backed up", hint="take it again")
        return Checkpoint(self._position.host_id, self._position.to_json())

    def _old(self, piece: Piece) -> File | None:
        found = self._parent.get(piece.path)
        same = found is not None and piece.identity != b"" and found.identity == piece.identity
        return found if same else None

    def _listed(self, piece: Piece) -> File:
        old = self._old(piece)
        return File(piece.path, old.stored if old else piece.path, piece.size, piece.mode, piece.identity)


def _whole(data: Path, name: str, schema: Schema, pieces: Sequence[Piece]) -> None:
    """Raise ``Incomplete`` where the server left something out, and said nothing."""
    if not any(each.path.startswith(f"{NEEDED}/") for each in pieces):
        raise Incomplete(f"the snapshot has nothing of {NEEDED}")
    there = {each.source for each in pieces}
    for table in schema.tables:
        folder = data / table.folder / "snapshots" / name
        missing = [each for each in _listed(folder, table) if folder / each not in there]
        if missing:
            raise Incomplete(f"the snapshot of the table {table.keyspace}.{table.name} lacks {missing[0]}")


def _listed(folder: Path, table: Table) -> list[str]:
    """Return the data files that the server says it has linked, those of indexes too."""
    try:
        return [str(each) for each in json.loads((folder / MANIFEST).read_bytes())["files"]]
    except (OSError, ValueError, TypeError, KeyError):
        raise Incomplete(f"the snapshot has nothing of the table {table.keyspace}.{table.name}") from None
