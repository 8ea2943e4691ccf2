"""MongoDB side by side: ours beside a dump that decodes and one that is compressed and encrypted outside.

``make bench BENCH=mongodb``.  CPU seconds of whole process trees count; the database servers,
private ones too, are in a column of their own.  ``anon`` is the peak of the agent's anonymous memory.
"""

import argparse
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random  # noqa: TID251 - the same documents for everybody, every time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import psutil  # noqa: E402
from bson import ObjectId, decode, json_util  # noqa: E402
from demo_show import Show  # noqa: E402
from demo_site import Broken, Guest, Patience, Site  # noqa: E402
from meter import waited  # noqa: E402
from pymongo import UpdateOne  # noqa: E402
from run import operation  # noqa: E402

from datastores.contract import Node  # noqa: E402
from datastores.mongodb import oplog  # noqa: E402
from datastores.mongodb.catalog import collections  # noqa: E402
from datastores.mongodb.client import Client, agent  # noqa: E402
from datastores.mongodb.documents import documents  # noqa: E402
from datastores.mongodb.loading import Shelf  # noqa: E402
from datastores.mongodb.position import now  # noqa: E402
from datastores.mongodb.private import private  # noqa: E402
from datastores.mongodb.reading import Reader  # noqa: E402
from datastores.mongodb.replay import Replay  # noqa: E402

LOT = 1000
CHANGED = 0.03
ENTRIES = 100_000
POOL = 1 << 20


def main() -> int:
    """Measure, print the rows; 0 when everything ran."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--prefix", default="", help="what tools/servers printed")
    parser.add_argument("--size", type=int, default=1000, help="MB of documents (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="how often (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    options = parser.parse_args()
    show, patience = Show(), Patience()
    patience.install()
    site, ok = Site(options.prefix, patience, ("east",)), False
    try:
        site.open()
        for number in range(options.rounds):
            show.title(f"round {number + 1} of {options.rounds}")
            measure(site, show, options.size * 1_000_000)
        ok = True
    except Broken as error:
        show.console.print(f"\n{error}", style="red", markup=False)
    finally:
        site.close()
    if options.json:
        show.record(options.json, ok)
    return 0 if ok else 1


def measure(site: Site, show: Show, wanted: int) -> None:
    """Fill a server; a full, two dumps of others', an increment, a restore and a replay."""
    guest = site.guest("mongodb", "6.0")
    guest.ostler("prepare", request={"databases": [{"name": "bench"}]})
    node = guest.sample().node
    with show.step("fill", "fill the server"), agent(node, timeout=600) as client:
        size = fill(client, wanted)
    guest.sample().settle()
    full = ours(show, guest, "full", size)
    for name, work in (("decode + JSON", decoded), ("raw, zstd, openssl", outside(site.folder))):
        with show.step(name, f"full: {name}") as figures:
            cost = apart(lambda work=work: work(node))  # type: ignore[misc]
            figures.update(cpu_per_gb=round(cost / size * 1e9, 2), times_ours=round(cost / full[0], 2))
    with agent(node, timeout=600) as client:
        change(client)
    guest.sample().settle()
    part = ours(show, guest, "increment", size)
    show.console.print(f"increment / full, stored: {part[1] / full[1]:.4f}", markup=False)
    with show.step("replay", "apply the oplog") as figures:
        figures["entries_per_cpu_second"] = round(replayed(node, site.folder / "replayed"))
    guest.ostler("service", "stop")
    with show.step("restore", "restore the increment") as figures:
        other = site.guest("mongodb", "6.0")
        with peak(other) as memory:
            cost, _ = operation(other, "prepare", request={"restore": {"backup": part[2]}})
        figures.update(cpu_per_gb=round((cost.cpu - cost.tools) / size * 1e9, 2), server_cpu=round(cost.tools, 2))
        figures["anonymous_mb"] = round(memory[0] / 1e6, 1)


def ours(show: Show, guest: Guest, kind: str, size: int) -> tuple[float, int, str]:
    """Measure one backup; return its CPU seconds, stored bytes and id."""
    with show.step(kind, f"{kind}: ostler") as figures, peak(guest) as memory:
        cost, made = operation(guest, "backup", "create")
        stored = int(str(made["stored_bytes"]))
        figures.update(cpu_per_gb=round(cost.cpu / size * 1e9, 2), stored_bytes=stored, wall=round(cost.wall, 1))
        figures["anonymous_mb"] = round(memory[0] / 1e6, 1)
    return cost.cpu, stored, str(made["id"])


