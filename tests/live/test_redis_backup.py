"""Backups of real Redis servers: what a restore must bring back, and what a backup must never do."""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from datastores.contract import BadInput, Checkpoint, Hole, Incomplete, Kept, Limits, Mismatch, NotReady, Secret
from datastores.manager import Manager
from datastores.redis.client import Connection, ServerError, agent, info
from datastores.redis.psync import Feed
from datastores.redis.sample import SampleData
from tests.guests import Guests
from tests.keeper import Held, bring_back, take

BORROWED = (
    *("rdbcompression", "repl-diskless-sync", "repl-diskless-sync-delay"),
    *("client-output-buffer-limit", "repl-timeout"),
)


@pytest.fixture
def source(inn: Guests) -> Iterator[Manager]:
    made = inn.manager("redis", "7.0")
    yield made
    made.service.stop()


@pytest.fixture
def target(inn: Guests) -> Iterator[Manager]:
    made = inn.manager("redis", "7.0")
    yield made
    made.service.stop()


def call(manager: Manager, *words: str | bytes | int) -> object:
    with agent(manager.node) as connection:
        return connection.call(*words)


def config(manager: Manager) -> dict[str, object]:
    return {name: call(manager, "CONFIG", "GET", name) for name in BORROWED}


def quiet(manager: Manager) -> None:
    """Have the server write nothing of its own into its log, as it does every ten seconds while somebody follows."""
    call(manager, "CONFIG", "SET", "repl-ping-replica-period", "3600")


def clients(manager: Manager) -> int:
    with agent(manager.node) as connection:
        return int(info(connection, "replication")["connected_slaves"])


def everything(connection: Connection) -> None:
    """Make one of each type, in both forms where there are two, in several databases, with all that hangs on it."""
    commands: list[tuple[str | bytes | int, ...]] = [
        ("SELECT", 0),
        ("SET", b"\x00\xffbin", b"\r\n\x00"),
        ("SET", "n", 7),
    ]
    commands += [("SET", "number", 2**40), ("SET", "empty", ""), ("APPEND", "long", "x" * 70000)]
    commands += [("RPUSH", "list", *range(5)), ("RPUSH", "longlist", *("y" * 300 for _ in range(200)))]
    commands += [
        ("SADD", "ints", *range(9)),
        ("SADD", "words", "a", "b"),
        ("SADD", "crowd", *(f"m{n}" for n in range(900))),
    ]
    commands += [("HSET", "small", "a", 1), ("HSET", "large", *(w for n in range(700) for w in (f"f{n}", n)))]
    commands += [
        ("ZADD", "z", 1, "a", "inf", "b", "-inf", "c"),
        ("ZADD", "zz", *(w for n in range(300) for w in (n, f"z{n}"))),
    ]
    commands += [("PFADD", "hll", *range(2000)), ("GEOADD", "geo", "13.3", "38.1", "here"), ("SETBIT", "bits", 9999, 1)]
    commands += [("XADD", "s", f"{n}-1", "f", n) for n in range(1, 300)]
    commands += [("XGROUP", "CREATE", "s", "g", 0), ("XGROUP", "CREATE", "s", "idle", "$")]
    commands += [("XREADGROUP", "GROUP", "g", "one", "COUNT", 20, "STREAMS", "s", ">"), ("XACK", "s", "g", "1-1")]
    commands += [("XREADGROUP", "GROUP", "g", "two", "COUNT", 5, "STREAMS", "s", ">"), ("XDEL", "s", "5-1")]
    commands += [("XADD", "gone", "1-1", "a", "b"), ("XTRIM", "gone", "MAXLEN", 0)]
    commands += [("SET", "later", "x", "PXAT", 4102444800000), ("HSET", "laterhash", "a", 1)]
    commands += [
        ("EXPIRE", "laterhash", 86400),
        ("SELECT", 9),
        ("SET", "n", "nine"),
        ("SELECT", 15),
        ("SET", "last", 1),
    ]
    commands += [("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 41 end)")]
    for reply in connection.pipeline(commands):
        assert not isinstance(reply, ServerError), reply


