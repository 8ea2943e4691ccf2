"""MongoDB's backups on a real server: bytes as they are, the exact moment, gaps that are seen, servers that die."""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from bson import Int64, Timestamp, encode
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from datastores.contract import (
    Backup,
    Checkpoint,
    DatastoreError,
    Hole,
    Incomplete,
    Limits,
    Mismatch,
    Node,
    Secret,
    Since,
    Snapshot,
    Users,
)
from datastores.manager import Manager
from datastores.mongodb.client import agent
from datastores.mongodb.position import Position
from tests.agents import until
from tests.fakes_host import Keeper, Taken, restore
from tests.guests import Guests, sample

COUNT = int(os.environ.get("OSTLER_COUNT", "1"))
RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
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


def brought_back(inn: Guests, taken: Taken) -> Manager:
    """Restore into a new guest, as the operation does."""
    manager = inn.manager("mongodb", start=False)
    manager.settings.ensure()
    places, host = manager.node.places, manager.node.host
    host.folder(places.staging)
    restore(manager.backup, taken, places.staging)
    host.exchange(places.staging, places.data)
    manager.service.start()
    manager.admin.secure()
    manager.backup.confirm(taken.checkpoint)
    return manager


def documents(node: Node, database: str, name: str) -> list[bytes]:
    """Return the documents of a collection in natural order, as they are stored."""
    with agent(node) as client:
        found = client.get_database(database, RAW)[name].find({}, sort=[("$natural", 1)])  # type: ignore[arg-type]
        return [each.raw for each in found]  # type: ignore[attr-defined]


def odd(number: int, *fields: bytes) -> RawBSONDocument:
    body = b"\x10_id\x00" + number.to_bytes(4, "little") + b"".join(fields) + b"\x00"
    return RawBSONDocument((len(body) + 4).to_bytes(4, "little") + body)


def test_documents_come_back_byte_for_byte(served: Manager, inn: Guests, client: Client) -> None:
    one = b"\x10a\x00\x01\x00\x00\x00"
    two = b"\x10a\x00\x02\x00\x00\x00"
    rows = [
        odd(1, one, two),
        odd(2, b"\x06old\x00"),
        odd(3, b"\x0esym\x00\x04\x00\x00\x00abc\x00"),
        odd(4, b"\xffleast\x00", b"\x7fmost\x00"),
        odd(5, b"\x01nan\x00\x01\x00\x00\x00\x00\x00\xf8\x7f", b"\x12\x00" + b"\x07" * 8),
        odd(6, b"\x0dcode\x00\x0a\x00\x00\x00return 1;\x00", b"\x0bre\x00^a\x00im\x00"),
        odd(9, b"\x12zero\x00" + bytes(8), b"\x11ts\x00" + b"\x01" * 8),
        odd(7, b"\x03in\x00" + odd(0, one, two).raw),
    ]
    client.odd.command("insert", "kinds", documents=rows)
    wanted = documents(served.node, "odd", "kinds")
    assert {each.raw for each in rows} == set(wanted)
    full = Keeper().take(served.backup)
    client.odd.command("insert", "kinds", documents=[odd(8, two, one, two)])
    client.odd.kinds.update_one({"_id": 1}, {"$set": {"b": 1}})
    client.odd.empty.insert_one({"_id": 1})
    client.odd.empty.update_one({"_id": 1}, {"$set": {"ts": Timestamp(0, 0)}})
    assert client.odd.empty.find_one() == {"_id": 1, "ts": Timestamp(0, 0)}
    taken = Keeper(full).take(served.backup)
    back = brought_back(inn, taken)
    assert documents(back.node, "odd", "kinds") == documents(served.node, "odd", "kinds")
    assert odd(8, two, one, two).raw in documents(back.node, "odd", "kinds")
    back.service.stop()
    back = brought_back(inn, Keeper().take(served.backup))
    assert documents(back.node, "odd", "empty") == documents(served.node, "odd", "empty")
    back.service.stop()


