"""Where a generation lives: decided once, recorded, and followed from then on.

The catalogue (``<realm>-backups``, ``<realm>-keys`` and whatever is no generation) is
kept by every cluster.  A generation's container ``<realm>-g-<generation>`` is kept by
``mirror`` of them.  Which ones is decided by the first write, by weighted
rendezvous: every process that sees the same clusters up decides alike.  A cluster
that is down is passed over where others can take its place.

The decision is the object ``<realm>-backups/placement.<generation>``, in every cluster
that can be reached, before the first byte of the generation::

    {"clusters": ["west", "east"], "format": 1, "generation": "…", "known": ["east", "north", "west"]}

``clusters``  are to hold the copies, the preferred one first
``known``     have been seen at work; a cluster that is known must not come back empty

Where records differ (two first writes that could not see each other), all that
they name counts.  A cluster that the realm no longer has is replaced by another.
"""

import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from objectstore.clusters import Clusters, failure
from objectstore.store import Missing, Stat, Store, StoreError

PREFIX = "placement."
_LIMIT = 1 << 16  # bytes of a record that are looked at


@dataclass(frozen=True)
class Mirror:
    """The policy: ``copies`` are wanted of every object, ``quorum`` are needed."""

    copies: int
    quorum: int = 1


@dataclass(frozen=True)
class Record:
    """One placement, as recorded."""

    clusters: tuple[str, ...] = ()
    known: tuple[str, ...] = ()

    def to_bytes(self, generation: str) -> bytes:
        """Return the record's one and only form."""
        fields = {"clusters": self.clusters, "format": 1, "generation": generation, "known": sorted(self.known)}
        return json.dumps(fields, sort_keys=True).encode() + b"\n"

    @classmethod
    def of(cls, data: bytes) -> "Record":
        """Return what a record says; of a broken one nothing, for another cluster has it, too."""
        try:
            found = json.loads(data)
            return cls(_names(found["clusters"]), _names(found["known"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return cls()

    def joined(self, other: "Record") -> "Record":
        """Return what either of two records names, in order."""
        return Record(_joined(self.clusters, other.clusters), _joined(self.known, other.known))


class Placements:
    """Decide, record and find where containers live."""

    def __init__(self, realm: str, clusters: Clusters, policy: Mirror) -> None:
        self._catalogue = f"{realm}-backups"
        self._prefix = f"{realm}-g-"
        self._clusters = clusters
        self._policy = policy
        self._lock = threading.Lock()
        self._found: dict[str, tuple[str, ...]] = {}
        self._decided: dict[str, tuple[str, ...]] = {}
        self._asking = threading.local()

    def where(self, container: str) -> tuple[str, ...]:
        """Return the clusters to read a container from; all of them where nothing is recorded."""
        generation = self._generation(container)
        if generation is None:
            return self._clusters.names
        if container not in self._found:
            record, errors = self._read(generation)
            if not record.clusters:
                return self._clusters.names
            names = self._chosen(generation, record, errors)
            if errors:  # one that does not answer now may know more later
                return names
            self._found[container] = names
        return self._found[container]

    def decide(self, container: str) -> tuple[str, ...]:
        """Return the clusters to write a container to; the decision is recorded when this returns."""
        generation = self._generation(container)
        if generation is None:
            return self._clusters.names
        with self._lock:
            if container not in self._decided:
                self._decided[container] = self._found[container] = self._recorded(generation)
            return self._decided[container]

    def remembers(self, cluster: str) -> bool:
        """Return whether another cluster knows this one to have been at work."""
        if getattr(self._asking, "now", False):  # the one we ask is itself in doubt
            return False
        self._asking.now = True
        try:
            others = (member.store for name, member in self._clusters.by_name.items() if name != cluster)
            return any(cluster in known for store in others for known in self._known(store))
        finally:
            self._asking.now = False

    def _known(self, store: Store) -> Iterable[tuple[str, ...]]:
        try:
            for found in store.list(self._catalogue, PREFIX):
                yield Record.of(store.get(found.name, 0, _LIMIT)).known
        except StoreError:
            return  # it bears no witness

    def _generation(self, container: str) -> str | None:
        return container.removeprefix(self._prefix) if container.startswith(self._prefix) else None

    def _read(self, generation: str) -> tuple[Record, Mapping[str, StoreError]]:
        """Return what all records of a generation name, and why which clusters did not answer."""
        answers = self._clusters.ask(self._clusters.names, self._get(generation))
        record = Record()
        for data in answers.good.values():
            record = record.joined(Record.of(data))
        return record, answers.errors

    def _get(self, generation: str) -> Callable[[Store], bytes]:
        def get(store: Store) -> bytes:
            try:
                return store.get(self._name(generation), 0, _LIMIT)
            except Missing:
                return b""

        return get

    def _name(self, generation: str) -> str:
        return f"{self._catalogue}/{PREFIX}{generation}"

    def _recorded(self, generation: str) -> tuple[str, ...]:
        record, errors = self._read(generation)
        names = self._chosen(generation, record, errors)
        at_work = self._put(generation, Record(names, record.known))
        if not set(at_work) <= set(record.known):  # known only now: a new one is initialised by that very write
            self._put(generation, Record(names, _joined(record.known, at_work)))
        return names

    def _put(self, generation: str, record: Record) -> tuple[str, ...]:
        """Record in every cluster that can be reached; return these."""
        body = record.to_bytes(generation)

        def put(store: Store) -> Stat:
            return store.put(self._name(generation), [body])

        answers = self._clusters.ask(self._clusters.names, put)
        if len(answers.good) < self._policy.quorum:
            raise failure(f"record where generation {generation} lives", answers.errors)
        return tuple(answers.good)

    def _chosen(self, generation: str, record: Record, errors: Mapping[str, StoreError]) -> tuple[str, ...]:
        """Return the recorded clusters, filled up to the number of copies: those that are up first."""
        recorded = [name for name in record.clusters if name in self._clusters.by_name]
        down = {name for name, error in errors.items() if error.retry}
        ranked = sorted(self._clusters.names, key=lambda name: (name in down, -self._score(generation, name)))
        spare = [name for name in ranked if name not in recorded]
        return tuple(recorded + spare[: max(0, self._policy.copies - len(recorded))])

    def _score(self, generation: str, name: str) -> float:
        """Return a weighted rendezvous score: the highest ones hold the generation."""
        digest = hashlib.blake2b(f"{generation}\0{name}".encode(), digest_size=8).digest()
        share = ((int.from_bytes(digest) >> 12) + 0.5) / 2**52  # exact, and neither 0 nor 1
        return -self._clusters.by_name[name].weight / math.log(share)


def _names(found: object) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise TypeError("a list of names is wanted")
    return tuple(found)


def _joined(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*one, *other]))
