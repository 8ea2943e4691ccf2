"""The archive keeps what it was given, and shares what did not change."""

import json
import os
import random  # noqa: TID251 - data to back up, no keys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from objectstore.archive import Archive, Entry, Manifest, extract
from objectstore.archive.frames import AGAIN, LEVEL, LIGHT, Effort, compress, expand
from objectstore.archive.intake import MORE_OPEN
from objectstore.archive.model import GROUP, PACK
from objectstore.archive.pieces import span_size
from objectstore.retrying import Retrying
from objectstore.store import BadRequest, Corrupt, Exists, Missing, NoRoom, StoreError, split
from tests.fakes import Fault, FaultyStore, named, nth
from tests.fakes_archive import Hashed, MemoryStore, archive, entries, header, new_id, read, take

Files = dict[str, bytes]
SHORT = Hashed(size=256, width=64)
"""A cut of which a piece is 4 MiB, so that small files have several."""


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def test_a_backup_comes_back_as_it_was(tmp_path: Path) -> None:
    files = {"a": noise(1, 3 * GROUP + 5), "b/c": b"", "b/d": b"x" * 100, "e": noise(2, GROUP)}
    kept = archive()
    made = take(kept, files)
    assert read(kept, made) == files
    assert (made.logical_bytes, made.new_bytes, made.read_bytes) == (sum(map(len, files.values())),) * 3
    extract(kept.contents(made), tmp_path / "out")
    assert {str(file.relative_to(tmp_path / "out")): file.read_bytes() for file in walk(tmp_path / "out")} == files


def test_what_does_not_shrink_is_looked_at_in_passing_and_tried_again_once_in_a_while() -> None:
    effort = Effort()
    tried = [effort.level() for _ in range(3) if not effort.learn(100, 50)]
    assert tried == [LEVEL] * 3
    effort.learn(100, 100)
    levels = [effort.level() for _ in range(2 * AGAIN) if not effort.learn(100, 96)]
    assert levels.count(LEVEL) == 2
    assert levels[:3] == [LIGHT] * 3
    effort.learn(100, 94)
    assert effort.level() == LEVEL


@pytest.mark.parametrize("level", [LEVEL, LIGHT])
def test_a_frame_is_the_same_format_however_hard_it_was_tried(level: int) -> None:
    text = noise(5, GROUP // 2).hex().encode()
    packed = compress(text, level)
    assert expand(packed, len(text)) == text
    assert (len(packed) < 0.6 * len(text)) == (level == LEVEL)
    assert len(compress(noise(5, GROUP), level)) < GROUP * 1.001


def test_a_file_that_is_dense_to_its_middle_is_compressed_from_there_on() -> None:
    text = noise(3, (AGAIN + 8) * GROUP // 2).hex().encode()
    files = {"a": noise(4, 2 * GROUP) + text, "b": text}
    kept = archive()
    made = take(kept, files, cut=lambda path: None, workers=1)
    assert read(kept, made) == files
    assert made.stored_bytes < 2 * GROUP + AGAIN * GROUP + 0.6 * (8 * GROUP + len(text))


def walk(root: Path) -> list[Path]:
    return [file for file in root.rglob("*") if file.is_file()]


def test_stored_bytes_are_all_that_the_store_grew_by() -> None:
    store = MemoryStore()
    kept = archive(store)
    made = take(kept, {"a": noise(1, 40_000_000), "b": b"y" * 5000})
    assert made.stored_bytes == sum(map(len, store.objects.values()))
    assert max(len(data) for name, data in store.objects.items() if "-g-" in name) <= PACK


# -- increments


def changed(data: bytes, block: int, *numbers: int) -> bytes:
    spoilt = bytearray(data)
    for number in numbers:
        spoilt[number * block] ^= 255
    return bytes(spoilt)


def test_only_changed_blocks_are_stored_and_every_backup_stands_alone() -> None:
    kept = archive()
    first = {"a": noise(1, 2_000_000), "same": noise(2, 300_000)}
    second = first | {"a": changed(first["a"], 4096, 3, 4, 400)}
    third = second | {"a": changed(second["a"], 4096, 4, 488)}
    one = take(kept, first)
    two = take(kept, second, one)
    three = take(kept, third, two)
    assert (two.new_bytes, three.new_bytes) == (3 * 4096, 4096 + 2_000_000 % 4096)
    kept.delete(one.header.backup)
    kept.delete(two.header.backup)
    assert read(kept, kept.find(three.header.backup, three.digest)) == third
    with pytest.raises(Missing):
        kept.find(one.header.backup)


class Blunt(Hashed):
    """Its fingerprints do not tell a short block from its longer like: lengths must."""

    def _prints(self, buffer: memoryview) -> bytes:
        return b"".join(bytes(buffer[at : at + 16]).ljust(16, b"\0") for at in range(0, len(buffer), self.size))


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        (10_000, 10_000, 0),
        (10_000, 12_288, 4096),  # the short last block grew
        (12_288, 10_000, 10_000 - 8192),  # and shrank
        (10_000, 8192, 0),
        (8192, 10_000, 10_000 - 8192),
        (GROUP, GROUP + 1, 1),
        (GROUP + 1, GROUP, 0),
        (5, 0, 0),
        (0, 5, 5),
    ],
)
def test_last_blocks_of_other_lengths(before: int, after: int, new: int) -> None:
    data = noise(9, 2 * GROUP)
    kept = archive()
    one = take(kept, {"a": data[:before]}, cut=lambda path: Blunt())
    two = take(kept, {"a": data[:after]}, one, cut=lambda path: Blunt())
    assert two.new_bytes == new
    assert read(kept, two) == {"a": data[:after]}


