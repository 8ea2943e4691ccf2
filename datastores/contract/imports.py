"""``Import``: a part of a backup into the running server."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from datastores.contract.backup import Checkpoint, Extent, File
from datastores.contract.host import Node


class Import(ABC):
    """Take one database, or one table, of a backup into the running server, which goes on serving all the rest.

    Afterwards the part holds what the backup held and nothing else: what stands under its name is replaced, what does
    not stand there is made, and no other data, user or setting changes.  The server does it as it does a tenant's
    writes, so that the next increment holds it.  The three moves come in their order; ``receive`` and ``load`` as often
    as a kill makes it necessary, each time ``receive`` first and on an empty folder.
    """

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    def choose(self, files: Sequence[File], name: str, private: Callable[[str], bytes]) -> Sequence[File]:
        """Return those of a backup's files that the part ``name`` needs, private ones included; asks no server.

        ``name`` is what ``database list`` prints, or the datastore's own way to name less.  ``private`` returns the
        bytes of one private file.  ``BadInput`` (field ``only``) for a name that cannot be; ``NotFound`` tells
        what is there.
        """

    @abstractmethod
    def receive(self, files: Sequence[File], extents: Iterator[Extent], into: Path) -> None:
        """Write the chosen files below the empty folder ``into``; nothing of the server changes.

        ``into`` is the server's account's, on the file system of its data.  ``files`` and ``extents`` are as in
        ``Backup.restore``, of the chosen files only, in the order of the inventory.
        """

    @abstractmethod
    def load(self, files: Sequence[File], checkpoint: Checkpoint, into: Path, name: str) -> None:
        """Let the running server take in what ``receive`` wrote, and return when it serves it; ``into`` may be used up.

        A kill or an error in the middle may leave the part old, new, or incomplete, and never touches anything else;
        ``receive`` and ``load`` once more make it whole.
        """
