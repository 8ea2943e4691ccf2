"""Slices of the oplog: read raw from one moment to another, and proven to have no gap.

A slice begins with the entry at which the one before it (or the read of the data) ended: that this entry is
there, and is the first one that comes, is the proof.
"""

from collections.abc import Iterator
from dataclasses import replace

from bson import Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from datastores.contract import Hole, Incomplete
from datastores.mongodb.client import Client, Document
from datastores.mongodb.position import Position, shown
from datastores.mongodb.reading import Reader

OPLOG = "oplog.rs"
POSITION_LOST = 136
NEVER = Timestamp(0, 0)
_ATTEMPTS = 3


def entries(reader: Reader, start: Position, end: Position) -> Iterator[bytes]:
    """Yield the slice in pieces; ``Hole`` where its beginning is gone, ``Incomplete`` where its end is not reached."""
    last: RawBSONDocument | None = None
    wanted = {"ts": {"$gte": start.ts, "$lte": end.ts}}
    try:
        for batch in reader.batches("local", OPLOG, wanted):
            if last is None:
                prove(start, RawBSONDocument(bytes(batch[0])))
            last = RawBSONDocument(bytes(batch[-1]))
            yield b"".join(batch)
    except OperationFailure as error:
        if error.code != POSITION_LOST:
            raise
        raise Hole(
            f"the oplog since {shown(last['ts']) if last else start} was overwritten while it was read"
        ) from None
    if last is None:
        raise missing(start, None)
    if last["ts"] != end.ts:
        raise Incomplete(f"the oplog ends at {shown(last['ts'])}, not at {end}")


def gap(client: Client, start: Position) -> Hole | None:
    """Return what is missing between ``start`` and the oplog of now; None where nothing is."""
    first = _first(client, start)
    if first is None or first["ts"] != start.ts or first.get("t") != start.term:
        return missing(start, None if first is None else first["ts"])
    return None


def _first(client: Client, start: Position) -> Document | None:
    """Return the first entry from ``start`` on; None where there is none, or it is gone each time it is read."""
    for _ in range(_ATTEMPTS):
        try:
            found: Document | None = client.local[OPLOG].find_one({"ts": {"$gte": start.ts}}, sort=[("$natural", 1)])
            return found
        except OperationFailure as error:
            if error.code != POSITION_LOST:
                raise
    return None


def boundary(client: Client, here: Position) -> Position:
    """Return ``here``, or the last moment before the transaction of which only a part lies before it.

    A big one has several entries, and a majority of the set may have taken some of them.  ``Hole`` where its beginning
    is gone.
    """
    log, wanted = client.local[OPLOG], {"ts": 1, "t": 1, "prevOpTime": 1, "o.partialTxn": 1}
    entry = log.find_one({"ts": here.ts}, wanted)
    if entry is None or not entry["o"].get("partialTxn"):
        return here
    while entry is not None and entry["prevOpTime"]["ts"] != NEVER:
        entry = log.find_one({"ts": entry["prevOpTime"]["ts"]}, wanted)
    before = log.find_one({"ts": {"$lt": entry["ts"]}}, wanted, sort=[("$natural", -1)]) if entry else None
    if before is None:
        raise missing(here, None)
    return replace(here, seconds=before["ts"].time, increment=before["ts"].inc, term=int(before["t"]))


def prove(start: Position, first: RawBSONDocument) -> None:
    """Raise ``Hole`` unless this entry is the one at ``start``."""
    if first["ts"] != start.ts or first.get("t") != start.term:
        raise missing(start, first["ts"])


def missing(start: Position, first: Timestamp | None) -> Hole:
    """Return the error that names the missing range."""
    until = shown(first) if first is not None else "now"
    return Hole(
        f"the oplog has a gap: entries from {start} to {until} are gone",
        hint="--on-hole full takes a full; replication.oplogSizeMB makes the oplog longer",
    )
