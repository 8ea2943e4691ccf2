"""MongoDB side by side: ours beside a dump that decodes and one that is compressed and encrypted outside.

``make bench BENCH=mongodb``.  CPU seconds of whole process trees count; the database servers,
private ones too, are in nobody's.  Memory is the peak of the agent's anonymous memory.
"""

import argparse
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import psutil  # noqa: E402
from bounds import Bound, all_held  # noqa: E402
from bson import decode, json_util  # noqa: E402
from demo_show import Figures, Show  # noqa: E402
from demo_site import Broken, Guest, Patience, Site  # noqa: E402
from meter import Cost, waited  # noqa: E402
from pymongo import UpdateOne  # noqa: E402
from run import operation  # noqa: E402
from shop import LOT, NAMES, fill, insert, lose, update  # noqa: E402

from datastores.contract import Node  # noqa: E402
from datastores.mongodb import oplog  # noqa: E402
from datastores.mongodb.catalog import collections  # noqa: E402
from datastores.mongodb.client import agent  # noqa: E402
from datastores.mongodb.documents import documents  # noqa: E402
from datastores.mongodb.loading import Shelf  # noqa: E402
from datastores.mongodb.position import now  # noqa: E402
from datastores.mongodb.private import private  # noqa: E402
from datastores.mongodb.reading import Reader  # noqa: E402
from datastores.mongodb.replay import Replay  # noqa: E402

ENTRIES = 100_000


def main() -> int:
    """Measure, print the rows and the bounds; 0 when every bound held."""
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
            ok = measure(site, show, options.size * 1_000_000) and (ok or number == 0)
    except Broken as error:
        ok = False
        show.console.print(f"\n{error}", style="red", markup=False)
    finally:
        site.close()
    if options.json:
        show.record(options.json, ok)
    return 0 if ok else 1


def measure(site: Site, show: Show, wanted: int) -> bool:
    """Fill a server; a full, two dumps of others', increments, a full after a hole, a replay and a restore."""
    guest = site.guest("mongodb", "6.0")
    guest.ostler("prepare", request={"databases": [{"name": "bench"}]})
    node, costs, others = guest.sample().node, dict[str, Cost](), dict[str, float]()
    with show.step("fill", "fill the server") as figures, agent(node, timeout=600) as client:
        figures["document_bytes"] = size = fill(client, wanted)
    costs["full"], _ = ours(show, guest, "full", size)
    for name, work in (("decode + JSON", decoded), ("raw, zstd, openssl", outside(site.folder))):
        with show.step(name, f"full: {name}") as figures:
            others[name] = apart(lambda work=work: work(node))  # type: ignore[misc]
            figures["cpu_per_gb"] = round(others[name] / size * 1e9, 2)
    with agent(node, timeout=600) as client:
        update(client)
    costs["updated"], _ = ours(show, guest, "updated", size)
    with agent(node, timeout=600) as client:
        lose(client)
    costs["after a hole"], _ = ours(show, guest, "after a hole", size, "--on-hole", "full")
    with agent(node, timeout=600) as client:
        insert(client)
    costs["inserted"], made = ours(show, guest, "inserted", size)
    with show.step("replay", "apply the oplog") as figures:
        figures["entries_per_cpu_second"] = entries = round(replayed(node, site.folder / "replayed"))
    guest.ostler("service", "stop")
    costs["restore"] = restored(show, site, made, size)
    return all_held(show, bounds(costs, others, size, entries))


def bounds(costs: dict[str, Cost], others: dict[str, float], size: int, entries: int) -> dict[str, Bound]:
    """Return what was measured, and what was promised."""
    full, hole, restore = costs["full"], costs["after a hole"], costs["restore"]
    stored = {kind: cost.stored_bytes / full.stored_bytes for kind, cost in costs.items()}
    return {
        "full: client CPU s per GB": Bound(full.cpu / size * 1e9, most=6.5),
        "full: anonymous memory, MB": Bound(full.anonymous_bytes / 1e6, most=90),
        "full: MB per CPU s, ours/decode + JSON": Bound(others["decode + JSON"] / full.cpu, least=5),
        "full: MB per CPU s, ours/raw, zstd, openssl": Bound(others["raw, zstd, openssl"] / full.cpu, least=1.2),
        "3 % updated: stored, of the full's": Bound(stored["updated"], most=0.01),
        "3 % inserted: stored, of the full's": Bound(stored["inserted"], most=0.04),
        "after a hole, 3 % updated: stored, of the full's": Bound(stored["after a hole"], most=0.05),
        "after a hole: anonymous memory, MB": Bound(hole.anonymous_bytes / 1e6, most=90),
        "oplog: entries per CPU s": Bound(entries, least=10_000),
        "restore: client CPU s per GB": Bound((restore.cpu - restore.tools) / size * 1e9, most=5),
    }


def ours(show: Show, guest: Guest, kind: str, size: int, *words: str) -> tuple[Cost, str]:
    """Measure one backup; return its cost and id."""
    guest.sample().settle()
    with show.step(kind, f"{kind}: ostler") as figures:
        cost, made = operation(guest, "backup", "create", *words)
        cost.stored_bytes = int(str(made["stored_bytes"]))
        told(figures, cost, cost.cpu, size)
    return cost, str(made["id"])


def restored(show: Show, site: Site, backup: str, size: int) -> Cost:
    """Measure the restore of a backup into a new guest; the private server is what ``tools`` tells."""
    with show.step("restore", "restore the last one, which needs all before it") as figures:
        guest = site.guest("mongodb", "6.0")
        cost, _ = operation(guest, "prepare", request={"restore": {"backup": backup}})
        told(figures, cost, cost.cpu - cost.tools, size)
        figures["server_cpu"] = cost.tools
    return cost


def told(figures: Figures, cost: Cost, cpu: float, size: int) -> None:
    """Put what a move cost into the figures of its step."""
    figures.update(cpu_per_gb=round(cpu / size * 1e9, 2), wall=round(cost.wall, 1))
    figures.update(anonymous_bytes=cost.anonymous_bytes, stored_bytes=cost.stored_bytes)


def raw(node: Node) -> Iterator[bytes]:
    """Yield all documents as the driver's own raw reading brings them."""
    with agent(node, timeout=600) as client:
        for name in NAMES:
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
