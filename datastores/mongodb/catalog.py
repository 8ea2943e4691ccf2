"""What there is on a server beside documents: collections with their options and indexes.

A collection is known by its UUID, whatever it is called meanwhile; views are documents of ``system.views``, a time
series is its buckets, users and roles are documents of ``admin``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bson import Binary, Timestamp, decode, encode
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from datastores.contract import Mismatch
from datastores.mongodb.accounts import REGISTER
from datastores.mongodb.client import AUTH, Client, Document
from datastores.mongodb.documents import RAW, identity
from datastores.mongodb.position import compatibility
from datastores.mongodb.reading import listing

METADATA = "metadata.bson"
FORMAT = 1
NAMESPACE_NOT_FOUND = 26
OURS = "ostler."
FUNCTIONS = "system.js"
ACCOUNTS = {"system.users": "ostler.users", "system.roles": "ostler.roles"}
"""Where users and roles wait in a restore, until the server has looked at them."""
_SHALLOW: CodecOptions[dict[str, Any]] = CodecOptions(document_class=dict)


@dataclass(frozen=True)
class Collection:
    """One collection: where it is, its options and indexes as the server tells them, raw."""

    uuid: bytes
    database: str
    name: str
    path: str
    info: RawBSONDocument
    indexes: Sequence[RawBSONDocument] = field(default=())
    since: Timestamp | None = None
    """The moment all of which its file has; of a capped collection, to which nothing may be added twice."""

    @property
    def binary(self) -> Binary:
        """Return the UUID as the server wants it."""
        return Binary(self.uuid, 4)

    @property
    def capped(self) -> bool:
        """Say whether the order of its documents is part of it."""
        return bool(self.info["options"].get("capped"))


def wanted(database: str, name: str) -> bool:
    """Say whether a collection belongs to a backup: all but the server's own and what is our own passing state."""
    if database in ("local", "config"):
        return False
    if database == AUTH:
        # The tenant's root writes there, too, and could make what a restore takes for users that wait.
        return name in (REGISTER, FUNCTIONS, *ACCOUNTS) or not name.startswith(("system.", OURS))
    return name != "system.profile"


def collections(client: Client) -> Iterator[Collection]:
    """Yield what there is to be read, database by database."""
    for database in sorted(client.list_database_names()):
        for info in listing(client, database, {"listCollections": 1}):
            name = str(info["name"])
            if info["type"] == "collection" and wanted(database, name):
                uuid = bytes(info["info"]["uuid"])
                found = Collection(uuid, database, name, f"data/{uuid.hex()}.bson", info)
                yield replace(found, indexes=_indexes(client, found))


def newest(client: Client, collection: Collection) -> bytes:
    """Return the ``_id`` of the document that was put in last, as bytes; none where the collection is empty."""
    command: Document = {"find": collection.binary, "sort": {"$natural": -1}, "limit": 1}
    majority: Document = {"readConcern": {"level": "majority"}, "singleBatch": True}
    found = client[collection.database].command(command | majority, codec_options=RAW)["cursor"]["firstBatch"]
    return bytes(identity(memoryview(found[0].raw))) if found else b""


def still_there(client: Client, collection: Collection) -> bool:
    """Say whether a collection exists, under whatever name."""
    only = {"info.uuid": collection.binary}
    return bool(listing(client, collection.database, {"listCollections": 1, "filter": only}))


def dump(client: Client, found: Sequence[Collection]) -> bytes:
    """Return the metadata file."""
    rows = [
        {"uuid": each.binary, "db": each.database, "path": each.path, "info": each.info, "indexes": list(each.indexes)}
        | ({"since": each.since} if each.since is not None else {})
        for each in found
    ]
    return encode({"format": FORMAT, "compatibility": compatibility(client), "collections": rows})


def load(content: bytes) -> tuple[str, list[Collection]]:
    """Read a metadata file: feature compatibility version and collections."""
    told = RawBSONDocument(content)
    if told["format"] != FORMAT:
        raise Mismatch(f"the backup's metadata has format {told['format']}, this is {FORMAT}")
    rows = [
        Collection(
            bytes(row["uuid"]),
            row["db"],
            row["info"]["name"],
            row["path"],
            row["info"],
            list(row["indexes"]),
            row.get("since"),
        )
        for row in told["collections"]
    ]
    return str(told["compatibility"]), rows


def creation(collection: Collection, name: str) -> Document:
    """Return the oplog's command that makes a collection of these options."""
    options: Mapping[str, Any] = collection.info["options"]
    made: Document = {"create": name, **{key: value for key, value in options.items() if key != "autoIndexId"}}
    identity = collection.info.get("idIndex")
    return made | ({"idIndex": identity} if identity is not None else {})


def shallow(raw: RawBSONDocument) -> dict[str, Any]:
    """Return a document's fields by name, what is nested in them still raw."""
    return dict(raw.items())


def plain(raw: RawBSONDocument) -> dict[str, Any]:
    """Return a small document decoded."""
    return decode(raw.raw, _SHALLOW)


def _indexes(client: Client, collection: Collection) -> list[RawBSONDocument]:
    """Return the indexes that are ready; one that is being built will be in the oplog when it is."""
    command = {"listIndexes": collection.binary, "includeBuildUUIDs": True}
    try:
        found = listing(client, collection.database, command)
    except OperationFailure as error:
        if error.code != NAMESPACE_NOT_FOUND:
            raise
        return []
    return [each for each in found if "buildUUID" not in each]