def test_a_block_that_came_in_two_parts_counts_as_changed_next_time() -> None:
    kept = archive()
    files = {"a": noise(1, 10_000)} | {f"f{number}": b"1" for number in range(9)}
    others = [(f"f{number}", 0, b"1") for number in range(9)]
    extents = [("a", 0, files["a"][:5000]), *others, ("a", 5000, files["a"][5000:])]
    one = take(kept, files, extents=extents, cut=lambda path: Blunt())
    assert read(kept, one) == files
    two = take(kept, files, one, cut=lambda path: Blunt())
    assert two.new_bytes == 4096
    assert read(kept, two) == files


@pytest.mark.parametrize("other", [Hashed(lineage="restored"), Hashed(size=8192), Hashed(width=32), None])
def test_another_lineage_is_stored_as_new(other: Hashed | None) -> None:
    kept = archive()
    files = {"a": noise(1, 500_000)}
    one = take(kept, files)
    two = take(kept, files, one, cut=lambda path: other)
    assert two.new_bytes == 500_000
    assert read(kept, two) == files


def test_kept_files_are_the_parents_under_either_name() -> None:
    kept = archive()
    data = noise(3, 5_000_000)
    inventory = [Entry("now", "then", len(data)), Entry("p", "p", 3, private=True)]
    one = take(kept, {}, extents=[("then", 0, data), ("p", 0, b"abc")], inventory=inventory, cut=lambda path: None)
    two = take(kept, {}, one, keep=["now", "p"], inventory=[Entry("moved", "now", len(data)), Entry("p", "p", 3)])
    assert (two.new_bytes, two.read_bytes) == (0, 0)
    kept.delete(one.header.backup)
    assert read(kept, two) == {"moved": data, "p": b"abc"}
    assert kept.contents(one).read("p") == b"abc"
    assert [entry.path for entry in kept.contents(one).files] == ["p", "now"], "private files come first"


def test_nothing_changed_adds_next_to_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    kept = archive(store, tmp_path / "cache")
    files = {f"db/t{number}": noise(number, 4_000_000) for number in range(8)} | {f"s{n}": b"s" * n for n in range(300)}
    one = take(kept, files)
    two = take(kept, files, one)
    assert two.new_bytes == 0
    assert two.stored_bytes < 4096
    assert not [name for name in store.objects if two.header.attempt in name and "-g-" in name]
    changed_files = files | {"s7": b"changed"}
    three = take(kept, changed_files, two)
    assert three.stored_bytes < 20_000
    assert read(kept, three) == changed_files


