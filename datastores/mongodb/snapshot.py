"""What a backup sends: collections as they are read, and the oplog of meanwhile; or the oplog alone."""

from collections.abc import Callable, Generator, Iterable, Iterator

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
from datastores.mongodb.fingerprints import Changed, Plain, Sieve, Table
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
            yield from _pieces(path, size, piece)
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
    """Every collection as it is read, which takes its time, its fingerprints, and the oplog of that time."""

    def __init__(self, server_id: str, reader: Reader, limits: Limits, table: Table | None = None) -> None:
        super().__init__(server_id, reader, limits)
        self._table = table if table is not None else Table()
        self._number = 0

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield collections one after the other, what is told about them, and the slice from before the first."""
        with told():
            client, read = self._reader.client, list[Collection]()
            marks, size = f"fingerprints/{self._number:06d}", len(self._table.key)
            yield marks, 0, self._table.key
            for each in list(catalog.collections(client)):
                yield from self._kept(each)
                sieve = self._sieve(each)
                read.append((yield from self._whole(each, sieve)))
                for block in sieve.blocks():
                    yield from _pieces(marks, size, block)
                    size += len(block)
            content = catalog.dump(client, read)
            yield from _pieces(METADATA, 0, content)
            self._files.insert(0, File(METADATA, METADATA, len(content)))
            self._files.insert(0, File(marks, marks, size, private=True))
            yield from self._log(0, self._began)

    def _kept(self, collection: Collection) -> Iterator[Kept]:
        """Yield the files of the parent's that still have documents of a collection."""
        return iter(())

    def _sieve(self, collection: Collection) -> Sieve:
        return (Plain if collection.capped else Sieve)(self._table, collection.uuid)

    def _path(self, collection: Collection) -> str:
        return collection.path

    def _whole(self, collection: Collection, sieve: Sieve) -> Generator[Extent, None, Collection]:
        """Send a collection; one that was renamed under the cursor is begun anew, as another file."""
        for attempt in range(ATTEMPTS):
            path = self._path(collection) + (f".{attempt}" if attempt else "")
            size = 0
            sieve.restart()
            try:
                for batch in self._reader.batches(collection.database, collection.binary):
                    piece = b"".join(sieve.pick(batch))
                    yield from _pieces(path, size, piece)
                    size += len(piece)
            except OperationFailure as error:
                if error.code not in GONE:
                    raise
                if catalog.still_there(self._reader.client, collection):
                    continue
            if not size:
                yield path, 0, b""
            self._files.append(File(path, path, size, identity=collection.uuid))
            return collection
        raise Incomplete(f"{collection.database}.{collection.name} was renamed each time it was read")


class AfterHole(Full):
    """A full that sends only the documents that the parent's tables do not have; the parent's files are kept."""

    def __init__(
        self, server_id: str, reader: Reader, limits: Limits, parent: tuple[File, ...], private: Callable[[str], bytes]
    ) -> None:
        self._tables = sorted((each for each in parent if each.private), key=lambda each: each.path)
        super().__init__(server_id, reader, limits, Table(private(each.stored) for each in self._tables))
        self._number = len(self._tables)
        self._parent = parent

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield the parent's tables as they are, then what a full yields."""
        for each in self._tables:
            yield Kept(each.stored)
        yield from super().extents()
        self._files[:0] = self._tables

    def _kept(self, collection: Collection) -> Iterator[Kept]:
        for each in self._parent if self._known(collection) else ():
            if each.identity == collection.uuid and not each.private:
                yield Kept(each.stored)
                self._files.append(each)

    def _sieve(self, collection: Collection) -> Sieve:
        return Changed(self._table, collection.uuid) if self._known(collection) else super()._sieve(collection)

    def _path(self, collection: Collection) -> str:
        return f"changed/{self._number:06d}/{collection.uuid.hex()}.bson"

    def _known(self, collection: Collection) -> bool:
        return not collection.capped and self._table.knows(collection.uuid)


def _pieces(path: str, start: int, content: bytes) -> Iterator[Extent]:
    for at in range(0, len(content), PIECE):
        yield path, start + at, memoryview(content)[at : at + PIECE]
