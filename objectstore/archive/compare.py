"""Comparing a group of blocks with the parent's: what is new, and where the rest lies already."""

from dataclasses import dataclass

from objectstore.archive.model import Cut
from objectstore.archive.pieces import Piece, Run
from objectstore.store import BadRequest

Span = tuple[int, int]


@dataclass(frozen=True)
class Compared:
    """What became of a group: runs of the parent's, spans of the file that are new, and all fingerprints."""

    kept: tuple[Run, ...]
    new: tuple[Span, ...]
    prints: bytes


def compare(view: memoryview, begin: int, cut: Cut | None, old: Piece | None) -> Compared:
    """Compare the file's bytes from ``begin`` on, which are in ``view``, with a piece of the parent's.

    ``old`` holds the byte ``begin`` and was made in the same blocks under the same lineage, or is None.  A
    block is the parent's only where its fingerprint and its length are.
    """
    end = begin + len(view)
    if cut is None:
        return Compared((), ((begin, end),), b"")
    aligned = min(end, -(-begin // cut.size) * cut.size)
    prints = _fingerprints(cut, view[aligned - begin :])
    head = ((begin, aligned),) if aligned > begin else ()
    if old is None or aligned >= old.end:
        return Compared((), ((begin, end),), prints)
    if end <= old.end and (end % cut.size == 0 or end == old.end) and old.prints(aligned, end) == prints:
        return Compared(tuple(old.runs(aligned, end)), head, prints)
    kept, new = _blockwise(cut, aligned, end, prints, old)
    return Compared(tuple(kept), tuple(_joined([*head, *new])), prints)


def _fingerprints(cut: Cut, view: memoryview) -> bytes:
    prints = cut.fingerprints(view) if len(view) else b""
    if len(prints) != -(-len(view) // cut.size) * cut.width:
        raise BadRequest(f"{len(view)} bytes gave {len(prints)} bytes of fingerprints", field="fingerprints")
    return prints


def _blockwise(cut: Cut, begin: int, end: int, prints: bytes, old: Piece) -> tuple[list[Run], list[Span]]:
    theirs = bytes(old.prints(begin, min(end, old.end)))
    same: list[Span] = []
    new: list[Span] = []
    for number, at in enumerate(range(begin, end, cut.size)):
        stop = min(at + cut.size, end)
        print_ = slice(number * cut.width, (number + 1) * cut.width)
        whole = min(at + cut.size, old.end) == stop
        (same if whole and prints[print_] == theirs[print_] else new).append((at, stop))
    return [run for span in _joined(same) for run in old.runs(*span)], new


def _joined(spans: list[Span]) -> list[Span]:
    """Return the spans with neighbours made one."""
    joined: list[Span] = []
    for begin, end in spans:
        if joined and joined[-1][1] == begin:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((begin, end))
    return joined
