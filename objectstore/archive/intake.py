"""Taking in extents: one copy into group buffers here, the work in a crew of threads.

A file's bytes fill a group buffer; a full one goes to a worker, which compares it with
the parent's, compresses what is new and seals it into the pack.  Only a few files have a
buffer at a time: the one that waited longest is cut off where it stands, even in the
middle of a block (that block is then stored in two parts and counts as changed next time).
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap

from objectstore.archive import frames
from objectstore.archive.builder import Builder
from objectstore.archive.compare import Span, compare
from objectstore.archive.crew import Buffers, Crew, Monitor
from objectstore.archive.model import GROUP
from objectstore.archive.packs import Packs
from objectstore.archive.parts import Parts
from objectstore.archive.pieces import Piece, Run
from objectstore.archive.track import Emitted, Spool, Track
from objectstore.store import Buffer, Corrupt

MORE_OPEN = 3
"""Files that may have a buffer beside one for each worker: tools interleave as many files as they have threads."""
_LINE = 2
_ALONE = 64 << 10
"""Bytes of a piece from which on it is an index object by itself."""


@dataclass
class _Open:
    """A file that is being taken in: its group so far, from ``start`` on."""

    track: Track
    buffer: mmap | None = None
    start: int = 0
    used: int = 0


class Intake:
    """Take extents in any interleaving, and make pieces of them.  Called from one thread."""

    def __init__(
        self, monitor: Monitor, workers: Crew, count: int, packs: Packs, spool: Spool, emit: Callable[[Piece], Emitted]
    ) -> None:
        self._monitor = monitor
        self._workers = workers
        self._packs = packs
        self._spool = spool
        self._emit = emit
        self._most = count + MORE_OPEN
        self._buffers = Buffers(monitor, self._most + count + _LINE, GROUP)
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()
        self.parent: Parts | None = None
        self.new_bytes = 0

    def add(self, track: Track, data: memoryview) -> None:
        """Take the next bytes of a file."""
        file = self._opened(track)
        while len(data):
            if file.buffer is None:
                file.buffer, file.start, file.used = self._buffers.take(), track.size, 0
            room = min(len(data), track.group - track.size % track.group)
            file.buffer[file.used : file.used + room] = data[:room]
            file.used += room
            track.size += room
            data = data[room:]
            if track.size % track.group == 0:
                self._flush(file)

    def finish(self) -> None:
        """Work off everything; after this every piece is in its track."""
        while self._open:
            self._shut()
        self._workers.drain()
        self._packs.finish()

    def close(self) -> None:
        """Let the buffers go; nothing is taken any more."""
        self._open.clear()
        self._buffers.close()

    def _opened(self, track: Track) -> _Open:
        file = self._open.get(track.path)
        if file is None:
            if len(self._open) >= self._most:
                self._shut()
            file = self._open[track.path] = _Open(track)
            with self._lock:
                track.idle = False
        self._open.move_to_end(track.path)
        return file

    def _shut(self) -> None:
        """Cut off the file that waited longest, and put its piece aside."""
        _, file = self._open.popitem(last=False)
        if file.buffer is not None:
            self._flush(file)
        with self._lock:
            file.track.idle = True
            if file.track.building is not None:
                self._settle(file.track, file.track.building)

    def _flush(self, file: _Open) -> None:
        """Give a group to a worker."""
        track, buffer, begin, end = file.track, file.buffer, file.start, file.start + file.used
        if buffer is None:
            return
        file.buffer = None
        with self._lock:
            builder = self._builder(track, begin)
            builder.pending += 1
            if end % track.span == 0:
                builder.whole, track.building = True, None
        self._workers.submit(lambda: self._work(track, builder, buffer, begin, end))

    def _builder(self, track: Track, start: int) -> Builder:
        if track.building is None and track.rest is not None:
            track.building, track.rest = Builder.of(self._spool.read(track.rest)), None
        if track.building is None:
            track.building = Builder(track.shape(start))
        return track.building

    def _work(self, track: Track, builder: Builder, buffer: mmap, begin: int, end: int) -> None:
        self._monitor.check()
        with memoryview(buffer) as whole, whole[: end - begin] as view:
            found = compare(view, begin, track.cut, self._old(track, begin))
            runs = sorted([*found.kept, *self._store(track, view, begin, found.new)])
        self._buffers.give(buffer)
        with self._lock:
            self.new_bytes += sum(stop - start for start, stop in found.new)
            builder.add(begin, runs, found.prints, end)
            builder.pending -= 1
            piece = self._settle(track, builder)
        if piece is not None:
            self._place(track, piece)

    def _old(self, track: Track, begin: int) -> Piece | None:
        if self.parent is None or track.old is None or track.cut is None:
            return None
        piece = self.parent.piece(track.old, begin)
        return piece if piece is not None and piece.shape.compares_with(track.cut) else None

    def _store(self, track: Track, view: memoryview, begin: int, new: tuple[Span, ...]) -> list[Run]:
        """Make one frame of what is new in a group, and return its runs."""
        if not new:
            return []
        parts = [view[start - begin : stop - begin] for start, stop in new]
        data: Buffer = parts[0] if len(parts) == 1 else b"".join(parts)
        packed = frames.compress(data, track.effort.level())
        track.effort.learn(len(data), len(packed))
        frame = self._packs.write(packed, len(data))
        runs, at = [], 0
        for start, stop in new:
            runs.append(Run(start, stop - start, frame, at))
            at += stop - start
        return runs

    def _settle(self, track: Track, builder: Builder) -> Piece | None:
        """Return a piece that is whole; put one aside of which nothing is at work."""
        if builder.pending:
            return None
        if builder.whole:
            return builder.piece()
        if track.idle and track.building is builder:
            track.rest, track.building = self._spool.keep(builder.piece()), None
        return None

    def _place(self, track: Track, piece: Piece) -> None:
        placed = self._emit(piece) if piece.weight >= _ALONE else self._spool.keep(piece)
        with self._lock:
            track.done[piece.shape.start] = placed


def check_extent(track: Track, offset: int) -> None:
    """Raise ``Corrupt`` where an extent does not continue its file."""
    if track.kept:
        raise Corrupt(f"{track.path!r:.120} was kept as the parent's, and bytes came for it")
    if offset != track.size:
        raise Corrupt(f"{track.path!r:.120} has {track.size} bytes, and the next came for offset {offset}")