def test_what_waits_under_our_names_is_no_user(served: Manager, inn: Guests, client: Client) -> None:
    evil = {"_id": "admin.evil", "user": "evil", "db": "admin", "roles": [{"role": "root", "db": "admin"}]}
    names = ("ostler.users", "ostler.incoming")
    for name in names:
        client.admin[name].insert_one(evil)
    try:
        client.admin.other.insert_one(evil)
        client.admin["system.js"].replace_one({"_id": "twice"}, {"value": "kept"}, upsert=True)
        full = Keeper().take(served.backup)
        client.admin.other.rename("ostler.roles")
        back = brought_back(inn, Keeper(full).take(served.backup))
        with agent(back.node) as there:
            assert there.admin["system.js"].find_one() == {"_id": "twice", "value": "kept"}
            assert not [each for each in there.admin.command("usersInfo")["users"] if each["user"] == "evil"]
            assert not [
                each
                for each in there.admin.list_collection_names()
                if each in ("other", "ostler.users", "ostler.roles")
            ]
        back.service.stop()
    finally:
        for name in (*names, "ostler.roles", "other"):
            client.admin.drop_collection(name)


def history(client: Client) -> None:
    """Change structure and documents in every way an oplog tells of."""
    db = client.story
    db.old.rename("renamed")
    db.renamed.create_index("late", expireAfterSeconds=86400)
    db.command("collMod", "renamed", index={"name": "late_1", "expireAfterSeconds": 90000})
    db.command("collMod", "renamed", validator={"n": {"$gte": -5}})
    db.renamed.drop_index("n_1")
    db.victim.drop()
    db.create_collection("victim", capped=True, size=4096)
    db.victim.insert_many([{"n": n, "pad": "x" * 100} for n in range(100)])
    db.renamed.aggregate([{"$match": {"n": {"$lt": 50}}}, {"$out": "copied"}])
    db.renamed.aggregate([{"$match": {"n": {"$lt": 70}}}, {"$out": "copied"}])
    client.doomed.some.insert_one({"gone": True})
    client.drop_database("doomed")
    client.drop_database("earlier")
    with client.start_session() as session, session.start_transaction():
        db.renamed.insert_many([{"n": 1000 + n} for n in range(50)], session=session)
        db.renamed.update_many({"n": {"$lt": 10}}, {"$set": {"moved": True}}, session=session)
        db.renamed.delete_many({"n": {"$gte": 90, "$lt": 100}}, session=session)
        session.commit_transaction()
        session.start_transaction()
        db.renamed.insert_many([{"n": 2000 + n, "pad": "t" * 1_000_000} for n in range(20)], session=session)
    db.create_collection("seen", viewOn="renamed", pipeline=[{"$match": {"moved": True}}])
    db.command("collMod", "seen", viewOn="renamed", pipeline=[{"$match": {"moved": False}}])
    db.create_collection("warm", timeseries={"timeField": "t", "metaField": "m"})
    db.heat.insert_many([{"t": at(n), "m": "b", "v": n} for n in range(40)])
    db.renamed.update_many({}, {"$push": {"list": {"$each": [1, 2, 3]}}, "$inc": {"count": 2}})
    db.renamed.update_many({}, {"$pop": {"list": -1}})
    db.command({"convertToCapped": "plain", "size": 8192})
    db.create_collection("grouped", clusteredIndex={"key": {"_id": 1}, "unique": True})
    db.grouped.insert_many([{"_id": n} for n in range(20)])


