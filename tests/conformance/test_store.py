"""What every store must do.  One suite: a further implementation is one row of ``STORES``."""

import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from objectstore.clusters import Member
from objectstore.directory import Directory
from objectstore.federation import Federation
from objectstore.placement import Mirror
from objectstore.retrying import Retrying
from objectstore.store import BadName, BadRequest, Exists, Missing, Store
from tests.fakes import Fault, FaultyStore, every

FAULTS = (Fault("error", "put", every(3)), Fault("lost", "put", every(5))) + tuple(
    Fault("error", method, every(3)) for method in ("get", "stat", "list", "containers", "delete")
)


def patient(store: Store) -> Store:
    return Retrying(store, attempts=12, sleep=lambda seconds: None)


def federation(path: Path, count: int, policy: Mirror, *faults: Fault) -> Store:
    stores = [patient(FaultyStore(Directory(path / f"c{n}"), *faults)) for n in range(count)]
    return Federation("r", [Member(f"c{n}", store) for n, store in enumerate(stores)], policy)


STORES: dict[str, Callable[[Path], Store]] = {
    "directory": lambda path: Directory(path / "store"),
    "retrying a faulty directory": lambda path: patient(FaultyStore(Directory(path / "store"), *FAULTS)),
    "federation of two": lambda path: federation(path, 2, Mirror(2, 1)),
    "federation of three, two copies": lambda path: federation(path, 3, Mirror(2, 2)),
    "federation of two faulty directories": lambda path: federation(path, 2, Mirror(2, 2), *FAULTS),
}

PLACES = ("r-g-1", "r-backups", "other")
"""A container of a generation, one of the catalogue and one of neither."""

half = st.from_regex(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}\Z")
bad_half = st.one_of(
    st.sampled_from(["", ".", "..", ".x", "a/b", "a\0", "a\n", "a b", "é", "a" * 201, "%2e", "~", "a\\b", "*"]),
    st.text().filter(lambda text: not all(c.isascii() and (c.isalnum() or c in "._-") for c in text)),
)
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(params=STORES, ids=lambda name: name.replace(" ", "-"))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def names(store: Store, container: str, prefix: str = "") -> list[str]:
    """List without the placement that a federation keeps beside ours."""
    return [found.name for found in store.list(container, prefix) if "/placement." not in found.name]


def test_what_was_put_is_there(store: Store, place: str) -> None:
    buffers = [b"one", bytearray(b""), memoryview(b"-two-"), memoryview(bytearray(16)).cast("Q"), b"three"]
    whole = b"one-two-" + bytes(16) + b"three"
    put = store.put(f"{place}/a", buffers)
    assert (put.name, put.size, put.crc) == (f"{place}/a", len(whole), zlib.crc32(whole))
    assert store.get(f"{place}/a") == whole
    assert store.stat(f"{place}/a").size == len(whole)
    assert [(found.name, found.size) for found in store.list(place, "a")] == [(f"{place}/a", len(whole))]


def test_an_empty_object_is_an_object(store: Store, place: str) -> None:
    for name, data in (("none", []), ("empty", [b"", bytearray()])):
        assert store.put(f"{place}/{name}", data).crc == 0
        assert store.get(f"{place}/{name}") == b""
        assert store.stat(f"{place}/{name}").size == 0


def test_more_buffers_than_one_call_to_the_system_takes(store: Store) -> None:
    buffers = [bytes([n % 251]) * (n % 7) for n in range(5000)]
    assert store.put("c/a", buffers).crc == zlib.crc32(b"".join(buffers))
    assert store.get("c/a") == b"".join(buffers)


def test_a_pack_of_odd_size(store: Store, place: str) -> None:
    data = bytes(range(256)) * (3 * 4096) + b"end"
    assert store.put(f"{place}/a", [data[:1000], memoryview(data)[1000:]]).crc == zlib.crc32(data)
    assert store.get(f"{place}/a") == data


@quick
@given(data=st.binary(max_size=64), start=st.integers(0, 80), length=st.none() | st.integers(0, 80))
def test_a_range_is_a_slice(store: Store, data: bytes, start: int, length: int | None) -> None:
    store.put("c/a", [data])
    assert store.get("c/a", start, length) == data[start : None if length is None else start + length]


@pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1)])
def test_a_range_is_not_negative(store: Store, start: int, length: int | None) -> None:
    store.put("c/a", [b"abc"])
    with pytest.raises(BadRequest):
        store.get("c/a", start, length)


def test_a_second_put_replaces_the_whole(store: Store, place: str) -> None:
    store.put(f"{place}/a", [b"a long one"])
    store.put(f"{place}/a", [b"short"])
    assert store.get(f"{place}/a") == b"short"
    assert len(names(store, place)) == 1


