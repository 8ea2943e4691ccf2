"""Fingerprints of documents: what a full after a hole must not send again.

An **entry** is 4 bytes of a document's ``_id`` and 8 of the hash of a secret key and the whole document.  A document
is known where the entry of its own ``_id`` is the same, so a changed one looks known once in 2^64 changes; the key is
made with each base, so nobody can choose documents that have the same one.  The entries of a collection's file stand
in the order of its documents in private files of their own; after a hole another private file tells which documents
of the older files are gone, by their numbers.  So a restore hashes nothing.
"""

import secrets
from collections.abc import Iterator, Sequence
from hashlib import sha256
from zlib import crc32

from datastores.mongodb.documents import identity
from datastores.mongodb.known import Known

KEY_PATH = "fingerprints/key"
KEY = 32

Batch = Sequence[memoryview]


class Prints:
    """Make entries of documents, with one secret key."""

    def __init__(self, key: bytes = b"") -> None:
        self.key = key or secrets.token_bytes(KEY)
        self._begun = sha256(self.key)

    def of(self, batch: Batch) -> list[bytes]:
        """Return the entry of each document."""
        begun, found = self._begun, list[bytes]()
        for each in batch:
            made = begun.copy()
            made.update(each)
            found.append(crc32(identity(each)).to_bytes(4, "big") + made.digest()[:8])
        return found


class Sieve:
    """Choose which documents of a collection are sent, and tell their entries; this one sends all."""

    source = 0

    def __init__(self, prints: Prints) -> None:
        self._prints = prints

    def pick(self, batch: Batch) -> tuple[Batch, bytes]:
        """Return the documents to be sent, and what is kept about them."""
        return batch, b"".join(self._prints.of(batch))

    def gone(self) -> Iterator[bytes]:
        """Yield what is told of documents that older files have."""
        return iter(())

    def close(self) -> None:
        """Let go what was held."""


class Changed(Sieve):
    """Send only what is not known."""

    def __init__(self, prints: Prints, known: Known) -> None:
        super().__init__(prints)
        self._known = known
        self.source = known.next

    def pick(self, batch: Batch) -> tuple[Batch, bytes]:
        """Return the documents that are new or changed, and what is kept about them."""
        marked = zip(batch, self._prints.of(batch), strict=True)
        found = [(document, entry) for document, entry in marked if not self._known.find(entry)]
        return [document for document, _ in found], b"".join(entry for _, entry in found)

    def gone(self) -> Iterator[bytes]:
        """Yield which documents of older files were deleted or changed."""
        return self._known.left()

    def close(self) -> None:
        """Let go what was held."""
        self._known.close()


class Plain(Sieve):
    """Send all and keep nothing about it: a capped collection, whose order is part of it."""

    def pick(self, batch: Batch) -> tuple[Batch, bytes]:
        """Return all documents."""
        return batch, b""
