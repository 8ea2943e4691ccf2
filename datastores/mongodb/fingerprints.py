"""Fingerprints of documents: what a full after a hole must not send again.

An **entry** is 4 bytes of a document's ``_id`` and 8 of the hash of a secret key and the whole document.  A document
is known where the entry of its own ``_id`` is the same, so a changed one looks known once in 2^64 changes; the key is
made for one backup and kept nowhere, so nobody can choose documents that have the same one.

Entries are made of the parent's own files, and only when there is a hole: a hash of each document would be a third of
every full, and its entry a twentieth of what that stores.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from zlib import crc32

from datastores.contract import Buffer
from datastores.mongodb.documents import documents, identity
from datastores.mongodb.known import Known

KEY = 32
LOT = 250

Batch = Sequence[Buffer]


class Prints:
    """Make entries of documents, with one secret key."""

    def __init__(self) -> None:
        self._begun = sha256(secrets.token_bytes(KEY))

    def of(self, batch: Batch) -> list[bytes]:
        """Return the entry of each document."""
        begun, found = self._begun, list[bytes]()
        for each in batch:
            made = begun.copy()
            made.update(each)
            found.append(crc32(identity(memoryview(each))).to_bytes(4, "big") + made.digest()[:8])
        return found

    def of_file(self, pieces: Iterable[Buffer]) -> Iterator[bytes]:
        """Yield the entries of a file's documents, in their order, many at a time."""
        rows = documents(pieces)
        while lot := list(islice(rows, LOT)):
            yield b"".join(self.of(lot))


class Sieve:
    """Choose which documents of a collection are sent; this one sends all."""

    def pick(self, batch: Batch) -> Batch:
        """Return the documents to be sent."""
        return batch

    def gone(self) -> Iterator[bytes]:
        """Yield what is told of documents that older files have."""
        return iter(())

    def close(self) -> None:
        """Let go what was held."""


class Changed(Sieve):
    """Send only what is not known."""

    def __init__(self, prints: Prints, known: Known) -> None:
        self._prints = prints
        self._known = known

    def pick(self, batch: Batch) -> Batch:
        """Return the documents that are new or changed."""
        marked = zip(batch, self._prints.of(batch), strict=True)
        return [document for document, entry in marked if not self._known.find(entry)]

    def gone(self) -> Iterator[bytes]:
        """Yield which documents of older files were deleted or changed."""
        return self._known.left()

    def close(self) -> None:
        """Let go what was held."""
        self._known.close()
