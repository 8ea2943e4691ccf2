"""Sealing: AES-256-GCM under the key of one attempt.

Every nonce is made of what it seals (its domain and its numbers), so none is used
twice as long as nothing is sealed twice; every tag covers the whole address of the
bytes, so nothing can be moved.
"""

import struct
import uuid

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from objectstore.store import Buffer, Corrupt

MAJOR = 1
MINOR = 0
TAG = 16

_FRAME, _INDEX, _MANIFEST = 1, 2, 3
_NONCE = struct.Struct("<III")
_NUMBERS = struct.Struct("<II")


def context(kind: bytes, realm: str, generation: str, attempt: str) -> bytes:
    """Return the address that a seal of ``kind`` (``K``, ``F``, ``I`` or ``M``) is bound to."""
    name = realm.encode("ascii")
    ids = uuid.UUID(generation).bytes + uuid.UUID(attempt).bytes
    return b"OSTLER" + kind + bytes([MAJOR, len(name)]) + name + ids


class Sealer:
    """Seal and open what one attempt wrote.  Opening may be done from any thread."""

    def __init__(self, realm: str, generation: str, attempt: str, key: bytes) -> None:
        self.attempt = attempt
        self._gcm = AESGCM(key)
        self._frame, self._index, self._manifest = (
            context(kind, realm, generation, attempt) for kind in (b"F", b"I", b"M")
        )

    def seal_frame(self, pack: int, number: int, data: Buffer, into: memoryview) -> None:
        """Seal a frame into a buffer that is exactly ``TAG`` bytes longer."""
        self._gcm.encrypt_into(_NONCE.pack(_FRAME, pack, number), data, self._frame + _NUMBERS.pack(pack, number), into)

    def open_frame(self, pack: int, number: int, sealed: Buffer) -> bytes:
        """Return what was sealed as this frame, or raise ``Corrupt``."""
        address = self._frame + _NUMBERS.pack(pack, number)
        return self._open(_NONCE.pack(_FRAME, pack, number), sealed, address, "frame")

    def seal_index(self, number: int, head: bytes, data: Buffer) -> bytes:
        """Seal an index object; its number is never used again by this attempt."""
        return self._gcm.encrypt(_NONCE.pack(_INDEX, number, 0), data, self._index + head)

    def open_index(self, number: int, head: bytes, sealed: Buffer) -> bytes:
        """Return what was sealed as this index object, or raise ``Corrupt``."""
        return self._open(_NONCE.pack(_INDEX, number, 0), sealed, self._index + head, "index object")

    def seal_manifest(self, head: bytes, data: Buffer) -> bytes:
        """Seal the manifest; an attempt has one, and seals it once."""
        return self._gcm.encrypt(_NONCE.pack(_MANIFEST, 0, 0), data, self._manifest + head)

    def open_manifest(self, head: bytes, sealed: Buffer) -> bytes:
        """Return what was sealed as the manifest, or raise ``Corrupt``."""
        return self._open(_NONCE.pack(_MANIFEST, 0, 0), sealed, self._manifest + head, "manifest")

    def _open(self, nonce: bytes, sealed: Buffer, address: bytes, what: str) -> bytes:
        try:
            return self._gcm.decrypt(nonce, sealed, address)
        except (InvalidTag, ValueError):
            raise Corrupt(f"a {what} of attempt {self.attempt} is not what was sealed") from None
