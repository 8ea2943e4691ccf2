"""Several clusters as one store: copies, quorum, placement, and one of them away."""

import json
import threading
import zlib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectstore.clusters import Clusters, Member
from objectstore.directory import Directory
from objectstore.federation import Federation
from objectstore.placement import Mirror, Placements, Record
from objectstore.retrying import Retrying
from objectstore.store import (
    BadRequest,
    Corrupt,
    Denied,
    Exists,
    Missing,
    NoRoom,
    StoreError,
    Unavailable,
)
from tests.fakes import Fault, FaultyStore, always, named, nth

NAMES = ("east", "west", "north")


class House:
    """Faulty clusters below a folder, and federations over them as processes would open them."""

    def __init__(self, path: Path, count: int, copies: int, quorum: int) -> None:
        self.path, self.policy = path, Mirror(copies, quorum)
        self.clusters = {name: FaultyStore(Directory(path / name)) for name in NAMES[:count]}

    def open(self) -> Federation:
        members = [Member(name, Retrying(one, pause=0.001)) for name, one in self.clusters.items()]
        return Federation("r", members, self.policy)

    def away(self, *names: str) -> None:
        for name, one in self.clusters.items():
            one.away = name in names

    def record(self, cluster: str, generation: str) -> dict[str, object]:
        found = json.loads((self.path / cluster / "r-backups" / f"placement.{generation}").read_bytes())
        assert isinstance(found, dict)
        return found

    def holders(self, name: str) -> tuple[str, ...]:
        return tuple(cluster for cluster in self.clusters if (self.path / cluster / name).exists())


@pytest.fixture
def two(tmp_path: Path) -> House:
    return House(tmp_path, 2, 2, 1)


@pytest.fixture
def three(tmp_path: Path) -> House:
    return House(tmp_path, 3, 2, 1)


# -- copies and quorum


def test_copies_are_named(two: House) -> None:
    store = two.open()
    assert store.put("r-backups/a", [b"x"]).copies == ("east", "west")
    assert set(store.put("r-g-1/a", [b"x"]).copies) == {"east", "west"}
    assert set(store.stat("r-g-1/a").copies) == {"east", "west"}
    assert [set(found.copies) for found in store.list("r-g-1")] == [{"east", "west"}]


@pytest.mark.parametrize("container", ["r-backups", "r-keys", "r-g-1"])
def test_fewer_copies_hold_down_to_the_quorum(two: House, container: str) -> None:
    store = two.open()
    two.away("east")
    assert store.put(f"{container}/a", [b"x"]).copies == ("west",)
    two.away("east", "west")
    with pytest.raises(Unavailable) as caught:
        store.put(f"{container}/b", [b"x"])
    assert "east" in (caught.value.hint or "")
    assert "west" in (caught.value.hint or "")


def test_a_quorum_of_all_wants_all(tmp_path: Path) -> None:
    house = House(tmp_path, 2, 2, 2)
    store = house.open()
    store.put("r-backups/a", [b"x"])
    house.away("west")
    with pytest.raises(Unavailable) as caught:
        store.put("r-backups/b", [b"x"])
    assert (caught.value.hint or "").startswith("cluster west")


@pytest.mark.parametrize("policy", [Mirror(3, 1), Mirror(2, 3), Mirror(1, 0), Mirror(0, 0)])
def test_a_policy_that_cannot_be_is_refused(tmp_path: Path, policy: Mirror) -> None:
    with pytest.raises(BadRequest):
        Federation("r", [Member(name, Directory(tmp_path / name)) for name in NAMES[:2]], policy)


def test_clusters_have_names_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(BadRequest):
        Federation("r", [Member("a", Directory(tmp_path / name)) for name in NAMES[:2]], Mirror(1, 1))


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ((NoRoom, NoRoom), NoRoom),
        ((Denied, Denied), Denied),
        ((NoRoom, Unavailable), Unavailable),
        ((Denied, NoRoom), Denied),
    ],
)
def test_the_error_says_whether_to_try_again(
    two: House, errors: tuple[type[StoreError], ...], kind: type[StoreError]
) -> None:
    for cluster, error in zip(two.clusters.values(), errors, strict=True):
        cluster.faults = [Fault("error", "put", always, lambda error=error: error("no"))]
    with pytest.raises(kind) as caught:
        two.open().put("r-backups/a", [b"x"])
    assert type(caught.value) is kind


@pytest.mark.parametrize("kind", ["flip", "cut"])
def test_a_copy_that_reads_back_otherwise_is_none(two: House, kind: str) -> None:
    store = two.open()
    two.clusters["east"].faults = [Fault(kind, "put", named("/a"))]  # type: ignore[arg-type]
    put = store.put("r-backups/a", [b"what was sent"])
    assert (put.copies, put.crc) == (("west",), zlib.crc32(b"what was sent"))
    two.clusters["west"].faults = two.clusters["east"].faults
    with pytest.raises(Corrupt):
        store.put("r-backups/a", [b"what was sent"])


