"""Reading where several clusters hold copies: a whole one, if there is any.

Where a backup names an object, its absence is damage: ``Corrupt``.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from objectstore.store import Corrupt, Exists, Missing, Stat, Store, StoreError, split

T = TypeVar("T")


def read_whole(
    store: Store,
    name: str,
    check: Callable[[bytes], T],
    start: int = 0,
    length: int | None = None,
    *,
    gone: bool = False,
) -> T:
    """Return ``check`` of an object's bytes, from the first copy that passes it (it raises ``Corrupt``).

    Where none passes: ``Corrupt`` (``gone``: ``Missing`` where none is there at all), or
    ``Unavailable`` where none is damaged and one cannot be asked.
    """
    try:
        return check(store.get(name, start, length))
    except (Missing, Corrupt) as error:
        errors: list[StoreError] = [error]
    for _, member in holders(store, name):
        try:
            return check(member.get(name, start, length))
        except StoreError as error:
            errors.append(error)
    raise worst(name, errors, gone) from errors[0]


def worst(name: str, errors: list[StoreError], gone: bool = False) -> StoreError:
    """Return the error to raise for an object of which no copy is whole, by what is wrong with each."""
    damaged = [error for error in errors if isinstance(error, Corrupt)]
    if damaged:
        return Corrupt(f"{name}: no copy of it is what it should be: {damaged[0]}", hint=damaged[0].hint)
    others = [error for error in errors if not isinstance(error, Missing)]
    if others:
        return others[0]
    return Missing(f"there is no {name}") if gone else Corrupt(f"{name} is gone, and the backup needs it")


def holders(store: Store, name: str) -> Iterator[tuple[str, Store]]:
    """Yield the clusters that may hold an object, by name, those meant to first; nothing where there is one only."""
    members = store.members()
    if len(members) > 1:
        first = [member for member in store.where(split(name)[0]) if member in members]
        for member in dict.fromkeys([*first, *members]):
            yield member, members[member]


def keepers(store: Store, name: str) -> dict[str, Store]:
    """Return the clusters that are meant to hold an object, by name."""
    members = store.members()
    return {member: members[member] for member in store.where(split(name)[0]) if member in members}


def put_once(store: Store, name: str, data: bytes) -> Stat:
    """Put a new object; the same bytes, there already, are ours (an answer that got lost)."""
    try:
        return store.put(name, [data], only_new=True)
    except Exists:
        with suppress(StoreError):
            if store.get(name) == data:
                return Stat(name, len(data))
        raise
