"""The three snapshots of a Redis server: full, increment, and full after a hole.

Each follows the stream up to a **moment** read in one transaction (offset, counts of keys, users), so
that its position is exact and can be checked after a restore.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from datastores.contract import (
    Blocks,
    Checkpoint,
    Extent,
    File,
    Incomplete,
    Kept,
    Snapshot,
    ToolFailed,
    Whole,
)
from datastores.redis import chain
from datastores.redis.chain import Chain
from datastores.redis.client import Connection
from datastores.redis.fingerprints import Table, delta
from datastores.redis.moment import Moment, Position, settled
from datastores.redis.psync import Feed, Resync
from datastores.redis.rdb import Unwalkable, Walker
from datastores.redis.sinks import END, Learn, Write, head
from datastores.redis.versions import Traits


class Taken(Snapshot):
    """What the three have in common: an inventory that grows as bytes are sent, and the moment it ends at."""

    def __init__(self, server_id: str, connection: Connection, feed: Feed) -> None:
        self._server_id = server_id
        self._connection = connection
        self._feed = feed
        self._done: Chain | None = None
        self._position: Position | None = None

    def blocks(self, path: str, head: memoryview) -> Blocks | Whole:
        """Store everything as it is: neither a dump nor a slice has blocks that come again."""
        return Whole()

    def files(self) -> Iterable[File]:
        """Return the inventory, complete; ``Incomplete`` before the last extent."""
        if self._done is None:
            raise Incomplete("the backup's files are not all sent yet")
        return self._done.files()

    def checkpoint(self) -> Checkpoint:
        """Return where the backup stands, after proving that its files lead there."""
        if self._done is None or self._position is None:
            raise Incomplete("the backup's files are not all sent yet")
        self._done.prove(self._position)
        return Checkpoint(self._server_id, self._position.to_json())

    def _placed(self, path: str, start: int, pieces: Iterable[bytes | memoryview]) -> Iterator[Extent]:
        at = start
        for each in pieces:
            yield path, at, each
            at += len(each)

    def _log(self, path: str, since: Position, moment: Moment) -> Iterator[Extent]:
        if moment.position.replication_id != since.replication_id:
            raise Incomplete("the server began a new replication stream while the backup was taken")
        return self._placed(path, 0, self._feed.log(moment.position.offset - since.offset))

    def _users(self, moment: Moment) -> tuple[File, Extent]:
        file = File(chain.USERS, chain.USERS, len(moment.users))
        return file, (chain.USERS, 0, moment.users)


class Increment(Taken):
    """What the stream brought since the parent; all older files are kept."""

    kind = "incremental"

    def __init__(self, server_id: str, connection: Connection, feed: Feed, parent: Chain, since: Position) -> None:
        super().__init__(server_id, connection, feed)
        self._parent = parent
        self._since = since
        self._moment = settled(connection)
        self.estimate = self._moment.position.offset - since.offset

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield what is kept, the new slice and the users."""
        users, sent = self._users(self._moment)
        found = replace(self._parent, users=users)
        for each in chain.kept([each for each in found.files() if each is not users]):
            yield Kept(each)
        if self.estimate:
            path = chain.numbered(chain.SLICE, found.number())
            mark = chain.identity(self._since.replication_id, self._since.offset)
            found = replace(found, slices=(*found.slices, File(path, path, self.estimate, identity=mark)))
            yield from self._log(path, self._since, self._moment)
        yield sent
        self._done, self._position = found, self._moment.position


