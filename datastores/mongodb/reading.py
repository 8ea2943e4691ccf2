"""Reading a running server: raw batches in natural order, as a majority has them."""

from collections.abc import Iterator
from typing import Any

from bson import Binary, Int64
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from datastores.mongodb.client import Client, Document
from datastores.mongodb.documents import RAW, elements, field

BATCH = 1 << 19
FEWEST, MOST = 1, 10_000
FIRST = 20
MARK = "ostler backup"
"""The comment by which the cursors of a snapshot are known on the server."""


class Reader:
    """One session's cursors; ``close`` ends the one that is open, so that none is left on the server."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._session = client.start_session(causal_consistency=False)
        self._open: tuple[str, str, int] | None = None

    def batches(self, database: str, what: str | Binary, wanted: Document | None = None) -> Iterator[list[memoryview]]:
        """Yield the documents of a collection, named or by its UUID, some at a time.

        Batches are counted so that a reply has about half a MiB.
        """
        command: Document = {"find": what, "filter": wanted or {}, "batchSize": FIRST, "comment": MARK}
        reply = self._command(database, command | {"readConcern": {"level": "majority"}})
        first = b"firstBatch"
        while True:
            cursor = field(memoryview(reply.raw), b"cursor")
            number = int.from_bytes(field(cursor, b"id"), "little", signed=True)
            name = bytes(field(cursor, b"ns")[4:-1]).decode().partition(".")[2]
            self._open = (database, name, number) if number else None
            array = field(cursor, first)
            found = elements(array)
            if found:
                yield found
            if not number:
                return
            count = max(FEWEST, min(MOST, BATCH * max(1, len(found)) // max(1, len(array))))
            more = {"getMore": Int64(number), "collection": name, "batchSize": count}
            first, reply = b"nextBatch", self._command(database, more)

    def close(self) -> None:
        """End the cursor that is open, and the session."""
        if self._open is not None:
            database, name, number = self._open
            self.client[database].command("killCursors", name, cursors=[Int64(number)], session=self._session)
        self._session.end_session()

    def _command(self, database: str, command: Document) -> RawBSONDocument:
        try:
            return self.client[database].command(command, codec_options=RAW, session=self._session)
        except OperationFailure:
            self._open = None
            raise


def end_cursors(client: Client) -> None:
    """End every cursor of ours that waits for a reader."""
    stages: list[Document] = [
        {"$currentOp": {"allUsers": True, "idleCursors": True}},
        {"$match": {"type": "idleCursor"}},
    ]
    for each in client.admin.aggregate(stages):
        cursor = each["cursor"]
        if cursor.get("originatingCommand", {}).get("comment") == MARK:
            database, _, name = str(each["ns"]).partition(".")
            client[database].command("killCursors", name, cursors=[Int64(cursor["cursorId"])])


def listing(client: Client, database: str, command: Document) -> list[RawBSONDocument]:
    """Return all that a listing command lists, each entry raw."""
    found: list[RawBSONDocument] = []
    reply: Any = client[database].command(command | {"cursor": {"batchSize": 100_000}}, codec_options=RAW)
    while True:
        cursor = reply["cursor"]
        found += cursor["firstBatch"] if "firstBatch" in cursor else cursor["nextBatch"]
        if not cursor["id"]:
            return found
        name = str(cursor["ns"]).partition(".")[2]
        reply = client[database].command({"getMore": cursor["id"], "collection": name}, codec_options=RAW)
