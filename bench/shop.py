"""Documents such as a shop has: orders, users and articles, the same for everybody, every time.

A kilobyte of them has some forty fields, and their texts compress to about a half: what a dump costs that looks at
each field goes by the former, what any dump stores by the latter.
"""

import time
from datetime import UTC, datetime, timedelta
from random import Random  # noqa: TID251 - the same documents for everybody, every time

from bson import ObjectId
from pymongo import UpdateOne

from datastores.mongodb.client import Client, Document

LOT = 1000
SHARE = 0.03
POOL = 1 << 20
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ("orders", "users", "articles")
PADDING = 15 << 20


def fill(client: Client, wanted: int) -> int:
    """Put documents in, numbered on, until there are about so many bytes of them; return how many there are."""
    shop = client.shop
    shop.orders.create_index([("state", 1), ("number", -1)])
    shop.users.create_index("mail")
    number, size = shop.orders.estimated_document_count(), int(shop.command("dbStats")["dataSize"])
    random = Random(number)
    pool = random.randbytes(POOL // 2).hex()
    while size < wanted:
        rows = range(number, number + LOT)
        lots = {
            "orders": [order(random, pool, n) for n in rows],
            "users": [user(random, pool, n) for n in rows[::2]],
            "articles": [article(random, pool, n) for n in rows[::3]],
        }
        for name, lot in lots.items():
            shop[name].insert_many(lot, ordered=False)
        size, number = int(client.shop.command("dbStats")["dataSize"]), number + LOT
    return size


def order(random: Random, pool: str, n: int) -> Document:
    """Return a document of some 600 bytes, as a shop has them."""
    return {
        "_id": ObjectId(random.randbytes(12)),
        "number": n,
        "state": random.choice(("new", "paid", "sent")),
        "placed": EPOCH + timedelta(seconds=n),
        "customer": {"id": ObjectId(random.randbytes(12)), "name": cut(random, pool, 16), "country": "DE"},
        "lines": [{"sku": cut(random, pool, 10), "count": i, "price": random.random()} for i in range(4)],
        "total": random.random() * 100,
        "paid": n % 2 == 0,
        "note": cut(random, pool, 150),
    }


def user(random: Random, pool: str, n: int) -> Document:
    """Return a document of some 450 bytes whose ``_id`` is a text."""
    return {
        "_id": random.randbytes(10).hex(),
        "mail": f"{n}@example.org",
        "name": {"first": cut(random, pool, 8), "last": cut(random, pool, 12)},
        "born": EPOCH - timedelta(days=random.randrange(20_000)),
        "address": {"street": cut(random, pool, 24), "city": cut(random, pool, 12), "zip": n % 90_000},
        "roles": ["reader", "buyer"],
        "wants": {"news": n % 3 == 0, "language": "en"},
        "about": cut(random, pool, 130),
    }


def article(random: Random, pool: str, n: int) -> Document:
    """Return a document of some 3 kB: a few long texts, and what people said of them."""
    said = [
        {
            "by": ObjectId(random.randbytes(12)),
            "at": EPOCH + timedelta(minutes=n + i),
            "stars": i,
            "text": cut(random, pool, 90),
        }
        for i in range(8)
    ]
    return {
        "_id": n,
        "title": cut(random, pool, 40),
        "author": ObjectId(random.randbytes(12)),
        "tags": [cut(random, pool, 6) for _ in range(5)],
        "parts": [{"head": cut(random, pool, 24), "text": cut(random, pool, 350)} for _ in range(4)],
        "said": said,
    }


def cut(random: Random, pool: str, size: int) -> str:
    """Return a piece of text that compresses to about a half."""
    at = random.randrange(POOL - size)
    return pool[at : at + size]


def update(client: Client) -> None:
    """Update 3 % of the documents, anywhere."""
    random = Random(8)
    for name in NAMES:
        rows = client.shop[name]
        wanted = [each["_id"] for each in rows.find({}, {"_id": 1}) if random.random() < SHARE]
        for at in range(0, len(wanted), LOT):
            rows.bulk_write([UpdateOne({"_id": each}, {"$set": {"seen": at}}) for each in wanted[at : at + LOT]])


def insert(client: Client) -> None:
    """Put 3 % more documents in."""
    fill(client, round(int(client.shop.command("dbStats")["dataSize"]) * (1 + SHARE)))


def lose(client: Client) -> None:
    """Write to the oplog until it has lost what it has now: the next backup finds a hole."""
    oplog, end = client.local["oplog.rs"], time.monotonic() + 600
    last = oplog.find_one({}, sort=[("$natural", -1)])
    while last is not None and oplog.find_one({"ts": last["ts"]}) is not None and time.monotonic() < end:
        client.admin.command("appendOplogNote", 1, data={"pad": "x" * PADDING})
        # What no checkpoint has is not overwritten.
        client.admin.command("fsync")
    # The next backup begins its slice with the last entry there is.
    client.admin.command("appendOplogNote", 1, data={})
