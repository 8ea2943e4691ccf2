"""What may be freed, and what never."""

import json
import random  # noqa: TID251 - which backups to delete, no keys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from objectstore.collection import Backup, Estate, Working, plan
from objectstore.store import Corrupt, StoreError, Unavailable
from tests.fakes import FaultyStore
from tests.fakes_archive import MemoryStore, Twins, archive, header, read, take

A, B, G = (
    "aaaaaaaa-0000-4000-8000-00000000000a",
    "bbbbbbbb-0000-4000-8000-00000000000b",
    "99999999-0000-4000-8000-000000000009",
)
OBJECTS = (
    f"r-g-{G}/{A}.0",
    f"r-g-{G}/{B}.0",
    f"r-keys/{A}.k",
    f"r-keys/{B}.k",
    "r-backups/index.0",
    "r-backups/index.1",
)


def test_without_manifests_and_leases_all_is_free() -> None:
    assert plan(Estate("r", OBJECTS), 0.0).free == tuple(sorted(OBJECTS))


def test_what_a_backup_needs_is_kept_and_why_names_it() -> None:
    needs = frozenset({OBJECTS[0], OBJECTS[2], OBJECTS[4]})
    found = plan(Estate("r", OBJECTS, (Backup("one", G, needs),)), 0.0)
    assert set(found.keep) == needs
    assert set(found.free) == set(OBJECTS) - needs
    assert all("backup one" in found.why[name] for name in needs)
    assert set(found.why) == set(OBJECTS)


def test_a_lease_protects_the_attempt_its_generation_and_the_index() -> None:
    estate = Estate("r", (*OBJECTS, f"r-backups/lease.{A}", f"r-g-other/{B}.1"), (), (Working(A, G, 100.0),))
    assert set(plan(estate, 99.0).free) == {f"r-keys/{B}.k", f"r-g-other/{B}.1"}
    assert set(plan(estate, 100.0).keep) == set()
    assert f"r-g-{G}/{A}.0" in plan(estate, 100.0, grace=1.0).keep


def test_a_lease_that_cannot_be_read_protects_everything_but_itself_never_ends() -> None:
    estate = Estate("r", OBJECTS, (), (Working(A, "", float("inf")),))
    assert plan(estate, 1e12).free == ()


def test_grace_after_a_deletion() -> None:
    estate = Estate("r", OBJECTS, tombs={"one": 50.0})
    assert plan(estate, 59.0, grace=10.0).free == ()
    assert len(plan(estate, 60.0, grace=10.0).free) == len(OBJECTS)


def test_what_is_not_known_frees_nothing() -> None:
    with pytest.raises(Unavailable):
        plan(Estate("r", OBJECTS, silent=("west",)), 0.0)
    with pytest.raises(Corrupt, match=r"manifest\.x: cut off"):
        plan(Estate("r", OBJECTS, unreadable=(Corrupt("r-backups/manifest.x: cut off"),)), 0.0)


def test_other_objects_are_left_alone() -> None:
    names = ("other-backups/index.0", "r-backups/notes", "r-gone/x")
    assert plan(Estate("r", names), 0.0).free == ()


def test_a_dead_attempt_is_free_once_it_is_abandoned() -> None:
    store = MemoryStore()
    kept = archive(store)
    whole = take(kept, {"a": b"1" * 100_000})
    dead = header(whole)
    with pytest.raises(Corrupt), kept.draft(dead) as draft:
        draft.lease()
        draft.key()
        draft.open(kept.contents(whole), lambda path, head: None)
        draft.add("b", 0, b"2" * 100_000)
        draft.close([])
        raise Corrupt("killed")
    assert not [name for name in kept.purge_plan().free if dead.attempt in name]
    kept.abandon(dead.attempt)
    free = kept.purge_plan().free
    assert f"ostler-g-{dead.generation}/{dead.attempt}.0" in free
    assert len([name for name in free if dead.attempt in name]) == len(free) == 2
    lease = json.loads(store.objects.get(f"ostler-backups/lease.{dead.attempt}", b"{}"))
    assert lease == {}


def test_a_lease_says_what_a_collection_must_know() -> None:
    store = MemoryStore()
    kept = archive(store)
    head = header()
    with kept.draft(head) as draft:
        draft.lease()
        row = json.loads(store.objects[f"ostler-backups/lease.{head.attempt}"])
        assert (row["backup"], row["attempt"], row["generation"]) == (head.backup, head.attempt, head.generation)
        assert time.time() + 3600 < row["expires"] < time.time() + 48 * 3600


def test_an_incomplete_listing_is_refused() -> None:
    class Half(Twins):
        def listing(self, container: str, prefix: str = ""):  # type: ignore[no-untyped-def]
            found = super().listing(container, prefix)
            return type(found)(found.objects, ("west",))

    with pytest.raises(Unavailable):
        archive(Half(MemoryStore(), MemoryStore())).purge_plan()


def test_an_unreadable_manifest_is_refused() -> None:
    store = MemoryStore()
    kept = archive(store)
    made = take(kept, {"a": b"1"})
    name = f"ostler-backups/manifest.{made.header.backup}.{made.header.attempt}"
    store.objects[name] = store.objects[name][:-1]
    with pytest.raises(Corrupt, match="manifest") as refused:
        kept.purge_plan()
    assert "delete that backup" in str(refused.value.hint)


def test_a_store_that_is_away_is_refused() -> None:
    store = FaultyStore(MemoryStore())
    kept = archive(store)
    take(kept, {"a": b"1"})
    store.away = True
    with pytest.raises(StoreError) as caught:
        kept.purge_plan()
    assert caught.value.retry


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_freeing_what_is_free_leaves_every_backup_readable(seed: int) -> None:
    chance = random.Random(seed)
    store = MemoryStore()
    kept = archive(store)
    files = {f"f{number}": chance.randbytes(20_000) for number in range(4)}
    made = []
    for _ in range(chance.randrange(1, 5)):
        made.append((take(kept, files, made[-1][0] if made and chance.randrange(3) else None), files))
        files = {path: data[:8192] + chance.randbytes(len(data) - 8192) for path, data in files.items()}
    for sealed, _ in list(made):
        if chance.randrange(2):
            kept.delete(sealed.header.backup)
            made = [one for one in made if one[0] is not sealed]
    for name in kept.purge_plan().free:
        store.delete(name)
    fresh = archive(store)
    for sealed, expected in made:
        assert read(fresh, fresh.find(sealed.header.backup, sealed.digest)) == expected
    left = [name for name in store.objects if "tomb." not in name]
    assert made or left == []
