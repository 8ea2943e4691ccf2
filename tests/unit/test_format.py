"""FORMAT.md and the program say the same: vectors, read and written, and a reader made from the page alone."""

import random  # noqa: TID251 - data to back up, no keys
import re
import uuid
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from objectstore.archive.index import MapPart, decode_files, encode_files, encode_map, seal_part
from objectstore.archive.manifest import _root
from objectstore.archive.seal import TAG, Sealer, context
from objectstore.keys import LocalKeys
from tests.fakes_archive import KEK, Hashed, MemoryStore, archive, read, take
from tests.format_reader import Reader, expand, vector

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "objectstore/archive/FORMAT.md").read_text()
REALM, KEY_FILE, OBJECTS, BACKUPS = vector((ROOT / "tests/vectors/archive-1.json").read_text())
GENERATION, ATTEMPT = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def hexes() -> dict[str, bytes]:
    """Return the vectors of the page by their labels."""
    block = PAGE.split("## 8. Vectors")[1].split("```")[1]
    rows = re.findall(r"^(.+?) {2,}([0-9a-f]+)$", block, re.MULTILINE)
    return {label: bytes.fromhex(text) for label, text in rows}


def test_the_vectors_of_the_page() -> None:
    told = hexes()
    sealer = Sealer("ostler", GENERATION, ATTEMPT, bytes(range(32)))
    assert context(b"F", "ostler", GENERATION, ATTEMPT) == told['context("F")']
    frame = bytearray(len(told["zstd(plain)"]) + TAG)
    sealer.seal_frame(3, 5, told["zstd(plain)"], memoryview(frame))
    assert frame == told["frame 5 of pack 3"]
    assert sealer.open_frame(3, 5, frame) == told["zstd(plain)"]
    head = told["index object 7"][:28]
    ours = head + sealer.seal_index(7, head, told["zstd(content)"])
    assert ours == told["index object 7"]
    assert blake3(ours).digest() == told["its name, index."]
    assert (expand(told["zstd(plain)"]), expand(told["zstd(content)"])) == (told["plain"], told["content"])
    assert LocalKeys(bytes(range(32))).key_id == told["key id, file 00 01 … 1f"].hex()


def backups() -> list[Reader]:
    return [Reader(OBJECTS, REALM, KEY_FILE, backup["id"]) for backup in BACKUPS]


def test_we_read_the_vector() -> None:
    store = MemoryStore()
    store.objects = dict(OBJECTS)
    kept = archive(store, kek=KEY_FILE)
    for backup in BACKUPS:
        found = kept.find(backup["id"], backup["digest"])
        assert read(kept, found) == backup["files"]
        assert kept.verify(found).ok
    assert {one.header.backup for one in kept.manifests()} == {backup["id"] for backup in BACKUPS}


def test_a_reader_made_from_the_page_reads_the_vector() -> None:
    for reader, backup in zip(backups(), BACKUPS, strict=True):
        assert blake3(OBJECTS[reader.name]).hexdigest() == backup["digest"]
        assert reader.files() == backup["files"]


def test_we_would_write_the_vectors_frames_again() -> None:
    count = 0
    for reader in backups():
        for piece, frames, _ in reader.pieces():
            for attempt, pack, number, offset, length, _ in zip(*frames, strict=True):
                writer = piece["attempts"][attempt]
                sealed, compressed = reader.frame(writer, pack, number, offset, length)
                ours = bytearray(length)
                sealer = Sealer(REALM, reader.generation, writer, reader.key(writer))
                sealer.seal_frame(pack, number, compressed, memoryview(ours))
                assert ours == sealed
                count += 1
    assert count >= 5


def test_we_would_write_the_vectors_index_again() -> None:
    for reader in backups():
        for kind in ("files", "map"):
            for head, compressed, plain in reader.parts(kind):
                part = MapPart(plain) if kind == "map" else None
                pieces = [part.piece(number) for number in range(len(part.keys))] if part else []
                assert (encode_map(pieces) if part else encode_files(decode_files(plain))) == plain
                attempt, number = str(uuid.UUID(bytes=head[8:24])), int.from_bytes(head[24:28], "little")
                sealer = Sealer(REALM, reader.generation, attempt, reader.key(attempt))
                sealed = head + sealer.seal_index(number, head, compressed)
                assert f"ostler-backups/index.{blake3(sealed).hexdigest()}" in OBJECTS
                assert seal_part(sealer, number, plain)[:28] == head


def test_we_would_write_the_vectors_manifests_again() -> None:
    store = MemoryStore()
    store.objects = dict(OBJECTS)
    kept = archive(store, kek=KEY_FILE)
    for reader in backups():
        found = kept.find(reader.root["backup"])
        stored = found.stored_bytes - found.size
        assert _root(found, REALM) | {"stored_bytes": stored} == reader.root
        sealer = Sealer(REALM, reader.generation, reader.attempt, reader.key(reader.attempt))
        assert reader.head + sealer.seal_manifest(reader.head, reader.compressed) == OBJECTS[reader.name]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), block=st.sampled_from([512, 5000, 65536]))
def test_a_reader_made_from_the_page_reads_whatever_we_write(seed: int, block: int) -> None:
    chance = random.Random(seed)
    store = MemoryStore()
    kept = archive(store)
    files = {f"d/f{n}": chance.randbytes(chance.randrange(200_000)) for n in range(4)} | {"empty": b""}
    one = take(kept, files, cut=lambda path: Hashed(size=block))
    files["d/f0"] = files["d/f0"][:1000] + b"!" + files["d/f0"][1001:]
    two = take(kept, files, one, cut=lambda path: Hashed(size=block))
    assert Reader(store.objects, "ostler", KEK, two.header.backup).files() == files


@pytest.mark.parametrize("text", ["64 lower-case", "OSTM", "OSTI", "`<realm>-g-<generation>/<attempt>.<n>`", "tomb."])
def test_the_page_speaks_of_what_there_is(text: str) -> None:
    assert text in PAGE
