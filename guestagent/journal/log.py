"""Damage in the write-ahead log, which SQLite would take for a torn tail and drop without a word.

A kill tears at most the last commit: every one before it was on the disk before the next was begun.  So where more than
one commit lies at or beyond the first bad frame, what was committed has been damaged since.
Format: https://www.sqlite.org/fileformat2.html, section 4.
"""

import struct
from pathlib import Path

_MAGIC = 0x377F0682
_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")


def damage(log: Path) -> str | None:
    """Say what is wrong with a write-ahead log; None where nothing is, a torn tail included."""
    data = log.read_bytes() if log.exists() else b""
    if len(data) < _HEADER.size + _FRAME.size:
        return None
    magic, _, page, _, *salts, one, other = _HEADER.unpack_from(data)
    order = ">" if magic & 1 else "<"
    if magic & ~1 != _MAGIC or _sum(data[:24], order, (0, 0)) != (one, other):
        return "the head of its write-ahead log is damaged"
    bad = _first_bad(data, page, order, salts, (one, other))
    if len(_commits(data, page, salts, bad)) > 1:
        return "its write-ahead log is damaged before its end"
    return None


def _first_bad(data: bytes, page: int, order: str, salts: list[int], state: tuple[int, int]) -> int:
    """Return where the first frame lies that does not follow from those before it."""
    place = _HEADER.size
    while place + _FRAME.size + page <= len(data):
        _, _, salt, pepper, one, other = _FRAME.unpack_from(data, place)
        body = data[place + _FRAME.size : place + _FRAME.size + page]
        state = _sum(body, order, _sum(data[place : place + 8], order, state))
        if [salt, pepper] != salts or state != (one, other):
            return place
        place += _FRAME.size + page
    return place


def _commits(data: bytes, page: int, salts: list[int], start: int) -> list[int]:
    """Return where the commits of this log lie from ``start`` on, good or bad."""
    found = []
    for place in range(start, len(data) - _FRAME.size + 1, _FRAME.size + page):
        _, size, salt, pepper, _, _ = _FRAME.unpack_from(data, place)
        if size and [salt, pepper] == salts:
            found.append(place)
    return found


def _sum(data: bytes, order: str, state: tuple[int, int]) -> tuple[int, int]:
    one, other = state
    for left, right in struct.iter_unpack(f"{order}2I", data):
        one = (one + left + other) & 0xFFFFFFFF
        other = (other + right + one) & 0xFFFFFFFF
    return one, other
