"""What a draft knows of one stored file while its bytes come."""

import os
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from objectstore.archive.builder import Builder
from objectstore.archive.frames import Effort
from objectstore.archive.index import MapPart, Ref, encode_map
from objectstore.archive.model import GROUP, Cut, check_cut
from objectstore.archive.pieces import Piece, Shape, group_size, span_size


@dataclass(frozen=True)
class Emitted:
    """A piece that is an index object by itself already, and the packs it needs."""

    ref: Ref
    packs: frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Spooled:
    """A piece that waits in the spool."""

    at: int
    length: int


class Spool:
    """Pieces that wait for the end, in a file without a name: the map of all files has no room in memory."""

    def __init__(self, directory: Path | None) -> None:
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - lives as long as the draft
        self._lock = threading.Lock()
        self._end = 0

    def keep(self, piece: Piece) -> Spooled:
        """Write a piece down."""
        data = encode_map([piece])
        with self._lock:
            kept = Spooled(self._end, len(data))
            self._end += len(data)
        os.pwrite(self._file.fileno(), data, kept.at)
        return kept

    def read(self, kept: Spooled) -> Piece:
        """Return a piece that was written down."""
        return MapPart(os.pread(self._file.fileno(), kept.length, kept.at)).piece(0)

    def close(self) -> None:
        """Forget everything."""
        self._file.close()


@dataclass
class Track:
    """One stored file: how it is cut, how far it came, and what its map consists of so far.

    ``old`` is the path under which the parent stored its file of this name.  ``building`` is the piece that
    grows, ``rest`` the same put aside, ``done`` those that are whole, by where they begin.
    ``idle``: no more is expected.  ``effort``: how hard its frames are compressed.
    """

    path: str
    cut: Cut | None
    old: str | None
    size: int = 0
    kept: bool = False
    done: dict[int, Emitted | Spooled] = field(default_factory=dict)
    building: Builder | None = None
    rest: Spooled | None = None
    idle: bool = True
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        if self.cut is not None:
            check_cut(self.cut, self.path)

    @property
    def group(self) -> int:
        """Return how many bytes make a group."""
        return group_size(self.cut.size) if self.cut else GROUP

    @property
    def span(self) -> int:
        """Return how many bytes make a piece."""
        return span_size(self.cut.size, self.cut.width) if self.cut else span_size(GROUP, 0)

    def shape(self, start: int) -> Shape:
        """Return the shape of the piece that begins at ``start``, as yet empty."""
        if self.cut is None:
            return Shape(self.path, start, 0, GROUP, 0, "")
        return Shape(self.path, start, 0, self.cut.size, self.cut.width, self.cut.lineage)
