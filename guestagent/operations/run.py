"""``Run``: one operation while it runs.  Every move goes through ``run.step``.

A finished step answers from the journal.  After a kill the operation's function is read again from the top, so that
it goes on where it was.  The one place that catches and logs whatever went wrong is ``attempt``, here.
"""

import logging
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from datastores.contract import JSON
from guestagent.errors import Cancelled, Fault, Interrupted
from guestagent.journal import Row
from guestagent.journal.sealing import decode, encode
from guestagent.operations.guest import Guest
from guestagent.operations.halting import Halt
from guestagent.operations.killing import point

if TYPE_CHECKING:
    from guestagent.declarations import Verb

LOG = logging.getLogger(__name__)
T = TypeVar("T")
_TOLD = 1.0
"""Seconds between two tellings of how far an operation is."""


class Run:
    """One operation: its guest, its journalled steps, and the reasons to end early.

    ``resumed`` is true where the agent was killed while the operation ran.
    """

    def __init__(self, guest: Guest, row: Row, halt: Halt, results: dict[str, JSON] | None = None) -> None:
        self.guest = guest
        self.row = row
        self.id = row.id
        self.request_id = row.request_id
        self.resumed = results is not None
        self.repeatable = True
        self._halt = halt
        self._results = results or {}
        self._former = row
        self._saved = 0.0

    def step(self, name: str, move: Callable[[], T], *, repeatable: bool = True) -> T:
        """Make a move once and return its result, plain JSON that may hold secrets.

        A move that is not ``repeatable`` and was cut short by a kill raises ``Interrupted``.
        """
        self._expect(name)
        if name in self._results:
            return self._results[name]  # type: ignore[return-value]
        if not repeatable and self.begun(name):
            raise Interrupted(f"interrupted at {name!r}: the agent was killed there", operation=self.id)
        self._begin(name, repeatable)
        point(self.row.verb, name, "before")
        result, error = attempt(f"{self.row.verb} {self.id} at {name!r}", move)
        self._halt.park()
        self.repeatable = True
        if error is not None:
            self._halt.unwind()
            self.row = self.row.with_step(name, "failed")
            raise error
        # The worst moment: it was done, and is not written down.  Written down is the same as before the next.
        point(self.row.verb, name, "after")
        self._keep(name, result)
        return self._results[name]  # type: ignore[return-value]

    def _begin(self, name: str, repeatable: bool) -> None:
        """Say that a step has begun; whoever ends the agent has known before that whether it may be cut short."""
        self.repeatable = repeatable
        with ExitStack() as undo:
            undo.callback(setattr, self, "repeatable", True)
            self.check()
            self._save(self.row.with_step(name, "running"))
            undo.pop_all()

    def check(self) -> None:
        """Raise where the operation was cancelled or is late; call it wherever time passes."""
        self._halt.check()

    def pause(self, seconds: float) -> None:
        """Sleep, unless somebody asks the operation to end; before a long sleep it is told how far it is."""
        if seconds >= _TOLD:
            self._save(self.row)
        self._halt.pause(seconds)

    def commit(self, step: str) -> None:
        """Pass the point of no return, before ``step``: from here on it can be neither cancelled nor late."""
        self._halt.commit(again=self.begun(step))

    def progress(self, done: int, total: int, unit: str = "bytes") -> None:
        """Say how far it is; shown at once to nobody, journalled at most every second."""
        self.row = replace(self.row, progress=(done, total, unit))
        if time.monotonic() - self._saved >= _TOLD:
            self._save(self.row)

    def note(self, **values: JSON) -> None:
        """Commit facts about the operation that outlive it; never a secret."""
        self._save(replace(self.row, note={**self.row.note, **values}))

    @property
    def cancelled(self) -> bool:
        """Say whether somebody cancelled it."""
        return isinstance(self._halt.reason, Cancelled)

    def begun(self, name: str) -> bool:
        """Say whether a former life of the agent began this step."""
        return self.resumed and self._former.step_state(name) != "pending"

    def _expect(self, name: str) -> None:
        if name not in dict(self.row.steps):
            raise AssertionError(f"{self.row.verb} declares no step {name!r}")

    def _keep(self, name: str, result: object) -> None:
        self._halt.park()
        self._results[name] = decode(encode(result))
        self.row = self.row.with_step(name, "done")
        self.guest.journal.ledger.keep(self.row, name, result)
        self._saved = time.monotonic()

    def _save(self, row: Row) -> None:
        self._halt.park()
        self.row = row
        self.guest.journal.ledger.save(row)
        self._saved = time.monotonic()


def attempt(what: str, move: Callable[[], T]) -> tuple[T, None] | tuple[None, Exception]:
    """Make a move; return its result, or log why it failed and return the error.

    The log shows where, and the message of our own errors; any other error's text may hold what
    nobody may read, so its kind must do.
    """
    try:
        return move(), None
    except Exception as error:  # noqa: BLE001
        if not getattr(error, "__notes__", None):
            fault = Fault.of(error)
            frames = "".join(traceback.format_tb(error.__traceback__)) if fault.type == "Failed" else ""
            LOG.error("%s failed: %s: %s\n%s", what, type(error).__name__, fault.message, frames)
            error.add_note(what)
        return None, error


def steps_of(verb: "Verb") -> tuple[str, ...]:
    """Return the names of a changing verb's steps, in order."""
    if verb.mark.steps:
        return verb.mark.steps
    return ("accept", verb.name, "finish") if verb.mark.changes else ()
