"""How the C library is to keep this process's memory.

A backup borrows large buffers and gives them back.  Left to itself glibc learns from that to
keep them on its heaps, one for each thread that ever was, and an idle agent holds what its
busiest moment took.  Three settings give it back; they must be made before there are threads.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_SETTINGS = {_ARENA_MAX: 2, _MMAP_THRESHOLD: 1_000_000, _TRIM_THRESHOLD: 4 << 20}
"""A megabyte is just less than a group of blocks: those and packs are mapped, and unmapped when done."""


def give_back() -> None:
    """Have freed memory returned to the system; a C library that knows no such settings goes on as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, value in _SETTINGS.items():
        if mallopt is not None:
            mallopt(name, value)
