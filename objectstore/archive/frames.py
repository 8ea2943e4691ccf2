"""Frames: what is compressed and sealed in one go."""

import threading

import zstandard

from objectstore.store import Buffer, Corrupt

LEVEL = 1
_own = threading.local()


def compressor() -> zstandard.ZstdCompressor:
    """Return this thread's compressor; making one anew for every frame would cost more than the small ones."""
    found: zstandard.ZstdCompressor | None = getattr(_own, "compressor", None)
    if found is None:
        found = _own.compressor = zstandard.ZstdCompressor(level=LEVEL, write_content_size=True)
    return found


def compress(data: Buffer) -> bytes:
    """Return ``data`` as one zstd frame that tells its size."""
    return compressor().compress(data)


def expand(data: Buffer, size: int) -> bytes:
    """Return the ``size`` bytes that one zstd frame holds, or raise ``Corrupt``; no room is made for others."""
    found: zstandard.ZstdDecompressor | None = getattr(_own, "decompressor", None)
    if found is None:
        found = _own.decompressor = zstandard.ZstdDecompressor()
    try:
        if zstandard.frame_content_size(data) != size:
            raise Corrupt(f"a frame does not hold the {size} bytes it should")
        plain = found.decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt(f"a frame cannot be decompressed: {error}") from None
    if len(plain) != size:
        raise Corrupt(f"a frame holds {len(plain)} bytes, not {size}")
    return plain


def content_size(data: Buffer) -> int:
    """Return the size that a zstd frame tells of itself (-1: none), or raise ``Corrupt``."""
    try:
        return int(zstandard.frame_content_size(data))
    except zstandard.ZstdError as error:
        raise Corrupt(f"a frame cannot be read: {error}") from None
