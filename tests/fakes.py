"""Stores that fail on purpose, and keep the contract otherwise."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from objectstore.store import Buffer, Listing, Stat, Store, StoreError, Unavailable

T = TypeVar("T")
When = Callable[[int, str], bool]
"""Whether to fail: the call's number among those of its method (from 1), and the object's name."""


def always(number: int, name: str) -> bool:
    """Fail every time."""
    return True


def nth(*numbers: int) -> When:
    """Fail at these calls."""
    return lambda number, name: number in numbers


def every(step: int) -> When:
    """Fail at every ``step``-th call."""
    return lambda number, name: number % step == 0


def named(part: str) -> When:
    """Fail where the object's name has ``part`` in it."""
    return lambda number, name: part in name


@dataclass(frozen=True)
class Fault:
    """One way to fail.

    ``error``  nothing is done and ``error`` is raised
    ``lost``   it is done, and ``error`` is raised all the same: the reply was lost
    ``torn``   of a put: half of the bytes are stored, and ``error`` is raised
    ``flip``   one bit is another: of what is stored by a put, of what a get returns
    ``cut``    half of the bytes are missing: of what is stored by a put, of what a get returns
    ``slow``   it takes ``seconds`` longer
    """

    kind: Literal["error", "lost", "torn", "flip", "cut", "slow"]
    method: str
    when: When = always
    error: Callable[[], StoreError] = lambda: Unavailable("the store fails on purpose")
    seconds: float = 0.01


class FaultyStore(Store):
    """A store around ``store`` with faults; while ``away`` is set nothing answers at all.

    ``calls`` counts what was asked, by method.
    """

    def __init__(self, store: Store, *faults: Fault) -> None:
        self.faults = list(faults)
        self.away = False
        self.calls: Counter[str] = Counter()
        self._store = store
        self._lock = threading.Lock()

    def put(self, name: str, data: Sequence[Buffer], *, only_new: bool = False) -> Stat:
        fault = self._asked("put", name)
        if fault and fault.kind in ("torn", "cut", "flip"):
            data = [_spoiled(b"".join(data), fault.kind)]
        return self._done(fault, lambda: self._store.put(name, data, only_new=only_new))

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        fault = self._asked("get", name)
        found = self._done(fault, lambda: self._store.get(name, start, length))
        return _spoiled(found, fault.kind) if fault and fault.kind in ("flip", "cut") else found

    def stat(self, name: str) -> Stat:
        return self._done(self._asked("stat", name), lambda: self._store.stat(name))

    def list(self, container: str, prefix: str = "") -> Iterator[Stat]:
        return self._done(self._asked("list", container), lambda: self._store.list(container, prefix))

    def containers(self) -> Iterator[str]:
        return self._done(self._asked("containers", ""), lambda: self._store.containers())

    def delete(self, name: str) -> None:
        self._done(self._asked("delete", name), lambda: self._store.delete(name))

    def listing(self, container: str, prefix: str = "") -> Listing:
        return self._done(self._asked("list", container), lambda: self._store.listing(container, prefix))

    def members(self) -> Mapping[str, Store]:
        inner = self._store.members()
        return {"": self} if inner == {"": self._store} else inner

    def where(self, container: str) -> tuple[str, ...]:
        return self._store.where(container)

    def _asked(self, method: str, name: str) -> Fault | None:
        with self._lock:
            self.calls[method] += 1
            number = self.calls[method]
        if self.away:
            raise Unavailable("the store is away")
        fault = next((one for one in self.faults if one.method == method and one.when(number, name)), None)
        if fault and fault.kind == "error":
            raise fault.error()
        if fault and fault.kind == "slow":
            time.sleep(fault.seconds)
        return fault

    def _done(self, fault: Fault | None, move: Callable[[], T]) -> T:
        answer = move()
        if fault and fault.kind in ("lost", "torn"):
            raise fault.error()
        return answer


def _spoiled(data: bytes, kind: str) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :] if kind == "flip" and data else data[:half]