def at(seconds: int) -> Any:
    from datetime import UTC, datetime, timedelta

    return datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def test_an_increment_brings_every_change_of_structure(served: Manager, inn: Guests, client: Client) -> None:
    db = client.story
    db.old.insert_many([{"n": n} for n in range(200)])
    db.old.create_index("n", unique=True)
    db.victim.insert_one({"n": 1})
    db.plain.insert_many([{"n": n, "pad": "y" * 50} for n in range(300)])
    client.earlier.some.insert_one({"gone": True})
    db.create_collection("heat", timeseries={"timeField": "t", "metaField": "m"})
    db.heat.insert_many([{"t": at(n), "m": "a", "v": n} for n in range(100)])
    full = Keeper().take(served.backup)
    history(client)
    taken = Keeper(full).take(served.backup)
    assert taken.kind == "incremental"
    wanted = sample(served).digest()
    assert any("warm" in name for name in wanted)
    back = brought_back(inn, taken)
    assert sample(back).digest() == wanted
    assert documents(back.node, "story", "victim") == documents(served.node, "story", "victim")
    with agent(back.node) as there:
        assert there.story.heat.count_documents({}) == 140
        assert {each["name"] for each in there.story.renamed.list_indexes()} == {"_id_", "late_1"}
        with pytest.raises(PyMongoError):
            there.story.renamed.insert_one({"n": -10})
        assert set(there.list_database_names()) & {"doomed", "earlier"} == set()
    back.service.stop()


def test_an_increment_brings_what_a_validator_refuses(served: Manager, inn: Guests, client: Client) -> None:
    db = client.strict
    db.create_collection("rows", validator={"n": {"$gte": 0}})
    full = Keeper().take(served.backup)
    db.rows.insert_one({"_id": 1, "n": -1}, bypass_document_validation=True)
    db.rows.insert_one({"_id": 2, "n": 1})
    db.command("collMod", "rows", validator={"n": {"$gte": 5}})
    back = brought_back(inn, Keeper(full).take(served.backup))
    assert documents(back.node, "strict", "rows") == documents(served.node, "strict", "rows")
    back.service.stop()


def test_an_increment_brings_another_feature_compatibility(served: Manager, inn: Guests, client: Client) -> None:
    def restored(taken: Taken) -> tuple[str, list[str]]:
        back = brought_back(inn, taken)
        with agent(back.node) as there:
            names = sorted(each["name"] for each in there.later.list_collections())
            version = there.admin.command("getParameter", 1, featureCompatibilityVersion=1)
        back.service.stop()
        return version["featureCompatibilityVersion"]["version"], names

    client.admin.command("setFeatureCompatibilityVersion", "5.0")
    try:
        full = Keeper().take(served.backup)
    finally:
        client.admin.command("setFeatureCompatibilityVersion", "6.0")
    client.later.create_collection("kept", changeStreamPreAndPostImages={"enabled": True})
    raised = Keeper(full).take(served.backup)
    client.later.command("collMod", "kept", changeStreamPreAndPostImages={"enabled": False})
    client.admin.command("setFeatureCompatibilityVersion", "5.0")
    try:
        lowered = Keeper(raised).take(served.backup)
    finally:
        client.admin.command("setFeatureCompatibilityVersion", "6.0")
    assert (raised.kind, lowered.kind) == ("incremental", "incremental")
    assert restored(full) == ("5.0", [])
    assert restored(raised) == ("6.0", ["kept"])
    assert restored(lowered) == ("5.0", ["kept"])


def test_an_index_without_a_collation_gets_none_of_its_collections(
    served: Manager, inn: Guests, client: Client
) -> None:
    db = client.folded
    db.create_collection("rows", collation={"locale": "en", "strength": 2})
    db.rows.insert_many([{"k": "A", "t": "one two"}, {"k": "a", "t": "three"}])
    db.rows.create_index("k", unique=True, collation={"locale": "simple"})
    db.rows.create_index([("t", "text")], collation={"locale": "simple"})
    db.rows.create_index("t", name="folds")
    wanted = db.rows.index_information()
    back = brought_back(inn, Keeper().take(served.backup))
    with agent(back.node) as there:
        assert there.folded.rows.index_information() == wanted
    back.service.stop()


