"""Trying again: what, how often, and when no more."""

import random  # noqa: TID251 - the test's own draw
import zlib
from pathlib import Path

import pytest

from objectstore.directory import Directory
from objectstore.retrying import Retrying
from objectstore.store import Corrupt, Denied, Exists, Missing, NoRoom, StoreError, Unavailable
from tests.fakes import Fault, FaultyStore, always, nth


class Clock:
    """A clock that only sleeping moves, and what ``on_call`` says that asking takes."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Costly(FaultyStore):
    """A store whose asking takes ``seconds`` of the clock."""

    def __init__(self, inner: Directory, clock: Clock, *faults: Fault) -> None:
        super().__init__(inner, *faults)
        self.clock = clock
        self.seconds = 0.0

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        self.clock.now += self.seconds
        return super().get(name, start, length)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def inner(tmp_path: Path, clock: Clock) -> Costly:
    return Costly(Directory(tmp_path), clock)


@pytest.fixture
def store(inner: Costly, clock: Clock) -> Retrying:
    return Retrying(inner, attempts=4, pause=1.0, patience=60.0, clock=clock, sleep=clock.sleep)


def test_what_may_be_tried_again_is(store: Retrying, inner: Costly, clock: Clock) -> None:
    inner.faults = [Fault("error", "put", nth(1, 2, 3))]
    store.put("c/a", [b"x"])
    assert inner.calls["put"] == 4
    for number, pause in enumerate(clock.pauses):
        assert 0.5 * 2**number <= pause <= 2**number
    assert len(set(clock.pauses)) == 3


def test_it_ends_after_so_many_attempts(store: Retrying, inner: Costly) -> None:
    inner.faults = [Fault("error", "get")]
    with pytest.raises(Unavailable):
        store.get("c/a")
    assert inner.calls["get"] == 4


def test_it_ends_before_its_patience_does(inner: Costly, clock: Clock) -> None:
    inner.faults = [Fault("error", "get")]
    inner.seconds = 4.0
    store = Retrying(inner, attempts=100, pause=1.0, patience=10.0, clock=clock, sleep=clock.sleep)
    with pytest.raises(Unavailable):
        store.get("c/a")
    assert clock.now <= 100.0 + 10.0 + 4.0
    assert 2 <= inner.calls["get"] <= 3


@pytest.mark.parametrize("kind", [Missing, Denied, NoRoom, Corrupt, Exists])
def test_nothing_else_is_tried_again(store: Retrying, inner: Costly, kind: type[StoreError]) -> None:
    for method, move in (
        ("put", lambda: store.put("c/a", [b"x"])),
        ("get", lambda: store.get("c/a")),
        ("stat", lambda: store.stat("c/a")),
        ("list", lambda: store.list("c")),
        ("containers", lambda: store.containers()),
        ("delete", lambda: store.delete("c/a")),
    ):
        inner.faults = [Fault("error", method, always, lambda: kind("no"))]
        with pytest.raises(kind):
            move()
        assert inner.calls[method] == 1


@pytest.mark.parametrize("data", [b"", b"mine", random.Random(7).randbytes(3_000_000)], ids=len)
def test_a_lost_reply_to_only_new_is_recognised(store: Retrying, inner: Costly, data: bytes) -> None:
    inner.faults = [Fault("lost", "put", nth(1))]
    put = store.put("c/a", [data[:1], data[1:]], only_new=True)
    assert (put.size, put.crc) == (len(data), zlib.crc32(data))
    assert store.get("c/a") == data


@pytest.mark.parametrize("other", [b"", b"Mine", b"min", b"mine!"])
def test_what_another_put_is_not_taken_for_ours(store: Retrying, inner: Costly, other: bytes) -> None:
    store.put("c/a", [other])
    inner.faults = [Fault("error", "put", nth(2))]
    with pytest.raises(Exists):
        store.put("c/a", [b"mine"], only_new=True)
    assert store.get("c/a") == other


def test_what_we_may_not_read_is_not_claimed(store: Retrying, inner: Costly) -> None:
    inner.faults = [Fault("lost", "put", nth(1)), Fault("error", "stat", always, lambda: Denied("no"))]
    with pytest.raises(Exists):
        store.put("c/a", [b"mine"], only_new=True)


def test_without_a_failure_before_even_the_same_bytes_are_another_s(store: Retrying) -> None:
    store.put("c/a", [b"mine"])
    with pytest.raises(Exists):
        store.put("c/a", [b"mine"], only_new=True)


def test_a_torn_write_is_written_again(store: Retrying, inner: Costly) -> None:
    inner.faults = [Fault("torn", "put", nth(1))]
    assert store.put("c/a", [b"whole"]).crc == zlib.crc32(b"whole")
    assert store.get("c/a") == b"whole"


def test_a_torn_write_is_never_taken_for_ours(store: Retrying, inner: Costly) -> None:
    inner.faults = [Fault("torn", "put", nth(1))]
    with pytest.raises(Exists):
        store.put("c/a", [b"whole"], only_new=True)


def test_what_was_given_up_fast_is_asked_once(store: Retrying, inner: Costly) -> None:
    inner.away, inner.seconds = True, 0.1
    with pytest.raises(Unavailable):
        store.get("c/a")
    for asked in (5, 6, 7):
        with pytest.raises(Unavailable):
            store.get("c/a")
        assert inner.calls["get"] == asked
    inner.away = False
    store.put("c/a", [b"back"])
    inner.faults = [Fault("error", "get", nth(8))]
    assert store.get("c/a") == b"back"
    assert inner.calls["get"] == 9


def test_what_was_given_up_slowly_rests(store: Retrying, inner: Costly, clock: Clock) -> None:
    inner.away, inner.seconds = True, 5.0
    with pytest.raises(Unavailable):
        store.get("c/a")
    asked = inner.calls["get"]
    inner.away, inner.seconds = False, 0.0
    before = clock.now
    for move in (lambda: store.get("c/a"), lambda: store.list("c"), lambda: store.put("c/a", [b"x"])):
        with pytest.raises(Unavailable, match="not asked again"):
            move()
    assert (inner.calls["get"], inner.calls["put"], clock.now) == (asked, 0, before)
    clock.now += 51.0
    store.put("c/a", [b"x"])
    assert store.get("c/a") == b"x"


def test_an_answer_of_any_kind_ends_the_rest(store: Retrying, inner: Costly) -> None:
    inner.away = True
    with pytest.raises(Unavailable):
        store.stat("c/a")
    inner.away = False
    with pytest.raises(Missing):
        store.stat("c/a")
    inner.faults = [Fault("error", "stat", nth(6))]
    with pytest.raises(Missing):
        store.stat("c/a")
