"""The contract of a store, its errors and the rules for names.

::

    StoreError
    ├── BadName        a name that no store accepts; ``field`` says which
    ├── BadRequest     a realm, key file or argument that cannot be; ``field`` names it
    ├── Unavailable    not now, or not there; the only one that may be tried again
    ├── Missing        there is no such object (or backup)
    ├── Exists         there is one already and ``only_new`` was asked for
    ├── Denied         the store or the key manager refuses us
    ├── NoRoom         the store is full
    └── Corrupt        the bytes are not what they must be; none was released

A name is ``container/object``; both halves are checked at this one door, so that
stores need not be clever: 1 to 200 of ``A-Za-z0-9._-``, not beginning with a dot.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from isal import isal_zlib

Buffer = bytes | bytearray | memoryview

_HALF = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


class StoreError(Exception):
    """Say what was attempted, on what, and why it failed."""

    retry: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint


class BadName(StoreError):
    """No store accepts this name."""


class BadRequest(StoreError):
    """The realm, the key file or an argument cannot be used; nothing has changed."""


class Unavailable(StoreError):
    """The store does not answer, or not now."""

    retry = True


class Missing(StoreError):
    """There is no such object."""


class Exists(StoreError):
    """There is such an object already."""


class Denied(StoreError):
    """We may not do this here."""


class NoRoom(StoreError):
    """The store has not the room."""


class Corrupt(StoreError):
    """The bytes are not what they must be."""


@dataclass(frozen=True)
class Stat:
    """What a store says of one object.

    ``crc`` is the CRC-32 of the bytes as the store holds them, where it was asked for
    (the answer to a ``put``), else None.  ``copies`` names the clusters that hold it.
    """

    name: str
    size: int
    crc: int | None = None
    copies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """What a container holds, and who was not heard: ``silent`` names the clusters that did not answer.

    Only a ``complete`` listing proves that something is *not* there: nothing may be
    freed on another.
    """

    objects: tuple[Stat, ...]
    silent: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Return whether every cluster that may hold something answered."""
        return not self.silent


def checksum(data: Iterable[Buffer], start: int = 0) -> int:
    """Return the CRC-32 of the buffers, one after the other; lets other threads run meanwhile."""
    value = start
    for buffer in data:
        value = int(isal_zlib.crc32(buffer, value))
    return value


def split(name: str) -> tuple[str, str]:
    """Return container and object, or raise ``BadName``."""
    container, slash, key = name.partition("/")
    if not slash or not _HALF.fullmatch(container) or not _HALF.fullmatch(key):
        raise BadName(f"object name {name[:120]!r} must be container/object of letters, digits, . _ -", field="name")
    return container, key


def check_container(container: str) -> str:
    """Return ``container``, or raise ``BadName``."""
    if not _HALF.fullmatch(container):
        raise BadName(f"container name {container[:120]!r} must be of letters, digits, . _ -", field="container")
    return container


class Store(ABC):
    """Keep named byte strings in containers.

    Every method may be called from several threads.  Nothing here tries again: that
    is ``Retrying``'s one job.
    """

    @abstractmethod
    def put(self, name: str, data: Sequence[Buffer], *, only_new: bool = False) -> Stat:
        """Keep the buffers, one after the other, under ``name``: whole or not at all, durable on return.

        The answer's ``crc`` is taken from what the store holds, not from what it was given.
        Containers are made as needed.  ``only_new``: ``Exists`` where there is one.
        """

    @abstractmethod
    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes from ``start`` (fewer only at the end), or raise ``Missing``."""

    @abstractmethod
    def stat(self, name: str) -> Stat:
        """Return size and copies, or raise ``Missing``."""

    @abstractmethod
    def list(self, container: str, prefix: str = "") -> Iterator[Stat]:
        """Yield the objects of a container by ascending name; a container that is not there is empty.

        A listing that cannot be complete raises ``Unavailable``; it never just ends.
        """

    @abstractmethod
    def containers(self) -> Iterator[str]:
        """Yield the containers by ascending name."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object, durable on return; no error where there is none."""

    def listing(self, container: str, prefix: str = "") -> Listing:
        """Return what ``list`` yields, and whether every cluster was heard."""
        return Listing(tuple(self.list(container, prefix)))

    def members(self) -> "Mapping[str, Store]":
        """Return the clusters this store is made of, by name, to read copy by copy; a single one is ``""``."""
        return {"": self}

    def where(self, container: str) -> tuple[str, ...]:
        """Return the members that are to hold a container, the preferred one first."""
        return tuple(self.members())