class Full(Taken):
    """A dump as it comes, the table of its fingerprints, and what was written until it had come."""

    def __init__(self, server_id: str, connection: Connection, feed: Feed, traits: Traits, estimate: int) -> None:
        super().__init__(server_id, connection, feed)
        self._traits = traits
        self.estimate = estimate

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield the dump, its private table (where it could be walked), the tail of the stream and the users."""
        for _ in self._feed.ask():
            yield chain.BASE, 0, b""
        began, table, size = self._feed.full(), Table(), 0
        walker: Walker | None = Walker(table.key, chain.BASE, Learn(table))
        for extent in self._placed(chain.BASE, 0, self._feed.rdb()):
            yield extent
            size += len(extent[2])
            walker = _walk(walker, extent[2])
        base = File(chain.BASE, chain.BASE, size, identity=chain.identity(began.replication_id, began.offset))
        found: File | None = None
        if _walked(walker):
            table.version, length = self._traits.rdb, 0
            for extent in self._placed(chain.TABLE, 0, table.dump()):
                yield extent
                length += len(extent[2])
            found = File(chain.TABLE, chain.TABLE, length, private=True)
        yield from self._end(found, (), (base,), began, 1)

    def _end(
        self, table: File | None, deltas: tuple[File, ...], dumps: tuple[File, ...], began: Resync, number: int
    ) -> Iterator[Extent]:
        """Follow the stream to a moment; where it could not be replayed exactly, the dump is the point."""
        moment, slices = settled(self._connection), tuple[File, ...]()
        position = start = Position(began.replication_id, began.offset)
        if self._traits.exact_expiry:
            position = moment.position
            if position.offset > start.offset:
                path = chain.numbered(chain.SLICE, number)
                mark = chain.identity(start.replication_id, start.offset)
                slices = (File(path, path, position.offset - start.offset, identity=mark),)
            yield from self._log(chain.numbered(chain.SLICE, number), start, moment)
        users, sent = self._users(moment)
        yield sent
        self._done, self._position = Chain(table, deltas, dumps, slices, users), position


class AfterHole(Full):
    """A full that sends only the records the parent's dumps have not; the old dumps are kept and filtered."""

    def __init__(
        self,
        server_id: str,
        connection: Connection,
        feed: Feed,
        traits: Traits,
        estimate: int,
        parent: Chain,
        table: Table,
    ) -> None:
        super().__init__(server_id, connection, feed, traits, estimate)
        self._parent = parent
        self._table = table

    def extents(self) -> Iterator[Extent | Kept]:
        """Yield what is kept, the changed records, the delta of fingerprints, the tail and the users."""
        parent, number = self._parent, self._parent.number()
        for each in chain.kept([*parent.private(), *parent.dumps]):
            yield Kept(each)
        path, size = chain.numbered(chain.CHANGED, number), 0
        for _ in self._feed.ask():
            yield path, 0, b""
        began, come = self._feed.full(), bytearray()
        for extent in self._placed(path, 0, self._changed(path, come)):
            yield extent
            size += len(extent[2])
        changed = File(path, path, size, identity=chain.identity(began.replication_id, began.offset))
        private = chain.numbered(chain.DELTA, number)
        content = delta(self._traits.rdb, self._table, come)
        yield private, 0, content
        gone = File(private, private, len(content), private=True)
        yield from self._end(parent.table, (*parent.deltas, gone), (*parent.dumps, changed), began, number)

    def _changed(self, path: str, come: bytearray) -> Iterator[bytes]:
        def choose(fingerprint: bytes) -> bool:
            if self._table.take(fingerprint):
                return False
            come.extend(fingerprint)
            return True

        sink = Write(choose)
        walker = Walker(self._table.key, path, sink)
        yield head(self._traits.rdb)
        try:
            for piece in self._feed.rdb():
                walker.feed(piece)
                yield sink.taken()
            walker.finish()
        except Unwalkable as error:
            raise ToolFailed(f"the dump cannot be compared: {error}", hint="take a full without a parent") from error
        yield sink.taken() + END


def _walk(walker: Walker | None, piece: bytes | bytearray | memoryview) -> Walker | None:
    """Walk on; a dump that cannot be walked has no fingerprints, and is a full all the same."""
    if walker is not None:
        try:
            walker.feed(piece)
        except Unwalkable:
            return None
    return walker


def _walked(walker: Walker | None) -> bool:
    if walker is None:
        return False
    try:
        walker.finish()
    except Unwalkable:
        return False
    return True
