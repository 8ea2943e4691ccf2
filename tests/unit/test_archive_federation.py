"""The archive over a federation of two directories, one of which goes away."""

import shutil
from pathlib import Path

import pytest

from objectstore.archive import Archive, extract
from objectstore.keys import LocalKeys
from objectstore.realm import Realm, open_store
from objectstore.store import Corrupt, StoreError
from tests.fakes_archive import KEK, read, take

FILES = {"a": bytes(range(251)) * 12_000, "b": b"small", "c": b""}


def realm(tmp_path: Path) -> Realm:
    (tmp_path / "realm.toml").write_text(
        f"""
        [realm]
        name = "ostler"
        [cluster.east]
        url = "dir://{tmp_path}/east"
        region = "east"
        level = "hot"
        weight = 1
        [cluster.west]
        url = "dir://{tmp_path}/west"
        region = "west"
        level = "hot"
        weight = 1
        [policy]
        mirror = 2
        write_quorum = 1
        """
    )
    return Realm.read(tmp_path / "realm.toml")


def opened(tmp_path: Path, *, renew: bool = False) -> Archive:
    """Open the realm afresh, as a new process would."""
    found = realm(tmp_path)
    return Archive(open_store(found, renew=renew), found.name, LocalKeys(KEK), wanted=found.mirror, quorum=1)


def test_one_directory_away_between_backup_and_restore(tmp_path: Path) -> None:
    made = take(opened(tmp_path), FILES)
    assert opened(tmp_path).copies(made).state == "COMPLETED"
    (tmp_path / "west").rename(tmp_path / "gone")
    kept = opened(tmp_path)
    found = kept.find(made.header.backup, made.digest)
    assert read(kept, found) == FILES
    extract(kept.contents(found), tmp_path / "out")
    assert (kept.copies(found).state, kept.verify(found).copies.have) == ("DEGRADED", 1)
    assert [one.header.backup for one in kept.manifests()] == [made.header.backup]
    with pytest.raises(StoreError) as caught:
        kept.purge_plan()
    assert caught.value.retry
    (tmp_path / "gone").rename(tmp_path / "west")
    assert opened(tmp_path).copies(found).state == "COMPLETED"


def test_one_directory_away_during_the_backup(tmp_path: Path) -> None:
    first = take(opened(tmp_path), FILES)
    (tmp_path / "east").rename(tmp_path / "gone")
    changed = FILES | {"b": b"other"}
    second = take(opened(tmp_path), changed, first)
    assert opened(tmp_path).copies(second).state == "DEGRADED"
    (tmp_path / "gone").rename(tmp_path / "east")
    kept = opened(tmp_path)
    assert kept.copies(second).state == "DEGRADED"
    assert kept.repair(second).state == "COMPLETED"
    assert kept.verify(second).copies.have == 2
    (tmp_path / "west").rename(tmp_path / "gone")
    kept = opened(tmp_path)
    assert read(kept, kept.find(second.header.backup, second.digest)) == changed


@pytest.mark.parametrize("lost", ["east", "west"])
def test_a_directory_that_is_lost_for_good_is_made_anew(tmp_path: Path, lost: str) -> None:
    made = take(opened(tmp_path), FILES)
    shutil.rmtree(tmp_path / lost)
    kept = opened(tmp_path, renew=True)
    assert kept.repair(kept.find(made.header.backup)).state == "COMPLETED"
    other = "west" if lost == "east" else "east"
    (tmp_path / other).rename(tmp_path / "gone")
    kept = opened(tmp_path)
    assert read(kept, kept.find(made.header.backup, made.digest)) == FILES


def test_a_flipped_bit_in_the_only_directory_left(tmp_path: Path) -> None:
    made = take(opened(tmp_path), FILES)
    (tmp_path / "west").rename(tmp_path / "gone")
    pack = next((tmp_path / "east").glob("ostler-g-*/*.0"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    kept = opened(tmp_path)
    with pytest.raises(Corrupt):
        extract(kept.contents(kept.find(made.header.backup, made.digest)), tmp_path / "out")
    with pytest.raises(Corrupt):
        kept.verify(made)
    (tmp_path / "gone").rename(tmp_path / "west")
    kept = opened(tmp_path)
    assert read(kept, made) == FILES
    assert kept.repair(made).have == 2
    assert kept.verify(made).copies.have == 2


def test_a_dead_attempt_is_listed_as_free_and_the_rest_is_kept(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    made = take(kept, FILES)
    plan = kept.purge_plan()
    assert plan.free == ()
    assert set(plan.why) == set(plan.keep)
    kept.delete(made.header.backup)
    assert {name.split("/")[0] for name in kept.purge_plan().free} >= {
        f"ostler-g-{made.header.generation}",
        "ostler-keys",
    }
