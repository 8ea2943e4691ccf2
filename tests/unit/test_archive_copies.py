"""Several clusters: a whole copy is found if there is one, counted, and brought back."""

import pytest

from objectstore.archive import Archive, Manifest
from objectstore.store import Corrupt, Missing, Unavailable
from tests.fakes import FaultyStore
from tests.fakes_archive import MemoryStore, Twins, archive, read, take

FILES = {"a": bytes(range(256)) * 9000, "b": b"small", "c": b""}


def twins() -> tuple[MemoryStore, MemoryStore, Archive, Manifest]:
    east, west = MemoryStore(), MemoryStore()
    kept = archive(Twins(east, west), wanted=2)
    made = take(kept, FILES)
    return east, west, archive(Twins(east, west), wanted=2), made


def flipped(data: bytes, bit: int = 1) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ bit]) + data[middle + 1 :]


def needed(store: MemoryStore) -> list[str]:
    return [name for name in store.objects if "lease." not in name]


def test_both_copies_are_counted() -> None:
    east, _, kept, made = twins()
    assert (kept.copies(made).have, kept.copies(made).state) == (2, "COMPLETED")
    del east.objects[needed(east)[0]]
    assert (kept.copies(made).have, kept.copies(made).state) == (1, "DEGRADED")


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_copy_is_passed_over_told_and_repaired(how: str, which: int) -> None:
    names = needed(twins()[0])
    for number in range(len(names)):
        east, west, kept, made = twins()
        store, name = (east, west)[which], needed(east)[number]
        if how == "gone":
            del store.objects[name]
        else:
            store.objects[name] = flipped(store.objects[name]) if how == "flip" else store.objects[name][:-1]
        found = kept.find(made.header.backup, made.digest)
        assert read(kept, found) == FILES
        seen = kept.verify(found)
        assert (seen.ok, seen.copies.have, seen.copies.wanted) == (True, 1, 2)
        assert kept.repair(found).have == 2
        assert kept.verify(found).copies.have == 2
        assert east.objects == west.objects


@pytest.mark.parametrize("how", ["flip", "gone"])
def test_where_no_copy_is_whole_it_says_so(how: str) -> None:
    for number in range(len(needed(twins()[0]))):
        east, west, kept, made = twins()
        name = needed(east)[number]
        if "/manifest." in name and how == "gone":
            continue
        east.objects[name] = flipped(east.objects[name])
        if how == "flip":
            west.objects[name] = flipped(west.objects[name], 2)
        else:
            del west.objects[name]
        for move in (kept.verify, kept.repair):
            with pytest.raises(Corrupt):
                move(made)
        with pytest.raises(Corrupt):
            read(kept, kept.find(made.header.backup, made.digest))


def test_damage_in_different_frames_of_both_copies_is_survived() -> None:
    files = {"a": bytes(range(256)) * 40_000}
    east, west = MemoryStore(), MemoryStore()
    kept = archive(Twins(east, west))
    made = take(kept, files)
    pack = next(name for name in east.objects if "-g-" in name)
    east.objects[pack] = bytes([east.objects[pack][0] ^ 1]) + east.objects[pack][1:]
    west.objects[pack] = west.objects[pack][:-1] + bytes([west.objects[pack][-1] ^ 1])
    assert read(archive(Twins(east, west)), made) == files
    with pytest.raises(Corrupt):
        kept.verify(made)


def test_a_cluster_that_is_away_is_no_damage() -> None:
    east, west, _, made = twins()
    away = FaultyStore(west)
    kept = archive(Twins(east, away), wanted=2)
    away.away = True
    pack = next(name for name in east.objects if "-g-" in name)
    del east.objects[pack]
    with pytest.raises(Unavailable):
        kept.verify(made)
    with pytest.raises(Unavailable):
        read(kept, made)


def test_verify_counts_frames_and_what_they_hold() -> None:
    kept = archive()
    made = take(kept, FILES)
    told: list[tuple[int, int]] = []
    seen = kept.verify(made, lambda done, total: told.append((done, total)))
    assert (seen.frames, seen.bytes) == (4, sum(map(len, FILES.values())))
    assert (
        told[-1][0]
        == told[-1][1]
        == sum(pack.size for pack in made.packs) + made.size + sum(r.size for r in made.index)
    )


def test_an_unknown_backup_is_missing() -> None:
    with pytest.raises(Missing):
        archive().delete("00000000-0000-4000-8000-000000000000")