def test_every_kind_of_data_comes_back_from_a_full(source: Manager, target: Manager) -> None:
    with agent(source.node) as connection:
        everything(connection)
    before = SampleData(source.node).digest()
    assert set(before) == {"db0", "db9", "db15", "functions"}
    held = take(source.backup)
    assert held.kind == "full"
    bring_back(target, held)
    assert SampleData(target.node).digest() == before
    assert call(target, "FCALL", "f", 0) == 41


def test_every_kind_of_data_comes_back_from_slices(source: Manager, target: Manager) -> None:
    full = take(source.backup)
    with agent(source.node) as connection:
        everything(connection)
        connection.call("WAIT", 0, 1)
        connection.call("EVAL", "redis.call('set','by','script'); redis.call('select', 3); redis.call('incr','n')", 0)
        connection.pipeline([("MULTI",), ("INCR", "tx"), ("SELECT", 4), ("INCR", "tx"), ("EXEC",), ("SET", "after", 1)])
    first = take(source.backup, full)
    call(source, "SET", "between", "x")
    second = take(source.backup, first)
    assert [held.kind for held in (first, second)] == ["incremental", "incremental"]
    assert set(second.sent) == {"slice.2", "users.acl"}
    before = SampleData(source.node).digest()
    bring_back(target, second)
    assert SampleData(target.node).digest() == before


def test_every_kind_of_data_comes_back_after_a_hole(source: Manager, target: Manager) -> None:
    sample = SampleData(source.node)
    sample.fill(2_000_000)
    with agent(source.node) as connection:
        everything(connection)
    full = take(source.backup)
    sample.change(0.1, 1)
    with agent(source.node) as connection:
        connection.pipeline([("SELECT", 0), ("DEL", "words", "zz"), ("RENAME", "list", "tsil"), ("PERSIST", "later")])
        connection.pipeline([("SELECT", 7), ("SET", "new", 1), ("SELECT", 9), ("FLUSHDB",), ("FUNCTION", "FLUSH")])
        connection.call("FUNCTION", "LOAD", "#!lua name=other\nredis.register_function('g', function() return 42 end)")
    before = sample.digest()
    source.service.stop()
    source.service.start()
    with pytest.raises(Hole, match="is gone"):
        take(source.backup, full)
    second = take(source.backup, full, "full")
    assert second.kind == "full"
    assert "base.rdb" not in second.sent
    assert second.stored < full.stored / 2
    sample.change(0.05, 2)
    third = take(source.backup, second)
    assert third.kind == "incremental"
    assert [each.path for each in third.files if each.private] == ["table", "delta.1"]
    after = sample.digest()
    call(source, "SET", "back", "and forth")
    source.service.stop()
    source.service.start()
    fourth = take(source.backup, third, "full")
    last = sample.digest()
    for held, wanted in ((second, before), (third, after), (fourth, last)):
        bring_back(target, held)
        assert SampleData(target.node).digest() == wanted
    assert call(target, "FCALL", "g", 0) == 42


def test_a_value_that_returns_to_what_it_was_is_there_once(source: Manager, target: Manager) -> None:
    for n in range(20):
        call(source, "SET", f"k{n}", "first")
    held = take(source.backup)
    for value in ("second", "first"):
        call(source, "SET", "k3", value)
        source.service.stop()
        source.service.start()
        held = take(source.backup, held, "full")
    before = SampleData(source.node).digest()
    bring_back(target, held)
    assert SampleData(target.node).digest() == before