@contextmanager
def peak(guest: Guest) -> Iterator[list[int]]:
    """Watch the anonymous memory of an agent; the one number of the list is its peak so far, in bytes."""
    found, over, pid = [0], threading.Event(), guest.process.pid if guest.process else 0

    def watch() -> None:
        while not over.wait(0.05):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            found[0] = max(found[0], *(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def fill(client: Client, wanted: int) -> int:
    """Put about so many bytes of documents in: orders, users and articles, with indexes; return how many bytes."""
    random, shop = Random(7), client.shop
    pool = random.randbytes(POOL // 2).hex()
    shop.orders.create_index([("state", 1), ("number", -1)])
    shop.users.create_index("mail")
    number, size = 0, 0
    while size < wanted:
        rows = range(number, number + LOT)
        orders = [{"_id": ObjectId(random.randbytes(12)), "number": n, **order(random, pool)} for n in rows]
        users = [
            {"_id": random.randbytes(10).hex(), "mail": f"{n}@x.org", "about": cut(random, pool, 380)}
            for n in rows[::2]
        ]
        articles = [{"_id": n, "text": cut(random, pool, 3000)} for n in rows[::3]]
        for name, lot in (("orders", orders), ("users", users), ("articles", articles)):
            shop[name].insert_many(lot, ordered=False)
        size, number = int(client.shop.command("dbStats")["dataSize"]), number + LOT
    return size


def order(random: Random, pool: str) -> dict[str, Any]:
    """Return the fields of an order beside its number."""
    lines = [{"sku": cut(random, pool, 10), "count": n, "price": random.random()} for n in range(4)]
    return {"state": random.choice(("new", "paid", "sent")), "lines": lines, "note": cut(random, pool, 260)}


def cut(random: Random, pool: str, size: int) -> str:
    """Return a piece of text that compresses to about a half."""
    at = random.randrange(POOL - size)
    return pool[at : at + size]


def change(client: Client) -> None:
    """Update 3 % of the documents, anywhere."""
    random = Random(8)
    for name in ("orders", "users", "articles"):
        rows = client.shop[name]
        wanted = [each["_id"] for each in rows.find({}, {"_id": 1}) if random.random() < CHANGED]
        for at in range(0, len(wanted), LOT):
            rows.bulk_write([UpdateOne({"_id": each}, {"$set": {"seen": at}}) for each in wanted[at : at + LOT]])


def raw(node: Node) -> Iterator[bytes]:
    """Yield all documents as the driver's own raw reading brings them."""
    with agent(node, timeout=600) as client:
        for name in ("orders", "users", "articles"):
            yield from client.shop[name].find_raw_batches({}, batch_size=LOT)  # type: ignore[misc]


def decoded(node: Node) -> None:
    """Decode every document and spell it as extended JSON; nothing is stored."""
    for each in documents(raw(node)):
        json_util.dumps(decode(each))


def outside(folder: Path) -> Callable[[Node], None]:
    """Return the dump that two programs compress and encrypt."""
    key = folder / "pass"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))

    def dump(node: Node) -> None:
        packer = subprocess.Popen(["zstd", "-q", "-1", "-T2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        cipher = ["openssl", "enc", "-aes-256-ctr", "-pbkdf2", "-pass", f"file:{key}", "-out", str(folder / "dump")]
        sealer = subprocess.Popen(cipher, stdin=packer.stdout)
        assert packer.stdin is not None
        for each in raw(node):
            packer.stdin.write(each)
        packer.stdin.close()
        if packer.wait() or sealer.wait():
            raise Broken("the dump of the others ended badly")

    return dump


def apart(work: Callable[[], None]) -> float:
    """Do something in a process of its own; return the CPU seconds of it and of its children."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    status, cpu = waited(child)
    if status:
        raise Broken("what is measured ended badly")
    return cpu


def replayed(node: Node, folder: Path) -> float:
    """Return how many entries of an oplog are applied in a CPU second, ours and the server's."""
    with agent(node, timeout=600) as client:
        rows = client.replay.rows
        rows.create_index("n")
        lots = [range(at, at + LOT) for at in range(0, ENTRIES, LOT)]
        for lot in lots:
            rows.insert_many([{"_id": n, "n": n, "pad": "x" * 300} for n in lot])
        found = [each for each in collections(client) if each.database == "replay"]
        base = [b"".join(batch) for batch in Reader(client).batches("replay", "rows")]
        start = now(client)
        for lot in lots:
            rows.bulk_write([UpdateOne({"_id": n * 7919 % ENTRIES}, {"$set": {"n": -n}}) for n in lot])
        end = now(client)
        slices = list(oplog.entries(Reader(client), start, end))
    node.host.folder(folder)
    with private(node, folder) as client:
        shelf = Shelf(client)
        for each in found:
            shelf.listed(each)
            shelf.load(each.uuid, base)
        server = psutil.Process(int(client.admin.command("serverStatus")["pid"]))
        before = time.process_time() + sum(server.cpu_times()[:2])
        replay = Replay(shelf)
        replay.feed(slices)
        replay.end(end)
        return replay.applied / (time.process_time() + sum(server.cpu_times()[:2]) - before)


if __name__ == "__main__":
    sys.exit(main())
