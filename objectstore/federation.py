"""Several clusters that serve as one store.

Every object of the catalogue lies in every cluster, every object of a generation in the
clusters where that was placed (``placement``).  A ``put`` goes to all of them at once
and holds when ``quorum`` of them have it; its answer names them, and fewer than were
wanted is for the caller to call degraded.  A ``get`` takes the first copy that it gets.
A ``delete`` holds only when none has it.

A cluster that does not answer is not asked in vain for long: each is wrapped in
``Retrying``, which leaves it alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from objectstore.clusters import Answers, Clusters, Member, failure
from objectstore.placement import Mirror, Placements
from objectstore.store import (
    BadRequest,
    Buffer,
    Corrupt,
    Exists,
    Listing,
    Stat,
    Store,
    StoreError,
    check_container,
    checksum,
    split,
)


class Federation(Store):
    """Keep objects in several clusters of one realm by a policy."""

    def __init__(self, realm: str, members: Sequence[Member], policy: Mirror) -> None:
        if not 1 <= policy.quorum <= policy.copies <= len(members):
            raise BadRequest(
                f"{policy.copies} copies, {policy.quorum} of them needed, cannot be had of {len(members)} clusters",
                field="policy",
            )
        self._clusters = Clusters(members)
        self._policy = policy
        self.placements = Placements(realm, self._clusters, policy)

    def put(self, name: str, data: Sequence[Buffer], *, only_new: bool = False) -> Stat:
        container, _ = split(name)
        names = self.placements.decide(container)
        crc = checksum(data)

        def move(store: Store) -> Stat:
            found = store.put(name, data, only_new=only_new)
            if found.crc not in (None, crc):
                raise Corrupt(f"put {name}: what can be read back is not what was written")
            return found

        answers = self._put_new(name, names, move) if only_new else self._clusters.ask(names, move)
        if len(answers.good) < self._policy.quorum:
            raise failure(f"put {name}: {len(answers.good)} of {self._policy.quorum} copies", answers.errors)
        size = next(iter(answers.good.values())).size
        return Stat(name, size, crc, tuple(answers.good))

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        container, _ = split(name)
        errors: dict[str, StoreError] = {}
        for cluster in self.where(container):
            try:
                return self.members()[cluster].get(name, start, length)
            except BadRequest:
                raise
            except StoreError as error:
                errors[cluster] = error
        raise failure(f"get {name}", errors)

    def stat(self, name: str) -> Stat:
        container, _ = split(name)
        answers = self._clusters.ask(self.where(container), lambda store: store.stat(name))
        if not answers.good:
            raise failure(f"stat {name}", answers.errors)
        return _agreed(name, {cluster: found.size for cluster, found in answers.good.items()})

    def list(self, container: str, prefix: str = "") -> Iterator[Stat]:
        return iter(self.listing(container, prefix).objects)

    def listing(self, container: str, prefix: str = "") -> Listing:
        check_container(container)
        answers = self._clusters.ask(self.where(container), lambda store: tuple(store.list(container, prefix)))
        if not answers.good:
            raise failure(f"list {container}", answers.errors)
        sizes: dict[str, dict[str, int]] = {}
        for cluster, objects in answers.good.items():
            for found in objects:
                sizes.setdefault(found.name, {})[cluster] = found.size
        return Listing(tuple(_agreed(name, sizes[name]) for name in sorted(sizes)), tuple(answers.errors))

    def containers(self) -> Iterator[str]:
        answers = self._clusters.ask(self._clusters.names, lambda store: tuple(store.containers()))
        if not answers.good:
            raise failure("list the containers", answers.errors)
        return iter(sorted({name for names in answers.good.values() for name in names}))

    def delete(self, name: str) -> None:
        container, _ = split(name)
        answers = self._clusters.ask(self.where(container), lambda store: store.delete(name))
        if answers.errors:
            raise failure(f"delete {name}", answers.errors)

    def members(self) -> Mapping[str, Store]:
        return {name: member.store for name, member in self._clusters.by_name.items()}

    def where(self, container: str) -> tuple[str, ...]:
        return self.placements.where(container)

    def _put_new(self, name: str, names: tuple[str, ...], move: Callable[[Store], Stat]) -> Answers[Stat]:
        """Put where there is none: the first cluster that answers decides, for one must."""
        there = self._clusters.ask(names, lambda store: store.stat(name))
        if there.good:
            raise Exists(f"put {name}: it is in {', '.join(there.good)} already")
        good: dict[str, Stat] = {}
        errors: dict[str, StoreError] = {}
        waiting = list(names)
        while waiting and not good:
            first = waiting.pop(0)
            answers = self._clusters.ask([first], move)
            good |= answers.good
            errors |= answers.errors
            if isinstance(errors.get(first), Exists):
                raise Exists(f"put {name}: it is in {first} already")
        if waiting:
            answers = self._clusters.ask(waiting, move)
            good |= answers.good
            errors |= answers.errors
        return Answers(good, errors)


def _agreed(name: str, sizes: Mapping[str, int]) -> Stat:
    """Return one ``Stat`` for the copies; a shorter one was cut off and is none."""
    size = max(sizes.values())
    return Stat(name, size, None, tuple(cluster for cluster, found in sizes.items() if found == size))
