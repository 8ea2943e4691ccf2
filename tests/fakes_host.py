"""A keeper of extents in memory: what the archive promises a backup, with the promises checked on the way."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datastores.contract import Backup, Blocks, Checkpoint, Extent, File, Identity, Kept, Limits, Since, Whole

PIECE = 100_000


@dataclass
class Taken:
    """One backup in memory."""

    kind: str
    checkpoint: Checkpoint
    files: tuple[File, ...]
    data: dict[str, bytes]
    prints: dict[str, tuple[str, int, list[bytes]]] = field(default_factory=dict)
    new_bytes: int = 0
    kept: int = 0

    def since(self, on_hole: str = "fail") -> Since:
        """Return this backup as the next one's parent."""
        return Since(self.checkpoint, self.files, self.private, self.extents, on_hole)

    def private(self, path: str) -> bytes:
        """Return a private file."""
        assert any(each.path == path and each.private for each in self.files), f"{path} is not private"
        return self.data[path]

    def in_order(self) -> tuple[File, ...]:
        """Return the inventory with the private files first, as a restore gets it."""
        return (*(each for each in self.files if each.private), *(each for each in self.files if not each.private))

    def extents(self, paths: Collection[str] | None = None) -> Iterator[Extent]:
        """Yield every file once, or those of these paths, in order, offsets ascending; the buffer is used again."""
        for each in self.in_order() if paths is None else [each for each in self.in_order() if each.path in paths]:
            content = self.data[each.path]
            for offset in range(0, len(content) or 1, PIECE):
                buffer = bytearray(content[offset : offset + PIECE])
                yield each.path, offset, memoryview(buffer)
                buffer[:] = b"\xee" * len(buffer)

    @property
    def size(self) -> int:
        """Return what a restore writes."""
        return sum(each.size for each in self.files if not each.private)


class Keeper:
    """Take one snapshot, holding it to the contract."""

    def __init__(self, parent: Taken | None = None) -> None:
        self._parent = parent
        self._open: dict[str, bytearray] = {}
        self._kept: dict[str, bytes] = {}
        self._cuts: dict[str, Blocks | Whole] = {}

    def take(
        self,
        backup: Backup,
        on_hole: str = "fail",
        limits: Limits | None = None,
        meanwhile: Callable[[], object] | None = None,
    ) -> Taken:
        """Run the loop that joins the two libraries; ``meanwhile`` happens once, after the first extent."""
        since = self._parent.since(on_hole) if self._parent is not None else None
        with backup.snapshot(since, limits or Limits()) as snapshot:
            for each in snapshot.extents():
                if isinstance(each, Kept):
                    self._keep(each.path)
                else:
                    self._add(*each, snapshot.blocks)
                if meanwhile is not None:
                    meanwhile()
                    meanwhile = None
            files = tuple(snapshot.files())
            checkpoint, kind = snapshot.checkpoint(), snapshot.kind
        return self._close(files, checkpoint, kind)

    def _keep(self, path: str) -> None:
        assert self._parent is not None, "a file was kept though there is no parent"
        names = {each.stored: each.path for each in self._parent.files}
        assert path in names, f"{path} was kept, but the parent has no such file"
        self._kept[path] = self._parent.data[names[path]]

    def _add(self, path: str, offset: int, buffer: bytes | bytearray | memoryview, blocks: object) -> None:
        assert not path.startswith("/") and ".." not in path.split("/"), path
        if path not in self._open:
            assert callable(blocks)
            self._cuts[path] = blocks(path, memoryview(buffer))
        have = self._open.setdefault(path, bytearray())
        assert offset == len(have), f"{path}: extent at {offset}, but {len(have)} bytes are there"
        have += buffer

    def _close(self, files: tuple[File, ...], checkpoint: Checkpoint, kind: str) -> Taken:
        assert len({each.path for each in files}) == len(files), "a path stands twice in the inventory"
        taken = Taken(kind, checkpoint, files, {}, kept=len(self._kept))
        for each in files:
            content = self._kept.get(each.stored, None)
            if content is None:
                content = bytes(self._open[each.stored])
                taken.new_bytes += self._fresh(each, content, taken)
            elif self._parent is not None and each.stored in self._parent.prints:
                taken.prints[each.path] = self._parent.prints[each.stored]
            assert len(content) == each.size, f"{each.path}: {len(content)} bytes, the inventory says {each.size}"
            assert len(each.identity) <= 64
            taken.data[each.path] = content
        return taken

    def _fresh(self, file: File, content: bytes, taken: Taken) -> int:
        """Return how many bytes differ from the parent; equal fingerprints must mean equal bytes."""
        cut = self._cuts[file.stored]
        if isinstance(cut, Whole) or not content:
            old = self._parent.data.get(file.path) if self._parent is not None else None
            return 0 if old == content else len(content)
        raw = cut.fingerprints(memoryview(content))
        prints = [raw[at : at + cut.width] for at in range(0, len(raw), cut.width)]
        assert len(prints) == -(-len(content) // cut.size), f"{file.path}: {len(prints)} fingerprints"
        taken.prints[file.path] = (cut.lineage, cut.size, prints)
        before = self._parent.prints.get(file.path) if self._parent is not None else None
        if self._parent is None or before is None or before[:2] != (cut.lineage, cut.size):
            return len(content)
        return sum(self._differs(file.path, content, cut.size, n, prints, before[2]) for n in range(len(prints)))

    def _differs(
        self, path: str, content: bytes, size: int, number: int, new: Sequence[bytes], old: Sequence[bytes]
    ) -> int:
        assert self._parent is not None
        part = content[number * size : (number + 1) * size]
        if number >= len(old) or new[number] != old[number]:
            return len(part)
        was = self._parent.data[path][number * size : (number + 1) * size]
        assert part == was, f"{path}: block {number} has the parent's fingerprint and other bytes"
        return 0


def restore(backup: Backup, taken: Taken, into: Path, identity: Identity = "new") -> None:
    """Give a backup's restore what the archive would."""
    backup.restore(taken.in_order(), taken.extents(), taken.checkpoint, into, identity)
