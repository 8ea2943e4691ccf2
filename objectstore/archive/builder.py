"""Building a piece while its groups come back from the workers in any order."""

import os
from array import array
from collections.abc import Sequence
from dataclasses import replace

from objectstore.archive.pieces import Frame, Piece, Run, Shape


class Builder:
    """Gather what becomes one piece.

    ``pending`` counts the groups that are with a worker; ``whole``: no more will come.  Runs of the same frame that
    continue each other become one, so that equal content always makes an equal piece.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self.pending = 0
        self.whole = False
        self._next = shape.start
        self._early: dict[int, tuple[Sequence[Run], bytes, int]] = {}
        self._frames: dict[Frame, int] = {}
        self._starts, self._which, self._offsets = array("I"), array("I"), array("I")
        self._prints = bytearray()
        self._last: Run | None = None

    @classmethod
    def of(cls, piece: Piece) -> "Builder":
        """Return a builder that continues a piece."""
        builder = cls(replace(piece.shape, length=0))
        builder.add(
            piece.shape.start,
            list(piece.runs(piece.shape.start, piece.end)),
            bytes(piece.prints(piece.shape.start, piece.end)),
            piece.end,
        )
        return builder

    def add(self, begin: int, runs: Sequence[Run], prints: bytes, end: int) -> None:
        """Add the group from ``begin`` to ``end``: its runs, and fingerprints of the blocks that begin in it."""
        self._early[begin] = (runs, prints, end)
        while self._next in self._early:
            runs, prints, end = self._early.pop(self._next)
            if self._shape.width and self._next % self._shape.block:
                self._forget_block()
            for run in runs:
                self._append(run)
            self._prints += prints
            self._next = end

    def piece(self) -> Piece:
        """Return the piece; every group must have come back."""
        if self._early:
            raise AssertionError("a group is missing")
        number: dict[str, int] = {}
        for frame in self._frames:
            number.setdefault(frame.attempt, len(number))
        rows = [(number[frame.attempt], *frame[1:]) for frame in self._frames]
        frames = [array("I", column) for column in zip(*rows, strict=True)]
        shape = replace(self._shape, length=self._next - self._shape.start)
        runs = self._starts, self._which, self._offsets
        return Piece(shape, list(number), frames, runs, memoryview(bytes(self._prints)))

    def _append(self, run: Run) -> None:
        last = self._last
        if last is not None and last.frame == run.frame and last.offset + last.length == run.offset:
            self._last = last._replace(length=last.length + run.length)
            return
        self._starts.append(run.start - self._shape.start)
        self._which.append(self._frames.setdefault(run.frame, len(self._frames)))
        self._offsets.append(run.offset)
        self._last = run

    def _forget_block(self) -> None:
        """Give a block that came in two parts a fingerprint that equals none."""
        width = self._shape.width
        self._prints[-width:] = os.urandom(width)
