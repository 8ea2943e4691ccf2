"""The journal: sealed, durable, and never believed when it is not what was written."""

import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from datastores.contract import Secret
from guestagent.errors import JournalCorrupt, SecondAgent, UnknownOperation
from guestagent.journal import RUNNING, SUCCEEDED, Journal, Row, look, open_journal
from guestagent.journal.clock import now

CANARY = "canary-7f3a9c"


def row(name: str = "op-1", **changes: object) -> Row:
    values = {
        "id": name,
        "request_id": f"request of {name}",
        "verb": "user.create",
        "version": "1",
        "state": RUNNING,
        "steps": (("accept", "pending"), ("create", "pending")),
        "digest": "d",
        "deadline": 2e9,
        "epoch": 1,
    }
    return Row(**{**values, **changes})  # type: ignore[arg-type]


def bytes_of(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file())


def ended(journal: Journal, added: Row, outcome: object) -> Row:
    done = replace(added, state=SUCCEEDED, ended_at=now())
    journal.ledger.end(done, outcome)
    return done


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    added = journal.ledger.add(row(), {"name": "ann", "password": CANARY})
    journal.ledger.keep(added.with_step("accept", "done"), "accept", {"made": Secret(CANARY)})
    journal.close()
    again = open_journal(tmp_path)
    assert again.boot_epoch == journal.boot_epoch + 1 == 2
    found = again.ledger.by_request("request of op-1")
    assert found is not None
    assert found.steps == (("accept", "done"), ("create", "pending"))
    assert again.bodies.request("op-1") == {"name": "ann", "password": CANARY}
    assert again.bodies.results("op-1") == {"accept": {"made": Secret(CANARY)}}
    again.close()


