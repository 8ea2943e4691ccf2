"""What a backup sends: collections as they are read, and the oplog of meanwhile; or the oplog alone."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

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
from datastores.mongodb.documents import identity
from datastores.mongodb.fingerprints import KEY_PATH, Changed, Plain, Prints, Sieve
from datastores.mongodb.known import GONE, PART, PRINTS, Known
from datastores.mongodb.position import Position, now, set_id
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
            then, there = now(self._reader.client), set_id(self._reader.client)
        if (then.term, then.rollback, there) != (self.began.term, self.began.rollback, self._server_id):
            raise Incomplete("the set had an election or a rollback while the backup was taken", hint="take it again")
        return Checkpoint(self._server_id, self._end.to_json())

    def _log(self, number: int, start: Position) -> Iterator[Extent]:
        """Send the slice from ``start`` to what a majority has now, and end there."""
        end, sent = now(self._reader.client), Growing(sliced(number))
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
    """Every collection as it is read, which takes its time, its fingerprints, and the oplog of that time."""

    def __init__(self, server_id: str, reader: Reader, limits: Limits, key: bytes = b"") -> None:
        super().__init__(server_id, reader, limits)
        self._prints = Prints(key)
        self._newest = b""

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield collections one after the other, what is told about them, and the slice from before the first."""
        with told():
            client, read = self._reader.client, list[Collection]()
            yield from self._key()
            for each in list(catalog.collections(client)):
                yield from self._kept(each)
                read.append((yield from self._whole(each)))
            metadata = Growing(METADATA)
            yield from metadata.add(catalog.dump(client, read))
            self._files.insert(0, metadata.file(b""))
            yield from self._log(0, self.began)

    def _key(self) -> Iterator[Extent | Kept]:
        """Yield the private file that all fingerprints go by."""
        yield KEY_PATH, 0, self._prints.key
        self._files.append(File(KEY_PATH, KEY_PATH, len(self._prints.key), private=True))

    def _kept(self, collection: Collection) -> Iterator[Kept]:
        """Yield the files of the parent's that still have documents of a collection."""
        return iter(())

    def _sieve(self, collection: Collection) -> Sieve:
        return (Plain if collection.capped else Sieve)(self._prints)

    def _path(self, collection: Collection, sieve: Sieve) -> str:
        return collection.path

    def _whole(self, collection: Collection) -> Generator[Extent, None, Collection]:
        """Send a collection; one that was renamed under the cursor is begun anew, as other files."""
        for attempt in range(ATTEMPTS):
            again = f".{attempt}" if attempt else ""
            with closing(self._sieve(collection)) as sieve:
                sent, read = Growing(self._path(collection, sieve) + again), self._marked(collection)
                try:
                    marks = yield from self._read(read, sieve, sent, again)
                except _Overwritten:
                    continue
                except OperationFailure as error:
                    if error.code not in GONE_CODES:
                        raise
                    if error.code == oplog.POSITION_LOST or catalog.still_there(self._reader.client, collection):
                        continue
                    # It is dropped in the oplog, too.
                    marks = []
                if not sent.size:
                    yield sent.path, 0, b""
                self._files += [*marks, sent.file(collection.uuid)]
            return read
        name = f"{collection.database}.{collection.name}"
        raise Incomplete(f"{name} was renamed or overwritten each time it was read", hint="take it again")

    def _marked(self, collection: Collection) -> Collection:
        """Note of a capped collection what its newest document was, and a moment at which it was in."""
        if not collection.capped:
            return collection
        self._newest = catalog.newest(self._reader.client, collection)
        return replace(collection, since=now(self._reader.client).ts)

    def _read(
        self, collection: Collection, sieve: Sieve, sent: Growing, again: str
    ) -> Generator[Extent, None, list[File]]:
        """Send the documents that are wanted, and private files about them; return those."""
        uuid, files, above = collection.uuid, list[File](), f"{PRINTS}{collection.uuid.hex()}/"
        marks = Growing(f"{above}{sieve.source:04d}.0000{again}")
        met = not collection.capped
        for batch in self._reader.batches(collection.database, collection.binary):
            met = met or any(bytes(identity(each)) == self._newest for each in batch)
            documents, entries = sieve.pick(batch)
            yield from sent.add(b"".join(documents))
            if marks.size >= PART:
                files.append(marks.file(uuid, private=True))
                marks = Growing(f"{above}{sieve.source:04d}.{len(files):04d}{again}")
            yield from marks.add(entries)
        if not (met or sent.size == len(self._newest) == 0):
            raise _Overwritten
        gone = Growing(f"{GONE}{uuid.hex()}/{sieve.source:04d}{again}")
        for each in sieve.gone():
            yield from gone.add(each)
        return files + [each.file(uuid, private=True) for each in (marks, gone) if each.size]


class AfterHole(Full):
    """A full that sends only the documents that the parent has not; the parent's files are kept."""

    def __init__(
        self,
        server_id: str,
        reader: Reader,
        limits: Limits,
        parent: Sequence[File],
        private: Callable[[str], bytes],
        temp: Path,
    ) -> None:
        super().__init__(server_id, reader, limits, private(KEY_PATH))
        self._parent: dict[bytes, list[File]] = {}
        self._private = private
        self._temp = temp
        for each in parent:
            self._parent.setdefault(each.identity, []).append(each)

    def _key(self) -> Iterator[Extent | Kept]:
        yield Kept(KEY_PATH)
        self._files.append(File(KEY_PATH, KEY_PATH, len(self._prints.key), private=True))

    def _kept(self, collection: Collection) -> Iterator[Kept]:
        for each in self._parent[collection.uuid] if self._known(collection) else ():
            yield Kept(each.stored)
            self._files.append(each)

    def _sieve(self, collection: Collection) -> Sieve:
        if not self._known(collection):
            return super()._sieve(collection)
        return Changed(self._prints, Known(self._temp, self._parent[collection.uuid], self._private))

    def _path(self, collection: Collection, sieve: Sieve) -> str:
        return f"changed/{collection.uuid.hex()}.{sieve.source:04d}.bson" if sieve.source else collection.path

    def _known(self, collection: Collection) -> bool:
        return not collection.capped and any(each.private for each in self._parent.get(collection.uuid, ()))
