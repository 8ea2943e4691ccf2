"""Applying slices of an oplog to a private server, in batches, to the exact point.

Entries name collections by UUID, so it does not matter what those were called when they were read.  What was read
may be newer than an entry: making, dropping and renaming what is so already is no error, and documents are
set, not changed.  Indexes are only noted here; they are built at the end.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from bson import Binary, decode
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from datastores.contract import Buffer, Hole, Mismatch
from datastores.mongodb.catalog import shallow, wanted
from datastores.mongodb.client import Document
from datastores.mongodb.documents import RAW, documents
from datastores.mongodb.loading import Shelf, placed
from datastores.mongodb.oplog import NEVER
from datastores.mongodb.position import Position, compatibility, comply, shown

LOT, LOT_BYTES = 500, 4_000_000
FEATURES = "admin.system.version"
NOTHING = frozenset(
    {"dropDatabase", "startIndexBuild", "abortIndexBuild", "abortTransaction", "dbCheck", "importCollection"}
)


class Replay:
    """One restore's oplog: fed slice by slice, ended once."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._lot: list[Document] = []
        self._size = 0
        self._last: RawBSONDocument | None = None
        self._unfinished: dict[bytes, list[RawBSONDocument]] = {}
        self._owed: set[tuple[bytes, bytes]] = set()
        self.compatibility = ""
        """The feature compatibility version that the entries told last, if any did."""
        self.applied = 0

    def feed(self, pieces: Iterable[Buffer]) -> None:
        """Apply one slice; its first entry must be the last one of the slice before."""
        first = True
        for each in documents(pieces):
            entry = RawBSONDocument(each, RAW)
            if first and self._last is not None and entry["ts"] != self._last["ts"]:
                raise Hole(f"the backup has no entries from {shown(self._last['ts'])} to {shown(entry['ts'])}")
            if not first:
                self._entry(entry)
            first, self._last = False, entry

    def end(self, position: Position) -> None:
        """Apply what waits; ``Mismatch`` unless the last entry is the one at ``position``."""
        self._flush()
        if self._last is None or self._last["ts"] != position.ts or self._last.get("t") != position.term:
            raise Mismatch(f"the backup's oplog does not end at {position}")
        self._shelf.settled()
        owed = [each for each in self._owed if each[0] in self._shelf.kept]
        if owed:
            raise Mismatch(f"{len(owed)} documents were changed that the backup has not")

    def _entry(self, entry: RawBSONDocument) -> None:
        kind = entry["op"]
        if entry["ns"] == FEATURES:
            self._features(entry["o"])
        elif kind in ("i", "u", "d"):
            self._document(entry)
        elif kind == "c":
            self._command(entry)
        elif kind != "n":
            raise Mismatch(f"the oplog has an entry of a kind that is not known: {kind!r}")

    def _features(self, told: RawBSONDocument) -> None:
        """Follow the feature compatibility version up; what there is by then may be too new to follow it down."""
        if told.get("_id") == "featureCompatibilityVersion" and "version" in told and "targetVersion" not in told:
            self.compatibility = str(told["version"])
            self._flush()
            if _numbers(self.compatibility) > _numbers(compatibility(self._shelf.client)):
                comply(self._shelf.client, self.compatibility)

    def _document(self, entry: RawBSONDocument) -> None:
        """Have one change of a document wait for its batch; those of collections we do not have are left out."""
        uuid = bytes(entry["ui"]) if "ui" in entry else b""
        there = self._shelf.kept.get(uuid)
        if there is None or (there.since is not None and entry["ts"] <= there.since):
            return
        made: Document = {"op": entry["op"], "ns": f"{there.database}.{there.name}", "ui": Binary(uuid, 4)}
        made |= {key: entry[key] for key in ("o", "o2") if key in entry}
        self._lot.append(made)
        self._size += len(entry["o"].raw)
        if len(self._lot) >= LOT or self._size >= LOT_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Apply what waits, at once; where the server stops at one entry, one by one."""
        lot, self._lot, self._size = self._lot, [], 0
        if not lot:
            return
        self.applied += len(lot)
        try:
            self._apply(lot)
        except OperationFailure:
            for each in lot:
                self._single(each)
        else:
            if self._owed:
                self._owed -= {_named(each) for each in lot if each["op"] in ("d", "i")}

    def _single(self, change: Document) -> None:
        """Apply one entry.  An update of a document that is not there is owed: its end must still come."""
        try:
            self._apply([change])
        except OperationFailure as error:
            if change["op"] != "u":
                raise Mismatch(f"an entry of the oplog was refused: {str(error.details)[:300]}") from None
            self._owed.add(_named(change))
            return
        if change["op"] in ("d", "i"):
            self._owed.discard(_named(change))

    def _apply(self, lot: list[Document]) -> None:
        # What was written once has passed its validator, or was let pass; the validator may be a later one by now.
        self._shelf.client.admin.command(
            "applyOps", lot, allowAtomic=False, alwaysUpsert=False, bypassDocumentValidation=True
        )

    def _command(self, entry: RawBSONDocument) -> None:
        command = entry["o"]
        verb = next(iter(command))
        database = entry["ns"].partition(".")[0]
        if verb == "applyOps":
            self._transaction(entry, command)
        elif verb == "commitTransaction":
            raise Mismatch("the oplog has a transaction of several shards, which one member cannot restore")
        elif verb not in NOTHING:
            self._flush()
            self._structure(verb, database, bytes(entry["ui"]) if "ui" in entry else b"", command)

    def _transaction(self, entry: RawBSONDocument, command: RawBSONDocument) -> None:
        """Apply a transaction's changes when it is whole; a big one comes in several entries."""
        if command.get("prepare"):
            raise Mismatch("the oplog has a transaction of several shards, which one member cannot restore")
        key = entry["lsid"].raw + str(entry["txnNumber"]).encode() if "lsid" in entry else b""
        earlier = entry.get("prevOpTime")
        if earlier is not None and earlier["ts"] != NEVER and key not in self._unfinished:
            raise Mismatch("the oplog has a transaction that began before it")
        changes = [*self._unfinished.pop(key, []), *command["applyOps"]]
        if command.get("partialTxn"):
            self._unfinished[key] = changes
            return
        for each in changes:
            self._entry(each)

    def _structure(self, verb: str, database: str, uuid: bytes, command: Mapping[str, Any]) -> None:
        """Change what there is beside documents."""
        if verb == "create":
            if wanted(database, str(command["create"])):
                name = placed(database, str(command["create"]))
                self._shelf.make(uuid, database, name, {**command, "create": name})
            return
        there = self._shelf.kept.get(uuid)
        if there is None:
            return
        if verb == "drop":
            self._shelf.drop(uuid)
        elif verb == "renameCollection":
            self._renamed(uuid, command)
        elif verb == "collMod":
            self._modified(uuid, shallow_of(command))
        elif verb == "createIndexes":
            spec = {key: value for key, value in command.items() if key != "createIndexes"}
            there.indexes[str(spec["name"])] = spec
        elif verb == "commitIndexBuild":
            there.indexes.update({str(each["name"]): shallow(each) for each in command["indexes"]})
        elif verb in ("dropIndexes", "deleteIndexes", "dropIndex", "deleteIndex"):
            there.indexes.pop(str(command["index"]), None)
        else:
            raise Mismatch(f"the oplog has a command that is not known: {verb}")

    def _renamed(self, uuid: bytes, command: Mapping[str, Any]) -> None:
        target = command.get("dropTarget")
        if isinstance(target, bytes):
            self._shelf.drop(bytes(target))
        database, _, name = str(command["to"]).partition(".")
        if wanted(database, name):
            self._shelf.rename(uuid, name)
        else:  # as a backup would not have it by now
            self._shelf.drop(uuid)

    def _modified(self, uuid: bytes, command: Document) -> None:
        there = self._shelf.kept[uuid]
        index = command.pop("index", None)
        if index is not None:
            told = decode(index.raw)
            for name, spec in there.indexes.items():
                if name == told.get("name") or ("keyPattern" in told and dict(spec["key"]) == told["keyPattern"]):
                    there.indexes[name] = {**spec, **{k: v for k, v in told.items() if k not in ("name", "keyPattern")}}
        if len(command) > 1:
            self._shelf.command(there.database, uuid, {**command, "collMod": there.name})


def _numbers(version: str) -> list[int]:
    return [int(each) for each in version.split(".")]


def shallow_of(command: Mapping[str, Any]) -> Document:
    """Return a command's fields, the nested ones still raw."""
    return dict(command.items())


def _named(change: Document) -> tuple[bytes, bytes]:
    """Return which document a change is of: its collection's UUID and its ``_id`` as bytes."""
    document = change["o2"] if change["op"] == "u" else change["o"]
    return bytes(change["ui"]), repr(document["_id"]).encode()