def test_no_secret_lies_on_disk_unsealed(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    added = journal.ledger.add(row(), {"password": CANARY})
    journal.ledger.keep(added, "accept", CANARY)
    journal.facts.set("note", CANARY)
    journal.outbox.put("backup", "b", {"note": CANARY})
    assert CANARY.encode() not in bytes_of(tmp_path)
    ended(journal, added, {"password": CANARY})
    assert CANARY.encode() not in bytes_of(tmp_path)
    journal.close()
    assert CANARY.encode() not in bytes_of(tmp_path)


def test_the_key_is_private_and_made_once(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    key = tmp_path / "keys" / "journal.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "journal.db").stat().st_mode) == 0o600
    before = key.read_bytes()
    open_journal(tmp_path).close()
    assert key.read_bytes() == before


def test_what_was_asked_is_destroyed_with_its_key_when_the_operation_ends(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    added = journal.ledger.add(row(), {"password": CANARY})
    sealed = journal.database.rows("SELECT key, request FROM operation")[0]
    ended(journal, added, {"fine": True})
    on_disk = bytes_of(tmp_path)
    assert all(part not in on_disk for part in sealed), "the old key or what it sealed is still in the file"
    assert journal.bodies.request("op-1") is None
    assert journal.bodies.outcome("op-1") == {"fine": True}
    journal.close()


def test_an_outcome_that_is_told_once_is_told_once(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    done = ended(journal, journal.ledger.add(row(once=True), {}), {"password": CANARY})
    [(key, body)] = journal.database.rows("SELECT key, outcome FROM operation")
    report = journal.outbox.first()
    assert report is not None and report.body["result"] is None
    assert journal.told(done)["result"] is None
    assert journal.told(done, deliver=True)["result"] == {"password": CANARY}
    assert journal.told(done, deliver=True)["result"] is None
    on_disk = bytes_of(tmp_path)
    assert key not in on_disk and body not in on_disk
    journal.close()


def test_a_second_agent_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    before = bytes_of(tmp_path)
    with pytest.raises(SecondAgent):
        open_journal(tmp_path)
    with pytest.raises(SecondAgent):
        look(tmp_path)
    assert bytes_of(tmp_path) == before
    journal.close()
    open_journal(tmp_path).close()


def test_a_dead_agents_journal_is_read_and_not_changed(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "state")
    ended(journal, journal.ledger.add(row(), {}), {"answer": 42})
    journal.ledger.add(row("op-2"), {})
    shutil.copytree(tmp_path / "state", tmp_path / "killed")
    journal.close()
    database = (tmp_path / "killed" / "journal.db").read_bytes()
    dead = look(tmp_path / "killed")
    told = [dead.told(each) for each in dead.ledger.all()]
    dead.close()
    assert [(each["id"], each["state"], each["result"]) for each in told] == [
        ("op-1", "succeeded", {"answer": 42}),
        ("op-2", "running", None),
    ]
    assert (tmp_path / "killed" / "journal.db").read_bytes() == database
    with pytest.raises(UnknownOperation):
        look(tmp_path / "nowhere")


def test_the_key_is_there_before_the_journal(tmp_path: Path) -> None:
    """A kill in the middle of the very first start leaves a key without a journal, which is no trouble."""
    open_journal(tmp_path / "state").close()
    key = tmp_path / "state" / "keys" / "journal.key"
    journal = tmp_path / "state" / "journal.db"
    assert key.stat().st_ctime_ns <= journal.stat().st_ctime_ns
    journal.write_bytes(b"")
    again = open_journal(tmp_path / "state")
    assert again.trouble is None
    again.close()


def test_a_torn_tail_is_dropped_and_the_rest_is_whole(tmp_path: Path) -> None:
    """Cut the write-ahead log at every byte of its last commit, as a kill in the middle of a write would."""
    journal = open_journal(tmp_path / "state")
    journal.ledger.add(row(), {"n": 1})
    log = tmp_path / "state" / "journal.db-wal"
    whole = log.stat().st_size
    journal.ledger.add(row("op-2"), {"n": 2})
    full = log.read_bytes()
    assert len(full) > whole
    for number, cut in enumerate(range(whole, len(full), 257)):
        copy = tmp_path / f"torn{number}"
        shutil.copytree(tmp_path / "state", copy)
        (copy / "journal.db-wal").write_bytes(full[:cut])
        again = open_journal(copy)
        assert again.trouble is None
        assert [each.id for each in again.ledger.all()] == ["op-1"]
        assert again.bodies.request("op-1") == {"n": 1}
        again.close()
    journal.close()


def test_no_flipped_bit_is_ever_believed(tmp_path: Path) -> None:
    """Flip a bit in every 61st byte of the file: the same is read, or changes are refused."""
    journal = open_journal(tmp_path / "state")
    for number in range(6):
        ended(journal, journal.ledger.add(row(f"op-{number}"), {"n": number}), {"n": number})
    journal.ledger.add(row("live"), {"n": 7})
    journal.facts.set("prepared", "digest")
    expected = [(each.id, each.state) for each in journal.ledger.all()]
    journal.close()
    whole = (tmp_path / "state" / "journal.db").read_bytes()
    found = 0
    for place in range(0, len(whole), 61):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "state", copy)
        bad = bytearray(whole)
        bad[place] ^= 1 << (place % 8)
        (copy / "journal.db").write_bytes(bad)
        again = open_journal(copy)
        if again.trouble is None:
            assert [(each.id, each.state) for each in again.ledger.all()] == expected
            assert again.bodies.request("live") == {"n": 7}
            assert again.facts.get("prepared") == "digest"
            assert again.boot_epoch == 2
        else:
            found += 1
            with pytest.raises(JournalCorrupt, match="changes are refused"):
                again.facts.set("prepared", "other")
        again.close()
    assert found > 20


def test_a_damaged_log_is_not_taken_for_a_torn_one(tmp_path: Path) -> None:
    """A bit flipped in a commit that others follow is damage: those others were on the disk when it happened."""
    journal = open_journal(tmp_path / "state")
    log = tmp_path / "state" / "journal.db-wal"
    places = []
    for number in range(5):
        journal.facts.set(f"fact{number}", number)
        places.append(log.stat().st_size)
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    journal.close()
    bad = bytearray((tmp_path / "copy" / "journal.db-wal").read_bytes())
    bad[places[0] + 100] ^= 1
    (tmp_path / "copy" / "journal.db-wal").write_bytes(bad)
    again = open_journal(tmp_path / "copy")
    assert again.trouble is not None
    again.close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    journal = open_journal(tmp_path)
    with pytest.raises(JournalCorrupt, match="newer agent"):
        journal.ledger.add(row(), {})
    journal.close()


def test_a_lost_key_is_told_and_no_other_is_made(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    (tmp_path / "keys" / "journal.key").unlink()
    journal = open_journal(tmp_path)
    with pytest.raises(JournalCorrupt, match="journal.key"):
        journal.ledger.add(row(), {})
    assert not (tmp_path / "keys" / "journal.key").exists()
    journal.close()


def test_a_row_moved_to_another_is_not_believed(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.ledger.add(row("op-1"), {"n": 1})
    journal.ledger.add(row("op-2"), {"n": 2})
    journal.close()
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("UPDATE operation SET head = (SELECT head FROM operation WHERE id = 'op-1') WHERE id = 'op-2'")
    connection.commit()
    connection.close()
    journal = open_journal(tmp_path)
    assert "op-2" in str(journal.trouble)
    journal.close()


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from guestagent.journal import SUCCEEDED, open_journal
from guestagent.journal.database import RESERVE
from tests.unit.test_journal import ended, row

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
journal = open_journal(disk)
assert (disk / "reserve").stat().st_blocks * 512 >= RESERVE
added = journal.ledger.add(row(), {})
try:
    with (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
except OSError as error:
    assert error.errno == 28
for number in range(40):
    journal.facts.set(f"fact{number}", "x" * 2000)
ended(journal, added, None)
assert journal.ledger.find("op-1").state == SUCCEEDED
assert not (disk / "reserve").exists()
(disk / "filler").unlink()
journal.database.keep_reserve()
assert (disk / "reserve").stat().st_blocks * 512 >= RESERVE
journal.close()
"""


def test_a_failure_can_be_written_on_a_full_disk(tmp_path: Path) -> None:
    """On a disk of 2 MB of its own, filled to the last byte."""
    run = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-c", FULL_DISK, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_a_newer_report_replaces_an_unsent_one_about_the_same(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for number in range(50):
        journal.outbox.put("heartbeat", "heartbeat", {"n": number})
    journal.outbox.put("operation", "op", {"state": "running"})
    journal.outbox.put("operation", "op", {"state": "succeeded"})
    assert journal.outbox.waiting() == 2
    first = journal.outbox.first()
    assert first is not None and first.body == {"n": 49}
    journal.outbox.put("heartbeat", "heartbeat", {"n": 50})
    journal.outbox.confirm(first)
    second = journal.outbox.first()
    assert second is not None and second.body == {"state": "succeeded"}
    journal.outbox.confirm(second)
    third = journal.outbox.first()
    assert third is not None and third.body == {"n": 50}, "the newer one was forgotten with the older"
    journal.close()


def test_sent_only_grows_also_over_restarts_and_when_the_clock_is_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    journal = open_journal(tmp_path)
    stamps = [journal.outbox.stamp() for _ in range(100)]
    assert stamps[-1] < clock[0] + 1.0
    clock[0] -= 86_400.0
    stamps += [journal.outbox.stamp() for _ in range(100)]
    journal.close()
    journal = open_journal(tmp_path)
    stamps.append(journal.outbox.stamp())
    clock[0] += 90_000.0
    stamps.append(journal.outbox.stamp())
    assert all(one < other for one, other in zip(stamps, stamps[1:], strict=False))
    assert stamps[-1] == clock[0]
    journal.close()
