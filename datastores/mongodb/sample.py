"""Data for demonstrations, measurements and tests: documents of many shapes in two databases, indexes, a view,
a capped collection and a time series.

Documents come in **lots** of about 24 kB, numbered on from what is there; text is half as long when compressed.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from blake3 import blake3
from bson import Decimal128, ObjectId, encode
from pymongo import ReplaceOne, UpdateOne
from pymongo.errors import OperationFailure

from datastores.contract import Sample, Secret
from datastores.mongodb.accounts import SYSTEM
from datastores.mongodb.client import Client, Document, agent, outside
from datastores.mongodb.documents import documents

SHOP, BOOKS = "sample_shop", "sample_books"
ORDERS, USERS, ARTICLES = 24, 10, 4
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
_BATCH = 16


class SampleData(Sample):
    """Lots are numbered; a share of them is changed from a hot spot on."""

    def fill(self, size: int) -> None:
        """Put about ``size`` bytes of varied data in, deterministic, beside what is there."""
        with agent(self.node, timeout=120) as client:
            _shape(client)
            number, done = _next(client), 0
            while done < size:
                done += _put(client, range(number, number + _BATCH))
                number += _BATCH
            client[SHOP].meta.replace_one({"_id": "next"}, {"lots": number}, upsert=True)

    def change(self, share: float, seed: int = 0) -> int:
        """Change this share of the documents, in lots that follow one another; return how many."""
        with agent(self.node, timeout=120) as client:
            lots = _next(client)
            count = max(1, round(lots * share)) if lots else 0
            first = (seed * 7919) % max(1, lots - count + 1)
            return sum(_change(client, lot, seed) for lot in range(first, first + count))

    def digest(self) -> dict[str, str]:
        """Return a digest of every collection by name, documents, options and indexes: equal when the data is."""
        found: dict[str, str] = {}
        with agent(self.node, timeout=120) as client:
            for database in sorted({*client.list_database_names()} - {*SYSTEM}):
                for info in client[database].list_collections():
                    if info["type"] == "collection" and not info["name"].startswith("system.profile"):
                        found[f"{database}.{info['name']}"] = _digest(client, database, info)
        return found

    def login(self, name: str, password: Secret) -> bool:
        """Try a real login over the port, as a tenant would; return whether it held."""
        client = outside(self.node.endpoint, name, password)
        try:
            client.admin.command("ping")
            return True
        except OperationFailure:
            return False
        finally:
            client.close()

    def settle(self) -> None:
        """Return when a majority has all that was written."""
        with agent(self.node) as client:
            end = time.monotonic() + 30
            while time.monotonic() < end:
                optimes = client.admin.command("replSetGetStatus")["optimes"]
                if optimes["appliedOpTime"] == optimes["readConcernMajorityOpTime"]:
                    return
                time.sleep(0.02)


def _next(client: Client) -> int:
    kept = client[SHOP].meta.find_one({"_id": "next"})
    return int(kept["lots"]) if kept else 0


def _shape(client: Client) -> None:
    """Make what has a shape of its own; what exists is left."""
    shop, books = client[SHOP], client[BOOKS]
    there = set(shop.list_collection_names())
    if "orders" not in there:
        rule = {"$jsonSchema": {"required": ["lot", "state"], "properties": {"lot": {"bsonType": "int"}}}}
        shop.create_collection("orders", validator=rule, validationLevel="moderate")
        shop.orders.create_index([("state", 1), ("lot", -1)])
        shop.orders.create_index("number", unique=True)
        shop.create_collection("users", collation={"locale": "en", "strength": 2})
        shop.users.create_index("mail", sparse=True)
        shop.create_collection("events", capped=True, size=4 << 20, max=4000)
        shop.create_collection("paid", viewOn="orders", pipeline=[{"$match": {"state": "paid"}}])
        shop.create_collection("heat", timeseries={"timeField": "at", "metaField": "room", "granularity": "minutes"})
        books.articles.create_index([("text", "text")], name="words", default_language="none")


def _text(*place: object, size: int) -> str:
    return blake3(repr(place).encode()).digest((size + 1) // 2).hex()[:size]


def _id(*place: object) -> ObjectId:
    return ObjectId(blake3(repr(place).encode()).digest(12))


def _order(lot: int, n: int) -> Document:
    return {
        "_id": _id(lot, n),
        "lot": lot,
        "number": lot * ORDERS + n,
        "state": ("new", "paid", "sent")[n % 3],
        "total": Decimal128(f"{lot}.{n:02d}"),
        "at": EPOCH + timedelta(seconds=lot * 60 + n),
        "lines": [{"sku": _text(lot, n, each, size=12), "count": each} for each in range(3)],
        "note": _text(lot, n, size=300),
    }


def _lot(lot: int) -> dict[tuple[str, str], list[Document]]:
    """Return the documents of one lot by collection."""
    users = [
        {"_id": _text("u", lot, n, size=16), "mail": f"{lot}.{n}@example.org", "notes": _text("m", lot, n, size=320)}
        for n in range(USERS)
    ]
    articles = [
        {"_id": lot * ARTICLES + n, "text": " ".join(_words(lot, n)), "raw": _blob(lot, n)} for n in range(ARTICLES)
    ]
    return {
        (SHOP, "orders"): [_order(lot, n) for n in range(ORDERS)],
        (SHOP, "users"): users,
        (BOOKS, "articles"): articles,
    }


def _words(lot: int, n: int) -> list[str]:
    return [_text("w", lot, n, each, size=6) for each in range(20)]


def _blob(lot: int, n: int) -> bytes:
    return _text("b", lot, n, size=1400).encode()


def _put(client: Client, lots: range) -> int:
    """Write some lots, as often as one likes; return about how many bytes they have."""
    size = 0
    for lot in lots:
        for (database, name), rows in _lot(lot).items():
            client[database][name].bulk_write([ReplaceOne({"_id": e["_id"]}, e, upsert=True) for e in rows])
            size += sum(len(encode(each)) for each in rows)
    client[SHOP].events.insert_many(
        [{"lot": lot, "what": _text("e", lot, n, size=40)} for lot in lots for n in range(4)]
    )
    heat = [
        {"at": EPOCH + timedelta(minutes=lot * 5 + n), "room": n % 2, "c": n * 0.5} for lot in lots for n in range(5)
    ]
    client[SHOP].heat.insert_many(heat)
    return size


def _change(client: Client, lot: int, seed: int) -> int:
    """Change every order and user of a lot a little, and replace one."""
    orders = [
        UpdateOne({"_id": _id(lot, n)}, {"$set": {"note": _text(seed, lot, n, size=300)}, "$inc": {"changes": 1}})
        for n in range(1, ORDERS)
    ]
    client[SHOP].orders.bulk_write(orders)
    client[SHOP].orders.replace_one({"_id": _id(lot, 0)}, {**_order(lot, 0), "seed": seed})
    client[SHOP].users.update_many({"mail": {"$regex": rf"^{lot}\."}}, {"$set": {"seen": seed}})
    return ORDERS + USERS


def _digest(client: Client, database: str, info: Mapping[str, Any]) -> str:
    """Return the digest of one collection; its documents count whatever their order."""
    name, total, count = info["name"], 0, 0
    batches: Iterator[bytes] = client[database][name].find_raw_batches({})  # type: ignore[assignment]
    for document in documents(batches):
        total = (total + int.from_bytes(blake3(document).digest(16), "big")) % (1 << 128)
        count += 1
    shape = {key: value for key, value in info.items() if key != "info"}
    indexes = sorted(
        blake3(encode(dict(sorted(each.items())))).hexdigest() for each in _indexes(client, database, name)
    )
    return f"{count}:{total:032x}:{blake3(encode(shape)).hexdigest(8)}:{blake3(repr(indexes).encode()).hexdigest(8)}"


def _indexes(client: Client, database: str, name: str) -> list[Document]:
    return [dict(each) for each in client[database][name].list_indexes()]


SAMPLE = SampleData