def test_only_new_never_replaces(store: Store, place: str) -> None:
    assert store.put(f"{place}/a", [b"first"], only_new=True).crc == zlib.crc32(b"first")
    for other in (b"other", b"", b"first and more", b"First"):
        with pytest.raises(Exists):
            store.put(f"{place}/a", [other], only_new=True)
    assert store.get(f"{place}/a") == b"first"
    assert names(store, place) == [f"{place}/a"]


def test_of_many_only_new_one_wins(store: Store, place: str) -> None:
    won: list[int] = []
    start = threading.Barrier(6)

    def run(number: int) -> None:
        start.wait()
        try:
            store.put(f"{place}/a", [b"%d" % number * 1000], only_new=True)
            won.append(number)
        except Exists:
            pass

    together(run, 6)
    assert len(won) == 1
    assert store.get(f"{place}/a") == b"%d" % won[0] * 1000


def test_of_many_puts_one_stands_whole(store: Store, place: str) -> None:
    together(lambda number: store.put(f"{place}/a", [bytes([number]) * 50_000] * 3), 4)
    found = store.get(f"{place}/a")
    assert found in [bytes([number]) * 150_000 for number in range(4)]
    assert names(store, place) == [f"{place}/a"]


def test_what_is_missing(store: Store, place: str) -> None:
    for _ in range(2):
        with pytest.raises(Missing):
            store.get(f"{place}/a")
        with pytest.raises(Missing):
            store.stat(f"{place}/a")
        assert names(store, place) == []
        store.put(f"{place}/b", [b"another"])
        store.delete(f"{place}/b")


def test_delete(store: Store, place: str) -> None:
    store.delete(f"{place}/a")
    store.put(f"{place}/a", [b"x"])
    store.put(f"{place}/b", [b"x"])
    store.delete(f"{place}/a")
    store.delete(f"{place}/a")
    with pytest.raises(Missing):
        store.get(f"{place}/a")
    assert names(store, place) == [f"{place}/b"]
    store.delete(f"{place}/b")
    assert names(store, place) == []
    store.put(f"{place}/a", [b"again"])
    assert store.get(f"{place}/a") == b"again"


def test_lists_are_in_order_and_by_prefix(store: Store, place: str) -> None:
    keys = ["b.10", "b.2", "B", "a", "_", "-", "0", "b", "bb.1"]
    for key in keys:
        store.put(f"{place}/{key}", [key.encode()])
    assert names(store, place) == [f"{place}/{key}" for key in sorted(keys)]
    assert names(store, place, "b.") == [f"{place}/b.10", f"{place}/b.2"]
    assert names(store, place, "x") == []
    assert names(store, "r-g-none") == []


def test_containers_are_in_order(store: Store) -> None:
    for container in ("b", "a", "r-g-2", "B"):
        store.put(f"{container}/x", [b""])
    assert [name for name in store.containers() if name != "r-backups"] == ["B", "a", "b", "r-g-2"]


def test_a_listing_that_heard_everybody_is_complete(store: Store, place: str) -> None:
    store.put(f"{place}/a", [b"x"])
    listing = store.listing(place)
    assert listing.complete
    assert [found.name for found in listing.objects if "/placement." not in found.name] == [f"{place}/a"]


def test_every_copy_can_be_read_by_itself(store: Store, place: str) -> None:
    put = store.put(f"{place}/a", [b"copied"])
    where = store.where(place)
    assert where
    assert set(put.copies) <= set(where)
    for member in where:
        assert store.members()[member].get(f"{place}/a") == b"copied"


@quick
@given(container=half, key=half, data=st.binary(max_size=40))
def test_every_good_name_is_kept(store: Store, container: str, key: str, data: bytes) -> None:
    name = f"{container}/{key}"
    store.put(name, [data])
    assert store.get(name) == data
    assert name in [found.name for found in store.list(container)]
    assert container in list(store.containers())
    store.delete(name)
    with pytest.raises(Missing):
        store.stat(name)


@quick
@given(bad=bad_half, good=half)
def test_no_other_name_is_accepted(store: Store, tmp_path: Path, bad: str, good: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    names_of_it = [f"{bad}/{good}", f"{good}/{bad}", f"{good}/{good}/{good}", f"/{good}", f"{good}/", good]
    for name in names_of_it + ([] if "/" in bad else [bad]):
        for move in (lambda name=name: store.put(name, [b"x"]), lambda name=name: store.delete(name)):
            with pytest.raises(BadName):
                move()
        for read in (store.get, store.stat):
            with pytest.raises(BadName):
                read(name)
    with pytest.raises(BadName):
        list(store.list(bad))
    assert sorted(tmp_path.rglob("*")) == before


def together(run: Callable[[int], object], count: int) -> None:
    """Run a thread for each number; re-raise what one of them raised."""
    raised: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            run(number)
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the test's own thread
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]
