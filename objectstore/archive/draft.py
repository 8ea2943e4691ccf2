"""A draft: what will be a backup once it is sealed, and is nothing before.

The moves are separate so that each can be journalled: ``lease``, ``key``, ``open``, then
``add`` and ``keep``, then ``close`` and ``seal``.  Leaving a draft unsealed stops its
threads and deletes nothing: what it put is found by its attempt, and freed by a collection.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from objectstore.archive import manifest as roots
from objectstore.archive.contents import Contents
from objectstore.archive.copies import put_once
from objectstore.archive.engine import Engine
from objectstore.archive.index import Ref
from objectstore.archive.intake import check_extent
from objectstore.archive.lease import Lease, moment
from objectstore.archive.manifest import Manifest, Pack
from objectstore.archive.model import JSON, Cut, Entry, Header, check_entry, check_header, check_inventory
from objectstore.archive.pieces import Piece
from objectstore.archive.track import Track
from objectstore.archive.vault import Vault
from objectstore.archive.writer import write_inventory, write_map
from objectstore.store import BadRequest, Buffer, Corrupt, StoreError

Compare = Callable[[str, memoryview], Cut | None]


@dataclass(frozen=True)
class _Closed:
    """What the inventory came to: its size, its index and the packs that it needs."""

    files: int
    logical_bytes: int
    index: tuple[Ref, ...]
    packs: tuple[Pack, ...]


class Draft:
    """Take one backup, from one thread."""

    def __init__(self, vault: Vault, header: Header, *, workers: int, nice: int) -> None:
        self._vault = vault
        self._header = check_header(header)
        self._workers = max(1, workers)
        self._nice = nice
        self._lease = Lease(vault.store, vault.names, header)
        self._engine: Engine | None = None
        self._compare: Compare | None = None
        self._parent: Contents | None = None
        self._old: dict[str, Entry] = {}
        self._tracks: dict[str, Track] = {}
        self._closed: _Closed | None = None
        self._key_bytes = 0
        self.read_bytes = 0

    def __enter__(self) -> "Draft":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            self._engine.stop()

    @property
    def new_bytes(self) -> int:
        """Return how many bytes differed from the parent's so far."""
        return self._engine.intake.new_bytes if self._engine else 0

    @property
    def stored_bytes(self) -> int:
        """Return how many bytes were added to the store so far, one copy counted."""
        return self._key_bytes + (self._engine.stored_bytes if self._engine else 0)

    def lease(self) -> None:
        """Say in the store that this attempt is at work."""
        self._lease.take()

    def key(self) -> None:
        """Make the attempt's key and put it, wrapped, where restores will look for it."""
        sealer, wrapped = self._vault.new_key(self._header.generation, self._header.attempt)
        put_once(self._vault.store, self._vault.names.key(self._header.attempt, self._vault.keys.key_id), wrapped)
        self._key_bytes = len(wrapped)
        self._engine = Engine(self._vault, self._header, sealer, self._lease, self._workers, self._nice)

    def open(self, parent: Contents | None, compare: Compare) -> None:
        """Begin to take files, against a parent or none; ``compare`` says how each is cut (None: not at all)."""
        engine = self._running()
        if parent is not None:
            self._check_parent(parent.manifest)
            self._old = {entry.stored: entry for entry in parent.files} | {entry.path: entry for entry in parent.files}
            engine.intake.parent = parent.parts
            engine.index.know(parent.manifest.index)
        self._parent, self._compare = parent, compare

    def add(self, path: str, offset: int, buffer: Buffer) -> None:
        """Take an extent: it continues its file; the buffer is the caller's again on return.

        Raise ``Corrupt`` for a gap or an overlap, and whatever stopped a worker or an upload, soon.
        """
        engine = self._running()
        engine.monitor.check()
        view = memoryview(buffer).cast("B")
        track = self._tracks.get(path)
        if track is None:
            track = self._tracks[path] = self._new_track(path, view)
        check_extent(track, offset)
        engine.intake.add(track, view)
        self.read_bytes += len(view)

    def keep(self, path: str) -> None:
        """Take a file as the parent has it; ``Corrupt`` where it has none, or bytes came for it."""
        old = self._old.get(path)
        if old is None or path in self._tracks:
            raise Corrupt(f"{path!r:.120} cannot be kept: the parent has it not, or its bytes have come")
        self._tracks[path] = Track(path, None, old.stored, size=old.size, kept=True)

    def close(self, files: Iterable[Entry]) -> None:
        """Take the inventory, and have everything but the manifest in the store when this returns.

        ``Corrupt`` where a file of the inventory has not come whole.
        """
        engine = self._running()
        entries = [check_entry(entry) for entry in files]
        check_inventory(entries)
        tracks = {entry.stored: self._whole(entry) for entry in entries}
        engine.intake.finish()
        index = write_inventory(engine.index, entries)
        refs, packs = write_map(engine.index, engine.spool, tracks, self._kept)
        engine.drain()
        logical = sum(entry.size for entry in entries if not entry.private)
        self._closed = _Closed(len(entries), logical, (*index, *refs), self._packs(packs))

    def seal(self, kind: str, server_id: str, position: Mapping[str, JSON]) -> Manifest:
        """Put the manifest, last of all, and return it; from then on the backup exists, and the lease ends."""
        engine, closed = self._running(), self._closed
        if closed is None:
            raise BadRequest("a draft is closed before it is sealed")
        header, vault = self._header, self._vault
        attempts = {header.attempt, *(ref.attempt for ref in closed.index), *(pack.attempt for pack in closed.packs)}
        draft = Manifest(
            header=header,
            kind=kind,
            server_id=server_id,
            position=position,
            ended_at=moment(time.time()),
            key_id=vault.keys.key_id,
            logical_bytes=closed.logical_bytes,
            read_bytes=self.read_bytes,
            new_bytes=self.new_bytes,
            stored_bytes=self.stored_bytes,
            files=closed.files,
            index=closed.index,
            packs=closed.packs,
            attempts=tuple(sorted(attempts)),
        )
        self._closed = None  # its nonce is used now
        data = roots.encode(draft, vault.names.realm, engine.sealer)
        sealed = roots.decode(data, vault.names.realm, header.backup, header.attempt, lambda _: engine.sealer)
        put_once(vault.store, vault.names.manifest(header.backup, header.attempt), data)
        vault.cache.settle({ref.plain for ref in closed.index})
        with suppress(StoreError):  # the backup exists; a lease that stays runs out by itself
            self._lease.end()
        return sealed

    def _running(self) -> Engine:
        if self._engine is None:
            raise BadRequest("a draft has its key before it takes anything")
        return self._engine

    def _check_parent(self, parent: Manifest) -> None:
        theirs, ours = parent.header, self._header
        if (theirs.backup, theirs.generation) != (ours.parent, ours.generation):
            raise BadRequest(
                f"backup {theirs.backup} is not the parent that backup {ours.backup} names", field="parent"
            )

    def _new_track(self, path: str, head: memoryview) -> Track:
        if self._compare is None:
            raise BadRequest("a draft is open before it takes anything")
        old = self._old.get(path)
        return Track(path, self._compare(path, head), old.stored if old else None)

    def _whole(self, entry: Entry) -> Track:
        track = self._tracks.get(entry.stored)
        if track is None or track.size != entry.size:
            came = "nothing" if track is None else f"{track.size} bytes"
            raise Corrupt(f"{entry.path!r:.120} has {entry.size} bytes by the inventory, and {came} came for it")
        return track

    def _kept(self, track: Track) -> Iterator[Piece]:
        if self._parent is not None and track.old is not None:
            for piece in self._parent.parts.pieces(track.old, track.size):
                yield piece if track.old == track.path else piece.renamed(track.path)

    def _packs(self, needed: set[tuple[str, int]]) -> tuple[Pack, ...]:
        known = {(pack.attempt, pack.number): pack for pack in self._parent.manifest.packs} if self._parent else {}
        known |= {(pack.attempt, pack.number): pack for pack in self._running().packs.written.values()}
        missing = needed - known.keys()
        if missing:
            raise Corrupt(f"the map names {len(missing)} packs that nobody has put")
        return tuple(known[pack] for pack in sorted(needed))
