"""The manifest: the small root that makes a backup exist.

It names every index object, every pack and every attempt whose key is needed, so that
copies and purge need no index.  It is one object: a fixed plain head, then the sealed JSON.
"""

import json
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields

from blake3 import blake3

from objectstore.archive import frames
from objectstore.archive.index import FILES, LARGEST, MAP, Ref, digest, parse
from objectstore.archive.model import JSON, PACK, Copies, Header, check_header, check_id
from objectstore.archive.seal import MAJOR, MINOR, Sealer
from objectstore.store import BadRequest, Corrupt

LARGEST_ROOT = 1 << 20
"""Bytes of a manifest object, at most."""
_LARGEST_JSON = 16 << 20
_MAGIC = b"OSTM"
_HEAD = struct.Struct("<4sBBHI16s16s16s16s")
_COUNTS = ("logical_bytes", "read_bytes", "new_bytes", "stored_bytes", "files")


@dataclass(frozen=True)
class Pack:
    """One pack a backup needs: who wrote it, its number, its size and the CRC-32 of its bytes."""

    attempt: str
    number: int
    size: int
    crc: int


@dataclass(frozen=True)
class Manifest:
    """What one backup consists of; it exists only when the backup is complete.

    ``logical_bytes`` is what a restore writes, ``read_bytes`` what the source sent, ``new_bytes`` what of
    it differed from the parent, ``stored_bytes`` what the attempt added to the store, one copy
    counted.  ``digest`` is that of the object, which has ``size`` bytes.
    """

    header: Header
    kind: str
    server_id: str
    position: Mapping[str, JSON]
    ended_at: str
    key_id: str
    logical_bytes: int
    read_bytes: int
    new_bytes: int
    stored_bytes: int
    files: int
    index: tuple[Ref, ...] = field(repr=False)
    packs: tuple[Pack, ...] = field(repr=False)
    attempts: tuple[str, ...] = field(repr=False)
    digest: str = ""
    size: int = 0
    format: int = MAJOR

    def to_json(self, copies: Copies, state: str | None = None) -> dict[str, JSON]:
        """Return the ``backup`` of INTERFACES, section 3; ``state`` is what the copies say where none is given."""
        head = asdict(self.header)
        return {
            "id": head.pop("backup"),
            **{name: value for name, value in head.items() if name not in ("server_id", "restore_epoch")},
            "digest": self.digest,
            "kind": self.kind,
            "state": state or copies.state,
            "server_id": self.server_id,
            "restore_epoch": self.header.restore_epoch,
            "ended_at": self.ended_at,
            **{name: getattr(self, name) for name in _COUNTS},
            "copies": copies.to_json(),
            "position": dict(self.position),
            "key_id": self.key_id,
            "members": [],
            "format": self.format,
        }


def encode(manifest: Manifest, realm: str, sealer: Sealer) -> bytes:
    """Return the manifest object; ``digest`` and ``size`` are not in it."""
    head = _head(realm, manifest.header)
    text = json.dumps(_root(manifest, realm), sort_keys=True, separators=(",", ":")).encode()
    data = head + sealer.seal_manifest(head, frames.compress(text))
    if len(data) > LARGEST_ROOT:
        raise BadRequest(f"the manifest would be {len(data)} bytes, more than {LARGEST_ROOT}", field="files")
    return data


def decode(data: bytes, realm: str, backup: str, attempt: str, sealer: Callable[[str], Sealer]) -> Manifest:
    """Return what a manifest object says, or raise ``Corrupt``.

    ``backup`` and ``attempt`` are those of the object's name; ``sealer`` gets the key for a generation.
    """
    generation = _check_head(data, realm, backup, attempt)
    sealed = memoryview(data)[_HEAD.size :]
    plain = sealer(generation).open_manifest(data[: _HEAD.size], sealed)
    root = parse(_expand(plain))
    if not isinstance(root, dict):
        raise Corrupt(f"the manifest of backup {backup} is no object")
    try:
        manifest = _manifest(root, digest(data), len(data))
    except (KeyError, TypeError, ValueError, IndexError, BadRequest) as error:
        raise Corrupt(f"the manifest of backup {backup} cannot be read: {error!r:.200}") from None
    header = manifest.header
    if (header.backup, header.attempt, header.generation, root.get("realm")) != (backup, attempt, generation, realm):
        raise Corrupt(f"the manifest of backup {backup} is another's")
    return manifest


def _head(realm: str, header: Header) -> bytes:
    ids = [uuid.UUID(text).bytes for text in (header.generation, header.backup, header.attempt)]
    return _HEAD.pack(_MAGIC, MAJOR, MINOR, 0, _HEAD.size, _realm_hash(realm), *ids)


