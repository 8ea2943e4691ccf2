"""A second reader of archives, made from FORMAT.md alone: it shares no code with the archive."""

import base64
import json
import struct
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


class Reader:
    """Read one backup from objects by name, with the bytes of the key file."""

    def __init__(self, objects: Mapping[str, bytes], realm: str, key_file: bytes, backup: str) -> None:
        self.objects, self.realm, self.key_file = objects, realm, key_file
        self.name = next(name for name in objects if name.startswith(f"{realm}-backups/manifest.{backup}."))
        self.attempt = self.name.rsplit(".", 1)[1]
        data = objects[self.name]
        head, sealed = data[:76], data[76:]
        magic, major, _, zero, size, realm_hash, generation, named, attempt = struct.unpack("<4sBBHI16s16s16s16s", head)
        assert (magic, major, zero, size) == (b"OSTM", 1, 0, 76)
        assert realm_hash == blake3(realm.encode()).digest()[:16]
        assert (str(uuid.UUID(bytes=named)), str(uuid.UUID(bytes=attempt))) == (backup, self.attempt)
        self.generation = str(uuid.UUID(bytes=generation))
        self.head, self.compressed = (
            head,
            self.open(self.attempt, (3, 0, 0), self.context("M", self.attempt) + head, sealed),
        )
        self.text = expand(self.compressed)
        self.root: dict[str, Any] = json.loads(self.text)
        assert (self.root["realm"], self.root["backup"], self.root["format"]) == (realm, backup, 1)

    def context(self, kind: str, attempt: str) -> bytes:
        ids = uuid.UUID(self.generation).bytes + uuid.UUID(attempt).bytes
        return b"OSTLER" + kind.encode() + bytes([1, len(self.realm)]) + self.realm.encode() + ids

    def key(self, attempt: str) -> bytes:
        key_id = self.derive(None, b"ostler key id 1", 8).hex()
        wrapped = self.objects[f"{self.realm}-keys/{attempt}.{key_id}"]
        assert len(wrapped) == 81
        wrapping = AESGCM(self.derive(wrapped[1:33], b"ostler wrap 1", 32))
        return wrapping.decrypt(bytes(12), wrapped[33:], b"\x01" + self.context("K", attempt))

    def derive(self, salt: bytes | None, info: bytes, length: int) -> bytes:
        return HKDF(SHA256(), length, salt, info).derive(self.key_file)

    def open(self, attempt: str, nonce: tuple[int, int, int], address: bytes, sealed: bytes) -> bytes:
        return AESGCM(self.key(attempt)).decrypt(struct.pack("<III", *nonce), sealed, address)

    def parts(self, kind: str) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Yield head, compressed and plain content of each index object."""
        for row in self.root["index"]:
            if row[0] == kind:
                data = self.objects[f"{self.realm}-backups/index.{row[1]}"]
                assert blake3(data).hexdigest() == row[1]
                attempt, number = str(uuid.UUID(bytes=data[8:24])), struct.unpack("<I", data[24:28])[0]
                assert (data[:4], data[4], attempt) == (b"OSTI", 1, self.root["attempts"][row[2]])
                packed = self.open(attempt, (2, number, 0), self.context("I", attempt) + data[:28], data[28:])
                plain = expand(packed)
                assert (blake3(plain).hexdigest(), len(plain), len(data)) == (row[4], row[5], row[3])
                yield data[:28], packed, plain

    def inventory(self) -> list[list[Any]]:
        return [row for _, _, plain in self.parts("files") for row in parse(plain)[0]["entries"]]

    def pieces(self) -> Iterator[tuple[dict[str, Any], list[list[int]], list[list[int]]]]:
        for _, _, plain in self.parts("map"):
            found, at = parse(plain)
            for piece in found["pieces"]:
                frames, at = columns(plain, at, piece["frames"], 6)
                runs, at = columns(plain, at, piece["runs"], 3)
                at += -(-piece["length"] // piece["block"]) * piece["width"]
                yield piece, frames, runs
            assert at == len(plain)

    def frame(self, attempt: str, pack: int, number: int, offset: int, length: int) -> tuple[bytes, bytes]:
        """Return a frame sealed, and what was sealed."""
        data = self.objects[f"{self.realm}-g-{self.generation}/{attempt}.{pack}"][offset : offset + length]
        address = self.context("F", attempt) + struct.pack("<II", pack, number)
        return data, self.open(attempt, (1, pack, number), address, data)

    def files(self) -> dict[str, bytes]:
        stored: dict[str, bytearray] = {}
        for piece, frames, runs in self.pieces():
            target = stored.setdefault(piece["path"], bytearray())
            assert len(target) == piece["start"]
            for at, which, offset in zip(*runs, strict=True):
                number = runs[0].index(at)
                end = runs[0][number + 1] if number + 1 < len(runs[0]) else piece["length"]
                attempt, pack, order, where, length, size = (column[which] for column in frames)
                plain = expand(self.frame(piece["attempts"][attempt], pack, order, where, length)[1])
                assert len(plain) == size
                target += plain[offset : offset + end - at]
        rows = self.inventory()
        assert len(rows) == self.root["files"]
        assert all(len(stored.get(row[1], b"")) == row[2] for row in rows)
        return {row[0]: bytes(stored.get(row[1], b"")) for row in rows}


def expand(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data)


def parse(plain: bytes) -> tuple[dict[str, Any], int]:
    end = 4 + struct.unpack("<I", plain[:4])[0]
    return json.loads(plain[4:end]), end


def columns(plain: bytes, at: int, rows: int, count: int) -> tuple[list[list[int]], int]:
    size = 4 * rows
    found = [list(struct.unpack(f"<{rows}I", plain[at + n * size : at + (n + 1) * size])) for n in range(count)]
    return found, at + count * size


def vector(text: str) -> tuple[str, bytes, dict[str, bytes], list[dict[str, Any]]]:
    """Return realm, key file, objects and backups of a vector file."""
    found = json.loads(text)
    objects = {name: base64.b64decode(data) for name, data in found["objects"].items()}
    for backup in found["backups"]:
        backup["files"] = {path: base64.b64decode(data) for path, data in backup["files"].items()}
    return found["realm"], bytes.fromhex(found["key_file"]), objects, found["backups"]
