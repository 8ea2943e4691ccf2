"""Where the running server stands: exactly at a backup's moment, or not.

A server that was restored has an oplog of its own, with other moments.  The restore therefore leaves a note in the
data of which backup it is and how many documents each collection got; the running server is asked what it
really has, and its oplog which collections were written to since.
"""

from collections.abc import Iterator
from pathlib import Path

from pymongo.errors import OperationFailure

from datastores.contract import Checkpoint, Mismatch
from datastores.mongodb import oplog
from datastores.mongodb.admin import STATE
from datastores.mongodb.catalog import ACCOUNTS, NAMESPACE_NOT_FOUND, Collection, collections, wanted
from datastores.mongodb.client import AUTH, Client
from datastores.mongodb.loading import Kept
from datastores.mongodb.position import Position, shown

RESTORED = "restored"
BEGUN = "initiating set"
"""What a set's very first entry says."""


def remember(client: Client, checkpoint: Checkpoint, kept: dict[bytes, Kept]) -> None:
    """Leave the note, in a server in which the restored data is complete."""
    rows = {
        uuid.hex(): _count(client, each.database, each.name)
        for uuid, each in kept.items()
        if not (each.database == AUTH and each.name in ACCOUNTS.values())
    }
    position = Position.of(checkpoint.position)
    note = {"server_id": checkpoint.server_id, "position": position.to_json(), "documents": rows}
    client[AUTH][STATE].replace_one({"_id": RESTORED}, note, upsert=True)


def serves(client: Client, data: Path) -> None:
    """Raise ``Mismatch`` unless the server that answers works on this folder."""
    given = client.admin.command("getCmdLineOpts")["parsed"]
    folder = Path(str(given.get("storage", {}).get("dbPath", "")))
    if not (folder.is_dir() and folder.samefile(data)):
        raise Mismatch(f"the server at our socket serves {folder}, not {data}")


def stands(client: Client, position: Position) -> None:
    """Raise ``Mismatch`` where the server whose backup it is has not this moment, or has something after it.

    Our own marks, and what the server writes by itself, do not count.
    """
    hole = oplog.gap(client, position)
    if hole is not None:
        raise Mismatch(f"the server does not stand at {position}: {hole}")
    after = client.local[oplog.OPLOG].find({"ts": {"$gt": position.ts}, "op": {"$ne": "n"}}, {"ts": 1, "ns": 1, "o": 1})
    for entry in after:
        database, _, name = entry["ns"].partition(".")
        made = entry["o"].get("create", name) if name == "$cmd" else name
        if wanted(database, str(made)):
            raise Mismatch(f"the server stands at {shown(entry['ts'])} or later, not at {position}")


def restored(client: Client, checkpoint: Checkpoint) -> None:
    """Raise ``Mismatch`` unless the server has what this backup brought, but for what was written since."""
    position = Position.of(checkpoint.position)
    note = client[AUTH][STATE].find_one({"_id": RESTORED}) or {}
    if note.get("server_id") != checkpoint.server_id or note.get("position") != position.to_json():
        raise Mismatch(f"the server's data is not that of {position}")
    there = {each.uuid.hex(): each for each in collections(client)}
    touched = set(_touched(client))
    for uuid, documents in note["documents"].items():
        if uuid in touched or _EVERYTHING in touched:
            continue
        found = there.get(uuid)
        if found is None:
            raise Mismatch("the server lacks a collection that the backup has")
        if documents != _count(client, found.database, found.name) and documents != _counted(client, found):
            raise Mismatch(f"{found.database}.{found.name} has not the {documents} documents that the backup has")


_EVERYTHING = ""


def _touched(client: Client) -> Iterator[str]:
    """Yield the UUIDs of the collections that the oplog has changes of; of all where that cannot be told."""
    first = client.local[oplog.OPLOG].find_one({}, sort=[("$natural", 1)])
    if first is None or first["o"].get("msg") != BEGUN:
        yield _EVERYTHING
    for entry in client.local[oplog.OPLOG].find({"op": {"$ne": "n"}}, {"ui": 1, "o.applyOps.ui": 1}):
        for each in (entry, *entry.get("o", {}).get("applyOps", ())):
            if "ui" in each:
                yield bytes(each["ui"]).hex()


def _count(client: Client, database: str, name: str) -> int:
    """Return how many documents a collection has as the server keeps count."""
    try:
        return int(client[database].command("count", name)["n"])
    except OperationFailure as error:
        if error.code != NAMESPACE_NOT_FOUND:
            raise
        return 0


def _counted(client: Client, found: Collection) -> int:
    """Count them one by one: after a crash the server's own count may be wrong."""
    return int(client[found.database][found.name].count_documents({}))
