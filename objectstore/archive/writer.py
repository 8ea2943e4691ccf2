"""Writing the index: what grows beside the packs, and what is put together at the end."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from blake3 import blake3

from objectstore.archive.cache import Cache
from objectstore.archive.crew import Crew
from objectstore.archive.index import FILES, MAP, Ref, digest, encode_files, encode_map, seal_part
from objectstore.archive.model import Entry
from objectstore.archive.pieces import Piece
from objectstore.archive.seal import Sealer
from objectstore.archive.track import Emitted, Spool, Spooled, Track

_PART = 1 << 20
_ENTRIES = 4096

PutIndex = Callable[[str, bytes], None]


class IndexWriter:
    """Seal parts of the index and have them put; a part that the parent has already is referenced."""

    def __init__(self, sealer: Sealer, put: PutIndex, uploads: Crew, cache: Cache) -> None:
        self._sealer = sealer
        self._put = put
        self._uploads = uploads
        self._cache = cache
        self._lock = threading.Lock()
        self._number = 0
        self._known: dict[str, Ref] = {}
        self.stored_bytes = 0

    def know(self, refs: Iterable[Ref]) -> None:
        """Reference these parts where one of ours would be equal."""
        self._known.update((ref.plain, ref) for ref in refs)

    def emit(self, piece: Piece) -> Emitted:
        """Write one piece as a part by itself."""
        return Emitted(self.write_map([piece]), frozenset(piece.packs()))

    def write_map(self, pieces: list[Piece]) -> Ref:
        """Write pieces, ascending by path and start, as one part."""
        first = pieces[0].shape
        return self._write(MAP, encode_map(pieces), first.path, first.start)

    def write_files(self, entries: list[Entry]) -> Ref:
        """Write entries of the inventory as one part."""
        return self._write(FILES, encode_files(entries), "", 0)

    def _write(self, kind: str, plain: bytes, path: str, start: int) -> Ref:
        name = digest(plain)
        self._cache.keep(name, plain)
        with self._lock:
            known = self._known.get(name)
            if known is not None:
                return replace(known, kind=kind, path=path, start=start)
            number, self._number = self._number, self._number + 1
        sealed = seal_part(self._sealer, number, plain)
        ref = Ref(kind, digest(sealed), self._sealer.attempt, len(sealed), name, len(plain), path, start)
        with self._lock:
            self._known[name] = ref
            self.stored_bytes += len(sealed)
        self._uploads.submit(lambda: self._put(ref.digest, sealed))
        return ref


def write_inventory(writer: IndexWriter, entries: Iterable[Entry]) -> list[Ref]:
    """Write the inventory in parts whose ends are chosen by the paths, so that a change moves few of them."""
    refs: list[Ref] = []
    part: list[Entry] = []
    size = 0
    for entry in entries:
        part.append(entry)
        size += len(entry.path) + len(entry.stored)
        if len(part) >= _ENTRIES or size >= _PART or _ends(entry.path, 1024):
            refs.append(writer.write_files(part))
            part, size = [], 0
    return [*refs, writer.write_files(part)] if part else refs


def write_map(
    writer: IndexWriter, spool: Spool, tracks: Mapping[str, Track], kept: Callable[[Track], Iterator[Piece]]
) -> tuple[list[Ref], set[tuple[str, int]]]:
    """Write what is left of the map; return the parts in order, and every pack that they need."""
    refs: list[Ref] = []
    packs: set[tuple[str, int]] = set()
    part: list[Piece] = []

    def flush() -> None:
        if part:
            refs.append(writer.write_map(part))
            part.clear()

    for path in sorted(tracks):
        for found in _found(tracks[path], spool, kept):
            if isinstance(found, Emitted):
                flush()
                refs.append(found.ref)
                packs |= found.packs
            else:
                packs |= found.packs()
                part.append(found)
                if sum(piece.weight + len(path) for piece in part) >= _PART:
                    flush()
        if _ends(path, 32):
            flush()
    flush()
    return refs, packs


def _found(track: Track, spool: Spool, kept: Callable[[Track], Iterator[Piece]]) -> Iterator[Emitted | Piece]:
    if track.kept:
        yield from kept(track)
        return
    for _, placed in sorted(track.done.items()):
        yield spool.read(placed) if isinstance(placed, Spooled) else placed
    if track.rest is not None:
        yield spool.read(track.rest)


def _ends(path: str, one_in: int) -> bool:
    """Return whether a part ends after this path: one in so many does, always the same ones."""
    return int.from_bytes(blake3(path.encode("utf-8", "surrogateescape")).digest(length=4), "little") % one_in == 0
