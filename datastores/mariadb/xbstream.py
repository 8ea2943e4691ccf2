"""The stream of ``mariadb-backup --stream=xbstream``, taken apart as it comes.

A chunk is ``XBSTCK01``, a byte of flags, a byte of type, the path (length in 4 bytes) and, by type::

    P  payload: length (8), offset (8), CRC-32 (4), the bytes.  Flag 2: the path is written anew, from 0
    E  the file has ended; an empty file has no chunk but this
    R  renamed: the new path (length in 4 bytes); the file has ended before
    D  removed; the file has ended before

All numbers are little-endian.  R, D and flag 2 come with MariaDB 10.11 when tables are changed while they are
copied; R and D may name files that were never sent.  Anything else is an error.  Nothing is kept but one
buffer and a line for each file.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from isal import isal_zlib

from datastores.contract import Extent, File, Incomplete

MAGIC = b"XBSTCK01"
PIECE = 1024 * 1024
PATH_LENGTH = 4096
_HEAD = struct.Struct("<8sBcI")
_PAYLOAD = struct.Struct("<QQI")
_LENGTH = struct.Struct("<I")
_REWRITE = 2
AGAIN = ".again"
"""Where the stored paths of second versions lie; no folder of a data folder is called so."""


def plain(stored: str) -> str:
    """Return the path a stored path was sent under."""
    return stored.split("/", 2)[2] if stored.startswith(f"{AGAIN}/") else stored


@dataclass
class _Version:
    """What was sent under one path from its first byte to its end; ``stored`` is unique in a stream."""

    stored: str
    size: int = 0


class Demultiplexer:
    """Yield the extents of a stream and know, at its end, which files there are.

    ``readinto`` fills a buffer, less than whole if it likes, and returns 0 only at the end.
    ``attempt`` keeps the stored paths of a second stream apart from those of the first.
    """

    def __init__(self, readinto: Callable[[memoryview], int], attempt: int = 0) -> None:
        self._readinto = readinto
        self._attempt = attempt
        self._moved: set[str] = set()
        self._over: set[str] = set()
        self._buffer = memoryview(bytearray(PIECE))
        self._small = memoryview(bytearray(PATH_LENGTH))
        self._open: dict[str, _Version] = {}
        self._files: dict[str, _Version] = {}
        self._stored: set[str] = set()
        self._ended = False

    def extents(self) -> Iterator[Extent]:
        """Yield ``(stored path, offset, buffer)``, at most 1 MiB each; the buffer is used again."""
        while self._fill(self._small[: _HEAD.size], may_end=True):
            magic, flags, kind, length = _HEAD.unpack_from(self._small)
            if magic != MAGIC:
                raise Incomplete("the backup's stream is broken: no chunk begins where one must")
            path = self._path(length)
            if kind == b"P" and flags in (0, _REWRITE):
                yield from self._payload(path, rewrite=flags == _REWRITE)
            elif kind == b"E" and flags == 0:
                yield from self._end(path)
            elif kind == b"R" and flags == 0:
                self._rename(path, self._path(_LENGTH.unpack(self._take(_LENGTH.size))[0]))
            elif kind == b"D" and flags == 0:
                self._remove(path)
            else:
                raise Incomplete(f"the backup's stream has a chunk of unknown kind {kind!r}, flags {flags}, for {path}")
        if self._open:
            raise Incomplete(f"the backup's stream ended in the middle of {next(iter(self._open))}")
        self._ended = True

    def files(self) -> list[File]:
        """Return the inventory, in the order the files were first sent; only after the last extent."""
        if not self._ended:
            raise Incomplete("the backup's stream has not ended yet")
        return [File(path, each.stored, each.size, 0o660) for path, each in self._files.items()]

    def replaced(self) -> tuple[set[str], set[str]]:
        """Return the paths that were renamed over a file sent before, and those of files that moved and are not there.

        The tool replays what happened to tables of other engines than InnoDB, whether that was before or after it
        copied them.  So the first are wrong, and the second are where the server still has such a file.
        """
        return self._over, self._moved - self._files.keys()

    def _payload(self, path: str, *, rewrite: bool) -> Iterator[Extent]:
        length, offset, wanted = _PAYLOAD.unpack(self._take(_PAYLOAD.size))
        version = self._open.get(path) or self._begin(path, rewrite=rewrite)
        if offset != version.size:
            raise Incomplete(f"{path} goes on at {offset}, not at {version.size}")
        crc = 0
        while length:
            piece = self._buffer[: min(length, PIECE)]
            self._fill(piece)
            crc = int(isal_zlib.crc32(piece, crc))
            yield version.stored, version.size, piece
            version.size += len(piece)
            length -= len(piece)
        if crc != wanted:
            raise Incomplete(f"a chunk of {path} at {offset} has not the checksum it was sent with")

    def _begin(self, path: str, *, rewrite: bool) -> _Version:
        if path in self._files and not rewrite:
            raise Incomplete(f"{path} was sent twice")
        fresh = not self._attempt and path not in self._stored
        stored = path if fresh else f"{AGAIN}/{self._attempt}.{len(self._stored)}/{path}"
        self._stored.add(stored)
        self._open[path] = self._files[path] = _Version(stored)
        return self._open[path]

    def _end(self, path: str) -> Iterator[Extent]:
        version = self._open.get(path) or self._begin(path, rewrite=True)
        del self._open[path]
        if version.size == 0:
            yield version.stored, 0, b""

    def _rename(self, path: str, fresh: str) -> None:
        self._closed(path, fresh)
        self._moved.update((path, fresh))
        if path in self._files:
            self._over.update({fresh} & self._files.keys())
            self._files[fresh] = self._files.pop(path)

    def _remove(self, path: str) -> None:
        self._closed(path)
        self._moved.add(path)
        self._files.pop(path, None)

    def _closed(self, *paths: str) -> None:
        for each in paths:
            if each in self._open:
                raise Incomplete(f"{each} was renamed or removed while it was sent")

    def _path(self, length: int) -> str:
        if not 0 < length <= PATH_LENGTH:
            raise Incomplete(f"the backup's stream has a path of {length} bytes")
        try:
            path = self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise Incomplete("the backup's stream has a path that is not text") from None
        path = path.removeprefix("./")
        if "\0" in path or any(each in ("", ".", "..", AGAIN) for each in path.split("/")):
            raise Incomplete(f"the backup's stream has the path {path!r}, which leads out of the data folder")
        return path

    def _take(self, length: int) -> bytes:
        self._fill(self._small[:length])
        return self._small[:length].tobytes()

    def _fill(self, target: memoryview, *, may_end: bool = False) -> bool:
        """Fill ``target``; False at the stream's end, where that may be."""
        done = 0
        while done < len(target):
            count = self._readinto(target[done:])
            if not count:
                if may_end and not done:
                    return False
                raise Incomplete("the backup's stream ended in the middle of a chunk")
            done += count
        return True
