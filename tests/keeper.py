"""A keeper of backups in memory: what the agent and the archive do with a datastore's backup, without either."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard

from datastores.contract import Backup, Checkpoint, Extent, File, Kept, Limits, Since
from datastores.manager import Manager


@dataclass(frozen=True)
class Held:
    """One backup; ``stored`` are the bytes it added, compressed as the archive does, ``sent`` by stored path."""

    kind: str
    checkpoint: Checkpoint
    files: tuple[File, ...]
    content: dict[str, bytes]
    sent: dict[str, int]
    stored: int

    def since(self, on_hole: str = "fail") -> Since:
        """Return this backup as a parent."""
        return Since(self.checkpoint, self.files, lambda path: self.content[path], self.extents, on_hole)

    def extents(self, paths: Collection[str] | None = None, size: int = 300_000) -> Iterator[Extent]:
        """Give every file once, or those of these paths, in the order of the inventory."""
        for each in self.files if paths is None else [each for each in self.files if each.path in paths]:
            content = memoryview(self.content[each.stored])
            for offset in range(0, max(1, len(content)), size):
                yield each.stored, offset, content[offset : offset + size]


def take(
    backup: Backup,
    parent: Held | None = None,
    on_hole: str = "fail",
    limits: Limits | None = None,
    watch: Callable[[str, int], None] = lambda path, offset: None,
) -> Held:
    """Take a backup; ``watch`` is told of every extent after it was kept."""
    fresh: dict[str, bytearray] = {}
    content: dict[str, bytes] = {}
    with backup.snapshot(parent.since(on_hole) if parent else None, limits or Limits()) as snapshot:
        for extent in snapshot.extents():
            if isinstance(extent, Kept):
                assert parent is not None
                content[extent.path] = parent.content[extent.path]
                continue
            path, offset, buffer = extent
            assert offset == len(fresh.setdefault(path, bytearray())), f"a gap in {path}"
            fresh[path] += buffer
            watch(path, offset)
        files, kind = tuple(snapshot.files()), snapshot.kind
    content.update({path: bytes(each) for path, each in fresh.items()})
    for each in files:
        assert len(content[each.stored]) == each.size, each
        assert len(each.identity) <= 64
    packer = zstandard.ZstdCompressor(1)
    return Held(
        kind=kind,
        checkpoint=snapshot.checkpoint(),
        files=files,
        content={each.stored: content[each.stored] for each in files},
        sent={path: len(each) for path, each in fresh.items()},
        stored=sum(len(packer.compress(bytes(each))) for each in fresh.values()),
    )


def bring_back(manager: Manager, held: Held, *, swap: Callable[[Path], None] = lambda staging: None) -> None:
    """Restore into a guest as the agent does; ``swap`` may look at (or spoil) the staging folder before."""
    node, places = manager.node, manager.node.places
    node.host.remove(places.staging)
    node.host.folder(places.staging)
    manager.backup.restore(held.files, held.extents(), held.checkpoint, places.staging, "new")
    swap(places.staging)
    manager.service.stop()
    node.host.exchange(places.staging, places.data)
    manager.service.start()
    manager.admin.secure()
    manager.backup.confirm(held.checkpoint)
