"""Making a data folder of a backup: files where they belong, then what is this guest's own, by a private server."""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from datastores.cassandra import jolokia
from datastores.cassandra.layout import TABLES
from datastores.cassandra.position import Position
from datastores.cassandra.private import MARK, adopt, mark
from datastores.cassandra.schema import SCHEMA, Schema, Table, tenants
from datastores.cassandra.sstables import placed
from datastores.contract import Buffer, Checkpoint, Extent, File, Identity, Incomplete, Mismatch, Node
from datastores.direct import DirectFile

RESTORED = "restored.json"
OWN = "system/"
"""Tables about the node itself: its id, its tokens, its neighbours."""
BUILDS = ("system/built_views-", "system/view_builds_in_progress-")


class Restored:
    """The folder ``into`` on its way from empty to a data folder of this guest."""

    def __init__(self, node: Node, into: Path, checkpoint: Checkpoint, identity: Identity) -> None:
        self._node = node
        self._into = into
        self._checkpoint = checkpoint
        self._position = Position.of(checkpoint.position)
        self._identity = identity
        self._private: dict[str, bytes] = {}
        self._views = list[Table]()

    def fill(self, files: Sequence[File], extents: Iterator[Extent]) -> None:
        """Take everything in; the server may then start on the folder."""
        for file, pieces in runs(files, extents):
            if file.private:
                self._private[file.path] = b"".join(bytes(each) for each in pieces)
                self._learn(file.path)
            elif self._left_out(file.path):
                _skip(pieces)
            else:
                write(self._into / TABLES, file, pieces)
        self._node.host.own(self._into)
        # A node that comes back to the agent that knew it can be entered as it is.
        if self._identity == "new" or self._views or self._private.get(MARK) != mark(self._node):
            adopt(self._node, self._into, self._position, self._identity, self._views)
        jolokia.write_access(self._node, self._into)
        told = {"identity": self._identity, "position": self._position.to_json()}
        self._node.host.write(self._into / RESTORED, json.dumps(told).encode())

    def _learn(self, path: str) -> None:
        """Know which views have to be made of their tables: their own files are of another moment than the tables'.

        Where there are neighbours, a view's rows come from tables that lie there, and its files are all that there is.
        """
        if path == SCHEMA and (self._identity == "new" or not self._position.peers):
            schema = Schema.load(self._private[path])
            self._views = [each for each in schema.tables if each.base and tenants(each.keyspace)]

    def _left_out(self, path: str) -> bool:
        """Say whether a file is not wanted: the node's own for a new one; of views that are made anew all there is."""
        if self._identity == "new" and path.startswith(OWN):
            return True
        left = (*(f"{each.folder}/" for each in self._views), *(BUILDS if self._views else ()))
        return path.startswith(left)


def restored(node: Node, position: Position) -> Identity | None:
    """Return whose the node's data is where it was restored from a backup that stands at ``position``, else None."""
    try:
        told = json.loads((node.places.data / RESTORED).read_bytes())
        fits = Position.of(told["position"]) == position
    except (OSError, ValueError, TypeError, KeyError, Mismatch):
        return None
    return ("same" if told.get("identity") == "same" else "new") if fits else None


def runs(files: Sequence[File], extents: Iterator[Extent]) -> Iterator[tuple[File, Iterator[Buffer]]]:
    """Yield each file with its bytes, in the order of the inventory and whole; each must be used up."""
    expected = iter(files)
    for path, run in groupby(extents, key=itemgetter(0)):
        file = next(expected, None)
        if file is None or path not in (file.path, file.stored):
            raise Incomplete(f"the backup sends {path[:80]!r} where its list has {file.path if file else 'no more'}")
        yield file, _gapless(file, run)
    missing = next(expected, None)
    if missing is not None:
        raise Incomplete(f"the backup sends nothing of {missing.path}")


def write(data: Path, file: File, pieces: Iterator[Buffer]) -> None:
    """Write a file below the folder of all data; ``Mismatch`` where it is none of a table's."""
    if not placed(file.path):
        raise Mismatch(f"the backup has a file {file.path[:120]!r}, which is none of a table's")
    path = data / file.path
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with DirectFile(path, file.mode & 0o666, file.size) as out:
        for each in pieces:
            out.write(each)


def _gapless(file: File, run: Iterator[Extent]) -> Iterator[Buffer]:
    at = 0
    for _, offset, piece in run:
        if offset != at:
            raise Incomplete(f"the backup's file {file.path} has a gap at {at}")
        at += len(piece)
        yield piece
    if at != file.size:
        raise Incomplete(f"the backup's file {file.path} has {at} bytes instead of {file.size}")


def _skip(pieces: Iterator[Buffer]) -> None:
    for _ in pieces:
        pass