class Late:
    """A backup whose snapshot is entered, and before anything is listed something happens."""

    def __init__(self, backup: Backup, happens: Callable[[], object]) -> None:
        self._backup = backup
        self._happens = happens

    @contextlib.contextmanager
    def snapshot(self, since: Since | None, limits: Limits) -> Iterator[Snapshot]:
        with self._backup.snapshot(since, limits) as taken:
            self._happens()
            yield taken


def test_a_name_that_changes_hands_before_it_is_listed(served: Manager, inn: Guests, client: Client) -> None:
    db = client.hands
    db.first.insert_one({"n": 1})
    db["ostler-aside-1"].insert_one({"n": 3})

    def happens() -> None:
        for number in range(2):
            db.turn.drop()
            db.turn.insert_one({"n": number})
        db.first.rename("second")
        db.second.rename("third")
        db.second.insert_one({"n": 2})

    back = brought_back(inn, Keeper().take(Late(served.backup, happens)))
    for name in ("turn", "second", "third", "ostler-aside-1"):
        assert documents(back.node, "hands", name) == documents(served.node, "hands", name)
        assert documents(back.node, "hands", name)
    back.service.stop()


def test_a_collection_that_is_changed_and_goes_while_it_is_read(served: Manager, inn: Guests, client: Client) -> None:
    db = client.going
    db.rows.insert_many([{"_id": n, "v": 0} for n in range(100)])

    def happens() -> None:
        db.rows.update_many({}, {"$set": {"v": 1}})
        db.rows.delete_many({"_id": {"$lt": 50}})
        db.rows.update_many({}, {"$set": {"v": 2}})
        db.rows.drop()

    back = brought_back(inn, Keeper().take(served.backup, meanwhile=happens))
    with agent(back.node) as there:
        assert "rows" not in there.going.list_collection_names()
    back.service.stop()