def test_what_fails_now_and_then_costs_no_copy(two: House) -> None:
    for cluster in two.clusters.values():
        cluster.faults = [Fault("torn", "put", nth(2, 4)), Fault("lost", "put", nth(6, 8))]
    store = two.open()
    for number in range(6):
        assert set(store.put(f"r-g-1/{number}", [b"%d" % number * 1000]).copies) == {"east", "west"}
    for member in store.members().values():
        assert [member.get(f"r-g-1/{number}") for number in range(6)] == [b"%d" % n * 1000 for n in range(6)]


def test_clusters_are_written_at_the_same_time(two: House) -> None:
    """Each put waits until the other cluster is at it, too."""
    both = threading.Barrier(2, timeout=20)

    class Meeting(FaultyStore):
        def put(self, name, data, *, only_new=False):  # type: ignore[no-untyped-def]
            both.wait()
            return super().put(name, data, only_new=only_new)

    members = [Member(name, Meeting(one)) for name, one in two.clusters.items()]
    Federation("r", members, Mirror(2, 2)).put("r-backups/a", [b"x"])


def test_a_dead_cluster_is_not_waited_for_again_and_again(tmp_path: Path) -> None:
    now = 0.0

    class Dead(FaultyStore):
        def put(self, name, data, *, only_new=False):  # type: ignore[no-untyped-def]
            nonlocal now
            self.calls["put"] += 1
            now += 30.0
            raise Unavailable("timed out")

    dead = Dead(Directory(tmp_path / "dead"))
    patient = Retrying(dead, attempts=4, patience=10.0, clock=lambda: now)
    store = Federation("r", [Member("east", Directory(tmp_path / "east")), Member("dead", patient)], Mirror(2, 1))
    for number in range(50):
        assert store.put(f"r-backups/{number}", [b"x"]).copies == ("east",)
    assert (dead.calls["put"], now) == (1, 30.0)


# -- only new


@pytest.mark.parametrize("away", NAMES[:2])
def test_only_new_sees_the_copy_of_any_cluster(two: House, away: str) -> None:
    store = two.open()
    two.away(away)
    store.put("r-backups/a", [b"first"], only_new=True)
    two.away()
    with pytest.raises(Exists):
        store.put("r-backups/a", [b"other"], only_new=True)
    assert store.get("r-backups/a") == b"first"
    assert two.holders("r-backups/a") == tuple(name for name in two.clusters if name != away)


@pytest.mark.parametrize("away", NAMES[:2])
def test_only_new_holds_with_a_cluster_away(two: House, away: str) -> None:
    store = two.open()
    two.away(away)
    assert len(store.put("r-backups/a", [b"first"], only_new=True).copies) == 1
    with pytest.raises(Exists):
        store.put("r-backups/a", [b"other"], only_new=True)


def test_only_new_needs_no_right_to_read(two: House) -> None:
    for cluster in two.clusters.values():
        cluster.faults = [
            Fault("error", method, always, lambda: Denied("no")) for method in ("get", "stat", "list", "delete")
        ]
    store = two.open()
    assert len(store.put("r-g-1/a", [b"x"], only_new=True).copies) == 2
    with pytest.raises(Exists):
        store.put("r-g-1/a", [b"x"], only_new=True)


# -- reading


@pytest.mark.parametrize("lost", ["away", "object", "container"])
def test_any_copy_is_read(two: House, lost: str) -> None:
    store = two.open()
    store.put("r-g-1/a", [b"0123456789"])
    store.put("r-g-1/b", [b"b"])
    first, second = store.where("r-g-1")
    if lost == "away":
        two.away(first)
    elif lost == "object":
        (two.path / first / "r-g-1" / "a").unlink()
    else:
        (two.path / first / "r-g-1").rename(two.path / "gone")
    for process in (store, two.open()):
        assert process.get("r-g-1/a", 2, 3) == b"234"
        assert process.stat("r-g-1/a").copies == (second,)
        assert [found.copies for found in process.list("r-g-1", "a")] == [(second,)]
        assert process.listing("r-g-1").silent == ((first,) if lost == "away" else ())


def test_missing_is_said_only_when_all_say_so(two: House) -> None:
    store = two.open()
    for move in (store.get, store.stat):
        two.away()
        with pytest.raises(Missing):
            move("r-backups/none")
        two.away("east")
        with pytest.raises(Unavailable) as caught:
            move("r-backups/none")
        assert (caught.value.hint or "").startswith("cluster east")


