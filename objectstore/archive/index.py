"""Index objects: the inventory and the map, in parts of about 1 MiB that later backups share.

An index object is named by the digest of its sealed bytes.  Its plain content has a
digest, too: where a part is equal to one of the parent's, that one is referenced.
"""

import base64
import json
import struct
import uuid
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from blake3 import blake3

from objectstore.archive import frames
from objectstore.archive.model import JSON, Entry, check_entry
from objectstore.archive.pieces import Piece, body_size, decode, shape_of
from objectstore.archive.seal import MAJOR, MINOR, Sealer
from objectstore.store import Buffer, Corrupt

FILES, MAP = "files", "map"
LARGEST = 64 << 20
"""Bytes of an index object's plain content, at most."""

_HEAD = struct.Struct("<4sBBH16sI")
_MAGIC = b"OSTI"
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Ref:
    """What a manifest says of one index object.

    ``digest`` (of the sealed bytes) is its name, ``plain`` that of the content, ``length`` the content's
    size; ``path`` and ``start`` are those of its first piece (a part of the inventory has none).
    """

    kind: str
    digest: str
    attempt: str
    size: int
    plain: str
    length: int
    path: str = ""
    start: int = 0


def digest(data: Buffer) -> str:
    """Return the digest by which objects are named and manifests known: blake3, 64 hexadecimal digits."""
    return blake3(data).hexdigest()


def seal_part(sealer: Sealer, number: int, plain: Buffer) -> bytes:
    """Return the index object with this content."""
    head = _HEAD.pack(_MAGIC, MAJOR, MINOR, 0, uuid.UUID(sealer.attempt).bytes, number)
    return head + sealer.seal_index(number, head, frames.compress(plain))


def open_part(sealer: Sealer, ref: Ref, data: bytes) -> bytes:
    """Return the content of an index object, or raise ``Corrupt``."""
    if digest(data) != ref.digest or len(data) < _HEAD.size:
        raise Corrupt(f"index object {ref.digest} is not what its name says")
    head = data[: _HEAD.size]
    magic, major, _, _, attempt, number = _HEAD.unpack(head)
    if magic != _MAGIC or major != MAJOR or str(uuid.UUID(bytes=attempt)) != sealer.attempt:
        raise Corrupt(f"index object {ref.digest} is not of this format, or of another attempt")
    plain = frames.expand(sealer.open_index(number, head, memoryview(data)[_HEAD.size :]), ref.length)
    if digest(plain) != ref.plain:
        raise Corrupt(f"index object {ref.digest} has not the content its manifest names")
    return plain


def encode_files(entries: Iterable[Entry]) -> bytes:
    """Return the content of a part of the inventory."""
    rows: list[JSON] = [
        [row.path, row.stored, row.size, row.mode, base64.b64encode(row.identity).decode(), row.private]
        for row in entries
    ]
    return _encode({"kind": FILES, "entries": rows})


def decode_files(plain: bytes) -> Iterator[Entry]:
    """Yield the entries in a part of the inventory, or raise ``Corrupt``."""
    head, _ = _decode(plain, FILES)
    rows = head.get("entries")
    for row in rows if isinstance(rows, list) else []:
        yield _entry(row)


def _entry(row: JSON) -> Entry:
    match row:
        case [str(path), str(stored), int(size), int(mode), str(identity), bool(private), *_]:
            try:
                return check_entry(Entry(path, stored, size, mode, base64.b64decode(identity, validate=True), private))
            except ValueError:
                raise Corrupt(f"inventory entry {path!r:.120} has an impossible identity") from None
    raise Corrupt("an inventory has an entry that is none")


def encode_map(pieces: Sequence[Piece]) -> bytes:
    """Return the content of a part of the map; pieces ascend by path and start."""
    encoded = [piece.encode() for piece in pieces]
    heads: list[JSON] = [head for head, _ in encoded]
    return _encode({"kind": MAP, "pieces": heads}) + b"".join(body for _, body in encoded)


class MapPart:
    """One part of the map, as read: pieces by path and start, decoded when asked for."""

    def __init__(self, plain: bytes) -> None:
        head, at = _decode(plain, MAP)
        rows = head.get("pieces")
        self._heads = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        self._plain = memoryview(plain)
        self._at: list[int] = []
        self.keys: list[tuple[str, int]] = []
        for row in self._heads:
            shape = shape_of(row)
            self.keys.append((shape.path, shape.start))
            self._at.append(at)
            at += body_size(row)
        if at != len(plain) or any(one >= other for one, other in zip(self.keys, self.keys[1:], strict=False)):
            raise Corrupt("a part of the map is cut off or out of order")

    def find(self, path: str, offset: int) -> int | None:
        """Return the number of the piece that may hold a file's byte, or None."""
        number = bisect_right(self.keys, (path, offset)) - 1
        return number if number >= 0 and self.keys[number][0] == path else None

    def piece(self, number: int) -> Piece:
        """Return a piece, or raise ``Corrupt``."""
        head, at = self._heads[number], self._at[number]
        return decode(head, self._plain[at : at + body_size(head)])


def _encode(head: JSON) -> bytes:
    text = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
    return _LENGTH.pack(len(text)) + text


def _decode(plain: bytes, kind: str) -> tuple[dict[str, JSON], int]:
    if len(plain) < _LENGTH.size:
        raise Corrupt("an index object is cut off")
    end = _LENGTH.size + int(_LENGTH.unpack_from(plain)[0])
    head = parse(plain[_LENGTH.size : end]) if end <= len(plain) else None
    if not isinstance(head, dict) or head.get("kind") != kind:
        raise Corrupt(f"an index object is no {kind}")
    return head, end


def parse(text: bytes) -> JSON:
    """Return the JSON in ``text``; anything else, and any depth that is meant to harm, is ``Corrupt``."""
    try:
        found: JSON = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Corrupt("the bytes are no JSON") from None
    return found


def _no_number(text: str) -> float:
    raise ValueError(text)
