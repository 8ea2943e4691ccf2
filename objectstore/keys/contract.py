"""The contract of a key manager."""

from abc import ABC, abstractmethod

KEY_BYTES = 32
"""A data key, and a key-encryption key, is 256 bits."""


class Keys(ABC):
    """Make and open data keys under one key-encryption key."""

    @property
    @abstractmethod
    def key_id(self) -> str:
        """Return which key wraps: a part of an object name, that tells nothing of the key."""

    @abstractmethod
    def new(self, context: bytes) -> tuple[bytes, bytes]:
        """Return a fresh data key (32 bytes) and its wrapped form, which opens with ``context`` only."""

    @abstractmethod
    def open(self, wrapped: bytes, context: bytes) -> bytes:
        """Return the data key.

        ``Corrupt`` where these bytes are not what this key wrapped for ``context``, ``Denied`` where this
        key can wrap only, ``Unavailable`` where the key manager does not answer.
        """