# -- the cache


def test_the_cache_is_used_only_where_it_is_whole(tmp_path: Path) -> None:
    store = MemoryStore()
    kept = archive(store, tmp_path / "cache")
    files = {"a": noise(1, 3_000_000)}
    one = take(kept, files)
    parts = sorted((tmp_path / "cache").iterdir())
    assert {part.name for part in parts} == {ref.plain for ref in one.index}
    assert all(part.stat().st_mode & 0o777 == 0o600 for part in parts)
    index = {name: data for name, data in store.objects.items() if "/index." in name}
    for name in index:
        del store.objects[name]
    assert take(kept, files, one).new_bytes == 0, "the parent's index was not in the cache"
    for part in parts:
        part.write_bytes(bytes(len(part.read_bytes())))
    with pytest.raises(Corrupt):
        kept.contents(one)
    store.objects.update(index)
    assert take(kept, files, one).new_bytes == 0
    assert read(kept, one) == files


def test_the_cache_forgets_older_parts_and_touches_nothing_else(tmp_path: Path) -> None:
    kept = archive(cache=tmp_path)
    (tmp_path / "notes").write_text("another's")
    take(kept, {"a": b"1"})
    made = take(kept, {"b": b"2"})
    assert {file.name for file in tmp_path.iterdir()} == {ref.plain for ref in made.index} | {"notes"}


def test_a_lease_that_cannot_be_ended_is_no_failure() -> None:
    store = FaultyStore(MemoryStore(), Fault("error", "delete"))
    kept = archive(store)
    assert read(kept, take(kept, {"a": b"1"})) == {"a": b"1"}


# -- what a draft refuses


def refusal(kept: Archive, extents: list[tuple[str, int, bytes]], inventory: list[Entry]) -> str:
    with pytest.raises(Corrupt) as caught:
        take(kept, {}, extents=extents, inventory=inventory)
    assert list(kept.vault.store.list("ostler-backups", "manifest.")) == []
    return str(caught.value)


def test_gaps_overlaps_and_missing_bytes_make_no_backup() -> None:
    kept = archive()
    assert "offset 6" in refusal(kept, [("a", 0, b"12345"), ("a", 6, b"7")], [Entry("a", "a", 7)])
    assert "offset 4" in refusal(kept, [("a", 0, b"12345"), ("a", 4, b"5")], [Entry("a", "a", 6)])
    assert "offset 1" in refusal(kept, [("a", 1, b"2")], [Entry("a", "a", 2)])
    assert "5 bytes came" in refusal(kept, [("a", 0, b"12345")], [Entry("a", "a", 6)])
    assert "nothing came" in refusal(kept, [("a", 0, b"")], [Entry("a", "a", 0), Entry("b", "b", 0)])


@pytest.mark.parametrize("path", ["/a", "../a", "a/../b", "a//b", "", ".", "a\0b", "a/", "x" * 5000])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    refusal(archive(), [("a", 0, b"1")], [Entry(path, "a", 1)])


def test_two_files_of_one_name_are_refused() -> None:
    kept = archive()
    refusal(kept, [("a", 0, b"1")], [Entry("a", "a", 1), Entry("a", "a", 1)])
    refusal(kept, [("a", 0, b"1")], [Entry("a", "a", 1), Entry("a/b", "a", 1)])


def test_a_parent_that_is_not_the_one_named_is_refused() -> None:
    kept = archive()
    one, other = take(kept, {"a": b"1"}), take(kept, {"a": b"1"})
    with kept.draft(header(one)) as draft:
        draft.key()
        with pytest.raises(BadRequest):
            draft.open(kept.contents(other), lambda path, head: None)


