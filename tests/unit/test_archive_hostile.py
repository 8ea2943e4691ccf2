"""Manifests and indexes that were made to harm, sealed with the right key."""

import json
import random  # noqa: TID251 - what to change, no keys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from objectstore.archive import Archive, Manifest, extract, frames
from objectstore.archive import manifest as roots
from objectstore.archive.index import FILES, MAP, Ref, digest, seal_part
from objectstore.archive.seal import MAJOR
from objectstore.store import Corrupt
from tests.fakes_archive import Hashed, MemoryStore, archive, read, take

DATA = random.Random(3).randbytes(30_000)
FILES_OF_IT = {"a": DATA, "b/c": b"xyz", "e": b""}

STRANGE: tuple[Any, ...] = (
    -1, 0, 1, 1 << 31, 1 << 32, 1 << 63, 1 << 80, 1.5, 1e308, True, None,
    "", ".", "..", "../x", "/x", "a/../../x", "a\0", "x" * 9000,
    [], {}, [[]], [None] * 9, "0" * 64, "\ud800", [[[[[[[[[[]]]]]]]]]],
)  # fmt: skip


def made() -> tuple[MemoryStore, Archive, Manifest]:
    store = MemoryStore()
    kept = archive(store)
    return store, kept, take(kept, FILES_OF_IT, cut=lambda path: Hashed(size=512))


def reseal(store: MemoryStore, kept: Archive, manifest: Manifest, change: Callable[[dict[str, Any]], Any]) -> None:
    """Put the manifest again with another JSON in it."""
    header = manifest.header
    name = kept.vault.names.manifest(header.backup, header.attempt)
    head, sealed = store.objects[name][:76], store.objects[name][76:]
    sealer = kept.vault.sealer(header.generation, header.attempt)
    plain = sealer.open_manifest(head, sealed)
    root = json.loads(frames.expand(plain, frames.content_size(plain)))
    changed = change(root)
    text = changed if isinstance(changed, bytes) else json.dumps(root).encode()
    store.objects[name] = head + sealer.seal_manifest(head, frames.compress(text))


def reseal_part(
    store: MemoryStore, kept: Archive, manifest: Manifest, kind: str, change: Callable[[bytes], bytes]
) -> Manifest:
    """Put a part of the index again with another content, and a manifest that names it."""
    header = manifest.header
    sealer = kept.vault.sealer(header.generation, header.attempt)
    ref = next(ref for ref in manifest.index if ref.kind == kind)
    plain = change(kept.contents(manifest).parts.load(ref))
    data = seal_part(sealer, 99, plain)
    ours = Ref(kind, digest(data), header.attempt, len(data), digest(plain), len(plain), ref.path, ref.start)
    store.objects[kept.vault.names.index(ours.digest)] = data
    other = replace(manifest, index=tuple(ours if one is ref else one for one in manifest.index))
    name = kept.vault.names.manifest(header.backup, header.attempt)
    store.objects[name] = roots.encode(other, kept.vault.names.realm, sealer)
    return other


def spoil(chance: random.Random, node: Any) -> None:
    """Put something strange in one place of a JSON document."""
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and chance.randrange(4):
            node = node[key]
            continue
        if chance.randrange(6) == 0:
            del node[key]
        else:
            node[key] = chance.choice(STRANGE)
        return


def harmless(kept: Archive, backup: str, into: Path) -> None:
    """Unpack; whatever is refused is refused as Corrupt, and nothing is written outside."""
    with suppress(Corrupt):
        extract(kept.contents(kept.find(backup)), into / "out")
    assert {entry.name for entry in into.iterdir()} <= {"out"}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_strange_values_in_the_manifest(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    store, kept, manifest = made()
    reseal(store, kept, manifest, lambda root: spoil(random.Random(seed), root))
    harmless(kept, manifest.header.backup, tmp_path_factory.mktemp("m"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), kind=st.sampled_from([FILES, MAP]))
@example(seed=140452873, kind=FILES)  # an identity that is not ASCII
def test_strange_values_in_the_index(seed: int, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    chance = random.Random(seed)
    store, kept, manifest = made()

    def change(plain: bytes) -> bytes:
        end = 4 + int.from_bytes(plain[:4], "little")
        head, body = json.loads(plain[4:end]), bytearray(plain[end:])
        if body and chance.randrange(2):
            at = chance.randrange(len(body) // 4) * 4
            body[at : at + 4] = chance.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", chance.randbytes(4)])
        else:
            spoil(chance, head)
        text = json.dumps(head).encode()
        return len(text).to_bytes(4, "little") + text + bytes(body)

    reseal_part(store, kept, manifest, kind, change)
    harmless(kept, manifest.header.backup, tmp_path_factory.mktemp("i"))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"{", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"NaN", b"1" * 5000]
)
def test_what_is_no_manifest_at_all(text: bytes) -> None:
    store, kept, manifest = made()
    reseal(store, kept, manifest, lambda root: text)
    with pytest.raises(Corrupt):
        kept.find(manifest.header.backup)


def test_a_manifest_that_would_unpack_to_gigabytes() -> None:
    store, kept, manifest = made()
    reseal(store, kept, manifest, lambda root: b" " * (17 << 20))
    with pytest.raises(Corrupt, match="believed"):
        kept.find(manifest.header.backup)


def test_unknown_fields_are_ignored() -> None:
    store, kept, manifest = made()

    def change(root: dict[str, Any]) -> None:
        root["minor"], root["later"] = 7, {"deep": [1]}
        root["packs"][0].append("later")
        root["index"][0].append({})

    reseal(store, kept, manifest, change)
    assert read(kept, kept.find(manifest.header.backup)) == FILES_OF_IT


@pytest.mark.parametrize("path", ["\ud800", "../out2", "/tmp/out2", "a/./b"])
def test_an_inventory_that_leads_elsewhere(path: str, tmp_path: Path) -> None:
    store, kept, manifest = made()
    quoted = json.dumps(path).encode()

    def change(plain: bytes) -> bytes:
        text = plain[4:].replace(b'[["a",', b"[[" + quoted + b",", 1)
        return len(text).to_bytes(4, "little") + text

    reseal_part(store, kept, manifest, FILES, change)
    with pytest.raises(Corrupt, match="path"):
        extract(kept.contents(kept.find(manifest.header.backup)), tmp_path / "out")


def test_another_major_format_is_refused() -> None:
    store, kept, manifest = made()
    name = kept.vault.names.manifest(manifest.header.backup, manifest.header.attempt)
    store.objects[name] = store.objects[name][:4] + bytes([MAJOR + 1]) + store.objects[name][5:]
    with pytest.raises(Corrupt, match="format 2"):
        kept.find(manifest.header.backup)


def test_a_file_that_is_longer_than_its_map() -> None:
    store, kept, manifest = made()
    for size in (len(DATA) + 1, len(DATA) - 1, 1 << 50):
        other = reseal_part(store, kept, manifest, FILES, partial(grown, size=size))
        with pytest.raises(Corrupt):
            read(kept, kept.find(other.header.backup))


def grown(plain: bytes, size: int) -> bytes:
    text = plain[4:].replace(b"30000", b"%d" % size, 1)
    return len(text).to_bytes(4, "little") + text
