"""A key-encryption key in a file of this machine.

A wrapped key is 81 bytes::

    1   0x01, the version
    32  salt, random
    48  AES-256-GCM of the data key and its tag, under a nonce of 12 zero bytes,
        with the version and the context as associated data

The wrapping key is HKDF-SHA-256 of the key-encryption key with the salt and the info
``ostler wrap 1``: it serves once, so no nonce can come twice however many keys are
wrapped.  The key's id is the first 16 hex digits of HKDF-SHA-256 without salt, info
``ostler key id 1``.
"""

import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from objectstore.keys.contract import KEY_BYTES, Keys
from objectstore.store import BadRequest, Corrupt

_VERSION = b"\x01"
_SALT_BYTES = 32
_WRAPPED_BYTES = 1 + _SALT_BYTES + KEY_BYTES + 16
_NONCE = bytes(12)
_MAKE = "make one with: (umask 077; head -c 32 /dev/urandom > FILE)"


class LocalKeys(Keys):
    """Wrap data keys under 32 bytes that are held here; they are shown to nobody."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise BadRequest(f"a key-encryption key is {KEY_BYTES} bytes, not {len(key)}", field="key_file", hint=_MAKE)
        self._key = bytes(key)
        self._id = _derived(self._key, None, b"ostler key id 1", 8).hex()

    @classmethod
    def from_file(cls, path: Path) -> "LocalKeys":
        """Read a key file: a regular file of exactly 32 bytes and mode 0600 or 0400, else ``BadRequest``."""
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                about = os.fstat(file.fileno())
                data = file.read(KEY_BYTES + 1) if stat.S_ISREG(about.st_mode) else None
        except OSError as error:
            raise BadRequest(f"key file {path}: {error.strerror}", field="key_file", hint=_MAKE) from None
        if data is None:
            raise BadRequest(f"key file {path} is not a regular file", field="key_file", hint=_MAKE)
        if (mode := stat.S_IMODE(about.st_mode)) not in (0o600, 0o400):
            raise BadRequest(
                f"key file {path} has mode {mode:04o}, not 0600 or 0400", field="key_file", hint=f"chmod 0600 {path}"
            )
        if len(data) != KEY_BYTES:
            raise BadRequest(f"key file {path} must hold exactly {KEY_BYTES} raw bytes", field="key_file", hint=_MAKE)
        return cls(data)

    @property
    def key_id(self) -> str:
        return self._id

    def new(self, context: bytes) -> tuple[bytes, bytes]:
        plain, salt = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(_SALT_BYTES)
        sealed = self._cipher(salt).encrypt(_NONCE, plain, _VERSION + context)
        return plain, _VERSION + salt + sealed

    def open(self, wrapped: bytes, context: bytes) -> bytes:
        if len(wrapped) != _WRAPPED_BYTES or wrapped[:1] != _VERSION:
            raise Corrupt(f"a wrapped key is {_WRAPPED_BYTES} bytes of version {_VERSION[0]}; these are not")
        salt, sealed = wrapped[1 : 1 + _SALT_BYTES], wrapped[1 + _SALT_BYTES :]
        try:
            return self._cipher(salt).decrypt(_NONCE, sealed, _VERSION + context)
        except InvalidTag:
            raise Corrupt(
                f"a wrapped key does not open under key {self._id}",
                hint="it is another key's or another attempt's, or was changed; check OSTLER_KEY_FILE",
            ) from None

    def _cipher(self, salt: bytes) -> AESGCM:
        return AESGCM(_derived(self._key, salt, b"ostler wrap 1", KEY_BYTES))


def _derived(key: bytes, salt: bytes | None, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(key)