def test_sizes_of_the_second_backup(source: Manager, target: Manager) -> None:
    quiet(source)
    sample = SampleData(source.node)
    sample.fill(12_000_000)
    full = take(source.backup)
    assert sample.change(0.03, 1) > 0
    increment = take(source.backup, full)
    assert increment.stored <= 0.02 * full.stored
    nothing = take(source.backup, increment)
    assert set(nothing.sent) == {"users.acl"}
    source.service.stop()
    source.service.start()
    hole = take(source.backup, full, "full")
    assert hole.stored <= 0.07 * full.stored
    bring_back(target, hole)
    assert SampleData(target.node).digest() == sample.digest()
    source.service.stop()
    source.service.start()
    assert take(source.backup, hole, "full").stored <= 0.07 * full.stored, "nothing changed but the server"


def test_a_full_under_load_holds_what_was_acknowledged_before_its_position(source: Manager, target: Manager) -> None:
    SampleData(source.node).fill(4_000_000)
    stop = threading.Event()
    seen: dict[str, int] = {}

    def write() -> None:
        number = 0
        with agent(source.node) as connection:
            while not stop.is_set():
                number += 1
                connection.call("SELECT", number % 3)
                connection.call("SET", f"w:{number}", number)
                seen["last"] = number

    writer = threading.Thread(target=write)
    writer.start()
    try:
        full = take(source.backup, watch=lambda path, offset: time.sleep(0.01))
        acked = seen["last"]
        increment = take(source.backup, full)
    finally:
        stop.set()
        writer.join()
    assert any(each.path.startswith("slice.") for each in full.files)
    for held in (full, increment):
        bring_back(target, held)
        found = []
        for database in range(3):
            with agent(target.node) as connection:
                connection.call("SELECT", database)
                keys = connection.items("KEYS", "w:*")
                found += [int(bytes(each).removeprefix(b"w:")) for each in keys if isinstance(each, bytes)]
        assert sorted(found) == list(range(1, len(found) + 1)), "a prefix of what was written, with no gap"
    assert len(found) >= acked


def test_wait_never_counts_a_backup_and_no_trace_is_left(source: Manager) -> None:
    SampleData(source.node).fill(3_000_000)
    before = config(source)
    counted: list[object] = []

    def watch(path: str, offset: int) -> None:
        call(source, "SET", "x", offset)
        counted.append(call(source, "WAIT", 1, 50))

    full = take(source.backup, watch=watch)
    call(source, "SET", "x", "more")
    take(source.backup, full, watch=watch)
    assert len(counted) > 4
    assert set(counted) == {0}
    assert config(source) == before
    assert _soon(lambda: clients(source) == 0)


def test_a_log_can_be_followed_past_the_replication_timeout(source: Manager) -> None:
    call(source, "CONFIG", "SET", "repl-diskless-sync-delay", "0")
    call(source, "CONFIG", "SET", "repl-timeout", "2")
    call(source, "CONFIG", "SET", "repl-ping-replica-period", "1")
    with contextlib.closing(Feed(source.node)) as feed:
        for _ in feed.ask():
            pass
        feed.full()
        for _ in feed.rdb():
            pass
        began = time.monotonic()
        assert any(time.monotonic() - began > 2.5 for _ in feed.log(10**6)), "it has ended"


def test_waiting_for_the_server_can_be_given_up(source: Manager) -> None:
    SampleData(source.node).fill(500_000)
    call(source, "CONFIG", "SET", "rdb-key-save-delay", "20000")
    call(source, "BGSAVE")
    before = config(source)
    with source.backup.snapshot(None, Limits()) as snapshot:
        extents = snapshot.extents()
        for _ in range(2):
            extent = next(extents)
            assert not isinstance(extent, Kept)
            assert (extent[1], len(extent[2])) == (0, 0)
    with agent(source.node) as connection:
        assert info(connection, "persistence")["rdb_bgsave_in_progress"] == "1", "it was waited for"
    assert config(source) == before
    assert _soon(lambda: clients(source) == 0)
    call(source, "CONFIG", "SET", "rdb-key-save-delay", "0")


