"""The bare engine: CPU seconds of a draft beside a bare zstd loop, over a store that keeps only the catalogue.

    python -m bench.engine [FILE]     any file of some 100 MB, at best InnoDB tablespaces one after the other

What the engine adds to compression (the copy, fingerprints, seal, checksums, threads) is the difference of the two.
"""

import os
import resource
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from objectstore.archive import Archive, Entry, Header, Manifest
from objectstore.keys import LocalKeys
from objectstore.store import Buffer, Stat, checksum
from tests.fakes_archive import MemoryStore

TOTAL = 1_000_000_000
PAGE = 16384


class Sink(MemoryStore):
    """Take packs, check them, and forget them."""

    def put(self, name: str, data: "list[Buffer]", *, only_new: bool = False) -> Stat:  # type: ignore[override]
        if "-g-" not in name:
            return super().put(name, data, only_new=only_new)
        return Stat(name, sum(map(len, data)), checksum(data))


def fingerprints(view: memoryview) -> bytes:
    """Return 16 bytes of each page, from where InnoDB has its checksums and log sequence number."""
    ends = range(0, len(view), PAGE)
    return b"".join(
        [
            bytes(view[at + 16 : at + 24]) + bytes(view[at : at + 4]) + bytes(view[at + PAGE - 8 : at + PAGE - 4])
            for at in ends
        ]
    )


@dataclass(frozen=True)
class Pages:
    """Blocks of 16 KiB."""

    size: int = PAGE
    width: int = 16
    lineage: str = "bench"
    fingerprints: Callable[[memoryview], bytes] = field(default=fingerprints)


def seconds() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def bare(data: bytes, times: int) -> None:
    """Compress it all in two threads, and nothing else."""

    def half(first: int) -> None:
        compressor = zstandard.ZstdCompressor(level=1)
        for _ in range(times):
            for at in range(first << 20, len(data), 2 << 20):
                compressor.compress(memoryview(data)[at : at + (1 << 20)])

    threads = [threading.Thread(target=half, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def engine(kept: Archive, data: bytes, times: int, parent: Manifest | None, generation: str) -> Manifest:
    """Take one backup of ``times`` files of the same bytes."""
    base = kept.contents(parent) if parent else None
    ids = str(uuid.uuid4()), str(uuid.uuid4())
    header = Header(*ids, "g", generation, parent.header.backup if parent else None, "bench", "1", "one", "s", 1, "now")
    with kept.draft(header) as draft:
        draft.lease()
        draft.key()
        draft.open(base, lambda path, head: Pages())
        for number in range(times):
            for at in range(0, len(data), 1 << 20):
                draft.add(f"f{number}", at, memoryview(data)[at : at + (1 << 20)])
        draft.close([Entry(f"f{number}", f"f{number}", len(data)) for number in range(times)])
        return draft.seal("full", "s", {})


def main() -> None:
    """Print CPU and wall seconds per GB of each."""
    data = Path(sys.argv[1]).read_bytes()
    data = data[: len(data) // PAGE * PAGE]
    times = max(1, TOTAL // len(data))
    share = times * len(data) / 1e9
    kept, generation = Archive(Sink(), "bench", LocalKeys(os.urandom(32))), str(uuid.uuid4())
    made: list[Manifest] = []
    rows: list[tuple[str, Callable[[], object]]] = [
        ("bare zstd -1", lambda: bare(data, times)),
        ("full", lambda: made.append(engine(kept, data, times, None, generation))),
        ("unchanged", lambda: engine(kept, data, times, made[0], generation)),
    ]
    for name, move in rows:
        cpu, wall = seconds(), time.monotonic()
        move()
        print(f"{name:14} {(seconds() - cpu) / share:6.2f} CPU s/GB {(time.monotonic() - wall) / share:6.2f} s/GB")


if __name__ == "__main__":
    main()
