"""What a backup of MongoDB adds to the store after 3 % of its documents changed: by the oplog, and after a hole."""

import os
import time
from collections.abc import Iterator
from random import Random  # noqa: TID251 - the same documents every time

import pytest
from bson import ObjectId
from pymongo import UpdateOne

from datastores.mongodb.client import Client, agent
from tests.agents import LiveAgent, site
from tests.cases import node_of, sample_of

COUNT = int(os.environ.get("OSTLER_COUNT", "1"))
SIZE = 240_000_000 if COUNT >= 10 else 60_000_000
SHARE, LOT = 0.03, 200
NOTE = 15 << 20


@pytest.fixture(scope="module")
def filled() -> Iterator[LiveAgent]:
    """An agent whose server has documents of several kinds, with random ids."""
    with site(mirror=1) as place:
        made = place.agent("g1", "mongodb", "6.0").start()
        made.prepare()
        with agent(node_of(made), timeout=120) as client:
            insert(client, Random(1), SIZE)
        yield made


def insert(client: Client, random: Random, size: int) -> None:
    """Put about so many bytes in."""
    done = 0
    while done < size:
        for name, width in (("orders", 200), ("articles", 1000)):
            rows = [
                {"_id": ObjectId(random.randbytes(12)), "number": n, "text": random.randbytes(width).hex()}
                for n in range(LOT)
            ]
            client.shop[name].insert_many(rows, ordered=False)
            done += LOT * (2 * width + 60)


def update(client: Client, random: Random) -> None:
    """Update 3 % of the documents, anywhere."""
    for name in ("orders", "articles"):
        wanted = [each["_id"] for each in client.shop[name].find({}, {"_id": 1}) if random.random() < SHARE]
        client.shop[name].bulk_write([UpdateOne({"_id": each}, {"$inc": {"number": 1}}) for each in wanted])


def lose(client: Client) -> None:
    """Write to the oplog until it has lost what it has now."""
    oplog, end = client.local["oplog.rs"], time.monotonic() + 300
    last = oplog.find_one({}, sort=[("$natural", -1)])
    assert last is not None
    while oplog.find_one({"ts": last["ts"]}) is not None:
        assert time.monotonic() < end, "the oplog keeps everything"
        client.admin.command("appendOplogNote", 1, data={"pad": "x" * NOTE})
        # What no checkpoint has is not overwritten.
        client.admin.command("fsync")


def stored(guest: LiveAgent, kind: str, *words: str) -> int:
    """Take a backup; return the bytes it added to the store."""
    sample_of(guest).settle()
    made = guest.ostler("backup", "create", *words)
    assert isinstance(made, dict)
    assert made["kind"] == kind
    return int(made["stored_bytes"])


def test_growth_of_the_store(filled: LiveAgent) -> None:
    full = stored(filled, "full")
    with agent(node_of(filled), timeout=120) as client:
        update(client, Random(2))
        part = stored(filled, "incremental")
        assert part <= full * 0.01, f"{part} of {full}"
        insert(client, Random(3), int(SIZE * SHARE))
        part = stored(filled, "incremental")
        assert part <= full * 0.04, f"{part} of {full}"
        base = stored(filled, "full", "--parent", "none")
        update(client, Random(4))
        lose(client)
        assert filled.run("backup", "create").error["type"] == "Hole"
        again = stored(filled, "full", "--on-hole", "full")
        assert again <= base * 0.05, f"{again} of {base}"
    wanted = sample_of(filled).digest()
    filled.ostler("backup", "restore", newest(filled))
    assert sample_of(filled).digest() == wanted


def newest(guest: LiveAgent) -> str:
    """Return the id of the backup that was taken last."""
    rows = guest.ostler("backup", "list")
    assert isinstance(rows, list)
    return str(max(rows, key=lambda each: str(each["ended_at"]))["id"])
