"""What is known of the documents of the parent's files: their entries, and which of them are gone.

Entries are those of ``fingerprints``; a number counts the documents of one file of a collection from 0 on.
"""

import mmap
import os
import sys
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, groupby, repeat
from operator import itemgetter
from pathlib import Path
from struct import Struct, pack

from datastores.contract import Mismatch, NoSpace

GONE = "gone/"
LOT = 1 << 16
WIDTH = 12
_HEADS = 1 << 16
_SOURCE = 48
_SLOT = Struct("<10sQ")
_NUMBER = Struct("<10xQ")
_CURRENT = [tuple(not byte >> bit & 1 for bit in range(8)) for byte in range(256)]


class Gone:
    """Which documents of a collection's files are not current any more: a bit for each."""

    def __init__(self) -> None:
        self._bits: dict[int, bytearray] = {}

    def read(self, content: bytes) -> None:
        """Take a private file in; ``Mismatch`` where it is not whole."""
        if len(content) % 8:
            raise Mismatch("the backup's list of documents that are gone is not whole")
        for (each,) in Struct("<Q").iter_unpack(content):
            source, number = each >> _SOURCE, each & ((1 << _SOURCE) - 1)
            bits = self._bits.setdefault(source, bytearray())
            if number >> 3 >= len(bits):
                bits.extend(bytes((number >> 3) + 1 - len(bits)))
            bits[number >> 3] |= 1 << (number & 7)

    def current(self, source: int) -> Iterator[bool]:
        """Yield of each document of a file, one after the other and without end, whether it is current."""
        return chain(chain.from_iterable(map(_CURRENT.__getitem__, self._bits.get(source, b""))), repeat(True))


class Known:
    """The current entries of one collection, by ``_id``; in files without names, so that memory stays small.

    ``files`` are the entries of each of its files, in their order.  Entries lie in runs by the first two bytes; a slot
    is the rest of one, the file and the number of its document.
    """

    def __init__(self, folder: Path, gone: Gone, files: Iterable[Iterable[bytes]]) -> None:
        counts = array("Q", bytes(8 * _HEADS))
        with _Spool(folder) as spool:
            for source, entries in enumerate(files):
                for part in entries:
                    spool.add(source, part)
                    for head in _heads(part):
                        counts[head] += 1
            self._ends = array("Q", accumulate(counts, initial=0))
            self._slots = _nameless(folder, self._ends[-1] * _SLOT.size)
            self._place(spool, gone)

    def find(self, entry: bytes) -> bool:
        """Say whether an entry is there; whatever is not asked for in the end is gone."""
        head, rest = int.from_bytes(entry[:2], "big"), entry[2:]
        start, end = self._ends[head] * _SLOT.size, self._ends[head + 1] * _SLOT.size
        at = self._slots.find(rest, start, end)
        while at >= 0 and (at - start) % _SLOT.size:
            at = self._slots.find(rest, at + 1, end)
        if at < 0:
            return False
        self._slots[at + WIDTH - 2 : at + _SLOT.size] = bytes(8)
        return True

    def left(self) -> Iterator[bytes]:
        """Yield what a private file must tell of the documents that nobody asked for."""
        found = array("Q")
        with memoryview(self._slots) as view:
            for (each,) in _NUMBER.iter_unpack(view[: self._ends[-1] * _SLOT.size]):
                if each:
                    found.append(each - 1)
                    if len(found) == LOT:
                        yield pack(f"<{LOT}Q", *found)
                        del found[:]
        yield pack(f"<{len(found)}Q", *found)

    def close(self) -> None:
        """Let the file go."""
        self._slots.close()

    def _place(self, spool: "_Spool", gone: Gone) -> None:
        free = array("Q", self._ends)
        for source, parts in groupby(spool.parts(), key=itemgetter(0)):
            numbered = enumerate(gone.current(source), source << _SOURCE | 1)
            for _, part in parts:
                for at, (mark, current) in zip(range(0, len(part), WIDTH), numbered, strict=False):
                    if current:
                        head = part[at] << 8 | part[at + 1]
                        slot = free[head]
                        free[head] = slot + 1
                        _SLOT.pack_into(self._slots, slot * _SLOT.size, part[at + 2 : at + WIDTH], mark)


class _Spool:
    """Entries on their way into the table: how long its runs are is known when all have come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lengths: list[tuple[int, int]] = []

    def __enter__(self) -> "_Spool":
        self._file = tempfile.TemporaryFile(dir=self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, source: int, part: bytes) -> None:
        """Keep some entries of one file."""
        try:
            self._file.write(part)
        except OSError as error:
            raise NoSpace(f"there is no temporary room for fingerprints: {error.strerror}") from error
        self._lengths.append((source, len(part)))

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """Yield them again."""
        self._file.seek(0)
        for source, length in self._lengths:
            yield source, self._file.read(length)


def _heads(part: bytes) -> "array[int]":
    """Return the first two bytes of each entry as a number."""
    pairs = bytearray(len(part) // WIDTH * 2)
    pairs[::2], pairs[1::2] = part[1::WIDTH], part[::WIDTH]
    heads = array("H", bytes(pairs))
    if sys.byteorder == "big":
        heads.byteswap()
    return heads


def _nameless(folder: Path, size: int) -> mmap.mmap:
    """Return a mapped file of zeros that is gone with us; its room is there before it is used."""
    try:
        with tempfile.TemporaryFile(dir=folder) as made:
            made.truncate(max(1, size))
            if size:
                os.posix_fallocate(made.fileno(), 0, size)
            return mmap.mmap(made.fileno(), max(1, size))
    except OSError as error:
        raise NoSpace(f"the table of fingerprints needs {size} bytes of temporary room: {error.strerror}") from error
