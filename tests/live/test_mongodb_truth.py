"""What MongoDB's backups say must be so: reign, order, the running server itself; and nothing is left behind."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bson import Int64, Timestamp
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from datastores.contract import Checkpoint, Hole, Incomplete, Limits, Mismatch, Snapshot
from datastores.manager import Manager
from datastores.mongodb.client import agent
from datastores.mongodb.oplog import boundary
from datastores.mongodb.position import Position
from datastores.mongodb.private import private
from datastores.mongodb.reading import MARK, Reader
from datastores.mongodb.snapshot import Full
from guestagent.declarations import load
from guestagent.node import manager_for
from tests.agents import until
from tests.fakes_host import Keeper, restore
from tests.guests import Guests, node_in

COUNT = int(os.environ.get("OSTLER_COUNT", "1"))
Client = MongoClient[dict[str, Any]]


@pytest.fixture(scope="module")
def served(inn: Guests) -> Manager:
    return inn.manager("mongodb")


@pytest.fixture
def client(served: Manager) -> Iterator[Client]:
    served.service.start()
    with agent(served.node, timeout=60) as made:
        yield made
        for name in set(made.list_database_names()) - {"admin", "local", "config"}:
            made.drop_database(name)


@contextmanager
def taken_whole(served: Manager) -> Iterator[Snapshot]:
    """Hold a snapshot whose extents have all come."""
    with served.backup.snapshot(None, Limits()) as snapshot:
        for _ in snapshot.extents():
            pass
        assert tuple(snapshot.files())
        yield snapshot


def test_an_election_while_it_is_read_makes_no_backup(served: Manager, client: Client) -> None:
    client.shop.rows.insert_one({"_id": 1})
    with taken_whole(served) as snapshot:
        Position.of(snapshot.checkpoint().position)
    with taken_whole(served) as snapshot:
        client.admin.command({"replSetStepDown": 1, "force": True})
        until(lambda: bool(client.admin.command("hello")["isWritablePrimary"]), 60, "a primary")
        with pytest.raises(Incomplete, match="election or a rollback"):
            snapshot.checkpoint()


def test_a_rollback_while_it_is_read_makes_no_backup(served: Manager, client: Client) -> None:
    with taken_whole(served) as snapshot:
        assert isinstance(snapshot, Full)
        number = Position.of(snapshot.checkpoint().position).rollback
        assert number == client.admin.command("replSetGetRBID")["rbid"]
        # A set of one cannot roll back, so the server's number stays and ours moves.
        snapshot.reign = (snapshot.reign[0], number - 1)
        with pytest.raises(Incomplete, match="election or a rollback"):
            snapshot.checkpoint()


def test_a_slice_does_not_begin_within_a_transaction(served: Manager, inn: Guests) -> None:
    """A member of a set may stand there; a set of one does not, so its entries are put into an oplog by hand."""

    def entry(number: int, *, part: bool = False, after: int = 0) -> dict[str, Any]:
        command = {"applyOps": [], **({"partialTxn": True} if part else {})}
        earlier = {"ts": Timestamp(after and 10, after), "t": Int64(1 if after else -1)}
        return {"ts": Timestamp(10, number), "t": Int64(1), "op": "c", "o": command, "prevOpTime": earlier}

    def at(number: int) -> Position:
        return Position(10, number, 1, 1, "6.0")

    node = inn.node("mongodb")
    node.host.folder(node.places.staging)
    with private(node, node.places.staging) as client:
        client.local.create_collection("oplog.rs", capped=True, size=1 << 20)
        rows = [
            entry(1, part=True, after=9),  # whose first entry the oplog has no more
            entry(2),
            entry(3, part=True),
            entry(4, part=True, after=3),
            entry(5, after=4),
            entry(6),
        ]
        client.local["oplog.rs"].insert_many(rows)
        assert [boundary(client, at(number)) for number in range(2, 7)] == [at(2), at(2), at(2), at(5), at(6)]
        with pytest.raises(Hole):
            boundary(client, at(1))


def test_the_position_tells_the_feature_compatibility(served: Manager, client: Client) -> None:
    def seen() -> tuple[str, str]:
        with taken_whole(served) as snapshot:
            return served.admin.version(), str(snapshot.checkpoint().position["feature_compatibility"])

    version, features = seen()
    assert features == "6.0"
    assert version.startswith("6.0.")
    assert " " not in version
    client.admin.command("setFeatureCompatibilityVersion", "5.0")
    try:
        assert seen() == (f"{version} (as 5.0)", "5.0")
    finally:
        client.admin.command("setFeatureCompatibilityVersion", "6.0")


def restored(inn: Guests, served: Manager, spoil: Callable[[Client], object]) -> tuple[Manager, Checkpoint]:
    """Restore what there is into a new guest, and change it while no oplog looks."""
    taken = Keeper().take(served.backup)
    manager = inn.manager("mongodb", start=False)
    manager.settings.ensure()
    places, host = manager.node.places, manager.node.host
    host.folder(places.staging)
    restore(manager.backup, taken, places.staging)
    with private(manager.node, places.staging) as client:
        spoil(client)
    host.exchange(places.staging, places.data)
    manager.service.start()
    manager.admin.secure()
    return manager, taken.checkpoint


def test_a_restored_server_is_looked_at_itself(served: Manager, inn: Guests, client: Client) -> None:
    client.shop.rows.insert_many([{"_id": n} for n in range(100)])
    client.shop.create_collection("empty")
    client.shop.create_collection("heat", timeseries={"timeField": "at"})
    spoilt: list[Callable[[Client], object]] = [
        lambda there: there.shop.rows.delete_one({"_id": 5}),
        lambda there: there.shop.rows.insert_one({"_id": 500}),
        lambda there: there.shop.drop_collection("empty"),
        lambda there: there.shop["system.buckets.heat"].drop(),
    ]
    for each in spoilt:
        manager, checkpoint = restored(inn, served, each)
        with pytest.raises(Mismatch):
            manager.backup.confirm(checkpoint)
        manager.service.stop()
    manager, checkpoint = restored(inn, served, lambda there: None)
    manager.backup.confirm(checkpoint)
    with pytest.raises(Mismatch):
        manager.backup.confirm(replace(checkpoint, server_id="another"))
    with agent(manager.node) as there:
        there.shop.rows.delete_one({"_id": 5})
        there.shop.drop_collection("empty")
    manager.backup.confirm(checkpoint)
    manager.service.stop()


class Log:
    """Write to a capped collection as fast as it goes; know when each document was acknowledged."""

    def __init__(self, served: Manager) -> None:
        self._served = served
        self.done: list[tuple[Any, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Log":
        self._thread.start()
        until(lambda: len(self.done) > 100, 60, "a hundred documents")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def until_after(self, moment: Any) -> None:
        until(lambda: self.done[-1][0] > moment, 60, "something after the backup's moment")

    def _run(self) -> None:
        with agent(self._served.node, timeout=60) as client, client.start_session() as session:
            for number in range(1_000_000):
                if self._stop.is_set():
                    return
                client.live.log.insert_one({"n": number, "pad": "c" * (number * 37 % 400)}, session=session)
                self.done.append((session.operation_time, number))


def test_a_capped_collection_that_is_written_to_comes_back_in_order(
    served: Manager, inn: Guests, client: Client
) -> None:
    client.live.create_collection("log", capped=True, size=16 << 10)
    # It is read before the log is, which is overwritten meanwhile.
    client.before.rows.insert_many([{"_id": n, "pad": "x" * 2000} for n in range(25_000)])
    for _ in range(COUNT):
        with Log(served) as log:
            taken = Keeper().take(served.backup)
            moment = Position.of(taken.checkpoint.position).ts
            log.until_after(moment)
        manager = inn.manager("mongodb", start=False)
        manager.settings.ensure()
        manager.node.host.folder(manager.node.places.data)
        restore(manager.backup, taken, manager.node.places.data)
        manager.service.start()
        manager.admin.secure()
        manager.backup.confirm(taken.checkpoint)
        before = [number for when, number in log.done if when <= moment]
        with agent(manager.node) as there:
            found = [each["n"] for each in there.live.log.find({}).sort("$natural", 1)]
        assert len(found) > 20
        assert found == before[-len(found) :]
        manager.service.stop()


def overwriting(served: Manager, client: Client, times: int) -> Iterator[str]:
    """Take a backup, and overwrite the capped collection within each of its first readings."""
    readings, wanted = set[str](), bytes(next(client.live.list_collections())["info"]["uuid"]).hex()
    with served.backup.snapshot(None, Limits()) as snapshot:
        for path, *_ in snapshot.extents():  # type: ignore[misc]
            if path.startswith(f"data/{wanted}") and path not in readings:
                readings.add(path)
                if len(readings) <= times:
                    client.live.log.insert_many([{"n": n, "again": len(readings)} for n in range(500)])
                yield path
        snapshot.checkpoint()


def test_a_capped_collection_that_is_overwritten_is_read_again(served: Manager, client: Client) -> None:
    client.live.create_collection("log", capped=True, size=8 << 20, max=200)
    client.live.log.insert_many([{"n": n} for n in range(200)])
    paths = list(overwriting(served, client, 1))
    assert [each.partition(".")[2] for each in paths] == ["bson", "bson.1"]
    with pytest.raises(Incomplete, match="overwritten each time"):
        list(overwriting(served, client, 1000))


def left_open(home: Path) -> None:
    """Begin to read a collection, and end as a process that is killed: it says good-bye to nobody."""
    with agent(node_in(home, "mongodb")) as client:
        next(Reader(client).batches("shop", "rows"))
        os._exit(0)


def waiting(client: Client) -> int:
    """Return how many cursors of backups wait on the server for a reader."""
    found = client.admin.aggregate([{"$currentOp": {"allUsers": True, "idleCursors": True}}])
    return sum(each.get("cursor", {}).get("originatingCommand", {}).get("comment") == MARK for each in found)


def test_the_cursor_of_a_killed_backup_is_ended(served: Manager, client: Client) -> None:
    client.shop.rows.insert_many([{"_id": Int64(n), "pad": "x" * 100} for n in range(5000)])
    child = multiprocessing.get_context("spawn").Process(target=left_open, args=(served.node.places.root.parent,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert waiting(client) == 1
    served.backup.sweep()
    assert waiting(client) == 0
    with served.backup.snapshot(None, Limits()) as snapshot:
        next(iter(snapshot.extents()))
    assert waiting(client) == 0
    served.service.stop()
    served.backup.sweep()
    served.service.start()


def test_a_server_whose_port_changed_is_still_the_set(inn: Guests) -> None:
    manager = inn.manager("mongodb")
    with agent(manager.node) as client:
        client.shop.rows.insert_one({"_id": 1})
    taken = Keeper().take(manager.backup)
    manager.service.stop()
    node, other = manager.node, inn.node("mongodb").endpoint
    moved = replace(node, endpoint=replace(node.endpoint, port=other.port))
    again = manager_for(load("mongodb"), moved, inn.state(node), "process")
    again.settings.ensure()
    again.service.start()
    for _ in range(2):
        again.admin.secure()
    again.admin.probe()
    with agent(again.node) as client:
        member = client.admin.command("replSetGetConfig")["config"]["members"][0]
        assert member["host"].endswith(f":{other.port}")
        assert client.shop.rows.count_documents({}) == 1
    assert Keeper(taken).take(again.backup).kind == "incremental"
    again.service.stop()


def test_the_localhost_exception_is_shut_and_the_keyfile_is_ours_alone(served: Manager, client: Client) -> None:
    for _ in range(2):
        served.admin.secure()
    endpoint = served.node.endpoint
    stranger: Client = MongoClient(endpoint.host, endpoint.port, directConnection=True, serverSelectionTimeoutMS=5000)
    with stranger:
        for attempt in (
            {"createUser": "eve", "pwd": "word", "roles": ["root"]},
            {"replSetGetConfig": 1},
            {"listDatabases": 1},
        ):
            with pytest.raises(OperationFailure) as refused:
                stranger.admin.command(attempt)
            assert refused.value.code == 13
    keyfile = (served.node.places.data / "keyfile").stat()
    assert keyfile.st_mode & 0o777 == 0o400
    assert client.admin.command("getCmdLineOpts")["parsed"]["security"]["authorization"] == "enabled"
    assert time.time() > keyfile.st_mtime
