"""The duties: heartbeats collapse, reports arrive in order, and no failure ends a loop."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from datastores.contract import NotReady
from guestagent.duties import Heartbeat, Loop, Post, Tidying, loops
from guestagent.errors import Unreachable
from guestagent.journal import SUCCEEDED
from guestagent.operations.guest import Guest
from tests.fakes_ops import FakeReporter, sham_guest
from tests.unit.test_journal import ended, row


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = sham_guest(tmp_path)
    yield made
    made.journal.close()


def until(held: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not held():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.01)


def test_heartbeats_collapse_while_nobody_listens_and_all_else_arrives_in_order(guest: Guest) -> None:
    reporter, heartbeat = FakeReporter(), Heartbeat(guest)
    post = Post(guest, reporter, heartbeat)
    reporter.away = True
    for _ in range(20):
        heartbeat.beat()
        with pytest.raises(Unreachable):
            post.drain()
    guest.journal.outbox.put("operation", "a", {"id": "a"})
    guest.journal.outbox.put("operation", "b", {"id": "b"})
    heartbeat.beat()
    assert guest.journal.outbox.waiting() == 3
    reporter.away = False
    post.drain()
    assert [(kind, body.get("id")) for kind, body, _ in reporter.reports] == [
        ("operation", "a"),
        ("operation", "b"),
        ("heartbeat", None),
    ]
    stamps = [sent for _, _, sent in reporter.reports]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] <= time.time() + 1.0
    assert guest.journal.outbox.waiting() == 0


def test_a_report_that_was_not_confirmed_is_sent_again_with_a_later_stamp(guest: Guest) -> None:
    reporter = FakeReporter()
    post = Post(guest, reporter, Heartbeat(guest))
    guest.journal.outbox.put("operation", "a", {"id": "a"})
    reporter.loses_answers = True
    with pytest.raises(Unreachable):
        post.drain()
    reporter.loses_answers = False
    post.drain()
    assert [body for _, body, _ in reporter.reports] == [{"id": "a"}, {"id": "a"}]
    assert reporter.reports[0][2] < reporter.reports[1][2]


def test_a_heartbeat_tells_the_status_and_when(guest: Guest) -> None:
    Heartbeat(guest).beat()
    found = guest.journal.outbox.first()
    assert found is not None
    assert (found.kind, found.body["status"], found.body["guest_id"]) == ("heartbeat", "NEW", "g1")
    assert found.body["heartbeat_at"] == guest.journal.facts.get("heartbeat_at")


def test_with_a_damaged_journal_failed_is_reported_all_the_same(guest: Guest) -> None:
    guest.journal.database.trouble = "a page is not what was written"
    reporter, heartbeat = FakeReporter(), Heartbeat(guest)
    post = Post(guest, reporter, heartbeat)
    for _ in range(3):
        heartbeat.beat()
        post.drain()
    assert [(kind, body["status"]) for kind, body, _ in reporter.reports] == [("heartbeat", "FAILED")] * 3
    stamps = [sent for _, _, sent in reporter.reports]
    assert stamps == sorted(set(stamps))


def test_a_loop_survives_its_failures_and_is_woken(guest: Guest) -> None:
    turns: list[float] = []
    wake = threading.Event()

    def turn() -> None:
        wake.clear()
        turns.append(time.monotonic())
        if len(turns) == 1:
            raise NotReady("not yet")
        if len(turns) == 2:
            raise ValueError("nobody foresaw this")
        if len(turns) == 3:
            raise Unreachable("nobody listens")

    loop = Loop("test", 0.2, turn, wake)
    loop.start()
    until(lambda: len(turns) >= 4)
    before = len(turns)
    wake.set()
    until(lambda: len(turns) > before)
    loop.stop()
    count = len(turns)
    time.sleep(0.5)
    assert len(turns) == count


def test_all_duties_together_report_a_healthy_beat(guest: Guest) -> None:
    reporter = FakeReporter()
    heartbeat, found = loops(guest, reporter, 0.1)
    heartbeat.beat()
    for each in found:
        each.start()
    until(lambda: len(reporter.reports) >= 3)
    for each in found:
        each.stop()
    stamps = [sent for _, _, sent in reporter.reports]
    assert stamps == sorted(set(stamps))


def test_old_outcomes_are_destroyed_and_older_operations_forgotten(guest: Guest) -> None:
    journal = guest.journal
    for name, ended_at in (("week", "2020-01-01T00:00:00.000Z"), ("fresh", None)):
        done = ended(journal, journal.ledger.add(row(name), {}), {"n": 1})
        if ended_at:
            journal.ledger.end(replace(done, state=SUCCEEDED, ended_at=ended_at), {"n": 1})
    day = ended(journal, journal.ledger.add(row("day"), {}), {"n": 1})
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - 2 * 86400))
    journal.ledger.end(replace(day, ended_at=at), {"n": 1})
    live = journal.ledger.add(row("live"), {"n": 2})
    assert journal.outbox.waiting() == 4
    Tidying(guest).tidy()
    assert journal.outbox.waiting() == 3
    assert {each.id: journal.bodies.outcome(each.id) for each in journal.ledger.all() if not each.live} == {
        "fresh": {"n": 1},
        "day": None,
    }
    assert journal.bodies.request(live.id) == {"n": 2}
