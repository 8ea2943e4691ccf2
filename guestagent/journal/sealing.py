"""Sealing: no body of the journal lies on disk as it is.

AES-256-GCM under a 256-bit key, a random nonce each time, and the row's identity as
associated data, so that a body cannot be moved to another row.  The *host key* is a file of
the state directory; it seals heads, facts and reports, and wraps each operation's own key.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from datastores.contract import JSON, Secret
from guestagent.errors import JournalCorrupt

_NONCE = 12
_SIZE = 32


class Sealer:
    """Seal and open bodies under one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._mac = hashlib.sha256(b"ostler journal digest" + key).digest()

    def seal(self, identity: str, body: bytes) -> bytes:
        """Return the sealed body, bound to ``identity``."""
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, body, identity.encode())

    def open(self, identity: str, sealed: bytes) -> bytes:
        """Return the body, or raise ``JournalCorrupt`` that names the row."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], identity.encode())
        except (InvalidTag, ValueError) as error:
            raise JournalCorrupt(f"the journal's row {identity} is not what was written") from error

    def digest(self, body: bytes) -> str:
        """Return a keyed digest: equal bodies can be told without keeping them."""
        return hmac.new(self._mac, body, "sha256").hexdigest()

    def write(self, identity: str, value: object) -> bytes:
        """Seal a JSON value, in which a ``Secret`` may occur."""
        return self.seal(identity, encode(value))

    def read(self, identity: str, sealed: bytes) -> JSON:
        """Open a JSON value; a ``Secret`` in it comes back as one."""
        return decode(self.open(identity, sealed))


def new_key() -> bytes:
    """Return a fresh key."""
    return secrets.token_bytes(_SIZE)


def host_key(folder: Path, *, create: bool) -> Sealer:
    """Return the sealer of the host key in ``folder``; made there, 0600, where ``create`` is true."""
    path = folder / "journal.key"
    if not path.exists():
        if not create:
            raise JournalCorrupt(f"the journal's key {path} is missing")
        _make(path)
    key = path.read_bytes()
    if len(key) != _SIZE:
        raise JournalCorrupt(f"the journal's key {path} has {len(key)} bytes, not {_SIZE}")
    return Sealer(key)


def _make(path: Path) -> None:
    """Write a new key: whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, new_key())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def encode(value: object) -> bytes:
    """Return canonical JSON; a ``Secret`` becomes ``{"$secret": ...}``."""
    return json.dumps(value, default=_reveal, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def decode(body: bytes) -> JSON:
    """Return what ``encode`` was given."""
    found: JSON = json.loads(body, object_hook=_conceal)
    return found


def plain(value: object) -> JSON:
    """Return ``value`` with every ``Secret`` revealed: for the one who is to receive it."""
    found: JSON = json.loads(json.dumps(value, default=lambda each: _reveal(each)["$secret"]))
    return found


def _reveal(value: object) -> dict[str, str]:
    if isinstance(value, Secret):
        return {"$secret": value.reveal()}
    raise TypeError(f"a {type(value).__name__} cannot be journalled")


def _conceal(value: Mapping[str, object]) -> object:
    if len(value) == 1 and isinstance(value.get("$secret"), str):
        return Secret(str(value["$secret"]))
    return value