def test_nobody_answers(two: House) -> None:
    store = two.open()
    two.away(*two.clusters)
    for move in (
        lambda: store.get("r-g-1/a"),
        lambda: store.stat("r-g-1/a"),
        lambda: store.list("r-g-1"),
        lambda: store.listing("r-backups"),
        lambda: store.containers(),
        lambda: store.delete("r-g-1/a"),
    ):
        with pytest.raises(Unavailable):
            move()


def test_a_listing_is_the_union_and_says_what_it_lacks(two: House) -> None:
    store = two.open()
    for number, away in enumerate((("east",), ("west",), ())):
        two.away(*away)
        store.put(f"r-backups/{number}", [b"x"])
    two.away()
    whole = store.listing("r-backups")
    assert [(found.name[-1], found.copies) for found in whole.objects] == [
        ("0", ("west",)),
        ("1", ("east",)),
        ("2", ("east", "west")),
    ]
    assert whole.complete
    two.away("east")
    part = store.listing("r-backups")
    assert [found.name[-1] for found in part.objects] == ["0", "2"]
    assert (part.complete, part.silent) == (False, ("east",))


def test_a_copy_that_was_cut_off_is_not_counted(two: House) -> None:
    store = two.open()
    store.put("r-g-1/a", [b"0123456789"])
    (two.path / "west" / "r-g-1" / "a").write_bytes(b"0123")
    assert (store.stat("r-g-1/a").size, store.stat("r-g-1/a").copies) == (10, ("east",))
    assert [(found.size, found.copies) for found in store.list("r-g-1")] == [(10, ("east",))]


def test_a_delete_holds_when_no_cluster_has_it(two: House) -> None:
    store = two.open()
    store.put("r-g-1/a", [b"x"])
    two.away("west")
    with pytest.raises(Unavailable) as caught:
        store.delete("r-g-1/a")
    assert (caught.value.hint or "").startswith("cluster west")
    two.away()
    store.delete("r-g-1/a")
    assert two.holders("r-g-1/a") == ()


# -- placement


def test_a_generation_lives_where_it_is_recorded(three: House) -> None:
    store = three.open()
    for number in range(20):
        put = store.put(f"r-g-{number}/a", [b"x"])
        assert len(put.copies) == 2
        assert put.copies == store.where(f"r-g-{number}") == three.open().where(f"r-g-{number}")
        assert set(three.holders(f"r-g-{number}/a")) == set(put.copies)
        for cluster in three.clusters:
            assert three.record(cluster, str(number)) == {
                "clusters": list(put.copies),
                "format": 1,
                "generation": str(number),
                "known": sorted(NAMES),
            }


def test_the_record_stands_before_the_first_byte(three: House) -> None:
    for cluster in three.clusters.values():
        cluster.faults = [Fault("error", "put", named("r-g-"), lambda: Denied("no"))]
    with pytest.raises(Denied):
        three.open().put("r-g-1/a", [b"x"])
    for cluster in three.clusters:
        assert len(three.record(cluster, "1")["clusters"]) == 2  # type: ignore[arg-type]


def test_the_catalogue_lives_everywhere(three: House) -> None:
    store = three.open()
    for container in ("r-backups", "r-keys", "other", "r-gone", "x-g-1"):
        assert store.where(container) == NAMES
        assert store.put(f"{container}/a", [b"x"]).copies == NAMES


def test_every_process_places_alike(tmp_path: Path) -> None:
    one, other = House(tmp_path / "one", 3, 2, 1), House(tmp_path / "other", 3, 2, 1)
    for house in (one, other):
        house.path.mkdir()
    for number in range(20):
        assert one.open().put(f"r-g-{number}/a", [b"x"]).copies == other.open().put(f"r-g-{number}/a", [b"x"]).copies


@pytest.mark.parametrize("away", NAMES)
def test_a_cluster_that_is_down_is_passed_over_and_the_record_is_followed(three: House, away: str) -> None:
    three.away(away)
    store = three.open()
    placed = {f"r-g-{number}": store.put(f"r-g-{number}/a", [b"x"]).copies for number in range(10)}
    assert all(len(copies) == 2 and away not in copies for copies in placed.values())
    three.away()
    for container, copies in placed.items():
        process = three.open()
        assert process.where(container) == copies
        assert process.put(f"{container}/b", [b"y"]).copies == copies


def test_where_none_can_take_its_place_it_stays_wanted(two: House) -> None:
    two.away("east")
    store = two.open()
    assert store.put("r-g-1/a", [b"x"]).copies == ("west",)
    assert store.where("r-g-1") == ("west", "east")
    two.away()
    assert store.put("r-g-1/b", [b"x"]).copies == ("west", "east")