def test_an_attempt_is_sealed_once() -> None:
    kept = archive()
    with kept.draft(header()) as draft:
        draft.key()
        draft.open(None, lambda path, head: None)
        with pytest.raises(BadRequest):
            draft.seal("full", "s", {})
        draft.close([])
        draft.seal("full", "s", {})
        with pytest.raises(BadRequest):
            draft.seal("full", "s", {})


def test_a_draft_that_is_left_ends_its_threads_and_deletes_nothing() -> None:
    store = MemoryStore()
    kept = archive(store)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), kept.draft(header()) as draft:
        draft.lease()
        draft.key()
        draft.open(None, lambda path, head: None)
        for number in range(40):
            draft.add("a", number * GROUP, os.urandom(GROUP))
        raise ZeroDivisionError
    assert threading.active_count() == before
    assert len([name for name in store.objects if "-g-" in name]) >= 1
    assert list(kept.manifests()) == []


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_failing_store_stops_the_draft(at: int) -> None:
    store = FaultyStore(MemoryStore(), Fault("error", "put", nth(at), lambda: NoRoom("full")))
    with pytest.raises(NoRoom):
        take(archive(store), {"a": os.urandom(60_000_000)})


def test_a_pack_that_the_store_spoils_is_noticed() -> None:
    store = FaultyStore(MemoryStore(), Fault("flip", "put", named("-g-")))
    with pytest.raises(Corrupt):
        take(archive(store), {"a": noise(1, 1000)})


def test_a_failing_fingerprint_stops_the_draft() -> None:
    class Broken(Hashed):
        def _prints(self, buffer: memoryview) -> bytes:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        take(archive(), {"a": noise(1, 30_000_000)}, cut=lambda path: Broken())


def test_an_answer_that_got_lost_is_no_failure() -> None:
    faulty = FaultyStore(MemoryStore(), Fault("lost", "put", once_each()))
    kept = archive(Retrying(faulty, pause=0.0))
    assert read(kept, take(kept, {"a": b"1"})) == {"a": b"1"}


def once_each() -> Callable[[int, str], bool]:
    """Fail at the first call for each name."""
    seen: set[str] = set()

    def when(number: int, name: str) -> bool:
        first = name not in seen
        seen.add(name)
        return first

    return when


# -- finding


def test_find_tells_digests_and_unknown_backups_apart() -> None:
    kept = archive()
    made = take(kept, {"a": b"1"})
    assert kept.find(made.header.backup, made.digest) == made
    for digest in ("", "0" * 63, made.digest.upper(), "g" * 64):
        with pytest.raises(BadRequest) as caught:
            kept.find(made.header.backup, digest)
        assert caught.value.field == "digest"
    with pytest.raises(Corrupt):
        kept.find(made.header.backup, "0" * 64)
    for backup in (new_id(), "nonsense", made.header.backup.upper()):
        with pytest.raises(Missing):
            kept.find(backup)


def test_the_wrong_key_reads_nothing_and_says_so() -> None:
    store = MemoryStore()
    made = take(archive(store), {"a": b"1"})
    other = archive(store, kek=bytes(32))
    for move in (lambda: other.find(made.header.backup), other.purge_plan):
        with pytest.raises(Corrupt, match="wrapped by key") as refused:
            move()
        assert refused.value.hint == "use the key file it was made with", "never to delete it"
    unread: list[StoreError] = []
    assert list(other.manifests(unread.append)) == []
    assert [made.header.backup in str(each) for each in unread] == [True]


def test_the_id_of_a_deleted_backup_is_not_used_again() -> None:
    kept = archive()
    made = take(kept, {"a": b"1"})
    kept.delete(made.header.backup)
    again = replace(header(), backup=made.header.backup)
    with pytest.raises(Exists) as caught:
        kept.draft(again)
    assert caught.value.field == "id"


