"""The files of a snapshot: which SSTable each belongs to, what tells it from another, and its bytes.

A large component is written once under a name that is never used again, so its name, its size and the checksum of
its SSTable's data are its identity.  The others (statistics, filters, storage-attached indexes) may be replaced under
the same name, and names that are numbers come again: those are compared by content.
"""

import contextlib
import fcntl
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3
from isal import isal_zlib

from datastores.contract import Blocks, Buffer, Mismatch

DIGEST = "Digest.crc32"
DATA = "Data.db"
MANIFEST = "manifest.json"
MADE_AGAIN = frozenset({MANIFEST, "schema.cql"})
"""What a snapshot writes beside its links: the checkpoint and the backup's own schema say more."""
PIECE = 1 << 20
WIDTH = 32
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_ONCE = frozenset({DATA, "Index.db", "Partitions.db", "Rows.db"})
_NAME = re.compile(r"(?P<sstable>[a-z]{2}-(?P<id>[0-9a-z_]+)-[a-z]+)-(?P<component>[\w.+\-]+)")
_UNIQUE = re.compile(r"[0-9a-z]{4}_[0-9a-z]{4}_[0-9a-z]{18}")
_PLACE = re.compile(r"\w{1,48}/\w{1,222}-[0-9a-f]{32}/(\.\w+/)?[^/]+")


@dataclass(frozen=True)
class Component:
    """One file of an SSTable: ``sstable`` as ``nb-ID-big``, ``kind`` as ``Data.db``; ``unique``: named by a UUID."""

    sstable: str
    kind: str
    unique: bool

    @classmethod
    def of(cls, name: str) -> "Component | None":
        """Return what a file's name says, or None where it is no component's."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        return cls(found["sstable"], found["component"], _UNIQUE.fullmatch(found["id"]) is not None)


@dataclass(frozen=True)
class Piece:
    """One file of a snapshot: where it lies now, where it belongs, and ``crc``, what its SSTable's data sums up to."""

    source: Path
    path: str
    size: int
    mode: int
    crc: int | None

    @property
    def component(self) -> Component | None:
        """Return which component of which SSTable the file is."""
        return Component.of(self.source.name)

    @property
    def identity(self) -> bytes:
        """Return what no other bytes under this path can have, or nothing where only the content tells."""
        found = self.component
        if found is None or not found.unique or found.kind not in _ONCE or self.crc is None:
            return b""
        return b"%d:%d" % (self.crc, self.size)

    def extents(self) -> Iterator[tuple[str, int, Buffer]]:
        """Yield the file's bytes; ``Mismatch`` where data is not what its checksum says it was when it was written."""
        found, crc, at = self.component, 0, 0
        checked = self.crc is not None and found is not None and found.kind == DATA
        for piece in contents(self.source):
            if checked:
                crc = int(isal_zlib.crc32(piece, crc))
            yield self.path, at, piece
            at += len(piece)
        if at != self.size or (checked and crc != self.crc):
            raise Mismatch(f"{self.path} is damaged on the server's disk", hint="scrub or repair the table")


def placed(path: str) -> bool:
    """Say whether a path is that of a file of a table, as KEYSPACE/TABLE-ID/FILE or below an index's folder."""
    return _PLACE.fullmatch(path) is not None


def linked(data: Path, tag: str) -> Iterator[Piece]:
    """Yield the files of a snapshot by path."""
    for folder in sorted(data.glob(f"*/*/snapshots/{tag}")):
        table = folder.parent.parent
        for inner in (folder, *sorted(each for each in folder.iterdir() if each.is_dir())):
            place = f"{table.parent.name}/{table.name}/" + (f"{inner.name}/" if inner != folder else "")
            yield from _components(inner, place)


def compared() -> Blocks:
    """Return how a file is compared of which only the content tells."""
    return Blocks(PIECE, WIDTH, "blake3", hashes)


def hashes(view: memoryview) -> bytes:
    """Return the digest of each block."""
    return b"".join(blake3(view[at : at + PIECE]).digest(WIDTH) for at in range(0, len(view), PIECE))


def contents(path: Path) -> Iterator[memoryview]:
    """Yield a file in pieces of 1 MiB from memory that is used again, past the page cache where it is large."""
    number = os.open(path, _READ)
    try:
        if os.fstat(number).st_size >= PIECE:
            _past_the_cache(number)
        # Such reads want their memory aligned, and an anonymous mapping is.
        window = memoryview(mmap.mmap(-1, PIECE))
        empty = True
        while count := os.readv(number, [window]):
            empty = False
            yield window[:count]
        if empty:
            yield window[:0]
    finally:
        os.close(number)


def _past_the_cache(number: int) -> None:
    with contextlib.suppress(OSError):  # a file system that cannot
        fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) | os.O_DIRECT)


def _components(folder: Path, place: str) -> Iterator[Piece]:
    files = {each.name: each for each in sorted(folder.iterdir()) if each.is_file() and each.name not in MADE_AGAIN}
    sums: dict[str, int] = {}
    for name, path in files.items():
        found = Component.of(name)
        if found is not None and found.kind == DIGEST:
            sums[found.sstable] = _sum(path)
    for name, path in files.items():
        found, told = Component.of(name), path.stat()
        crc = sums.get(found.sstable) if found is not None else None
        yield Piece(path, place + name, told.st_size, told.st_mode & 0o777, crc)


def _sum(path: Path) -> int:
    text = path.read_text("ascii", "replace").strip()
    if not text.isdigit():
        raise Mismatch(f"{path.name} is not a checksum", hint="scrub or repair the table")
    return int(text)
