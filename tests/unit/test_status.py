"""The status: judged by what was seen, and moved only along the allowed ways."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datastores.contract import NotReady
from guestagent.operations.guest import Guest
from guestagent.status import MOVES, Questions, Seen, Status, judge, look, report, route
from tests.fakes_ops import ShamAdmin, ShamService, sham_guest

S = Status


@pytest.mark.parametrize(
    ("seen", "status"),
    [
        (Seen(), S.NEW),
        (Seen(changing=True), S.BUILDING),
        (Seen(failed=True), S.FAILED),
        (Seen(failed=True, changing=True), S.BUILDING),
        (Seen(prepared=True, answers=True), S.RUNNING),
        (Seen(prepared=True, answers=True, probed=True), S.HEALTHY),
        (Seen(prepared=True, answers=True, probed=True, changing=True), S.HEALTHY),
        (Seen(prepared=True, changing=True), S.BUILDING),
        (Seen(prepared=True), S.CRASHED),
        (Seen(prepared=True, stopped=True), S.SHUTDOWN),
        (Seen(prepared=True, stopped=True, answers=True), S.RUNNING),
        (Seen(sound=False, prepared=True, answers=True, probed=True), S.FAILED),
    ],
)
def test_judged_by_what_was_seen(seen: Seen, status: Status) -> None:
    assert judge(seen) == status


def test_every_way_is_of_allowed_moves_and_the_shortest() -> None:
    for old, new in itertools.product(Status, Status):
        if new == S.NEW and old not in (S.NEW, S.BUILDING):
            continue
        way = route(old, new)
        assert way[-1:] == ((new,) if old != new else ())
        assert all(there in MOVES[here] for here, there in itertools.pairwise((old, *way)))
        assert len(way) <= 3


def test_healthy_is_never_reached_without_running_first() -> None:
    assert [old for old in Status if S.HEALTHY in MOVES[old]] == [S.RUNNING]
    assert route(S.CRASHED, S.HEALTHY) == (S.RUNNING, S.HEALTHY)
    assert route(S.NEW, S.HEALTHY) == (S.BUILDING, S.RUNNING, S.HEALTHY)


@pytest.fixture
def guest(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = sham_guest(tmp_path)
    yield made
    made.journal.close()


def test_a_server_that_answers_and_a_probe_that_does_not_hold_is_running_only(guest: Guest) -> None:
    node = guest.manager.node
    ShamAdmin(node).initialise()
    guest.manager.settings.ensure()
    ShamService(node).start()
    assert judge(look(guest)) == S.NEW, "a server that was never prepared is not ours to judge"
    guest.journal.facts.set("prepared", "digest")
    assert judge(look(guest)) == S.HEALTHY
    (node.places.root / "unhealthy").touch()
    assert judge(look(guest)) == S.RUNNING
    ShamService(node).stop()
    assert judge(look(guest)) == S.CRASHED
    guest.journal.facts.set("stopped", True)
    assert judge(look(guest)) == S.SHUTDOWN


def test_the_report_has_the_fields_that_stay(guest: Guest) -> None:
    told = report(guest)
    assert {
        "guest_id", "epoch", "pid", "server_pid", "datastore", "version", "status", "role", "endpoint", "operations",
        "heartbeat_at",
    } <= told.keys()  # fmt: skip
    assert told["endpoint"] == {"host": "127.0.0.1", "port": 7777, "socket": str(guest.manager.node.endpoint.socket)}
    assert (told["status"], told["server_pid"], told["epoch"]) == ("NEW", None, 1)


def test_a_server_that_hangs_has_not_answered_and_is_asked_once() -> None:
    questions = Questions(patience=0.05)
    free, asked = threading.Event(), []

    def hang() -> None:
        asked.append(1)
        free.wait(10)

    assert not questions.holds("ping", hang)
    assert not questions.holds("ping", hang)
    assert len(asked) == 1
    free.set()
    assert Questions().holds("ping", lambda: None)


def test_a_no_that_somebody_else_has_asked_for_is_not_ours() -> None:
    """It may be of a moment before the server was up."""
    questions = Questions(patience=30)
    up, asked = threading.Event(), threading.Event()

    def early() -> None:
        asked.set()
        up.wait(30)
        raise NotReady("it is starting")

    with ThreadPoolExecutor(2) as crew:
        first = crew.submit(questions.holds, "ping", early)
        asked.wait(30)
        second = crew.submit(questions.holds, "ping", lambda: None)
        time.sleep(0.1)
        up.set()
        assert (first.result(), second.result()) == (False, True)
