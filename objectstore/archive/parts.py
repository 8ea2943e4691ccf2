"""Reading a backup's index: a few parts in memory, the others where they are."""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator

from objectstore.archive.cache import Cache
from objectstore.archive.copies import read_whole
from objectstore.archive.index import FILES, MAP, MapPart, Ref, decode_files, open_part
from objectstore.archive.manifest import Manifest
from objectstore.archive.model import Entry, check_inventory
from objectstore.archive.names import Names
from objectstore.archive.pieces import Piece
from objectstore.archive.seal import Sealer
from objectstore.store import Corrupt, Store

_PARTS = 2
_PIECES = 6


class Parts:
    """Find files and pieces in the index of one backup.  May be used from several threads."""

    def __init__(
        self, manifest: Manifest, store: Store, names: Names, sealer: Callable[[str], Sealer], cache: Cache
    ) -> None:
        self._store = store
        self._names = names
        self._sealer = sealer
        self._cache = cache
        self._files = [ref for ref in manifest.index if ref.kind == FILES]
        self._map = [ref for ref in manifest.index if ref.kind == MAP]
        self._keys = [(ref.path, ref.start) for ref in self._map]
        if any(one >= other for one, other in zip(self._keys, self._keys[1:], strict=False)):
            raise Corrupt(f"the index of backup {manifest.header.backup} is out of order")
        self._count = manifest.files
        self._lock = threading.Lock()
        self._parts: OrderedDict[int, MapPart] = OrderedDict()
        self._pieces: OrderedDict[tuple[int, int], Piece] = OrderedDict()

    def files(self) -> list[Entry]:
        """Return the inventory in the order of a restore, or raise ``Corrupt``."""
        entries = [entry for ref in self._files for entry in decode_files(self.load(ref))]
        if len(entries) != self._count:
            raise Corrupt(f"the inventory has {len(entries)} entries, not {self._count}")
        check_inventory(entries)
        return entries

    def piece(self, path: str, offset: int) -> Piece | None:
        """Return the piece with this byte of a stored file, or None."""
        number = bisect_right(self._keys, (path, offset)) - 1
        if number < 0:
            return None
        with self._lock:
            part = self._part(number)
            found = part.find(path, offset)
            piece = None if found is None else self._piece(number, found)
        return piece if piece is not None and offset < piece.end else None

    def pieces(self, path: str, size: int) -> Iterator[Piece]:
        """Yield the pieces of a stored file of ``size`` bytes; ``Corrupt`` where they are not just that."""
        at = 0
        while at < size:
            piece = self.piece(path, at)
            if piece is None or piece.shape.start != at or piece.end > size:
                raise Corrupt(f"the map of {path!r:.120} does not cover its {size} bytes")
            yield piece
            at = piece.end

    def load(self, ref: Ref) -> bytes:
        """Return the content of a part: from the cache, else from the store and into the cache."""
        plain = self._cache.get(ref.plain, ref.length)
        if plain is None:
            sealer = self._sealer(ref.attempt)
            plain = read_whole(self._store, self._names.index(ref.digest), lambda data: open_part(sealer, ref, data))
            self._cache.keep(ref.plain, plain)
        return plain

    def _part(self, number: int) -> MapPart:
        if number not in self._parts:
            part = MapPart(self.load(self._map[number]))
            if not part.keys or part.keys[0] != self._keys[number]:
                raise Corrupt("a part of the map does not begin where its manifest says")
            self._parts[number] = part
            if len(self._parts) > _PARTS:
                self._parts.popitem(last=False)
        self._parts.move_to_end(number)
        return self._parts[number]

    def _piece(self, part: int, number: int) -> Piece:
        key = (part, number)
        if key not in self._pieces:
            self._pieces[key] = self._parts[part].piece(number)
            if len(self._pieces) > _PIECES:
                self._pieces.popitem(last=False)
        self._pieces.move_to_end(key)
        return self._pieces[key]
