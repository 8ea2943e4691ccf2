"""What a backup sends: collections as they are read, and the oplog of meanwhile; or the oplog alone."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace

from pymongo.errors import OperationFailure

from datastores.contract import (
    Blocks,
    Checkpoint,
    Extent,
    File,
    Incomplete,
    Kept,
    Limits,
    Snapshot,
    Whole,
)
from datastores.mongodb import catalog, oplog
from datastores.mongodb.catalog import METADATA, Collection
from datastores.mongodb.client import told
from datastores.mongodb.position import Position, now, set_id
from datastores.mongodb.reading import Reader

ATTEMPTS = 3
PIECE = 1 << 20
GONE = frozenset({26, 175, 237})
"""A collection that is not there (any more), or was renamed or dropped under a cursor."""


def sliced(number: int) -> str:
    """Return the path of the slice of this number."""
    return f"oplog/{number:06d}.bson"


class Taken(Snapshot):
    """What all of them have in common: one reader, one reign from beginning to end."""

    def __init__(self, server_id: str, reader: Reader, limits: Limits) -> None:
        self._server_id = server_id
        self._reader = reader
        self._limits = limits
        self._began = now(reader.client)
        self._files: list[File] = []
        self._end: Position | None = None

    def blocks(self, path: str, head: memoryview) -> Blocks | Whole:
        """Store everything as it is: what is sent again has changed in most of its blocks."""
        return Whole()

    def files(self) -> Iterable[File]:
        """Return the inventory, complete; ``Incomplete`` before the last extent."""
        if self._end is None:
            raise Incomplete("the backup's files are not all sent yet")
        return tuple(self._files)

    def checkpoint(self) -> Checkpoint:
        """Return where the backup stands; ``Incomplete`` where the server changed its reign meanwhile."""
        if self._end is None:
            raise Incomplete("the backup's files are not all sent yet")
        with told():
            then, there = now(self._reader.client), set_id(self._reader.client)
        if (then.term, then.rollback, there) != (self._began.term, self._began.rollback, self._server_id):
            raise Incomplete("the set had an election or a rollback while the backup was taken", hint="take it again")
        return Checkpoint(self._server_id, self._end.to_json())

    def _log(self, number: int, start: Position) -> Iterator[Extent]:
        """Send the slice from ``start`` to what a majority has now, and end there."""
        end, path, size = now(self._reader.client), sliced(number), 0
        for piece in oplog.entries(self._reader, start, end):
            for at in range(0, len(piece), PIECE):
                yield path, size + at, memoryview(piece)[at : at + PIECE]
            size += len(piece)
        self._files.append(File(path, path, size, identity=str(end).encode()[:64]))
        self._end = end


class Increment(Taken):
    """What the oplog has since the parent; all older files are kept."""

    kind = "incremental"

    def __init__(
        self, server_id: str, reader: Reader, limits: Limits, parent: tuple[File, ...], since: Position
    ) -> None:
        super().__init__(server_id, reader, limits)
        self._parent = parent
        self._since = since

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield what is kept and the new slice."""
        with told():
            for each in self._parent:
                yield Kept(each.stored)
                self._files.append(each)
            slices = sum(each.path.startswith("oplog/") for each in self._parent)
            yield from self._log(slices, self._since)


class Full(Taken):
    """Every collection as it is read, which takes its time, and the oplog of that time."""

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield collections one after the other, what is told about them, and the slice from before the first."""
        with told():
            client, read = self._reader.client, list[Collection]()
            listed = list(catalog.collections(client))
            for each in listed:
                read.append((yield from self._whole(each)))
            content = catalog.dump(client, read)
            for at in range(0, len(content), PIECE):
                yield METADATA, at, memoryview(content)[at : at + PIECE]
            self._files.insert(0, File(METADATA, METADATA, len(content)))
            yield from self._log(0, self._began)

    def _whole(self, collection: Collection) -> Generator[Extent, None, Collection]:
        """Send a collection; one that was renamed under the cursor is begun anew, as another file."""
        for attempt in range(ATTEMPTS):
            path = collection.path if not attempt else f"{collection.path}.{attempt}"
            size = 0
            try:
                for batch in self._reader.batches(collection.database, collection.binary):
                    piece = b"".join(batch)
                    for at in range(0, len(piece), PIECE):
                        yield path, size + at, memoryview(piece)[at : at + PIECE]
                    size += len(piece)
            except OperationFailure as error:
                if error.code not in GONE:
                    raise
                if catalog.still_there(self._reader.client, collection):
                    continue
            if not size:
                yield path, 0, b""
            self._files.append(File(path, path, size, identity=collection.uuid))
            return replace(collection, path=path)
        raise Incomplete(f"{collection.database}.{collection.name} was renamed each time it was read")