def test_the_backlog_stays_and_a_short_one_is_a_hole(source: Manager) -> None:
    assert call(source, "CONFIG", "GET", "repl-backlog-ttl") == [b"repl-backlog-ttl", b"0"]
    full = take(source.backup)
    with agent(source.node) as connection:
        assert info(connection, "replication")["repl_backlog_active"] == "1"
        connection.call("CONFIG", "SET", "repl-backlog-size", "65536")
        for n in range(60):
            connection.call("SET", f"big{n}", secrets.token_bytes(8192))
        dumps = info(connection, "stats")["sync_full"]
    with pytest.raises(Hole, match=str(full.checkpoint.position["replication_id"])):
        take(source.backup, full)
    with agent(source.node) as connection:
        assert info(connection, "stats")["sync_full"] == dumps, "asking must not make the server dump"
    assert take(source.backup, full, "full").kind == "full"


def test_min_replicas_to_write_is_refused(source: Manager) -> None:
    call(source, "CONFIG", "SET", "min-replicas-to-write", "1")
    with pytest.raises(BadInput, match="min-replicas-to-write"):
        take(source.backup)
    with pytest.raises(ServerError, match="NOREPLICAS"):
        call(source, "SET", "x", 1)


def test_idle_times_are_kept_and_never_make_a_record_look_changed(source: Manager, target: Manager) -> None:
    call(source, "CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    SampleData(source.node).fill(1_000_000)
    full = take(source.backup)
    with agent(source.node) as connection:
        for _ in range(300):
            connection.call("GET", "order:0:1")
    source.service.stop()
    source.service.start()
    call(source, "CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    again = take(source.backup, full, "full")
    assert again.stored < 0.02 * full.stored
    bring_back(target, again)
    assert SampleData(target.node).digest() == SampleData(source.node).digest()


def test_giants_come_back_in_every_way(source: Manager, target: Manager) -> None:
    part = secrets.token_bytes(3_000_000)
    with agent(source.node) as connection:
        connection.call("SET", "small", "x")
        connection.call("SELECT", 2)
        connection.call("SET", "giant", part * 6)
        connection.call("RPUSH", "giantlist", *([part] * 6))
        connection.call("SET", "small", "x")
    full = take(source.backup)
    source.service.stop()
    source.service.start()
    hole = take(source.backup, full, "full")
    source.service.stop()
    source.service.start()
    again = take(source.backup, hole, "full")
    for held in (full, hole, again):
        bring_back(target, held)
        assert SampleData(target.node).digest() == SampleData(source.node).digest()


def test_settings_are_put_back_after_an_error(source: Manager) -> None:
    SampleData(source.node).fill(3_000_000)
    call(source, "CONFIG", "SET", "rdbcompression", "yes")
    call(source, "CONFIG", "SET", "repl-diskless-sync-delay", "7")
    before = config(source)

    def fail(path: str, offset: int) -> None:
        assert config(source) != before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take(source.backup, watch=fail)
    assert config(source) == before
    assert _soon(lambda: clients(source) == 0)
    assert list(source.node.places.temp.iterdir()) == []


def test_what_a_tenant_set_meanwhile_stays(source: Manager) -> None:
    def change(path: str, offset: int) -> None:
        call(source, "CONFIG", "SET", "repl-diskless-sync-delay", "9")

    take(source.backup, watch=change)
    assert call(source, "CONFIG", "GET", "repl-diskless-sync-delay") == [b"repl-diskless-sync-delay", b"9"]


CHILD = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from datastores.contract import Limits
from guestagent.declarations import load
from tests.guests import node_in
with load("redis").backup(node_in(Path({home!r}), "redis", "7.0")).snapshot(None, Limits()) as snapshot:
    next(iter(snapshot.extents()))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_sweep_puts_back_what_a_killed_agent_left(source: Manager, inn: Guests) -> None:
    SampleData(source.node).fill(3_000_000)
    before = config(source)
    home = inn.folder / source.node.guest_id
    script = CHILD.format(root=str(Path(__file__).parents[2]), home=str(home))
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert config(source) != before
    source.backup.sweep()
    source.backup.sweep()
    assert config(source) == before
    assert list(source.node.places.temp.iterdir()) == []
    assert _soon(lambda: clients(source) == 0)
    assert take(source.backup).kind == "full"


def test_sweep_forgets_what_a_dead_server_had(source: Manager, inn: Guests) -> None:
    note = source.node.places.temp / "redis-borrowed.json"
    source.service.stop()
    source.node.host.write(note, json.dumps({"rdbcompression": ["yes", "no"]}).encode())
    source.backup.sweep()
    assert not note.exists()


def test_a_server_killed_in_the_middle_is_no_backup(source: Manager) -> None:
    SampleData(source.node).fill(6_000_000)
    pid = source.service.pid()
    assert pid is not None

    def kill(path: str, offset: int) -> None:
        if offset == 0:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises((Incomplete, NotReady)):
        take(source.backup, watch=kill)
    source.service.start()
    assert take(source.backup).kind == "full"


def test_a_slow_reader_is_not_cut_by_the_buffer_limit(source: Manager, target: Manager) -> None:
    SampleData(source.node).fill(6_000_000)
    call(source, "CONFIG", "SET", "client-output-buffer-limit", "replica 1mb 1mb 1")
    before = config(source)

    def slow(path: str, offset: int) -> None:
        if path == "base.rdb":
            call(source, "SET", f"meanwhile{offset}", secrets.token_bytes(400_000))
            time.sleep(0.15)

    held = take(source.backup, watch=slow)
    assert config(source) == before
    assert sum(each.size for each in held.files if each.path.startswith("slice.")) > 2_000_000
    bring_back(target, held)
    assert SampleData(target.node).digest() == SampleData(source.node).digest()


def test_users_come_back_and_agent_and_root_stay_this_guests(source: Manager, target: Manager) -> None:
    source.part("users").create("bob", Secret("theirs"))  # type: ignore[attr-defined]
    source.part("root").enable()  # type: ignore[attr-defined]
    own = target.part("root").enable()  # type: ignore[attr-defined]
    target.part("users").create("carol", Secret("gone after"))  # type: ignore[attr-defined]
    full = take(source.backup)
    source.part("users").set_password("bob", Secret("newer"))  # type: ignore[attr-defined]
    increment = take(source.backup, full)
    sample = SampleData(target.node)
    for held, password in ((full, "theirs"), (increment, "newer")):
        bring_back(target, held)
        for _ in range(2):
            assert sample.login("bob", Secret(password))
            assert not sample.login("carol", Secret("gone after"))
            assert sample.login("default", Secret(own["password"]))
            assert not sample.login("default", Secret(""))
            target.service.stop()
            target.service.start()
    assert b"ostler" not in full.content["users.acl"]
    assert b"default" not in full.content["users.acl"]


def test_nobody_is_let_in_before_the_data_was_looked_at(source: Manager, target: Manager) -> None:
    source.part("users").create("bob", Secret("pw"))  # type: ignore[attr-defined]
    call(source, "SET", "a", 1)
    held = take(source.backup)
    keys = {"0": [2, 0]}
    wrong = replace(held, checkpoint=Checkpoint(held.checkpoint.server_id, {**held.checkpoint.position, "keys": keys}))
    with pytest.raises(Mismatch, match="database 0 holds 1 keys"):
        bring_back(target, wrong)
    assert not SampleData(target.node).login("bob", Secret("pw"))
    bring_back(target, held)
    assert SampleData(target.node).login("bob", Secret("pw"))


def test_letting_in_may_be_done_again_while_tenants_are_at_work(source: Manager, target: Manager) -> None:
    source.part("users").create("bob", Secret("pw"))  # type: ignore[attr-defined]
    held = take(source.backup)
    bring_back(target, held)
    call(target, "SET", "new", 1)
    data = target.node.places.data
    target.node.host.write(data / "ostler.users.in", held.content["users.acl"])
    target.admin.secure()
    assert sorted(each.name for each in data.iterdir() if each.name.startswith("ostler.users")) == []
    assert SampleData(target.node).login("bob", Secret("pw"))


def test_confirm_knows_one_checkpoint_from_another(source: Manager, target: Manager) -> None:
    quiet(source)
    full = take(source.backup)
    source.backup.confirm(full.checkpoint)
    call(source, "SET", "a", 1)
    with pytest.raises(Mismatch, match="stands at"):
        source.backup.confirm(full.checkpoint)
    increment = take(source.backup, full)
    bring_back(target, increment)
    with pytest.raises(Mismatch):
        target.backup.confirm(full.checkpoint)


def test_a_damaged_tail_of_the_log_fails_the_first_start(source: Manager, target: Manager) -> None:
    full = take(source.backup)
    for n in range(100):
        call(source, "SET", f"k{n}", n)
    held = take(source.backup, full)

    def cut(staging: Path) -> None:
        log = staging / "appendonlydir" / "appendonly.aof.1.incr.aof"
        os.truncate(log, log.stat().st_size - 5)

    with pytest.raises(Exception, match="[Tt]runcated|ended|Unexpected"):
        bring_back(target, held, swap=cut)
    target.service.stop()
    bring_back(target, held)
    assert call(target, "CONFIG", "GET", "aof-load-truncated") == [b"aof-load-truncated", b"yes"]


def test_a_gap_between_slices_is_refused(source: Manager, target: Manager) -> None:
    held = take(source.backup)
    for n in range(2):
        call(source, "SET", "a", n)
        held = take(source.backup, held)
    files = tuple(each for each in held.files if each.path != "slice.1")
    assert len(files) == len(held.files) - 1
    with pytest.raises(Mismatch, match="slice.2 begins at"):
        bring_back(target, replace(held, files=files))


def test_a_backup_of_other_data_is_no_parent(source: Manager, target: Manager) -> None:
    held = take(source.backup)
    with pytest.raises(Mismatch, match="other data"):
        take(target.backup, held, "full")
    bring_back(target, held)
    with pytest.raises(Mismatch, match="other data"):
        take(target.backup, held, "full")


def test_too_few_databases_are_refused_before_a_byte(source: Manager, target: Manager) -> None:
    held = take(source.backup)
    keys = {"400": [1, 0]}
    wrong = replace(held, checkpoint=Checkpoint(held.checkpoint.server_id, {**held.checkpoint.position, "keys": keys}))
    with pytest.raises(Mismatch, match="database 400"):
        bring_back(target, wrong)


def test_version_6_2_has_fulls_and_fulls_by_fingerprints(inn: Guests) -> None:
    source, target = inn.manager("redis", "6.2"), inn.manager("redis", "6.2")
    sample = SampleData(source.node)
    sample.fill(2_000_000)
    call(source, "SET", "soon", 1, "EX", 1000)
    full = take(source.backup)
    before = sample.digest()
    sample.change(0.03, 1)
    with pytest.raises(Hole, match="expiry"):
        take(source.backup, full)
    changed = take(source.backup, full, "full")
    assert changed.stored <= 0.07 * full.stored
    after = sample.digest()
    for held, wanted in ((full, before), (changed, after)):
        bring_back(target, held)
        assert SampleData(target.node).digest() == wanted
    for each in (source, target):
        each.service.stop()


def test_an_inventory_asked_for_too_early_is_incomplete(source: Manager) -> None:
    with source.backup.snapshot(None, Limits()) as snapshot:
        extents = snapshot.extents()
        assert not isinstance(next(extents), Kept)
        with pytest.raises(Incomplete):
            snapshot.files()
        with pytest.raises(Incomplete):
            snapshot.checkpoint()


def _soon(condition: object) -> bool:
    assert callable(condition)
    for _ in range(100):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_the_keeper_itself_holds_the_contract() -> None:
    held = Held("full", Checkpoint("s", {}), (), {}, {}, 0)
    assert list(held.extents()) == []