def test_a_deleted_backup_stays_deleted_when_a_cluster_brings_its_manifest_back() -> None:
    store = MemoryStore()
    kept = archive(store)
    made = take(kept, {"a": b"1"})
    before = dict(store.objects)
    kept.delete(made.header.backup)
    assert {name for name in before if name not in store.objects} == {
        f"ostler-backups/manifest.{made.header.backup}.{made.header.attempt}"
    }
    store.objects.update(before)
    with pytest.raises(Missing):
        kept.find(made.header.backup)
    assert list(kept.manifests()) == []


def test_a_manifest_is_put_once() -> None:
    store = MemoryStore()
    kept = archive(store)
    head = header()
    store.objects[f"ostler-backups/manifest.{head.backup}.{head.attempt}"] = b"another's"
    with kept.draft(head) as draft:
        draft.key()
        draft.open(None, lambda path, _: None)
        draft.close([])
        with pytest.raises(Exists):
            draft.seal("full", "s", {})


def test_the_json_of_a_backup_has_the_fields_of_the_interface() -> None:
    kept = archive()
    made = take(kept, {"a": b"1"})
    row = json.loads(json.dumps(made.to_json(kept.copies(made))))
    wanted = (
        "id guest_id attempt digest kind parent generation state datastore version role server_id started_at ended_at "
        "logical_bytes read_bytes new_bytes stored_bytes copies position key_id members format"
    )
    assert set(wanted.split()) <= set(row)
    assert (row["state"], row["copies"], row["position"]) == ("COMPLETED", {"have": 1, "wanted": 1}, {"offset": 7})


def test_nothing_of_the_plain_data_is_in_the_store() -> None:
    store = MemoryStore()
    take(archive(store), {"db/secret-name": b"secret-content" * 1000})
    assert not [name for name, data in store.objects.items() if b"secret" in data or "secret" in name]


# -- extract


def test_extract_refuses_a_directory_that_holds_something(tmp_path: Path) -> None:
    kept = archive()
    made = take(kept, {"a": b"1"})
    (tmp_path / "x").write_text("mine")
    with pytest.raises(BadRequest):
        extract(kept.contents(made), tmp_path)
    assert (tmp_path / "x").read_text() == "mine"
    assert not (tmp_path / "a").exists()


def test_extract_keeps_modes_and_tells_progress(tmp_path: Path) -> None:
    kept = archive()
    inventory = [Entry("d/a", "a", 3, 0o640), Entry("b", "b", 0, 0o4777)]
    made = take(kept, {}, extents=[("a", 0, b"abc"), ("b", 0, b"")], inventory=inventory)
    told: list[tuple[int, int]] = []
    extract(kept.contents(made), tmp_path / "out", lambda done, total: told.append((done, total)))
    assert told[-1] == (3, 3)
    assert (tmp_path / "out/d/a").stat().st_mode & 0o7777 == 0o640
    assert (tmp_path / "out/b").stat().st_mode & 0o7777 == 0o777


# -- properties: any files, any edits, any interleaving, chains of five


def edited(chance: random.Random, files: Mapping[str, bytes], block: int) -> Files:
    """Return other files: blocks changed, files grown, cut, dropped, renamed and made."""
    result: Files = {}
    for path, data in files.items():
        move = chance.randrange(8)
        if move == 0:
            continue
        if move == 1:
            data = data + chance.randbytes(chance.randrange(3 * block))
        elif move == 2:
            data = data[: chance.randrange(len(data) + 1)]
        elif move == 3:
            data = changed(data, 1, *(chance.randrange(len(data)) for _ in range(5))) if data else data
        elif move == 4:
            path = f"{path}-{chance.randrange(3)}"
        result[path] = data
    if chance.randrange(2):
        result[f"new{chance.randrange(100)}"] = chance.randbytes(chance.randrange(4 * block))
    return result


def scattered(chance: random.Random, files: Mapping[str, bytes], most: int) -> list[tuple[str, int, bytes]]:
    """Return all bytes of the files as extents of any size, the files interleaved at will."""
    at = dict.fromkeys(files, 0)
    extents = [(path, 0, b"") for path, data in files.items() if not data]
    open_ = [path for path, data in files.items() if data]
    while open_:
        path = chance.choice(open_)
        size = chance.randrange(1, most)
        extents.append((path, at[path], files[path][at[path] : at[path] + size]))
        at[path] += size
        if at[path] >= len(files[path]):
            open_.remove(path)
    return extents


