"""What a backup is made of, and what makes and takes it.

The one currency is the **extent**, a plain tuple ``(path, offset, buffer)``:
these bytes belong at this offset of this file.  Paths are relative, with ``/``.
A buffer may be used again by its maker as soon as the next item is asked for.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from datastores.contract.host import Node
from datastores.contract.verbs import JSON

Buffer = bytes | bytearray | memoryview
Extent = tuple[str, int, Buffer]
Identity = Literal["same", "new"]
"""Whose restored data is: ``same``, the server of the backup once more, or ``new``, another one with its data."""


@dataclass(frozen=True)
class Kept:
    """This file is byte for byte the parent's; its bytes are not sent again."""

    path: str


@dataclass(frozen=True)
class File:
    """One file of the inventory, which lists them in the order of a restore.

    ``stored`` is the path its bytes were sent under (a file may be renamed while it is read),
    ``mode`` its permission bits, ``identity`` the source's own mark of at most 64
    bytes, opaque to everyone else.  A ``private`` file belongs to the backup, not to
    the database: it comes back through ``Since`` and, first of all, in a restore.
    """

    path: str
    stored: str
    size: int
    mode: int = 0o600
    identity: bytes = b""
    private: bool = False


@dataclass(frozen=True)
class Whole:
    """Store this file as it is; comparing it with the parent's would not pay."""


@dataclass(frozen=True)
class Blocks:
    """Compare this file with its parent's in blocks of ``size`` bytes.

    ``fingerprints`` takes whole blocks (the last of a file may be short) and returns
    ``width`` bytes for each, one after the other.  Two fingerprints compare only where
    both were made under the same ``lineage`` (server, restore epoch, kind).
    """

    size: int
    width: int
    lineage: str
    fingerprints: Callable[[memoryview], bytes] = field(compare=False)


@dataclass(frozen=True)
class Checkpoint:
    """Where the backup stands: what a restored server must answer with.

    ``server_id`` names the server whose data this is; ``position`` is the datastore's own
    (GTID, LSN, oplog timestamp, replication offset), shown to people as it stands.
    """

    server_id: str
    position: Mapping[str, JSON]


@dataclass(frozen=True)
class Since:
    """The parent: its checkpoint, its inventory, and its files by path.

    ``private`` returns the bytes of one private file.  ``extents`` gives any files again, as a restore would get
    them; it reads the store, so only a snapshot that nothing else tells what changed asks for it.  ``on_hole``:
    ``fail`` raises ``Hole`` where the log since the parent has a gap; ``full`` takes a full that still sends only
    what changed.
    """

    checkpoint: Checkpoint
    files: Sequence[File]
    private: Callable[[str], bytes] = field(compare=False)
    extents: Callable[[Collection[str]], Iterator[Extent]] = field(compare=False)
    on_hole: str = "fail"


@dataclass(frozen=True)
class Limits:
    """What an operation may use: bytes per second (0: no limit), threads, niceness."""

    bandwidth: int = 0
    workers: int = 2
    nice: int = 0


class Snapshot(ABC):
    """A database held still (or followed) for the length of a ``with``.

    ``kind`` is ``full`` or ``incremental``; it is known once the ``with`` is entered.
    ``estimate`` is about how many bytes will come, for a progress bar; 0: not known.
    """

    kind: str = "full"
    estimate: int = 0

    @abstractmethod
    def extents(self) -> Iterator[Extent | Kept]:
        """Yield each path whole, its offsets ascending and without a gap, or as ``Kept``.

        Paths may be interleaved.  An empty file is one extent with an empty buffer.
        """

    @abstractmethod
    def blocks(self, path: str, head: memoryview) -> Blocks | Whole:
        """Say how a file is best compared; ``head`` is its first extent."""

    @abstractmethod
    def files(self) -> Iterable[File]:
        """Return the inventory, complete; only after the last extent."""

    @abstractmethod
    def checkpoint(self) -> Checkpoint:
        """Return the position, only after ``files``; may still fail, and then there is no backup."""


class Backup(ABC):
    """Make snapshots of a running server, and data folders of what they held.

    ``identities``: those between which a restore may choose; where there are none, each restore has but the fitting
    one: ``same`` where the guest is the backup's own, else ``new``.
    ``reserve``: bytes that the server wants free beside its data, to start and to write at all.
    """

    identities: ClassVar[tuple[Identity, ...]] = ()
    reserve: ClassVar[int] = 16 << 20

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    def server_id(self) -> str:
        """Return the identity of the running server's data; a parent of another one cannot serve."""

    @abstractmethod
    def snapshot(self, since: Since | None, limits: Limits) -> AbstractContextManager[Snapshot]:
        """Hold the database; on leaving, also by an error, no trace is left on the server."""

    @abstractmethod
    def restore(
        self,
        files: Sequence[File],
        extents: Iterator[Extent],
        checkpoint: Checkpoint,
        into: Path,
        identity: Identity,
    ) -> None:
        """Fill the empty folder ``into`` with a data folder that the server starts on.

        ``files`` is the inventory, private files first; ``extents`` gives each file once, in that order,
        offsets ascending (an empty file: one empty extent).  Every byte in them is verified already.
        """

    @abstractmethod
    def confirm(self, checkpoint: Checkpoint) -> None:
        """Raise ``Mismatch`` unless the running server stands exactly at ``checkpoint``."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove every trace a killed snapshot or restore left on the server or in ``places.temp``."""
