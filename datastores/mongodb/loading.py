"""Bringing a backup into a private server: collections under their old UUIDs, documents as bytes, indexes at the end.

Indexes wait until the oplog was applied: what is read while it is written to may break a unique index, the
exact moment does not.
"""

import re
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

from bson import Binary, Timestamp

from datastores.contract import Buffer, Incomplete, Mismatch
from datastores.mongodb.catalog import ACCOUNTS, Collection, creation, shallow
from datastores.mongodb.client import AUTH, Client, Document
from datastores.mongodb.documents import Stored, documents
from datastores.mongodb.known import Gone

LOT_BYTES, LOT_DOCUMENTS = 4_000_000, 10_000
DUPLICATE = 11000
VIEWS = "system.views"
NOTHING, EMPTY = bytes(9), re.compile(rb"\x11[^\x00\x11]*\x00{9}")
"""A timestamp of nothing, as which the server's insert would put the time of day; its applyOps does not."""


@dataclass
class Kept:
    """A collection in the server: its name by now, and the indexes it will have."""

    database: str
    name: str
    capped: bool = False
    collated: bool = False
    since: Timestamp | None = None
    indexes: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class Shelf:
    """The collections of the private server by UUID, and what is done to them as a whole."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.kept: dict[bytes, Kept] = {}
        self.gone: dict[bytes, Gone] = {}
        self._loaded: Counter[bytes] = Counter()
        self._aside: set[bytes] = set()

    def listed(self, collection: Collection) -> None:
        """Make a collection that the metadata lists."""
        name = placed(collection.database, collection.name)
        indexes = {str(each["name"]): shallow(each) for each in collection.indexes}
        self.make(collection.uuid, collection.database, name, creation(collection, name))
        kept = self.kept[collection.uuid]
        kept.since = collection.since
        kept.indexes.update(indexes)

    def make(self, uuid: bytes, database: str, name: str, command: Mapping[str, Any]) -> None:
        """Make a collection with this UUID by the oplog's own command; one that is there already gets the name."""
        if uuid in self.kept:
            self.rename(uuid, name)
            return
        self.make_way(database, name)
        self.command(database, uuid, command)
        self.kept[uuid] = Kept(database, name, bool(command.get("capped")), "collation" in command)

    def drop(self, uuid: bytes) -> None:
        """Drop a collection; no error where there is none."""
        gone = self.kept.pop(uuid, None)
        self._aside.discard(uuid)
        if gone is not None:
            self.command(gone.database, uuid, {"drop": gone.name})

    def rename(self, uuid: bytes, name: str) -> None:
        """Call a collection something else, and whatever had that name something else again."""
        there = self.kept.get(uuid)
        if there is None or there.name == name:
            return
        self.make_way(there.database, name)
        source, target = f"{there.database}.{there.name}", f"{there.database}.{name}"
        self.client.admin.command("renameCollection", source, to=target)
        there.name = name
        self._aside.discard(uuid)

    def make_way(self, database: str, name: str) -> None:
        """Put aside a collection that has this name: its own end or new name is still to come."""
        for uuid, each in list(self.kept.items()):
            if (each.database, each.name) == (database, name):
                self.rename(uuid, f"ostler-aside-{secrets.token_hex(8)}")
                self._aside.add(uuid)

    def settled(self) -> None:
        """Raise ``Mismatch`` where a collection that was put aside never got a name again."""
        databases = sorted({self.kept[uuid].database for uuid in self._aside})
        if databases:
            raise Mismatch(f"a collection of {databases[0]} has no name at the end of the oplog")

    def command(self, database: str, uuid: bytes, command: Mapping[str, Any]) -> None:
        """Have the server apply one command of an oplog."""
        entry = {"op": "c", "ns": f"{database}.$cmd", "ui": Binary(uuid, 4), "o": dict(command)}
        self.client.admin.command("applyOps", [entry])

    def load(self, uuid: bytes, pieces: Iterable[Buffer]) -> None:
        """Put one file of a collection's documents in, in their order; after a hole only what is not gone since."""
        lot, size = list[Stored](), 0
        for each in self._wanted(uuid, documents(pieces)):
            if lot and (size + len(each) > LOT_BYTES or len(lot) >= LOT_DOCUMENTS):
                self._insert(uuid, lot)
                lot, size = [], 0
            lot.append(Stored(each))
            size += len(each)
        if lot:
            self._insert(uuid, lot)

    def build(self) -> None:
        """Build every index, now that the documents are those of one moment."""
        for each in self.kept.values():
            specs = [spec for name, spec in each.indexes.items() if name != "_id_" and not spec.get("clustered")]
            if specs:
                plain = [_spelled(spec, each.collated) for spec in specs]
                self.client[each.database].command("createIndexes", each.name, indexes=plain)

    def _wanted(self, uuid: bytes, found: Iterable[bytes]) -> Iterable[bytes]:
        source, gone = self._loaded[uuid], self.gone.get(uuid)
        self._loaded[uuid] += 1
        return found if gone is None else compress(found, gone.current(source))

    def _insert(self, uuid: bytes, lot: Sequence[Stored]) -> None:
        there = self.kept[uuid]
        if there.name == VIEWS or any(NOTHING in each.raw and EMPTY.search(each.raw) for each in lot):
            entries = [_inserted(there, uuid, each) for each in lot]
            self.client.admin.command("applyOps", entries, allowAtomic=False, bypassDocumentValidation=True)
            return
        command: Document = {"insert": there.name, "documents": list(lot), "ordered": there.capped}
        rest, at = len(lot), 0
        while rest:
            command["documents"] = list(lot[at:])
            reply = self.client[there.database].command(command | {"bypassDocumentValidation": True})
            errors = reply.get("writeErrors", [])
            # A document that was taken out and put in again while we read may come twice; the oplog has its end.
            wrong = next((each for each in errors if each["code"] != DUPLICATE), None)
            if wrong is not None:
                raise Mismatch(f"a document of {there.database}.{there.name} was refused: {wrong['errmsg'][:200]}")
            if not (there.capped and errors):
                return
            at += errors[0]["index"] + 1
            rest = len(lot) - at


def _spelled(spec: Mapping[str, Any], collated: bool) -> Document:
    """Return an index as it is asked for; one without a collation would take over its collection's."""
    simple = {"collation": {"locale": "simple"}} if collated and int(spec.get("v", 2)) >= 2 else {}
    return simple | {key: value for key, value in spec.items() if key != "ns"}


def placed(database: str, name: str) -> str:
    """Return where a collection is put: users and roles wait beside, until the server has looked at them."""
    return ACCOUNTS.get(name, name) if database == AUTH else name


def _inserted(there: Kept, uuid: bytes, document: Stored) -> Document:
    return {"op": "i", "ns": f"{there.database}.{there.name}", "ui": Binary(uuid, 4), "o": document}


def whole(size: int, name: str, pieces: Iterable[tuple[str, int, Buffer]]) -> Iterable[Buffer]:
    """Yield a file's pieces; ``Incomplete`` where one is missing."""
    at = 0
    for _, offset, piece in pieces:
        if offset != at:
            raise Incomplete(f"the backup's file {name} has a gap at {at}")
        at += len(piece)
        yield piece
    if at != size:
        raise Incomplete(f"the backup's file {name} has {at} bytes instead of {size}")
