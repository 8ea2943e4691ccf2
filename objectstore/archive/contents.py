"""What a backup holds: its inventory, and its files' bytes, every one of them verified."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from objectstore.archive.fetch import Fetcher
from objectstore.archive.manifest import Manifest
from objectstore.archive.model import Entry
from objectstore.archive.parts import Parts
from objectstore.archive.pieces import Frame
from objectstore.archive.vault import Vault
from objectstore.store import Missing

Extent = tuple[str, int, memoryview]

_READERS = 2
_AHEAD = 3
_WINDOW = 2 << 20
_LARGE = 128 << 10
_JOINED = 1 << 20


class _Want(NamedTuple):
    """One extent to come; ``frame`` is None for an empty file."""

    path: str
    start: int
    length: int
    frame: Frame | None
    offset: int


class Contents:
    """Read one backup.  ``files`` is its inventory in the order of a restore, private files first."""

    def __init__(self, vault: Vault, manifest: Manifest) -> None:
        generation = manifest.header.generation
        self.manifest = manifest
        self.parts = Parts(
            manifest, vault.store, vault.names, lambda attempt: vault.sealer(generation, attempt), vault.cache
        )
        self._fetcher = Fetcher(vault.store, vault.names, generation, lambda attempt: vault.sealer(generation, attempt))
        found = self.parts.files()
        self.files: tuple[Entry, ...] = tuple(sorted(found, key=lambda entry: not entry.private))

    def read(self, path: str) -> bytes:
        """Return the bytes of a file, meant for a private one; ``Missing`` where there is none."""
        for entry in self.files:
            if entry.path == path:
                return b"".join(bytes(data) for _, _, data in self._extents([entry]))
        raise Missing(f"backup {self.manifest.header.backup} has no file {path!r:.120}")

    def extents(self, paths: Collection[str] | None = None, *, ahead: int = _AHEAD) -> Iterator[Extent]:
        """Yield each file once, in the order of ``files``, its offsets ascending; an empty one as one empty extent.

        ``paths``: the files that are wanted; None: all.  ``ahead``: how much is read ahead, in windows of 2 MiB.  A
        buffer is good until the next one is asked for.  Raise ``Corrupt`` before anything that is not what was stored.
        """
        return self._extents((each for each in self.files if paths is None or each.path in paths), ahead)

    def _extents(self, entries: Iterable[Entry], most: int = 0) -> Iterator[Extent]:
        windows = _windows(self._wants(entries))
        with ThreadPoolExecutor(_READERS, "archive-get") as pool:
            ahead: deque[Future[list[Extent]]] = deque()
            try:
                for window in windows:
                    ahead.append(pool.submit(self._fill, window))
                    if len(ahead) > most:
                        yield from ahead.popleft().result()
                while ahead:
                    yield from ahead.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
                self._fetcher.forget()

    def _wants(self, entries: Iterable[Entry]) -> Iterator[_Want]:
        for entry in entries:
            if entry.size == 0:
                yield _Want(entry.path, 0, 0, None, 0)
            for piece in self.parts.pieces(entry.stored, entry.size):
                for run in piece.runs(piece.shape.start, piece.end):
                    yield _Want(entry.path, run.start, run.length, run.frame, run.offset)

    def _fill(self, window: list[_Want]) -> list[Extent]:
        frames = self._fetcher.fetch(want.frame for want in window if want.frame is not None)
        extents: list[Extent] = []
        for want in window:
            data = (
                memoryview(frames[want.frame])[want.offset : want.offset + want.length]
                if want.frame
                else memoryview(b"")
            )
            extents.append((want.path, want.start, data))
        return list(_joined(extents))


def _windows(wants: Iterator[_Want]) -> Iterator[list[_Want]]:
    """Yield wants in lists whose frames together are small enough to be in memory."""
    window: list[_Want] = []
    frames: set[Frame] = set()
    held = 0
    for want in wants:
        new = want.frame is not None and want.frame not in frames
        if want.frame is not None and new:
            held += want.frame.plain
            frames.add(want.frame)
        window.append(want)
        if held >= _WINDOW or len(window) >= 4096:
            yield window
            window, frames, held = [], set(), 0
    if window:
        yield window


def _joined(extents: list[Extent]) -> Iterator[Extent]:
    """Yield extents with small neighbours in one file made one, for whoever writes them."""
    held: list[memoryview] = []
    path, start, size = "", 0, 0
    for name, offset, data in extents:
        joins = held and name == path and offset == start + size and len(data) < _LARGE and size + len(data) <= _JOINED
        if not joins:
            if held:
                yield path, start, _one(held)
            held, path, start, size = [], name, offset, 0
        held.append(data)
        size += len(data)
    if held:
        yield path, start, _one(held)


def _one(parts: list[memoryview]) -> memoryview:
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
