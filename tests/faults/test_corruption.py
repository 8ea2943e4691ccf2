"""No wrong byte is ever released: a thousand ways to spoil an archive, none missed."""

import os
import random  # noqa: TID251 - data to back up, no keys

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from objectstore.archive import Archive
from objectstore.archive.seal import TAG, Sealer
from objectstore.archive.vault import Vault
from objectstore.keys import LocalKeys
from objectstore.store import Buffer
from tests.corruption import DAMAGES, Objects, Outcome, Truth, flip, gathered, judge, onslaught, truth_of
from tests.fakes_archive import KEK, MemoryStore, archive, take

ROUNDS = 2000 * int(os.environ.get("OSTLER_COUNT", "1"))


def sample() -> tuple[Objects, list[Truth]]:
    """Return the objects of three backups of one generation and one of another, and what they hold."""
    chance = random.Random(7)
    store = MemoryStore()
    kept = archive(store)
    files = {"db/t": chance.randbytes(60_000), "db/u": b"text " * 9000, "empty": b"", "log": chance.randbytes(5000)}
    truths, parent = [], None
    for number in range(3):
        parent = take(kept, files, parent)
        truths.append(Truth(parent.header.backup, parent.digest, dict(files)))
        files["db/t"] = files["db/t"][:8192] + chance.randbytes(8192) + files["db/t"][16384:]
        files[f"new{number}"] = chance.randbytes(3000)
    other = take(kept, files)
    truths.append(Truth(other.header.backup, other.digest, dict(files)))
    return dict(store.objects), truths


def test_the_oracle_finds_nothing_wrong_with_what_is_whole() -> None:
    objects, truths = sample()
    store = MemoryStore()
    store.objects = objects
    for truth in truths:
        assert archive(store).verify(archive(store).find(truth.backup, truth.digest)).ok


def test_no_corruption_is_missed() -> None:
    objects, truths = sample()
    outcome = onslaught(objects, truths, archive, ROUNDS, seed=1)
    assert outcome.missed == []
    assert sum(outcome.kinds.values()) >= ROUNDS * 2 // 3
    assert outcome.refused >= ROUNDS // 4
    assert set(outcome.kinds) == {damage.__name__ for damage in DAMAGES}


def test_what_is_gathered_from_a_store_is_what_a_reader_needs() -> None:
    objects, truths = sample()
    store = MemoryStore()
    store.objects = objects | {"ostler-backups/placement.x": b"{}"}
    assert gathered(store) == objects
    assert truth_of(archive(store), truths[1].backup) == truths[1]


@pytest.mark.parametrize("place", range(4))
def test_every_byte_of_the_small_objects_counts(place: int) -> None:
    """Flip a bit of every 7th byte of manifests, keys and index objects."""
    objects, truths = sample()
    truth = truths[2]
    refused = 0
    for name, data in objects.items():
        if "-g-" in name:
            continue
        for at in range(place, len(data), 28):
            store = MemoryStore()
            store.objects = objects | {name: data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]}
            outcome = onslaught_of_none(store, truth)
            assert not outcome, f"{name} at {at}: {outcome}"
            refused += 1
    assert refused > 50


def onslaught_of_none(store: MemoryStore, truth: Truth) -> list[str]:
    """Read one backup from a store that is damaged already."""
    outcome = Outcome()
    judge(outcome, "byte", truth, archive(store), store.objects, store.objects)
    return outcome.missed


class CarelessSealer(Sealer):
    """Seeded defect: frames are decrypted, and their tags are not looked at."""

    def __init__(self, realm: str, generation: str, attempt: str, key: bytes) -> None:
        super().__init__(realm, generation, attempt, key)
        self._key = key

    def open_frame(self, pack: int, number: int, sealed: Buffer) -> bytes:
        nonce = b"".join(part.to_bytes(4, "little") for part in (1, pack, number))
        counter = modes.CTR(nonce + (2).to_bytes(4, "big"))
        return Cipher(algorithms.AES(self._key), counter).decryptor().update(bytes(sealed)[:-TAG])


class CarelessVault(Vault):
    def sealer(self, generation: str, attempt: str) -> Sealer:
        return CarelessSealer(self.names.realm, generation, attempt, self._unwrap(generation, attempt))


def careless(store: MemoryStore) -> Archive:
    kept = archive(store)
    kept.vault = CarelessVault(store, "ostler", LocalKeys(KEK), None)
    return kept


def test_the_oracle_catches_a_reader_that_skips_the_tags() -> None:
    objects, truths = sample()
    assert onslaught(objects, truths, careless, 300, seed=2).missed


def test_the_careless_reader_is_right_where_nothing_is_damaged() -> None:
    objects, truths = sample()
    store = MemoryStore()
    store.objects = objects
    assert careless(store).verify(careless(store).find(truths[2].backup, truths[2].digest)).ok
    assert flip in DAMAGES