def _realm_hash(realm: str) -> bytes:
    return blake3(realm.encode()).digest(length=16)


def _check_head(data: bytes, realm: str, backup: str, attempt: str) -> str:
    """Return the generation in a manifest object's head, or raise ``Corrupt``."""
    if not _HEAD.size < len(data) <= LARGEST_ROOT or data[:4] != _MAGIC:
        raise Corrupt(f"the manifest object of backup {backup} is no manifest")
    _, major, _, _, size, realm_hash, *ids = _HEAD.unpack_from(data)
    if major != MAJOR or size != _HEAD.size:
        raise Corrupt(f"the manifest of backup {backup} is of format {major}; this program reads {MAJOR}")
    generation, *named = (str(uuid.UUID(bytes=raw)) for raw in ids)
    if realm_hash != _realm_hash(realm) or named != [backup, attempt]:
        raise Corrupt(f"the manifest object of backup {backup} is that of another")
    return generation


def _expand(plain: bytes) -> bytes:
    size = frames.content_size(plain)
    if not 0 <= size <= _LARGEST_JSON:
        raise Corrupt(f"a manifest of {size} bytes is not to be believed")
    return frames.expand(plain, size)


def _root(manifest: Manifest, realm: str) -> dict[str, JSON]:
    number = {attempt: at for at, attempt in enumerate(manifest.attempts)}
    index: list[JSON] = [
        [ref.kind, ref.digest, number[ref.attempt], ref.size, ref.plain, ref.length, ref.path, ref.start]
        for ref in manifest.index
    ]
    packs: list[JSON] = [[number[pack.attempt], pack.number, pack.size, pack.crc] for pack in manifest.packs]
    return {
        **asdict(manifest.header),
        **{name: getattr(manifest, name) for name in _COUNTS},
        "realm": realm,
        "format": MAJOR,
        "minor": MINOR,
        "kind": manifest.kind,
        "server_id": manifest.server_id,
        "position": dict(manifest.position),
        "ended_at": manifest.ended_at,
        "key_id": manifest.key_id,
        "attempts": list(manifest.attempts),
        "index": index,
        "packs": packs,
    }


def _manifest(root: dict[str, JSON], found_digest: str, size: int) -> Manifest:
    attempts = tuple(check_id(str(attempt), "attempts") for attempt in _list(root["attempts"]))
    position = root["position"]
    if not isinstance(position, dict):
        raise TypeError("position")
    counts = {name: _count(root[name]) for name in _COUNTS}
    counts["stored_bytes"] += size
    return Manifest(
        header=_header(root),
        kind=_text(root["kind"]),
        server_id=_text(root["server_id"]),
        position=position,
        ended_at=_text(root["ended_at"]),
        key_id=_text(root["key_id"]),
        index=tuple(_ref(row, attempts) for row in _list(root["index"])),
        packs=tuple(_pack(row, attempts) for row in _list(root["packs"])),
        attempts=attempts,
        digest=found_digest,
        size=size,
        **counts,
    )


def _header(root: dict[str, JSON]) -> Header:
    values: dict[str, JSON] = {known.name: root[known.name] for known in fields(Header)}
    parent = values.pop("parent")
    epoch = _count(values.pop("restore_epoch"))
    texts = {name: _text(value) for name, value in values.items()}
    return check_header(Header(**texts, parent=None if parent is None else _text(parent), restore_epoch=epoch))


def _ref(row: JSON, attempts: tuple[str, ...]) -> Ref:
    kind, name, attempt, size, plain, length, path, start, *_ = _list(row)
    if kind not in (FILES, MAP) or _count(length) > LARGEST:
        raise ValueError("index")
    writer = attempts[_count(attempt)]
    return Ref(_text(kind), _hex(name), writer, _count(size), _hex(plain), _count(length), _text(path), _count(start))


def _pack(row: JSON, attempts: tuple[str, ...]) -> Pack:
    attempt, number, size, crc, *_ = _list(row)
    if _count(size) > PACK or _count(crc) >= 1 << 32:
        raise ValueError("packs")
    return Pack(attempts[_count(attempt)], _count(number), _count(size), _count(crc))


def _list(value: JSON) -> list[JSON]:
    if not isinstance(value, list):
        raise TypeError("a list is wanted")
    return value


def _text(value: JSON) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is wanted")
    return value


def _count(value: JSON) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _hex(value: JSON) -> str:
    text = _text(value)
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError("a digest is wanted")
    return text
