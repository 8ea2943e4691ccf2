"""Frames: what is compressed and sealed in one go, and how hard that is tried."""

import threading

import zstandard

from objectstore.store import Buffer, Corrupt

LEVEL = 1
LIGHT = -1
"""A look in passing: what does not shrink at once is stored as it is, in a frame all the same."""
DENSE = 0.95
AGAIN = 16
_own = threading.local()


class Effort:
    """How hard the frames of one file are tried.

    What is compressed already, by the database or by its tenants, costs the compressor as much as what is not, for
    nothing.  So where a frame did not shrink, the next ones are looked at in passing; every ``AGAIN``-th is tried as
    the first one was, for a file may change in its middle.  May be used from several threads.
    """

    def __init__(self) -> None:
        self._dense = False
        self._frames = 0

    def level(self) -> int:
        """Return the level of the next frame."""
        self._frames += 1
        return LIGHT if self._dense and self._frames % AGAIN else LEVEL

    def learn(self, plain: int, packed: int) -> None:
        """Take note of what a frame came to."""
        self._dense = packed > plain * DENSE


def compress(data: Buffer, level: int = LEVEL) -> bytes:
    """Return ``data`` as one zstd frame that tells its size."""
    return _compressor(level).compress(data)


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """Return this thread's compressor; making one anew for every frame would cost more than the small ones."""
    known: dict[int, zstandard.ZstdCompressor] | None = getattr(_own, "compressors", None)
    if known is None:
        known = _own.compressors = {}
    if level not in known:
        known[level] = zstandard.ZstdCompressor(level=level, write_content_size=True)
    return known[level]


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
