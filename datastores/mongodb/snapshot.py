"""What a backup sends: collections as they are read, and the oplog of meanwhile; or the oplog alone."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from pymongo.errors import OperationFailure

from datastores.contract import (
    Blocks,
    Buffer,
    Checkpoint,
    Extent,
    File,
    Incomplete,
    Kept,
    Limits,
    Since,
    Snapshot,
    Whole,
)
from datastores.mongodb import catalog, oplog
from datastores.mongodb.catalog import METADATA, Collection
from datastores.mongodb.client import told
from datastores.mongodb.documents import identity
from datastores.mongodb.fingerprints import Changed, Prints, Sieve
from datastores.mongodb.known import GONE, Gone, Known
from datastores.mongodb.position import Position, now, reign, set_id, settled
from datastores.mongodb.reading import Reader

ATTEMPTS = 3
PIECE = 1 << 20
GONE_CODES = frozenset({26, 175, 237, oplog.POSITION_LOST})
"""A collection that is not there (any more), or was renamed, dropped or overwritten under a cursor."""


def sliced(number: int) -> str:
    """Return the path of the slice of this number."""
    return f"oplog/{number:06d}.bson"


class Taken(Snapshot):
    """What all of them have in common: one reader, one reign from beginning to end."""

    def __init__(self, server_id: str, reader: Reader, limits: Limits) -> None:
        self._server_id = server_id
        self._reader = reader
        self._limits = limits
        self.reign = reign(reader.client)
        self.began = now(reader.client)
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
            then, there = reign(self._reader.client), set_id(self._reader.client)
        if (then, there) != (self.reign, self._server_id):
            raise Incomplete("the set had an election or a rollback while the backup was taken", hint="take it again")
        return Checkpoint(self._server_id, self._end.to_json())

    def _log(self, number: int, start: Position) -> Iterator[Extent]:
        """Send the slice from ``start`` to where a majority has all that was seen, and end there."""
        end, sent = settled(self._reader.client), Growing(sliced(number))
        for piece in oplog.entries(self._reader, start, end):
            yield from sent.add(piece)
        self._files.append(sent.file(str(end).encode()[:64]))
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


class _Overwritten(Exception):
    """A capped collection had lost its once newest document before it was read: it may lack what came next."""


class Growing:
    """A file that is being sent: its next bytes go to its end."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.size = 0

    def add(self, content: bytes) -> Iterator[Extent]:
        """Yield more of it, in pieces."""
        for at in range(0, len(content), PIECE):
            yield self.path, self.size + at, memoryview(content)[at : at + PIECE]
        self.size += len(content)

    def file(self, uuid: bytes, *, private: bool = False) -> File:
        """Return its line of the inventory."""
        return File(self.path, self.path, self.size, identity=uuid, private=private)


class Full(Taken):
    """Every collection as it is read, which takes its time, and the oplog of that time."""

    def __init__(self, server_id: str, reader: Reader, limits: Limits) -> None:
        super().__init__(server_id, reader, limits)
        self._newest = b""

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield collections one after the other, and the slice from before the first."""
        with told():
            client, read = self._reader.client, list[Collection]()
            for each in list(catalog.collections(client)):
                yield from self._kept(each)
                read.append((yield from self._whole(each)))
            metadata = Growing(METADATA)
            yield from metadata.add(catalog.dump(client, read))
            self._files.insert(0, metadata.file(b""))
            yield from self._log(0, oplog.boundary(client, self.began))

    def _kept(self, collection: Collection) -> Iterator[Kept]:
        """Yield the files of the parent's that still have documents of a collection."""
        return iter(())

    def _older(self, collection: Collection) -> int:
        """Return how many files of its documents are kept."""
        return 0

    def _sieve(self, collection: Collection) -> Sieve:
        return Sieve()

    def _path(self, collection: Collection) -> str:
        older = self._older(collection)
        return f"changed/{collection.uuid.hex()}.{older:04d}.bson" if older else collection.path

    def _whole(self, collection: Collection) -> Generator[Extent, None, Collection]:
        """Send a collection; one that was renamed under the cursor is begun anew, as other files."""
        for attempt in range(ATTEMPTS):
            again = f".{attempt}" if attempt else ""
            with closing(self._sieve(collection)) as sieve:
                sent, read = Growing(self._path(collection) + again), collection
                gone = Growing(f"{GONE}{collection.uuid.hex()}/{self._older(collection):04d}{again}")
                try:
                    read = self._marked(collection)
                    yield from self._read(read, sieve, sent)
                    for each in sieve.gone():
                        yield from gone.add(each)
                except _Overwritten:
                    continue
                except OperationFailure as error:
                    if error.code not in GONE_CODES:
                        raise
                    if error.code == oplog.POSITION_LOST or catalog.still_there(self._reader.client, collection):
                        continue
                    # It is dropped in the oplog, too.
                if not sent.size:
                    yield sent.path, 0, b""
                self._files += [gone.file(collection.uuid, private=True)] if gone.size else []
                self._files.append(sent.file(collection.uuid))
            return read
        name = f"{collection.database}.{collection.name}"
        raise Incomplete(f"{name} was renamed or overwritten each time it was read", hint="take it again")

    def _marked(self, collection: Collection) -> Collection:
        """Note of a capped collection what its newest document was, and a moment at which it was in."""
        if not collection.capped:
            return collection
        self._newest = catalog.newest(self._reader.client, collection)
        return replace(collection, since=now(self._reader.client).ts)

    def _read(self, collection: Collection, sieve: Sieve, sent: Growing) -> Iterator[Extent]:
        """Send the documents that are wanted; ``_Overwritten`` where a capped collection lost some meanwhile."""
        met = not collection.capped
        for batch in self._reader.batches(collection.database, collection.binary):
            met = met or any(bytes(identity(each)) == self._newest for each in batch)
            yield from sent.add(b"".join(sieve.pick(batch)))
        if not (met or sent.size == len(self._newest) == 0):
            raise _Overwritten


class AfterHole(Full):
    """A full that sends only the documents that the parent has not; the parent's files are kept."""

    def __init__(self, server_id: str, reader: Reader, limits: Limits, since: Since, temp: Path) -> None:
        super().__init__(server_id, reader, limits)
        self._prints = Prints()
        self._since = since
        self._parent: dict[bytes, list[File]] = {}
        self._temp = temp
        for each in since.files:
            self._parent.setdefault(each.identity, []).append(each)

    def _kept(self, collection: Collection) -> Iterator[Kept]:
        for each in self._parents(collection):
            yield Kept(each.stored)
            self._files.append(each)

    def _older(self, collection: Collection) -> int:
        return sum(not each.private for each in self._parents(collection))

    def _sieve(self, collection: Collection) -> Sieve:
        if not self._older(collection):
            return super()._sieve(collection)
        gone = Gone()
        for each in self._parents(collection):
            if each.private:
                gone.read(self._since.private(each.stored))
        older = (each for each in self._parents(collection) if not each.private)
        entries = (self._prints.of_file(self._bytes(each)) for each in older)
        return Changed(self._prints, Known(self._temp, gone, entries))

    def _bytes(self, file: File) -> Iterator[Buffer]:
        return (piece for _, _, piece in self._since.extents([file.path]))

    def _parents(self, collection: Collection) -> list[File]:
        """Return the parent's files of a collection; none of a capped one, whose order is part of it."""
        return [] if collection.capped else self._parent.get(collection.uuid, [])
