"""Fingerprints of documents: what a full after a hole must not send again.

A fingerprint is a hash of a secret key and a document's bytes, ``_id`` and all; the key is made with each base, so
nobody can choose documents that have the same one.  12 bytes: among 10^9 documents the chance that a changed one looks
known is below 10^-11.  A table is a private file of the backup: the key, then **blocks** of one collection's
fingerprints that came or went.  After a hole only the blocks of what changed are written; the tables are read one
after the other.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from struct import Struct

from datastores.contract import Mismatch

TABLE = "fingerprints/000000"
WIDTH, KEY = 12, 32
_HEAD = Struct("<16s?Q")

Batch = Sequence[bytes | memoryview]


class Table:
    """The fingerprints of every collection, kept as bytes; a set is made of one collection's when it is wanted."""

    def __init__(self, contents: Iterable[bytes] = ()) -> None:
        self.key = b""
        self._blocks: dict[bytes, list[tuple[bool, bytes]]] = {}
        for each in contents:
            self._read(each)
        self.key = self.key or secrets.token_bytes(KEY)

    def current(self, uuid: bytes) -> set[bytes]:
        """Return a collection's fingerprints."""
        found: set[bytes] = set()
        for came, prints in self._blocks.get(uuid, ()):
            each = {prints[at : at + WIDTH] for at in range(0, len(prints), WIDTH)}
            found = found | each if came else found - each
        return found

    def knows(self, uuid: bytes) -> bool:
        """Say whether there are fingerprints of this collection."""
        return uuid in self._blocks

    def prints(self, batch: Batch) -> list[bytes]:
        """Return the fingerprint of each document."""
        begun, found = sha256(self.key), list[bytes]()
        for each in batch:
            made = begun.copy()
            made.update(each)
            found.append(made.digest()[:WIDTH])
        return found

    def _read(self, content: bytes) -> None:
        key, at = content[:KEY], KEY
        if len(key) != KEY or self.key not in (b"", key):
            raise Mismatch("the backup's fingerprints are not of one base")
        self.key = key
        while at < len(content):
            if len(content) - at < _HEAD.size:
                raise Mismatch("the backup's fingerprints end within a block")
            uuid, came, count = _HEAD.unpack_from(content, at)
            at += _HEAD.size
            self._blocks.setdefault(uuid, []).append((came, content[at : at + count * WIDTH]))
            at += count * WIDTH
        if at != len(content):
            raise Mismatch("the backup's fingerprints end within a block")


class Sieve:
    """Choose which documents of a collection are sent, and tell what came and went; this one sends all."""

    def __init__(self, table: Table, uuid: bytes) -> None:
        self._table = table
        self._uuid = uuid
        self._came = bytearray()

    def restart(self) -> None:
        """Forget what was seen: the collection is read anew."""
        self._came = bytearray()

    def pick(self, batch: Batch) -> Batch:
        """Return the documents to be sent."""
        self._came += b"".join(self._table.prints(batch))
        return batch

    def blocks(self) -> Iterator[bytes]:
        """Yield what the table must have of this collection."""
        if self._came:
            yield _HEAD.pack(self._uuid, True, len(self._came) // WIDTH) + bytes(self._came)


class Changed(Sieve):
    """Send only what the table has not."""

    def __init__(self, table: Table, uuid: bytes) -> None:
        super().__init__(table, uuid)
        self._left = table.current(uuid)

    def restart(self) -> None:
        """Forget what was seen: the collection is read anew."""
        super().restart()
        self._left = self._table.current(self._uuid)

    def pick(self, batch: Batch) -> Batch:
        """Return the documents that are new or changed."""
        found: list[bytes | memoryview] = []
        for document, mark in zip(batch, self._table.prints(batch), strict=True):
            if mark in self._left:
                self._left.discard(mark)
            else:
                found.append(document)
                self._came += mark
        return found

    def blocks(self) -> Iterator[bytes]:
        """Yield what went, then what came."""
        if self._left:
            yield _HEAD.pack(self._uuid, False, len(self._left)) + b"".join(self._left)
        yield from super().blocks()


class Plain(Sieve):
    """Send all and keep no fingerprints: a capped collection, whose order is part of it."""

    def pick(self, batch: Batch) -> Batch:
        """Return all documents."""
        return batch
