"""The server's units: how long, how much, how much a second.  A bare number is none, nor is ``64MB`` or ``5 s``."""

import re

DURATIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9}
STORAGES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
RATES = {"B/s": 1, "KiB/s": 1 << 10, "MiB/s": 1 << 20}
UNITS = {"duration": DURATIONS, "storage": STORAGES, "rate": RATES}
_QUANTITY = re.compile(r"([0-9]{1,18})([A-Za-z]+(?:/s)?)")


def parse(kind: str, text: str) -> int:
    """Return nanoseconds, bytes or bytes a second; ``ValueError`` where it is not a whole number with a unit."""
    found = _QUANTITY.fullmatch(text)
    if found is None or found[2] not in UNITS[kind]:
        raise ValueError(f"{text[:40]!r} is not a whole number with one of {', '.join(UNITS[kind])}")
    return int(found[1]) * UNITS[kind][found[2]]


def spell(kind: str, value: int, unit: str) -> str:
    """Return a value in the largest unit that needs no fraction; nothing at all in ``unit``."""
    fitting = (each for each, factor in reversed(UNITS[kind].items()) if value and value % factor == 0)
    chosen = next(fitting, unit)
    return f"{value // UNITS[kind][chosen]}{chosen}"
