"""The server's units: how long, how much, how much a second.  A bare number is none, nor is ``64MB`` or ``5 s``."""

import re

DURATIONS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
DURATIONS["d"] = 24 * DURATIONS["h"]
SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
RATES = {f"{unit}/s": factor for unit, factor in SIZES.items()}
UNITS = {"duration": DURATIONS, "size": SIZES, "rate": RATES}
_QUANTITY = re.compile(r"([0-9]{1,18})([A-Za-zµ]+(?:/s)?)")


def parse(kind: str, text: str) -> int:
    """Return nanoseconds, bytes or bytes a second; ``ValueError`` where it is not a whole number with a unit."""
    found = _QUANTITY.fullmatch(text)
    if found is None or found[2] not in UNITS[kind]:
        raise ValueError(f"{text[:40]!r} is not a whole number with one of {', '.join(UNITS[kind])}")
    return int(found[1]) * UNITS[kind][found[2]]


def spell(kind: str, value: int) -> str:
    """Return a value in the largest unit that needs no fraction."""
    factors = sorted(UNITS[kind].items(), key=lambda each: each[1], reverse=True)
    unit, factor = next(each for each in factors if value % each[1] == 0 and (value or each[1] == 1 or True))
    if value == 0:
        unit, factor = {"duration": ("ms", 1), "size": ("B", 1), "rate": ("MiB/s", 1)}[kind]
    return f"{value // factor}{unit}"


def size(text: str) -> int:
    """Return the bytes of a size as the layers have it, with a unit or (as the virtual machine has it) without."""
    return int(text) if text.isdigit() else parse("size", text)