class Writer:
    """Write for as long as a backup is taken, and know of each change the moment at which it holds."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.done: list[tuple[Any, str, int, int]] = []
        self.failed: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        try:
            with agent(self._node, timeout=60) as client, client.start_session() as session:
                for number in range(1_000_000):
                    if self._stop.is_set():
                        return
                    self._step(client, session, number)
        except BaseException as error:
            self.failed.append(error)
            raise

    def _step(self, client: Client, session: Any, n: int) -> None:
        db = client.live
        way, row = ("i", "u", "d", "u", "i")[n % 5], (n * 37) % 3000
        if way == "i":
            row = 100_000 + n
            db.rows.insert_one({"_id": row, "v": n, "pad": "p" * 200}, session=session)
        elif way == "u":
            db.rows.update_one({"_id": row}, {"$set": {"v": n, "grown": "g" * (n % 400)}}, session=session)
        else:
            db.rows.delete_one({"_id": row}, session=session)
        self.done.append((session.operation_time, way, row, n))
        if n % 40 == 7:
            self._shape(db, session, n)

    def _shape(self, db: Any, session: Any, n: int) -> None:
        db.rows.aggregate([{"$limit": 20}, {"$out": "copy"}], session=session)
        db[f"t{n % 3}"].insert_one({"n": n}, session=session)
        db[f"t{n % 3}"].rename(f"r{n % 5}", dropTarget=True, session=session)
        db.log.insert_one({"n": n, "pad": "c" * 100}, session=session)

    def until_after(self, moment: Any) -> None:
        """Wait until something was acknowledged later, or nothing more will be."""
        until(lambda: bool(self.failed) or self.done[-1][0] > moment, 60, "something after the backup's moment")

    def model(self, end: Any) -> dict[int, int]:
        """Return the rows with their values as they were at a moment."""
        rows = dict.fromkeys(range(3000), -1)
        for moment, way, row, value in self.done:
            if moment <= end:
                if way == "d":
                    rows.pop(row, None)
                elif way == "i" or row in rows:
                    rows[row] = value
        return rows


def slowly(taken: Keeper, served: Manager, writer: Writer) -> Taken:
    """Take a backup that lasts long enough to have much written meanwhile."""
    backup = served.backup
    begun = len(writer.done)
    while len(writer.done) < begun + 50 and not writer.failed:
        time.sleep(0.01)
    return taken.take(backup)


def test_a_backup_holds_what_was_acknowledged_before_its_moment_and_nothing_after(
    served: Manager, inn: Guests, client: Client
) -> None:
    db = client.live
    for _ in range(COUNT):
        client.drop_database("live")
        db.rows.insert_many([{"_id": n, "v": -1, "pad": "p" * 3000} for n in range(3000)])
        db.rows.create_index([("v", 1), ("_id", 1)], unique=True)
        db.create_collection("log", capped=True, size=1 << 16)
        with Writer(served.node) as writer:
            full = slowly(Keeper(), served, writer)
            part = slowly(Keeper(full), served, writer)
            writer.until_after(Position.of(part.checkpoint.position).ts)
        assert not writer.failed
        for taken in (full, part):
            position = Position.of(taken.checkpoint.position)
            assert any(moment > position.ts for moment, *_ in writer.done)
            back = brought_back(inn, taken)
            with agent(back.node) as there:
                rows = {each["_id"]: each["v"] for each in there.live.rows.find({}, {"v": 1})}
                assert {each["name"] for each in there.live.rows.list_indexes()} == {"_id_", "v_1__id_1"}
            assert rows == writer.model(position.ts)
            back.service.stop()


def test_users_and_roles_work_as_before_and_ours_are_this_guests(served: Manager, inn: Guests, client: Client) -> None:
    users = served.part("users")
    assert isinstance(users, Users)
    client.shop.things.insert_one({"n": 1})
    users.create("early", Secret("early word"), databases=("shop",))
    client.admin.command(
        "createRole",
        "looker",
        privileges=[{"resource": {"db": "shop", "collection": "things"}, "actions": ["find"]}],
        roles=[],
    )
    full = Keeper().take(served.backup)
    users.create("late", Secret("late word"))
    client.admin.command("grantRolesToUser", "late", roles=["looker"])
    users.set_password("early", Secret("another word"))
    taken = Keeper(full).take(served.backup)
    back = brought_back(inn, taken)
    login = sample(back).login
    assert login("early", Secret("another word"))
    assert not login("early", Secret("early word"))
    assert login("late", Secret("late word"))
    there = back.part("users")
    assert isinstance(there, Users)
    assert there.list() == users.list()
    late: Client = MongoClient(
        back.node.endpoint.host, back.node.endpoint.port, username="late", password="late word", directConnection=True
    )
    with late:
        assert late.shop.things.count_documents({}) == 1
        with pytest.raises(OperationFailure):
            late.shop.things.insert_one({"n": 2})
    client.admin.command("dropRole", "looker")
    for name in ("early", "late"):
        users.delete(name)
    back.service.stop()


def small_oplog(inn: Guests) -> Manager:
    """Return a server whose oplog is soon overwritten."""
    manager = inn.manager("mongodb", start=False)
    # What no checkpoint has is not overwritten; they come every minute otherwise.
    manager.settings.switch(manager.settings.write({"storage.syncPeriodSecs": "1"}))
    config = manager.node.places.config / "mongod.conf"
    manager.node.host.write(config, re.sub(rb"oplogSizeMB: \d+", b"oplogSizeMB: 8", config.read_bytes()))
    manager.admin.initialise()
    manager.service.start()
    manager.admin.secure()
    return manager


def overwrite(client: Client, taken: Taken) -> None:
    """Write until the oplog has lost the moment of a backup."""
    end = time.monotonic() + 120
    while not gone(client, taken):
        assert time.monotonic() < end, "the oplog keeps everything"
        client.noise.rows.insert_many([{"pad": os.urandom(2000)} for _ in range(500)])
        client.drop_database("noise")


def forgotten(taken: Taken) -> Taken:
    """Return a backup of a moment that the oplog does not have (any more)."""
    position = {**taken.checkpoint.position, "seconds": 1_000_000}
    return replace(taken, checkpoint=Checkpoint(taken.checkpoint.server_id, position))


def test_an_oplog_that_was_overwritten_is_a_gap(inn: Guests) -> None:
    manager = small_oplog(inn)
    with agent(manager.node, timeout=60) as client:
        client.shop.rows.insert_many([{"_id": n, "pad": os.urandom(500)} for n in range(1000)])
        full = Keeper().take(manager.backup)
        overwrite(client, full)
        with pytest.raises(Hole, match=r"entries from \d+\.\d+ .* to \d+\.\d+ are gone"):
            Keeper(full).take(manager.backup)
        with pytest.raises(Mismatch):
            manager.backup.confirm(full.checkpoint)
        assert Keeper(full).take(manager.backup, on_hole="full").kind == "full"
    manager.service.stop()


def test_after_a_gap_only_what_changed_is_sent(served: Manager, inn: Guests, client: Client) -> None:
    sample(served).fill(500_000)
    rows = client.shop.rows
    rows.insert_many([{"_id": n, "pad": os.urandom(500)} for n in range(4000)])
    taken = full = Keeper().take(served.backup)
    for turn in range(3):
        rows.update_many({"_id": {"$mod": [97, turn]}}, {"$set": {"turn": turn}})
        rows.delete_many({"_id": {"$mod": [399, turn]}})
        rows.insert_many([{"n": n, "turn": turn} for n in range(20)])
        client.shop[f"new{turn}"].insert_one({"turn": turn})
        client.shop.new0.rename("new9") if turn == 1 else None
        rows.update_one({"_id": 50}, {"$set": {"flag": turn % 2}})
        with pytest.raises(Hole):
            Keeper(forgotten(taken)).take(served.backup)
        taken = Keeper(forgotten(taken)).take(served.backup, on_hole="full")
        assert taken.kind == "full"
        assert taken.new_bytes < full.size * 0.15
        rows.update_one({"_id": 60}, {"$set": {"after": turn}})
        taken = Keeper(taken).take(served.backup)
        assert taken.kind == "incremental"
        wanted = sample(served).digest()
        back = brought_back(inn, taken)
        assert sample(back).digest() == wanted
        assert documents(back.node, "sample_shop", "events") == documents(served.node, "sample_shop", "events")
        back.service.stop()


def gone(client: Client, taken: Taken) -> bool:
    moment = Position.of(taken.checkpoint.position).ts
    return client.local["oplog.rs"].find_one({"ts": moment}) is None


def test_a_server_that_dies_while_it_is_read_makes_no_backup(served: Manager, client: Client) -> None:
    client.shop.rows.insert_many([{"_id": n, "pad": os.urandom(4000)} for n in range(3000)])
    pid = served.service.pid()
    assert pid is not None
    with pytest.raises(DatastoreError), served.backup.snapshot(None, Limits()) as snapshot:
        for number, _ in enumerate(snapshot.extents()):
            if number == 3:
                os.kill(pid, signal.SIGKILL)
    served.service.start()
    assert Keeper().take(served.backup).kind == "full"


def test_a_change_of_reign_is_seen(served: Manager, client: Client) -> None:
    client.shop.rows.insert_many([{"_id": n} for n in range(100)])
    with pytest.raises(Incomplete, match="election"), served.backup.snapshot(None, Limits()) as snapshot:
        list(snapshot.extents())
        served.service.stop()
        served.service.start()
        assert tuple(snapshot.files())
        snapshot.checkpoint()
    with pytest.raises(Incomplete), served.backup.snapshot(None, Limits()) as snapshot:
        snapshot.files()


def test_a_private_server_that_dies_fails_clean_and_leaves_nothing(
    served: Manager, inn: Guests, client: Client
) -> None:
    client.shop.rows.insert_many([{"_id": n, "pad": os.urandom(2000)} for n in range(2000)])
    taken = Keeper().take(served.backup)
    manager = inn.manager("mongodb", start=False)
    places, host = manager.node.places, manager.node.host
    host.folder(places.staging)

    def extents() -> Iterator[Any]:
        for number, each in enumerate(taken.extents()):
            if number == 5:
                server_on(places.staging).kill()
            yield each

    with pytest.raises(DatastoreError):
        manager.backup.restore(taken.in_order(), extents(), taken.checkpoint, places.staging, "new")
    manager.backup.sweep()
    assert not list(places.temp.iterdir())
    assert not list(places.run.glob("private*"))
    host.remove(places.staging)
    host.folder(places.staging)
    restore(manager.backup, taken, places.staging)
    host.remove(places.staging)


def server_on(folder: Path) -> psutil.Process:
    """Return the server that was started on this folder."""
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(folder) in each.cmdline() and "mongod" in each.name():
                return each
    raise AssertionError("there is no private server")


def test_nobody_else_can_reach_the_private_server(served: Manager, inn: Guests, client: Client) -> None:
    client.shop.rows.insert_one({"_id": 1})
    taken = Keeper().take(served.backup)
    manager = inn.manager("mongodb", start=False)
    places, host = manager.node.places, manager.node.host
    host.folder(places.staging)
    seen: list[tuple[int, list[Any]]] = []

    def extents() -> Iterator[Any]:
        for each in taken.extents():
            server = server_on(places.staging)
            mode = (places.run / "private.sock").stat().st_mode & 0o777
            seen.append((mode, [each for each in server.net_connections("inet") if each.status == "LISTEN"]))
            yield each

    manager.backup.restore(taken.in_order(), extents(), taken.checkpoint, places.staging, "new")
    assert seen
    assert all(each == (0o700, []) for each in seen)
    host.remove(places.staging)


def spoiled(change: Callable[[Taken], None], taken: Taken) -> Taken:
    copy = Taken(taken.kind, taken.checkpoint, taken.files, dict(taken.data))
    change(copy)
    return copy


def test_a_backup_that_lacks_something_is_refused(served: Manager, inn: Guests, client: Client) -> None:
    client.shop.rows.insert_many([{"_id": Int64(n)} for n in range(100)])
    full = Keeper().take(served.backup)
    client.shop.rows.delete_one({"_id": 5})
    middle = Keeper(full).take(served.backup)
    client.shop.rows.delete_one({"_id": 6})
    taken = Keeper(middle).take(served.backup)
    manager = inn.manager("mongodb", start=False)
    staging, host = manager.node.places.staging, manager.node.host

    def without_the_middle(copy: Taken) -> None:
        copy.files = tuple(each for each in copy.files if each.path != "oplog/000001.bson")

    def cut_short(copy: Taken) -> None:
        copy.files = tuple(each for each in copy.files if each.path != "oplog/000002.bson")

    def not_documents(copy: Taken) -> None:
        path = next(each.path for each in copy.files if each.path.startswith("data/") and each.size)
        copy.data[path] = b"\xff" * len(copy.data[path])

    def one_byte_less(copy: Taken) -> None:
        path = next(each.path for each in copy.files if each.path.startswith("data/") and each.size)
        copy.data[path] = copy.data[path][:-1]

    expected = {without_the_middle: Hole, cut_short: Mismatch, not_documents: Incomplete, one_byte_less: Incomplete}
    for change, kind in expected.items():
        host.folder(staging)
        with pytest.raises(kind):
            restore(manager.backup, spoiled(change, taken), staging)
        host.remove(staging)
    assert encode({})
