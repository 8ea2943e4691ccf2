"""Trying again, in one place, and leaving alone what does not answer.

Only an error whose type says ``retry`` is tried again, after a pause that doubles
and is drawn at random up to its length, until attempts or time run out.

A store that had to be given up is asked once, not several times, by the next
calls; and where the asking itself was slow (a connection that times out), it
is not asked at all for ten times as long.  So a dead cluster costs its timeout now and
then, and a directory that comes back is used at once.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from objectstore.store import Buffer, Denied, Exists, Missing, Stat, Store, StoreError, checksum

T = TypeVar("T")

_CHUNK = 1 << 20
_REST = 10.0  # a store rests this many times the seconds that its last failure took
_SLOW = 0.5  # seconds: a failure that took less costs nothing to provoke again


class Retrying(Store):
    """Ask ``store`` up to ``attempts`` times within ``patience`` seconds, first pausing up to ``pause`` seconds."""

    def __init__(
        self,
        store: Store,
        *,
        attempts: int = 4,
        pause: float = 0.1,
        patience: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._pause = pause
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._given_up: StoreError | None = None
        self._rests_until = 0.0

    def put(self, name: str, data: Sequence[Buffer], *, only_new: bool = False) -> Stat:
        failed = False

        def once() -> Stat:
            nonlocal failed
            try:
                return self._store.put(name, data, only_new=only_new)
            except Exists:
                if failed and (own := self._own(name, data)):
                    return own
                raise
            except StoreError:
                failed = True
                raise

        return self._try(once)

    def get(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        return self._try(lambda: self._store.get(name, start, length))

    def stat(self, name: str) -> Stat:
        return self._try(lambda: self._store.stat(name))

    def list(self, container: str, prefix: str = "") -> Iterator[Stat]:
        # A listing that fails half-way begins anew, so it is whole before the first row leaves.
        return iter(self._try(lambda: tuple(self._store.list(container, prefix))))

    def containers(self) -> Iterator[str]:
        return iter(self._try(lambda: tuple(self._store.containers())))

    def delete(self, name: str) -> None:
        self._try(lambda: self._store.delete(name))

    def _own(self, name: str, data: Sequence[Buffer]) -> Stat | None:
        """Return the object's ``Stat`` where it holds just our bytes: the reply to our ``put`` was lost."""
        try:
            found = self.stat(name)
            crc = 0
            for start in range(0, found.size, _CHUNK):
                crc = checksum([self.get(name, start, _CHUNK)], crc)
        except (Missing, Denied):  # where we may not look we cannot claim it
            return None
        same = found.size == sum(memoryview(buffer).nbytes for buffer in data) and crc == checksum(data)
        return Stat(name, found.size, crc, found.copies) if same else None

    def _try(self, move: Callable[[], T]) -> T:
        began = self._clock()
        attempts = self._allowed(began)
        for attempt in range(1, attempts + 1):
            started = self._clock()
            try:
                answer = move()
            except StoreError as error:
                now = self._clock()
                if not error.retry:
                    self._given_up = None  # it answers
                    raise
                pause = self._pause * 2 ** (attempt - 1) * secrets.SystemRandom().uniform(0.5, 1.0)
                if attempt == attempts or now + pause - began > self._patience:
                    self._give_up(error, now, now - started)
                    raise
            else:
                self._given_up = None
                return answer
            self._sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _allowed(self, now: float) -> int:
        """Return how often to ask; raise the last error where the store is left alone for now."""
        with self._lock:
            gone = self._given_up
            if gone is None:
                return self._attempts
            if now < self._rests_until:
                raise type(gone)(f"{gone} (not asked again yet)", field=gone.field, hint=gone.hint)
            return 1

    def _give_up(self, error: StoreError, now: float, took: float) -> None:
        with self._lock:
            self._given_up = error
            self._rests_until = now + (_REST * took if took > _SLOW else 0.0)
