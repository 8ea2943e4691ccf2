"""Several clusters asked the same thing at the same time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from objectstore.store import (
    BadRequest,
    Corrupt,
    Denied,
    Exists,
    Missing,
    NoRoom,
    Store,
    StoreError,
    Unavailable,
)

T = TypeVar("T")

_UPLOADS = 4  # calls on one cluster at a time; callers beyond that wait

_RANK: tuple[type[StoreError], ...] = (Unavailable, Corrupt, Denied, NoRoom, Exists, Missing)
"""Which of several errors decides: what may be tried again first, and *missing* only where all say so."""


@dataclass(frozen=True)
class Member:
    """One cluster of a federation: ``weight`` is its share of the generations."""

    name: str
    store: Store
    weight: float = 1.0


@dataclass(frozen=True)
class Answers(Generic[T]):
    """What each cluster answered, in the order they were named, and why others did not."""

    good: Mapping[str, T]
    errors: Mapping[str, StoreError]


class Clusters:
    """The members by name; every name is asked in a thread of its own, the first one in the caller's."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.by_name: dict[str, Member] = {member.name: member for member in members}
        if not members or len(self.by_name) != len(members):
            raise BadRequest("a federation wants clusters with names of their own", field="cluster")
        self._threads = ThreadPoolExecutor(_UPLOADS * len(members), thread_name_prefix="cluster")

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names as they were declared."""
        return tuple(self.by_name)

    def ask(self, names: Iterable[str], move: Callable[[Store], T]) -> Answers[T]:
        """Make a move on each of the named clusters."""
        first, *others = names
        waiting = {name: self._threads.submit(self._one, name, move) for name in others}
        answers = {first: self._one(first, move)} | {name: future.result() for name, future in waiting.items()}
        return Answers(
            {name: answer[0] for name, answer in answers.items() if not isinstance(answer, StoreError)},
            {name: answer for name, answer in answers.items() if isinstance(answer, StoreError)},
        )

    def _one(self, name: str, move: Callable[[Store], T]) -> tuple[T] | StoreError:
        try:
            return (move(self.by_name[name].store),)
        except StoreError as error:
            return error


def failure(what: str, errors: Mapping[str, StoreError]) -> StoreError:
    """Return one error for those of several clusters; its hint names them."""
    kind = next((kind for kind in _RANK if any(isinstance(error, kind) for error in errors.values())), StoreError)
    reasons = "; ".join(f"{name}: {error}" for name, error in errors.items())
    blamed = ", ".join(name for name, error in errors.items() if isinstance(error, kind))
    hints = "; ".join(dict.fromkeys(error.hint for error in errors.values() if error.hint))
    return kind(f"{what}: {reasons}", hint=f"cluster {blamed}" + (f": {hints}" if hints else ""))
