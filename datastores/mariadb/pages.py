"""How the files of a backup are best compared with the parent's.

InnoDB writes into every page its last change's log position and a checksum of the whole page: what has both
unchanged is unchanged.  They are copied out of a buffer in three strokes, without touching a page in Python.
The page size is read from the tablespace's first page.  Where a page says less than that (compressed
pages end anywhere) or is no page at all, the bytes are hashed.

Formats: the MariaDB knowledge base, "InnoDB Page Format" and "InnoDB Tablespace Flags".
"""

import re
import struct
from collections.abc import Callable

from blake3 import blake3

from datastores.contract import Blocks, Whole

PAGE = 16 * 1024
MARKS, HASH = 24, 16
_TABLESPACE = re.compile(r"(.*/)?([^/]+\.(ibd|new)|ibdata\d+|undo\d+)")
_ALWAYS_NEW = re.compile(r"ib_logfile\d+|xtrabackup_\w+|backup-my\.cnf")
_FIRST_PAGE = struct.Struct(">4xI16xH8xII12xI")
_FSP_HEADER = 8
_FULL_CRC32, _NEW_ALGORITHM = 1 << 4, 7 << 5
_OLD_COMPRESSED = 1 << 16


def blocks(path: str, head: memoryview, server: str) -> Blocks | Whole:
    """Say how a file is compared; ``server`` names the data and their restore epoch."""
    if _ALWAYS_NEW.fullmatch(path):
        return Whole()
    if _TABLESPACE.fullmatch(path):
        size, plain = page_size(head)
        if plain:
            return Blocks(size, MARKS, f"innodb-{size}:{server}", marks(size))
        return Blocks(size, HASH, "blake3", hashes(size))
    return Blocks(PAGE, HASH, "blake3", hashes(PAGE))


def page_size(head: memoryview) -> tuple[int, bool]:
    """Return a tablespace's page size in bytes and whether each page ends with its checksum.

    For anything that does not look like a first page: 16 KiB, and that it does not.
    """
    if len(head) < _FIRST_PAGE.size:
        return PAGE, False
    number, kind, space, again, flags = _FIRST_PAGE.unpack_from(head)
    if number != 0 or kind != _FSP_HEADER or space != again:
        return PAGE, False
    if flags & _FULL_CRC32:
        return _sized(flags & 15, compressed=bool(flags & _NEW_ALGORITHM))
    compressed = flags >> 1 & 15
    if compressed:
        return max(512 << compressed, 4096) if compressed <= 5 else PAGE, False
    return _sized(flags >> 6 & 15 or 5, compressed=bool(flags & _OLD_COMPRESSED))


def marks(size: int) -> Callable[[memoryview], bytes]:
    """Return what takes of every page: checksum and number, log position, and the last eight bytes."""
    words = size // 8

    def taken(buffer: memoryview) -> bytes:
        whole = len(buffer) - len(buffer) % size
        source = buffer[:whole].cast("B").cast("Q")
        found = bytearray(whole // size * MARKS)
        target = memoryview(found).cast("Q")
        if whole:
            target[0::3], target[1::3], target[2::3] = source[0::words], source[2::words], source[words - 1 :: words]
        rest = blake3(buffer[whole:]).digest(length=MARKS) if whole < len(buffer) else b""
        return bytes(found) + rest

    return taken


def hashes(size: int) -> Callable[[memoryview], bytes]:
    """Return what hashes every block."""

    def taken(buffer: memoryview) -> bytes:
        return b"".join(blake3(buffer[at : at + size]).digest(length=HASH) for at in range(0, len(buffer), size))

    return taken


def _sized(shift: int, *, compressed: bool) -> tuple[int, bool]:
    return (512 << shift, not compressed) if 3 <= shift <= 7 else (PAGE, False)
