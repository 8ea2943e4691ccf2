"""BSON as bytes: documents are found by their length and never decoded."""

from collections.abc import Iterable, Iterator
from struct import unpack_from

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from datastores.contract import Buffer, Incomplete

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
LARGEST = 16 * 1024 * 1024 + 16 * 1024
SMALLEST = 5

_FIXED = {0x01: 8, 0x07: 12, 0x08: 1, 0x09: 8, 0x0A: 0, 0x10: 4, 0x11: 8, 0x12: 8, 0x13: 16}
_COUNTED = {0x02: 4, 0x03: 0, 0x04: 0, 0x05: 5}
"""The types whose value begins with a length, and how many bytes that length does not count."""


class Stored:
    """A document's bytes for the driver to send as they are; it knows them by the marker, and asks no more of them.

    Its own class for this checks each document twice, which is half the cost of a restore.
    """

    __slots__ = ("raw",)
    _type_marker = RawBSONDocument._type_marker

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


def field(document: memoryview, name: bytes) -> memoryview:
    """Return the bytes of one field's value; ``Incomplete`` where it is not there."""
    at, end = 4, len(document) - 1
    while at < end:
        kind = document[at]
        stop = at + 1
        while document[stop]:
            stop += 1
        start = stop + 1
        size = _FIXED[kind] if kind in _FIXED else unpack_from("<i", document, start)[0] + _COUNTED[kind]
        if document[at + 1 : stop] == name:
            return document[start : start + size]
        at = start + size
    raise Incomplete(f"the server's reply has no {name.decode()}")


def identity(document: memoryview) -> memoryview:
    """Return the ``_id`` of a document, type and all; nothing where that is not its first field."""
    if bytes(document[5:9]) != b"_id\0":
        return document[:0]
    kind = document[4]
    size = _FIXED.get(kind, 0)
    if kind in _COUNTED:
        size = unpack_from("<i", document, 9)[0] + _COUNTED[kind]
    return document[4 : 9 + size]


def elements(array: memoryview) -> list[memoryview]:
    """Return the documents of an array's bytes, in order."""
    found: list[memoryview] = []
    at, end, number, width, widen = 4, len(array) - 1, 0, 3, 10
    while at < end:
        start = at + width
        at = start + unpack_from("<i", array, start)[0]
        found.append(array[start:at])
        number += 1
        if number == widen:
            width, widen = width + 1, widen * 10
    return found


def documents(pieces: Iterable[Buffer]) -> Iterator[bytes]:
    """Put documents that lie one after the other in pieces of any size together again; each is a copy."""
    rest = b""
    for piece in pieces:
        data, at = rest + bytes(piece), 0
        while len(data) - at >= 4:
            size = unpack_from("<i", data, at)[0]
            if not SMALLEST <= size <= LARGEST:
                raise Incomplete("the backup has bytes that are no documents")
            if size > len(data) - at:
                break
            yield data[at : at + size]
            at += size
        rest = data[at:]
    if rest:
        raise Incomplete("the backup ends within a document")
