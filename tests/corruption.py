"""An onslaught on archives, and the oracle that tells whether a reader withstood it.

It works on nothing but objects by name, so it serves archives of any making: those of
the unit tests, and those of live servers.
"""

import random  # noqa: TID251 - what to damage, no keys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from objectstore.archive import Archive
from objectstore.archive.needs import needs
from objectstore.store import Corrupt, Missing, Store
from tests.fakes_archive import MemoryStore

Objects = dict[str, bytes]


@dataclass(frozen=True)
class Truth:
    """One backup as it is meant to be: its id, its digest, and every file."""

    backup: str
    digest: str
    files: Mapping[str, bytes]


@dataclass
class Outcome:
    """What an onslaught came to: how often of each kind, how often refused, and what was missed."""

    kinds: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    harmless: int = 0
    missed: list[str] = field(default_factory=list)


Damage = Callable[[random.Random, Objects], str | None]


def flip(chance: random.Random, objects: Objects) -> str | None:
    name = _any(chance, objects)
    data = bytearray(objects[name])
    if not data:
        return None
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    objects[name] = bytes(data)
    return name


def truncate(chance: random.Random, objects: Objects) -> str | None:
    name = _any(chance, objects)
    objects[name] = objects[name][: chance.randrange(len(objects[name]) or 1)]
    return name


def extend(chance: random.Random, objects: Objects) -> str | None:
    name = _any(chance, objects)
    objects[name] += chance.randbytes(chance.randrange(1, 40))
    return name


def delete(chance: random.Random, objects: Objects) -> str | None:
    name = _any(chance, objects)
    del objects[name]
    return name


def overwrite(chance: random.Random, objects: Objects) -> str | None:
    """Put random bytes over a stretch, or nothing but zeroes, as disks do."""
    name = _any(chance, objects)
    data = bytearray(objects[name])
    at = chance.randrange(len(data) or 1)
    size = min(len(data) - at, chance.choice([16, 512, 4096]))
    data[at : at + size] = chance.choice([bytes(size), chance.randbytes(size)])
    objects[name] = bytes(data)
    return name


def swap(chance: random.Random, objects: Objects) -> str | None:
    one = _any(chance, objects)
    other = _any(chance, {name: data for name, data in objects.items() if kind(name) == kind(one)})
    objects[one], objects[other] = objects[other], objects[one]
    return one if one != other else None


def foreign(chance: random.Random, objects: Objects) -> str | None:
    """Put one object in the place of any other: another backup's, attempt's, or kind's."""
    one, other = _any(chance, objects), _any(chance, objects)
    objects[one] = objects[other]
    return one


def splice(chance: random.Random, objects: Objects) -> str | None:
    """Put the head of one object before the tail of another of its kind."""
    one = _any(chance, objects)
    other = _any(chance, {name: data for name, data in objects.items() if kind(name) == kind(one)})
    cut = chance.randrange(len(objects[one]) or 1)
    objects[one] = objects[one][:cut] + objects[other][cut:]
    return one


def roll_back(chance: random.Random, objects: Objects) -> str | None:
    """Put an older manifest in the place of a newer one, or take the newer one away."""
    names = sorted(name for name in objects if kind(name) == "manifest")
    one, other = chance.choice(names), chance.choice(names)
    objects[one] = objects[other]
    return one if one != other else None


def gathered(store: Store) -> Objects:
    """Return the objects of an archive that a reader uses: for an onslaught on one that was made elsewhere."""
    rows = [row for container in store.containers() for row in store.list(container)]
    return {row.name: store.get(row.name) for row in rows if kind(row.name) in ("manifest", "index", "key", "pack")}


def truth_of(kept: Archive, backup: str) -> Truth:
    """Return what a backup holds, read while it is whole."""
    found = kept.find(backup)
    files: dict[str, bytearray] = {}
    for path, _, data in kept.contents(found).extents():
        files.setdefault(path, bytearray()).extend(data)
    return Truth(backup, found.digest, {path: bytes(data) for path, data in files.items()})


def kind(name: str) -> str:
    """Return what sort of object a name is: manifest, index, key or pack."""
    container, _, key = name.partition("/")
    if container.endswith("-keys"):
        return "key"
    return "pack" if "-g-" in container else key.partition(".")[0]


DAMAGES: tuple[Damage, ...] = (flip, flip, flip, truncate, extend, delete, overwrite, swap, foreign, splice, roll_back)


def _any(chance: random.Random, objects: Mapping[str, bytes]) -> str:
    """Return a name: every kind as often as every other, so that small objects get their share."""
    wanted = chance.choice(sorted({kind(name) for name in objects}))
    return chance.choice(sorted(name for name in objects if kind(name) == wanted))


def onslaught(
    objects: Objects, truths: Sequence[Truth], reader: Callable[[MemoryStore], Archive], rounds: int, seed: int
) -> Outcome:
    """Damage a fresh copy of ``objects`` so many times, and each time read one backup back.

    Missed is: a byte that is not the truth's, a file that is short or not there without an error, and a damaged
    object that verify accepts.  An error other than ``Corrupt`` (``Missing`` where the manifest is gone) is raised.
    """
    outcome = Outcome()
    for number in range(rounds):
        chance = random.Random(seed * 1_000_003 + number)
        damaged = dict(objects)
        damage = chance.choice(DAMAGES)
        name = damage(chance, damaged)
        truth = chance.choice(truths)
        if name is None or damaged == objects:
            outcome.harmless += 1
            continue
        outcome.kinds[damage.__name__] += 1
        store = MemoryStore()
        store.objects = damaged
        judge(outcome, f"round {number}, {damage.__name__} of {name}", truth, reader(store), damaged, objects)
    return outcome


def judge(
    outcome: Outcome, what: str, truth: Truth, kept: Archive, damaged: Mapping[str, bytes], objects: Mapping[str, bytes]
) -> None:
    """Read one backup from a store that is damaged, and note what came of it."""
    try:
        wrong = _read(kept, truth)
        if wrong:
            outcome.missed.append(f"{what}: {wrong}")
            return
        needed = _needed(kept, truth)
        kept.verify(kept.find(truth.backup, truth.digest))
        if any(damaged.get(name) != objects.get(name) for name in needed):
            outcome.missed.append(f"{what}: verify accepted it")
        outcome.harmless += 1
    except Corrupt:
        outcome.refused += 1
    except Missing:
        if any(f"/manifest.{truth.backup}." in name for name in damaged):
            outcome.missed.append(f"{what}: Missing, though the manifest is there")
        outcome.refused += 1


def _needed(kept: Archive, truth: Truth) -> set[str]:
    manifest = kept.find(truth.backup, truth.digest)
    return {need.name for need in needs(manifest, kept.vault.names, kept.vault.keys.key_id)}


def _read(kept: Archive, truth: Truth) -> str:
    """Read a backup, and return what is wrong with what was released; the empty string: nothing."""
    contents = kept.contents(kept.find(truth.backup, truth.digest))
    at: dict[str, int] = {}
    for path, offset, data in contents.extents():
        expected = truth.files.get(path)
        if expected is None or offset != at.get(path, 0) or bytes(data) != expected[offset : offset + len(data)]:
            return f"wrong bytes of {path} at {offset}"
        at[path] = offset + len(data)
    short = [path for path, data in truth.files.items() if at.get(path) != len(data)]
    return f"{short[0]} ended early" if short else ""