def really_new(old: Mapping[str, bytes], new: Mapping[str, bytes], block: int) -> int:
    count = 0
    for path, data in new.items():
        theirs = old.get(path, b"")
        for at in range(0, len(data), block):
            piece = data[at : at + block]
            count += 0 if piece == theirs[at : at + block] else len(piece)
    return count


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), block=st.sampled_from([256, 1000, 4096, 65536]), count=st.integers(0, 8))
def test_any_chain_of_backups_comes_back_and_shares_exactly_what_is_equal(seed: int, block: int, count: int) -> None:
    chance = random.Random(seed)
    kept = archive()
    cut = Hashed(size=block)
    files: Files = {f"f{number}": chance.randbytes(chance.randrange(8 * block)) for number in range(count)}
    made: list[tuple[Manifest, Files]] = []
    for _ in range(chance.randrange(1, 6)):
        parent, old = made[-1] if made else (None, {})
        files = dict(list(files.items())[:8])
        mixed = scattered(chance, files, 3 * block)
        sealed = take(kept, files, parent, cut=lambda path: cut, extents=mixed, workers=8 - MORE_OPEN)
        assert sealed.new_bytes == really_new(old, files, block)
        made.append((sealed, files))
        files = edited(chance, files, block)
    alone = chance.choice(made)
    for sealed, expected in made:
        assert read(kept, sealed) == expected
        if sealed is not alone[0]:
            kept.delete(sealed.header.backup)
    assert read(kept, kept.find(alone[0].header.backup)) == alone[1]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), workers=st.integers(1, 4))
def test_more_files_at_once_than_there_are_buffers(seed: int, workers: int) -> None:
    chance = random.Random(seed)
    kept = archive()
    files: Files = {f"f{number}": chance.randbytes(chance.randrange(60_000)) for number in range(30)}
    one = take(kept, files, extents=scattered(chance, files, 5000), workers=workers)
    assert read(kept, one) == files
    after = edited(chance, files, 4096)
    two = take(kept, after, one, extents=scattered(chance, after, 20_000), workers=workers)
    assert read(kept, two) == after


def test_files_of_several_pieces() -> None:
    size = span_size(SHORT.size, SHORT.width)
    assert size <= 4 << 20
    data = noise(4, 2 * size + 777)
    kept = archive()
    one = take(kept, {"a": data, "b": data[:100]}, cut=lambda path: SHORT)
    after = {"a": changed(data, 1, size, 2 * size - 1, 2 * size + 700) + b"more", "b": data[:100]}
    two = take(kept, after, one, cut=lambda path: SHORT)
    assert two.new_bytes == really_new({"a": data}, {"a": after["a"]}, 256)
    assert read(kept, two) == after
    shared = {ref.digest for ref in one.index} & {ref.digest for ref in two.index}
    assert shared, "nothing of the index was shared"


def test_names_of_any_kind_come_back() -> None:
    files = {"ünï/☃": b"1", "a b\n": b"2", "\udc80raw": b"3", "x" * 4000: b"4"}
    kept = archive()
    assert read(kept, take(kept, files)) == files


def test_identities_come_back() -> None:
    kept = archive()
    inventory = [Entry("a", "a", 1, 0o600, bytes(range(64)))]
    made = take(kept, {"a": b"1"}, inventory=inventory)
    assert list(kept.contents(made).files) == inventory


def test_every_object_has_a_name_that_stores_accept() -> None:
    store = MemoryStore()
    take(archive(store), {"a": b"1"})
    assert {split(name)[1].partition(".")[0] for name in store.objects if name.startswith("ostler-backups/")} == {
        "manifest",
        "index",
    }
    assert len(entries({"a": b"1"})) == 1