def test_the_record_comes_to_a_cluster_that_was_down(three: House) -> None:
    three.away("east")
    three.open().put("r-g-1/a", [b"x"])
    three.away()
    three.open().put("r-g-1/b", [b"x"])
    assert three.record("east", "1") == three.record("west", "1")
    assert three.record("east", "1")["known"] == sorted(NAMES)


def test_records_that_differ_all_count(three: House) -> None:
    for cluster, named_one in (("east", "east"), ("west", "west")):
        three.clusters[cluster].put("r-backups/placement.1", [Record((named_one,), ()).to_bytes("1")])
    assert three.open().where("r-g-1") == ("east", "west")
    three.open().put("r-g-1/a", [b"x"])
    assert {tuple(three.record(cluster, "1")["clusters"]) for cluster in NAMES} == {("east", "west")}  # type: ignore[arg-type]


def test_a_record_that_could_not_be_read_counts_later(three: House) -> None:
    for cluster in ("east", "west"):
        three.clusters[cluster].put("r-backups/placement.1", [Record((cluster,), ()).to_bytes("1")])
    three.away("west")
    store = three.open()
    assert store.where("r-g-1") == ("east", "north")
    three.away()
    assert store.where("r-g-1") == ("east", "west")


@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"[]", b'{"clusters": 7, "known": []}', b'{"clusters": [7], "known": []}', b"\xff", b"[" * 60_000],
)
def test_a_broken_record_is_read_elsewhere_and_mended(three: House, broken: bytes) -> None:
    copies = three.open().put("r-g-1/a", [b"x"]).copies
    for cluster in ("east", "north"):
        three.clusters[cluster].put("r-backups/placement.1", [broken])
    assert three.open().where("r-g-1") == copies
    assert three.open().put("r-g-1/b", [b"x"]).copies == copies
    assert three.record("east", "1") == three.record("west", "1")


def test_without_a_record_every_cluster_is_asked(three: House) -> None:
    store = three.open()
    store.put("r-g-1/a", [b"x"])
    for cluster in three.clusters.values():
        cluster.delete("r-backups/placement.1")
    fresh = three.open()
    assert fresh.where("r-g-1") == NAMES
    assert fresh.get("r-g-1/a") == b"x"
    assert len(fresh.stat("r-g-1/a").copies) == 2


def test_a_cluster_that_left_the_realm_is_replaced(tmp_path: Path) -> None:
    three, two = House(tmp_path, 3, 2, 1), House(tmp_path, 2, 2, 1)
    for number in range(10):
        three.open().put(f"r-g-{number}/a", [b"x"])
        assert set(two.open().put(f"r-g-{number}/b", [b"x"]).copies) == {"east", "west"}
        assert set(two.open().where(f"r-g-{number}")) == {"east", "west"}


def test_a_placement_that_cannot_be_recorded_is_none(tmp_path: Path) -> None:
    house = House(tmp_path, 3, 2, 2)
    house.away("east", "west")
    with pytest.raises(Unavailable):
        house.open().put("r-g-1/a", [b"x"])
    assert house.holders("r-g-1/a") == ()


def test_who_is_remembered(three: House) -> None:
    store = three.open()
    assert not store.placements.remembers("east")
    three.away("east")
    store.put("r-g-1/a", [b"x"])
    assert not store.placements.remembers("east")
    assert store.placements.remembers("west")
    three.away()
    three.open().put("r-g-2/a", [b"x"])
    assert store.placements.remembers("east")
    three.away("west", "north")
    assert not store.placements.remembers("east")


@given(weights=st.lists(st.sampled_from([1.0, 2.0, 4.0]), min_size=2, max_size=4), generation=st.uuids())
def test_a_placement_has_as_many_clusters_as_copies(weights: list[float], generation: object) -> None:
    members = [Member(f"c{n}", Directory(Path(f"/nonexistent/c{n}")), weight) for n, weight in enumerate(weights)]
    for copies in range(1, len(weights) + 1):
        placements = Placements("r", Clusters(members), Mirror(copies))
        chosen = placements._chosen(str(generation), Record(), {})
        assert len(set(chosen)) == len(chosen) == copies


def test_the_weight_is_the_share(tmp_path: Path) -> None:
    weights = {"a": 1.0, "b": 2.0, "c": 5.0}
    members = [Member(name, Directory(tmp_path / name), weight) for name, weight in weights.items()]
    placements = Placements("r", Clusters(members), Mirror(1))
    count = Counter(placements._chosen(str(number), Record(), {})[0] for number in range(4000))
    for name, weight in weights.items():
        assert abs(count[name] / 4000 - weight / 8) < 0.03
