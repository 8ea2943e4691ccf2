"""One operation's thread: from its first move to its outcome in the journal."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol, cast, runtime_checkable

from datastores.contract import JSON
from guestagent.declarations import Verb
from guestagent.errors import AgentError, Cancelled, DeadlinePassed, Fault, Interrupted
from guestagent.journal import CANCELLED, FAILED, INTERRUPTED, QUEUED, RUNNING, SUCCEEDED, Row
from guestagent.journal.clock import now
from guestagent.memory import give_back
from guestagent.operations.accounts import perform
from guestagent.operations.guest import Guest
from guestagent.operations.halting import Halt
from guestagent.operations.run import Run, attempt

_AGAIN = 1.0


@runtime_checkable
class Interruptible(Protocol):
    """A host that can kill the programs a thread has running."""

    def interrupt(self, thread: int | None = None) -> None:
        """Kill the programs of one thread; their callers see ``ToolFailed``."""


class Work:
    """A live operation: waiting, or running in its thread.  ``ended`` is called when its outcome is journalled."""

    def __init__(self, guest: Guest, row: Row, verb: Verb, ended: "Callable[[Work], None]") -> None:
        self._guest = guest
        self._row = row
        self._verb = verb
        self.scope = verb.mark.scope
        self._ended = ended
        self._halt = Halt(self._interrupt)
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._run: Run | None = None
        # The wall clock may be set; the time that is left may not.
        self._end = time.monotonic() + row.deadline - time.time()

    @property
    def row(self) -> Row:
        """Return the operation as it stands."""
        return self._run.row if self._run is not None else self._row

    @property
    def running(self) -> bool:
        """Say whether its thread was started."""
        return self._thread is not None

    @property
    def repeatable(self) -> bool:
        """Say whether it could go on after a kill at this moment."""
        return self._run is None or self._run.repeatable

    @property
    def rest(self) -> float:
        """Return the seconds until its deadline."""
        return self._end - time.monotonic()

    @property
    def late(self) -> bool:
        """Say whether it shall not begin any more."""
        return self.rest <= 0 or self._halt.reason is not None

    def start(self, *, resumed: bool) -> None:
        """Begin, or go on after a kill; no error where it has begun."""
        with self._guard:
            if self._thread is not None:
                return
            name = f"operation {self._row.id}"
            self._thread = threading.Thread(target=self._work, args=(resumed,), name=name, daemon=True)
        self._thread.start()

    def ask(self, reason: AgentError) -> None:
        """Ask it to end for this reason; one that waits ends at once."""
        self._halt.ask(reason)
        if not self.running:
            self.start(resumed=False)

    def remind(self) -> None:
        """Ask again what was asked; ask for an end where the deadline has passed."""
        if self._halt.reason is not None:
            self._halt.ask(self._halt.reason)
        elif self.rest <= 0:
            self.ask(DeadlinePassed(f"{self._verb.key} was not done before its deadline", operation=self._row.id))

    def over(self, timeout: float = 0.0) -> bool:
        """Wait for the end of its thread; return whether it has come."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is not None and not self._thread.is_alive()

    def leave(self) -> None:
        """Let it go no further in this life."""
        self._halt.freeze()

    def _work(self, resumed: bool) -> None:
        guest = self._guest
        result, error = attempt(f"{self._verb.key} {self._row.id}", lambda: self._perform(guest.current(), resumed))
        if error is not None and self._halt.reason is not None and not isinstance(error, Interrupted):
            error = self._halt.reason
        # Nothing is over before it is written down, be the disk full or not.
        while attempt("writing the outcome", lambda: close(guest, self.row, error, result))[1] is not None:
            self._halt.park()
            if guest.journal.trouble:
                break
            time.sleep(_AGAIN)
        self._ended(self)
        give_back()

    def _perform(self, guest: Guest, resumed: bool) -> JSON:
        journal = guest.journal
        self.remind()
        if self._row.state == QUEUED:
            self._halt.check()
            self._row = replace(self._row, state=RUNNING, started_at=now())
        journal.ledger.save(self._row)
        request = cast("Mapping[str, object]", journal.bodies.request(self._row.id))
        self._run = Run(guest, self._row, self._halt, journal.bodies.results(self._row.id) if resumed else None)
        args = self._verb.parse(request)
        if self._verb.part is not None:
            return perform(self._run, self._verb, args)
        return cast(JSON, self._verb.function(self._run, **args))

    def _interrupt(self) -> None:
        host = self._guest.manager.node.host
        if isinstance(host, Interruptible) and self._thread is not None and self._thread.ident is not None:
            host.interrupt(self._thread.ident)


def close(guest: Guest, row: Row, error: Exception | None, result: JSON = None) -> None:
    """Commit an operation's outcome, its report with it."""
    state = SUCCEEDED if error is None else _STATES.get(type(error), FAILED)
    told = None if error is None else replace(Fault.of(error), operation=row.id).to_json()
    ended = replace(row, state=state, ended_at=now(), error=cast("Mapping[str, JSON] | None", told))
    guest.journal.ledger.end(ended, result)


_STATES: dict[type[Exception], str] = {Cancelled: CANCELLED, Interrupted: INTERRUPTED}
