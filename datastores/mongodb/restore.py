"""Making a data folder of a backup: a private server on it takes everything in, then shuts down cleanly."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from datastores.contract import Buffer, Checkpoint, Extent, File, Incomplete, Mismatch, Node
from datastores.mongodb.admin import make_account, write_keyfile
from datastores.mongodb.catalog import ACCOUNTS, METADATA, load
from datastores.mongodb.client import ACCOUNT, AUTH, Client, Document
from datastores.mongodb.known import GONE, Gone
from datastores.mongodb.loading import Shelf, whole
from datastores.mongodb.position import Position, comply
from datastores.mongodb.private import private
from datastores.mongodb.replay import Replay
from datastores.mongodb.root import NAME as ROOT
from datastores.mongodb.standing import remember


class Restored:
    """The folder ``into`` on its way from empty to a data folder of this guest."""

    def __init__(self, node: Node, into: Path, checkpoint: Checkpoint) -> None:
        self._node = node
        self._into = into
        self._checkpoint = checkpoint
        self._position = Position.of(checkpoint.position)

    def fill(self, files: Sequence[File], extents: Iterator[Extent]) -> None:
        """Take everything in; the server may then start on the folder."""
        self._node.host.own(self._into)
        with private(self._node, self._into) as client:
            shelf = Shelf(client)
            replay = Replay(shelf)
            for file, pieces in _runs(files, extents):
                self._take(client, shelf, replay, file, pieces)
            replay.end(self._position)
            shelf.build()
            self._accounts(client, shelf)
            if replay.compatibility:
                comply(client, replay.compatibility)
            remember(client, self._checkpoint, shelf.kept)
        write_keyfile(self._node, self._into)

    def _take(self, client: Client, shelf: Shelf, replay: Replay, file: File, pieces: Iterator[Buffer]) -> None:
        if file.path == METADATA:
            self._learn(client, shelf, _joined(pieces))
        elif file.path.startswith(GONE):
            shelf.gone.setdefault(file.identity, Gone()).read(_joined(pieces))
        elif file.identity in shelf.kept and file.path.startswith(("data/", "changed/")):
            shelf.load(file.identity, pieces)
        elif file.path.startswith("oplog/"):
            replay.feed(pieces)
        else:
            raise Mismatch(f"the backup has a file {file.path[:80]!r} that its metadata does not name")

    def _learn(self, client: Client, shelf: Shelf, content: bytes) -> None:
        wanted, collections = load(content)
        comply(client, wanted)
        for each in collections:
            shelf.listed(each)

    def _accounts(self, client: Client, shelf: Shelf) -> None:
        """Have the server look at users and roles and take them over, all but those that belong to this guest."""
        ours = [f"{AUTH}.{each}" for each in (ACCOUNT, ROOT)]
        names = {each.name for each in shelf.kept.values() if each.database == AUTH}
        # The server's own catalogue of users begins with the first one.
        make_account(self._node, client)
        options = {"tempUsersCollection": ACCOUNTS["system.users"], "tempRolesCollection": ACCOUNTS["system.roles"]}
        there: Document = {option: f"{AUTH}.{name}" for option, name in options.items() if name in names}
        if "tempUsersCollection" in there:
            client[AUTH][ACCOUNTS["system.users"]].delete_many({"_id": {"$in": ours}})
        if there:
            client.admin.command("_mergeAuthzCollections", 1, **there, db="", drop=False)
        for name in ACCOUNTS.values():
            client[AUTH][name].drop()


def _joined(pieces: Iterator[Buffer]) -> bytes:
    return b"".join(bytes(each) for each in pieces)


def _runs(files: Sequence[File], extents: Iterator[Extent]) -> Iterator[tuple[File, Iterator[Buffer]]]:
    """Yield each file with its bytes, in the order of the inventory and whole."""
    expected = iter(files)
    for path, run in groupby(extents, key=itemgetter(0)):
        file = next(expected, None)
        if file is None or path not in (file.path, file.stored):
            raise Incomplete(
                f"the backup sends {path[:80]!r} where its inventory has {file.path if file else 'no more'}"
            )
        yield file, iter(whole(file.size, file.path, run))
    missing = next(expected, None)
    if missing is not None:
        raise Incomplete(f"the backup sends nothing of {missing.path}")
