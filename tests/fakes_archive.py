"""What the tests of the archive share: a store in memory, cuts, and backups in one line."""

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from objectstore.archive import Archive, Contents, Cut, Entry, Header, Manifest
from objectstore.keys import LocalKeys
from objectstore.store import Buffer, Exists, Missing, Stat, Store, check_container, checksum, split

KEK = bytes(range(32))


class MemoryStore(Store):
    """A store that forgets; ``objects`` may be looked at, and spoilt."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: str, data: Sequence[Buffer], *, only_new: bool = False) -> Stat:
        split(name)
        whole = b"".join(bytes(part) for part in data)
        with self._lock:
            if only_new and name in self.objects:
                raise Exists(name)
            self.objects[name] = whole
        return Stat(name, len(whole), checksum([whole]))

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        split(name)
        with self._lock:
            if name not in self.objects:
                raise Missing(f"there is no {name}")
            return self.objects[name][start : None if length is None else start + length]

    def stat(self, name: str) -> Stat:
        return Stat(name, len(self.get(name)))

    def list(self, container: str, prefix: str = "") -> Iterator[Stat]:
        check_container(container)
        with self._lock:
            names = sorted(name for name in self.objects if name.startswith(f"{container}/{prefix}"))
            return iter([Stat(name, len(self.objects[name])) for name in names])

    def containers(self) -> Iterator[str]:
        with self._lock:
            return iter(sorted({split(name)[0] for name in self.objects}))

    def delete(self, name: str) -> None:
        split(name)
        with self._lock:
            self.objects.pop(name, None)


class Twins(Store):
    """Two stores that should hold the same; a read takes the first answer, right or wrong."""

    def __init__(self, one: Store, other: Store) -> None:
        self._stores = {"east": one, "west": other}

    def put(self, name: str, data: Sequence[Buffer], *, only_new: bool = False) -> Stat:
        return [store.put(name, data, only_new=only_new) for store in self._stores.values()][0]

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        try:
            return self._stores["east"].get(name, start, length)
        except Missing:
            return self._stores["west"].get(name, start, length)

    def stat(self, name: str) -> Stat:
        return Stat(name, len(self.get(name)))

    def list(self, container: str, prefix: str = "") -> Iterator[Stat]:
        rows = {row.name: row for store in self._stores.values() for row in store.list(container, prefix)}
        return iter([rows[name] for name in sorted(rows)])

    def containers(self) -> Iterator[str]:
        return iter(sorted({name for store in self._stores.values() for name in store.containers()}))

    def delete(self, name: str) -> None:
        for store in self._stores.values():
            store.delete(name)

    def members(self) -> Mapping[str, Store]:
        return dict(self._stores)


@dataclass(frozen=True)
class Hashed:
    """Blocks with a hash of each as its fingerprint."""

    size: int = 4096
    width: int = 16
    lineage: str = "server-1"
    fingerprints: Callable[[memoryview], bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprints", self._prints)

    def _prints(self, buffer: memoryview) -> bytes:
        blocks = (buffer[at : at + self.size] for at in range(0, len(buffer), self.size))
        return b"".join(blake3(block).digest(length=self.width) for block in blocks)


def new_id() -> str:
    return str(uuid.uuid4())


def archive(store: Store | None = None, cache: Path | None = None, kek: bytes = KEK, wanted: int = 1) -> Archive:
    return Archive(store or MemoryStore(), "ostler", LocalKeys(kek), cache=cache, wanted=wanted)


def header(parent: Manifest | None = None, generation: str | None = None) -> Header:
    return Header(
        backup=new_id(),
        attempt=new_id(),
        guest_id="g1",
        generation=parent.header.generation if parent else generation or new_id(),
        parent=parent.header.backup if parent else None,
        datastore="toy",
        version="1.0",
        role="standalone",
        server_id="server-1",
        restore_epoch=1,
        started_at="2026-01-01T00:00:00Z",
    )


def entries(files: Mapping[str, bytes]) -> list[Entry]:
    return [Entry(path, path, len(data)) for path, data in files.items()]


def take(
    kept: Archive,
    files: Mapping[str, bytes],
    parent: Manifest | None = None,
    *,
    cut: Callable[[str], Cut | None] = lambda path: Hashed(),
    extents: Sequence[tuple[str, int, bytes]] | None = None,
    keep: Sequence[str] = (),
    inventory: Sequence[Entry] | None = None,
    workers: int = 2,
) -> Manifest:
    """Make one backup; ``extents`` stands for the files' bytes in another order."""
    head = header(parent)
    base: Contents | None = kept.contents(parent) if parent else None
    with kept.draft(head, workers=workers) as draft:
        draft.lease()
        draft.key()
        draft.open(base, lambda path, _: cut(path))
        for path in keep:
            draft.keep(path)
        for path, offset, data in extents if extents is not None else whole(files):
            draft.add(path, offset, data)
        draft.close(inventory if inventory is not None else entries(files))
        return draft.seal("incremental" if parent else "full", "server-1", {"offset": 7})


def whole(files: Mapping[str, bytes]) -> list[tuple[str, int, bytes]]:
    return [(path, 0, data) for path, data in files.items()]


def read(kept: Archive, manifest: Manifest) -> dict[str, bytes]:
    """Return all files of a backup, checking the order in which they come."""
    contents = kept.contents(manifest)
    found: dict[str, bytearray] = {}
    for path, offset, data in contents.extents():
        target = found.setdefault(path, bytearray())
        assert path == list(found)[-1], "a file came in two parts"
        assert offset == len(target)
        target += data
    assert list(found) == [entry.path for entry in contents.files]
    return {path: bytes(data) for path, data in found.items()}
