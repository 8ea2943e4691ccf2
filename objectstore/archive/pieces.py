"""Pieces: the map of one span of one file, from its bytes to frames, with its fingerprints.

A file is cut in spans of a fixed size; the map of each is one piece::

    frames        where a frame lies: attempt, pack, number, offset, length (sealed), plain (size)
    runs          from which byte of the span on, which frame, from which byte of it on
    fingerprints  of each block that begins in the span, if the file is compared at all

Runs are ascending and leave no gap; a run ends where the next begins, the last one with
the span.  Columns are of unsigned 32-bit numbers, little-endian.
"""

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from objectstore.archive.model import GROUP, JSON, PACK, WIDEST, Cut, check_id, check_path
from objectstore.archive.seal import TAG
from objectstore.store import BadRequest, Corrupt

_FRAME_COLUMNS = 6
_RUN_COLUMNS = 3
_SPAN_GROUPS = 1024
_SPAN_PRINTS = 1 << 20
_REMEMBERED = 256
_MOST = 1 << 22  # frames, runs or attempts in one piece


Column: TypeAlias = "array[int]"


class Frame(NamedTuple):
    """One frame: who wrote it, where it lies in its pack, and how long it is sealed and plain."""

    attempt: str
    pack: int
    number: int
    offset: int
    length: int
    plain: int


class Run(NamedTuple):
    """``length`` bytes of a file from ``start`` on are those of a frame from ``offset`` on."""

    start: int
    length: int
    frame: Frame
    offset: int


def group_size(block: int) -> int:
    """Return how many bytes of a file with such blocks make a group."""
    return GROUP // block * block


