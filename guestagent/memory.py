"""How the C library is to keep this process's memory.

A backup borrows large buffers and gives them back.  Left to itself glibc learns from that to
keep them on its heaps, one for each thread that ever was, and an idle agent holds what its
busiest moment took.  But memory that is fresh at every turn costs more than compressing what
is put there; so the buffers of a group stay on the heap while there is work, packs are mapped
by themselves, and what is left is returned when an operation has ended.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_SETTINGS = {_ARENA_MAX: 2, _MMAP_THRESHOLD: 4 << 20, _TRIM_THRESHOLD: 8 << 20}
_C = ctypes.CDLL(None)


def keep_little() -> None:
    """Make the settings, before there are threads; a C library that knows none goes on as it is."""
    mallopt = getattr(_C, "mallopt", None)
    for name, value in _SETTINGS.items():
        if mallopt is not None:
            mallopt(name, value)


def give_back() -> None:
    """Return to the system what is free."""
    trim = getattr(_C, "malloc_trim", None)
    if trim is not None:
        trim(0)
