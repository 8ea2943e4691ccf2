"""What may be freed: a pure function of what there is, what is needed, and what may still be going on.

Nothing here reads a store or a clock, and nothing deletes.  The invariant: an object is
free only where no manifest needs it *and* no attempt that lives may come to need it.
So whoever gathers the facts lists packs and keys first, then leases, and manifests last: an
attempt that was at work when its packs were listed is then seen by its lease or its manifest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from objectstore.store import Corrupt, StoreError, Unavailable, split


@dataclass(frozen=True)
class Backup:
    """One sealed backup: its generation, and the names of all objects that it needs, its manifest among them."""

    id: str
    generation: str
    needs: frozenset[str] = field(repr=False)


@dataclass(frozen=True)
class Working:
    """An attempt that holds a lease until ``expires`` (seconds since 1970)."""

    attempt: str
    generation: str
    expires: float


@dataclass(frozen=True)
class Estate:
    """The facts.

    ``objects`` names everything there is, ``tombs`` says when which backup was deleted, ``silent`` what could
    not be listed, ``unreadable`` why which manifests could not be read.
    """

    realm: str
    objects: tuple[str, ...] = field(repr=False)
    backups: tuple[Backup, ...] = ()
    working: tuple[Working, ...] = ()
    tombs: Mapping[str, float] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    unreadable: tuple[StoreError, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Which objects to keep and which may be freed, and why; every object is in one of the two."""

    keep: tuple[str, ...]
    free: tuple[str, ...]
    why: Mapping[str, str]


def plan(estate: Estate, now: float, grace: float = 0.0) -> Plan:
    """Return what may be freed at the time ``now``.

    For ``grace`` seconds after a lease has run out or a backup was deleted nothing that it may concern is
    freed.  ``Unavailable`` where the facts are not complete, ``Corrupt`` where they never will be.
    """
    if estate.silent:
        raise Unavailable(f"{', '.join(estate.silent)} did not answer, so nothing can be called free")
    if estate.unreadable:
        first = estate.unreadable[0]
        raise Corrupt(
            f"what this backup needs is not known, so nothing can be called free: {first}",
            hint=first.hint or "repair it, or delete that backup",
        )
    judge = _Judge(estate, now, grace)
    keep: list[str] = []
    free: list[str] = []
    why: dict[str, str] = {}
    for name in sorted(estate.objects):
        kept, why[name] = judge.verdict(name)
        (keep if kept else free).append(name)
    return Plan(tuple(keep), tuple(free), why)


Verdict = tuple[bool, str]


class _Judge:
    def __init__(self, estate: Estate, now: float, grace: float) -> None:
        self._estate = estate
        self._needed: dict[str, str] = {}
        for backup in estate.backups:
            for name in backup.needs:
                self._needed.setdefault(name, backup.id)
        self._live = {one.attempt: one for one in estate.working if now < one.expires + grace}
        self._generations = {one.generation: one.attempt for one in self._live.values()}
        self._recent = [backup for backup, deleted in estate.tombs.items() if now < deleted + grace]

    def verdict(self, name: str) -> Verdict:
        """Return whether an object is kept, and why."""
        if name in self._needed:
            return True, f"backup {self._needed[name]} needs it"
        container, key = split(name)
        realm = self._estate.realm
        if container == f"{realm}-backups":
            return self._catalogue(key)
        if container == f"{realm}-keys":
            return self._written(key, None)
        if container.startswith(f"{realm}-g-"):
            return self._written(key, container.removeprefix(f"{realm}-g-"))
        return True, "it is not the archive's"

    def _catalogue(self, key: str) -> Verdict:
        kind, _, rest = key.partition(".")
        if kind == "lease":
            live = rest in self._live
            return live, f"attempt {rest} is at work" if live else f"the lease of attempt {rest} has run out"
        if kind == "tomb":
            return True, f"it says that backup {rest} was deleted"
        if kind == "manifest":
            return False, f"backup {rest.partition('.')[0]} was deleted"
        if kind == "placement":
            return self._placement(rest)
        return self._part() if kind == "index" else (True, "it is not the archive's")

    def _part(self) -> Verdict:
        if self._live:
            return True, f"attempt {next(iter(self._live))} is at work and may need it"
        return self._rest("no backup needs it")

    def _written(self, key: str, generation: str | None) -> Verdict:
        """Judge a pack, or (without a generation) a key, that no backup needs."""
        attempt = key.partition(".")[0]
        if attempt in self._live:
            return True, f"attempt {attempt} is at work"
        if generation in self._generations:
            return True, f"attempt {self._generations[generation or '']} of its generation is at work and may need it"
        if "" in self._generations:  # a lease that cannot be read protects everything
            return True, f"attempt {self._generations['']} is at work"
        return self._rest(f"attempt {attempt} left it, and no backup needs it")

    def _placement(self, generation: str) -> Verdict:
        inside = f"{self._estate.realm}-g-{generation}/"
        if generation in self._generations or any(name.startswith(inside) for name in self._estate.objects):
            return True, f"generation {generation} is there"
        return self._rest(f"generation {generation} is gone")

    def _rest(self, reason: str) -> Verdict:
        if self._recent:
            return True, f"backup {self._recent[0]} was deleted a short while ago"
        return False, reason