def span_size(block: int, width: int) -> int:
    """Return how many bytes of a file make a piece: its fingerprints are 1 MiB at most."""
    group = group_size(block)
    prints = group // block * max(width, 1)
    return group * max(1, min(_SPAN_GROUPS, _SPAN_PRINTS // prints))


@dataclass(frozen=True)
class Shape:
    """Which file a piece is of, which span of it, and how the file is compared (``width`` 0: not at all)."""

    path: str
    start: int
    length: int
    block: int
    width: int
    lineage: str

    @property
    def blocks(self) -> int:
        """Return how many fingerprints the piece has."""
        return -(-self.length // self.block) if self.width else 0

    def compares_with(self, cut: Cut) -> bool:
        """Return whether its fingerprints mean the same as those made under ``cut``."""
        return (self.block, self.width, self.lineage) == (cut.size, cut.width, cut.lineage)


class Piece:
    """A piece as it is read; nothing in it is changed."""

    def __init__(
        self,
        shape: Shape,
        attempts: Sequence[str],
        frames: Sequence[Column],
        runs: Sequence[Column],
        prints: memoryview,
    ) -> None:
        self.shape = shape
        self.attempts = attempts
        self._frames = frames
        self._starts, self._which, self._offsets = runs
        self._prints = prints
        self._made: dict[int, Frame] = {}

    @property
    def end(self) -> int:
        """Return where in the file the piece ends."""
        return self.shape.start + self.shape.length

    @property
    def weight(self) -> int:
        """Return about how many bytes the piece takes in an index object."""
        return 4 * (_FRAME_COLUMNS * len(self._frames[0]) + _RUN_COLUMNS * len(self._starts)) + len(self._prints)

    def renamed(self, path: str) -> "Piece":
        """Return the same piece of a file that is stored under another path."""
        shape = replace(self.shape, path=path)
        runs = self._starts, self._which, self._offsets
        return Piece(shape, self.attempts, self._frames, runs, self._prints)

    def frames(self) -> Iterator[Frame]:
        """Yield every frame of the piece once."""
        return (self._frame(number) for number in range(len(self._frames[0])))

    def packs(self) -> set[tuple[str, int]]:
        """Return attempt and number of every pack that the piece needs."""
        return {(self.attempts[attempt], pack) for attempt, pack in zip(self._frames[0], self._frames[1], strict=True)}

    def runs(self, begin: int, end: int) -> Iterator[Run]:
        """Yield the runs of the file's bytes from ``begin`` to ``end``, both in the piece."""
        base = self.shape.start
        number = bisect_right(self._starts, begin - base) - 1
        while begin < end:
            first = base + self._starts[number]
            after = base + self._starts[number + 1] if number + 1 < len(self._starts) else self.end
            stop = min(end, after)
            yield Run(begin, stop - begin, self._frame(self._which[number]), self._offsets[number] + begin - first)
            begin, number = stop, number + 1

    def prints(self, begin: int, end: int) -> memoryview:
        """Return the fingerprints of the blocks that begin from ``begin`` (itself a block's begin) to ``end``."""
        first = (begin - self.shape.start) // self.shape.block
        last = -(-(end - self.shape.start) // self.shape.block)
        return self._prints[first * self.shape.width : last * self.shape.width]

    def check(self) -> None:
        """Raise ``Corrupt`` where the piece does not say, for every byte, where in which frame it is."""
        starts, frames = self._starts, len(self._frames[0])
        ends = [*starts[1:], self.shape.length] if starts else []
        for attempt, _, _, offset, length, plain in zip(*self._frames, strict=True):
            if attempt >= len(self.attempts) or not 0 < plain <= GROUP or length < TAG or offset + length > PACK:
                raise Corrupt(f"the map of {self.shape.path!r:.120} has an impossible frame")
        for start, end, which, offset in zip(starts, ends, self._which, self._offsets, strict=True):
            if end <= start or which >= frames or offset + end - start > self._frames[5][which]:
                raise Corrupt(f"the map of {self.shape.path!r:.120} has an impossible run")
        if bool(starts) != bool(self.shape.length) or (starts and starts[0]):
            raise Corrupt(f"the map of {self.shape.path!r:.120} does not begin where it should")

    def _frame(self, number: int) -> Frame:
        found = self._made.get(number)
        if found is None:
            attempt, *rest = (column[number] for column in self._frames)
            if len(self._made) >= _REMEMBERED:
                self._made.clear()
            found = self._made[number] = Frame(self.attempts[attempt], *rest)
        return found

    def encode(self) -> tuple[dict[str, JSON], bytes]:
        """Return the piece's line in the head of an index object, and its bytes there."""
        shape = self.shape
        head: dict[str, JSON] = {
            "path": shape.path,
            "start": shape.start,
            "length": shape.length,
            "block": shape.block,
            "width": shape.width,
            "lineage": shape.lineage,
            "attempts": list(self.attempts),
            "frames": len(self._frames[0]),
            "runs": len(self._starts),
        }
        columns = [*self._frames, self._starts, self._which, self._offsets]
        return head, b"".join([*map(_little, columns), self._prints])


def body_size(head: Mapping[str, JSON]) -> int:
    """Return how many bytes a piece takes, by its line in the head."""
    shape = shape_of(head)
    frames, runs = _number(head, "frames", _MOST), _number(head, "runs", _MOST)
    return 4 * (_FRAME_COLUMNS * frames + _RUN_COLUMNS * runs) + shape.blocks * shape.width


def shape_of(head: Mapping[str, JSON]) -> Shape:
    """Return the shape in a piece's line, or raise ``Corrupt``."""
    path, lineage = head.get("path"), head.get("lineage")
    if not isinstance(path, str) or not isinstance(lineage, str):
        raise Corrupt("an index has a piece without a path or lineage")
    block, width = _number(head, "block", GROUP), _number(head, "width", WIDEST)
    shape = Shape(
        check_path(path), _number(head, "start", 1 << 62), _number(head, "length", 1 << 32), block, width, lineage
    )
    if block == 0:
        raise Corrupt(f"the map of {path!r:.120} has blocks of no size")
    return shape


def decode(head: Mapping[str, JSON], body: memoryview) -> Piece:
    """Return the piece of a head's line and its bytes, or raise ``Corrupt``."""
    shape, frames = shape_of(head), 4 * _FRAME_COLUMNS * _number(head, "frames", _MOST)
    runs = 4 * _RUN_COLUMNS * _number(head, "runs", _MOST)
    attempts = head.get("attempts")
    if not isinstance(attempts, list) or len(body) != body_size(head):
        raise Corrupt(f"the map of {shape.path!r:.120} is cut off")
    try:
        names = [check_id(str(attempt), "attempts") for attempt in attempts]
    except BadRequest as error:
        raise Corrupt(f"the map of {shape.path!r:.120}: {error}") from None
    tables = _columns(body[:frames], _FRAME_COLUMNS), _columns(body[frames : frames + runs], _RUN_COLUMNS)
    piece = Piece(shape, names, *tables, body[frames + runs :])
    piece.check()
    return piece


def _number(head: Mapping[str, JSON], field: str, most: int) -> int:
    value = head.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Corrupt(f"an index has a piece whose {field} is {value!r:.40}")
    return value


def _columns(data: memoryview, count: int) -> list[Column]:
    size = len(data) // count
    return [_big(array("I", bytes(data[number * size : (number + 1) * size]))) for number in range(count)]


def _little(column: Column) -> bytes:
    return _big(column[:]).tobytes()


def _big(column: Column) -> Column:
    if sys.byteorder == "big":
        column.byteswap()
    return column
