"""Fetching frames: adjacent ones in one go, each checked before its bytes are used, a few remembered."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator

from objectstore.archive.copies import read_whole
from objectstore.archive.frames import expand
from objectstore.archive.names import Names
from objectstore.archive.pieces import Frame
from objectstore.archive.seal import Sealer
from objectstore.store import Corrupt, Store

REACH = 4 << 20
"""Bytes of a pack that are got at once, at most."""
_GAP = 128 << 10
_REMEMBERED = 6 << 20


def check_frame(sealer: Sealer, frame: Frame, sealed: memoryview) -> bytes:
    """Return what a frame holds, or raise ``Corrupt``."""
    if len(sealed) != frame.length:
        raise Corrupt(f"pack {frame.pack} of attempt {frame.attempt} is cut off")
    return expand(sealer.open_frame(frame.pack, frame.number, sealed), frame.plain)


class Fetcher:
    """Get frames of one generation.  May be used from several threads."""

    def __init__(self, store: Store, names: Names, generation: str, sealer: Callable[[str], Sealer]) -> None:
        self._store = store
        self._names = names
        self._generation = generation
        self._sealer = sealer
        self._lock = threading.Lock()
        self._known: OrderedDict[Frame, bytes] = OrderedDict()
        self._held = 0

    def fetch(self, wanted: Iterable[Frame]) -> dict[Frame, bytes]:
        """Return what these frames hold, or raise ``Corrupt``; damaged copies are passed over."""
        frames = set(wanted)
        with self._lock:
            found = {frame: self._known[frame] for frame in frames if frame in self._known}
        for run in _runs(sorted(frames - found.keys())):
            found.update(self._get(run))
        self._remember(found)
        return found

    def forget(self) -> None:
        """Let go what was remembered."""
        with self._lock:
            self._known.clear()
            self._held = 0

    def _get(self, run: list[Frame]) -> dict[Frame, bytes]:
        first, last = run[0], run[-1]
        name = self._names.pack(self._generation, first.attempt, first.pack)
        sealer = self._sealer(first.attempt)
        start, end = first.offset, last.offset + last.length

        def check(data: bytes) -> dict[Frame, bytes]:
            with memoryview(data) as view:
                at = {frame: view[frame.offset - start : frame.offset - start + frame.length] for frame in run}
                return {frame: check_frame(sealer, frame, sealed) for frame, sealed in at.items()}

        try:
            return read_whole(self._store, name, check, start, end - start)
        except Corrupt:
            if len(run) == 1:
                raise
        return {frame: found for one in run for frame, found in self._get([one]).items()}

    def _remember(self, found: dict[Frame, bytes]) -> None:
        with self._lock:
            for frame, data in found.items():
                if frame not in self._known:
                    self._held += len(data)
                self._known[frame] = data
                self._known.move_to_end(frame)
            while self._held > _REMEMBERED:
                _, data = self._known.popitem(last=False)
                self._held -= len(data)


def _runs(frames: list[Frame]) -> Iterator[list[Frame]]:
    """Yield frames, ordered by attempt, pack and number, in lists that one get brings."""
    run: list[Frame] = []
    for frame in frames:
        if run and not _adjacent(run[0], run[-1], frame):
            yield run
            run = []
        run.append(frame)
    if run:
        yield run


def _adjacent(first: Frame, last: Frame, frame: Frame) -> bool:
    gap = frame.offset - last.offset - last.length
    near = 0 <= gap <= _GAP and frame.offset + frame.length - first.offset <= REACH
    return near and (first.attempt, first.pack) == (frame.attempt, frame.pack)
