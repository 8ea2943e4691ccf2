"""The engine: accepts orders, keeps those that exclude each other apart, and ends what it began.

An order is committed to the journal before anybody is told that it was accepted.  Each operation
runs in a thread of its own; ``work`` is what such a thread does.
"""

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from datastores.contract import JSON, NotReady
from guestagent.declarations import Verb, require
from guestagent.errors import Busy, DeadlinePassed, Interrupted, Refused
from guestagent.journal import QUEUED, RUNNING, Row
from guestagent.journal.clock import now
from guestagent.operations.guest import Guest
from guestagent.operations.requests import check_names
from guestagent.operations.run import attempt, steps_of
from guestagent.operations.scopes import exclude
from guestagent.operations.vintage import vintage
from guestagent.operations.work import Work, close

QUEUE = 256
REQUEST_ID = 200
_LOOK = 5.0
_SLICE = 0.05


@dataclass(frozen=True)
class Request:
    """One order as it came: ``verb`` is ``noun.name``, ``deadline`` in Unix seconds or None for the verb's own."""

    request_id: str
    verb: str
    args: Mapping[str, JSON]
    deadline: float | None = None
    caller: str = ""
    tenant: str = ""


class Operations:
    """All operations of one guest; at most ``queue`` casts wait."""

    def __init__(self, guest: Guest, verbs: Mapping[str, Verb], *, queue: int = QUEUE) -> None:
        self._queue = queue
        self._guest = guest
        self._verbs = verbs
        # Read now: the files may be replaced while this process still runs what they held.
        self._vintage = vintage(guest.manager.datastore)
        self._changed = threading.Condition(threading.RLock())
        self._works: dict[str, Work] = {}
        self._stopping = False
        self._clock: threading.Thread | None = None

    def read(self, verb: str, args: Mapping[str, JSON]) -> JSON:
        """Answer a reading verb at once."""
        found = self._verb(verb)
        if found.mark.changes:
            raise Refused(f"{verb} changes something; it is not answered but accepted", field="verb")
        guest = self._guest.current()
        values = found.parse(args)
        if found.part is None:
            return cast(JSON, found.function(guest, **values))
        return cast(JSON, getattr(guest.manager.part(found.part), found.name)(**values))

    def accept(self, request: Request) -> dict[str, JSON]:
        """Commit a call and start it; ``Busy`` where another operation excludes it, and then it is not accepted."""
        return self._take(request, waits=False)

    def enqueue(self, request: Request) -> dict[str, JSON]:
        """Commit a cast, which waits for its turn until its deadline; ``Busy`` where too many wait."""
        return self._take(request, waits=True)

    def resume(self) -> None:
        """After a start: go on with what the journal says was under way, and put what waited in line again."""
        if self._guest.journal.trouble:
            return
        with self._changed:
            for row in self._guest.journal.ledger.all(live=True):
                self._resume(row)
            self._start_waiting()

    def stop(self, grace: float) -> None:
        """Take no more orders; end what could not go on after a restart, and wait ``grace`` seconds for the rest."""
        end = time.monotonic() + grace
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            running = [each for each in self._works.values() if each.running]
        while time.monotonic() < end and (busy := [each for each in running if not each.over()]):
            for each in busy:
                # It may have come to such a step only now.
                if not each.repeatable:
                    each.ask(Interrupted("the agent was ended", operation=each.row.id))
            busy[0].over(_SLICE)
        for each in running:
            each.leave()

    def wait(self, operation: str, timeout: float) -> bool:
        """Wait until an operation has ended; return whether it has."""
        with self._changed:
            return self._changed.wait_for(lambda: operation not in self._works, timeout)

    def _verb(self, name: str) -> Verb:
        verb = self._verbs.get(name)
        if verb is None:
            raise Refused(f"there is no verb {name[:80]!r}", field="verb")
        require(verb, self._guest.manager.datastore)
        return verb

    def _take(self, request: Request, *, waits: bool) -> dict[str, JSON]:
        verb = self._verb(request.verb)
        if not verb.mark.changes:
            raise Refused(f"{request.verb} changes nothing; ask it", field="verb")
        if not 0 < len(request.request_id) <= REQUEST_ID:
            raise Refused(f"a request_id has 1 to {REQUEST_ID} characters", field="request_id")
        self._guest.journal.database.must_be_sound()
        with self._changed:
            known = self._known(request)
            if known is not None:
                return known
            self._must_do(verb, verb.parse(request.args))
            if self._stopping:
                raise NotReady("the agent is about to end", hint="ask again after its restart")
            rivals = self._rivals(verb.mark.scope)
            self._must_be_free(rivals, waits)
            work = self._add(verb, request, waits=waits or bool(rivals))
            self._start_waiting()
            return work.row.to_json()

    def _known(self, request: Request) -> dict[str, JSON] | None:
        row = self._guest.journal.ledger.by_request(request.request_id)
        if row is None:
            return None
        if row.verb != request.verb or row.digest != self._digest(request):
            raise Refused("this request_id was used with another verb or other arguments", field="request_id")
        return self._guest.journal.told(row)

    def _digest(self, request: Request) -> str:
        return self._guest.journal.ledger.digest([request.verb, dict(request.args)])

    def _must_do(self, verb: Verb, values: dict[str, object]) -> None:
        """Raise where these arguments can never do, as far as that is known without asking the server."""
        if verb.part is not None:
            check_names(self._guest.manager.datastore, verb.noun, values)
        elif verb.mark.check is not None:
            verb.mark.check(self._guest, **{each.name: each.default for each in verb.args} | values)

    def _rivals(self, scope: str) -> list[Work]:
        return [each for each in self._works.values() if exclude(scope, each.scope)]

    def _must_be_free(self, rivals: list[Work], waits: bool) -> None:
        if rivals and not waits:
            row = rivals[0].row
            raise Busy(
                f"{row.verb} is {row.state}; it excludes this", operation=row.id, hint="wait for it, or cancel it"
            )
        if waits and sum(not each.running for each in self._works.values()) >= self._queue:
            raise Busy(f"{self._queue} requests wait already")

    def _add(self, verb: Verb, request: Request, *, waits: bool) -> Work:
        deadline = request.deadline if request.deadline is not None else time.time() + verb.mark.timeout
        if not waits and deadline <= time.time():
            raise DeadlinePassed("the deadline had passed before the request came")
        row = Row(
            id=str(uuid.uuid4()),
            request_id=request.request_id,
            verb=verb.key,
            version=self._vintage,
            state=QUEUED if waits else RUNNING,
            steps=_pending(verb),
            digest=self._digest(request),
            deadline=deadline,
            epoch=self._guest.boot_epoch,
            caller=request.caller,
            tenant=request.tenant,
            once=verb.mark.once,
            started_at=None if waits else now(),
        )
        return self._line_up(self._guest.journal.ledger.add(row, dict(request.args)), verb)

    def _line_up(self, row: Row, verb: Verb) -> Work:
        work = Work(self._guest, row, verb, self._ended)
        self._works[row.id] = work
        self._guest.signals.listen(row.id, work.ask)
        if self._clock is None:
            self._clock = threading.Thread(target=self._watch, name="deadlines", daemon=True)
            self._clock.start()
        return work

    def _resume(self, row: Row) -> None:
        verb = self._verbs.get(row.verb)
        if verb is not None and row.state == QUEUED:
            row = replace(row, version=self._vintage, steps=_pending(verb))
        if verb is None or row.version != self._vintage:
            error = Interrupted(f"interrupted at {row.step!r}: the agent was changed meanwhile", operation=row.id)
            attempt("sweeping", lambda: sweep(self._guest))
            close(self._guest, row, error)
            return
        work = self._line_up(replace(row, epoch=self._guest.boot_epoch), verb)
        if row.state == RUNNING:
            work.start(resumed=True)

    def _start_waiting(self) -> None:
        """Start, in order, whatever is neither excluded by what runs nor by what waits before it."""
        ahead: list[str] = []
        for work in list(self._works.values()):
            free = not any(exclude(work.scope, each) for each in ahead)
            if not work.running and not self._stopping and (free or work.late):
                work.start(resumed=False)
            ahead.append(work.scope)
        self._changed.notify_all()

    def _ended(self, work: Work) -> None:
        with self._changed:
            self._guest.signals.leave(work.row.id)
            self._works.pop(work.row.id, None)
            self._start_waiting()

    def _watch(self) -> None:
        """Tell operations that they are late; those that were asked to end are asked again until they do."""
        while True:
            with self._changed:
                works = list(self._works.values())
                for each in works:
                    each.remind()
                self._start_waiting()
                nearest = min((each.rest for each in works), default=_LOOK)
                self._changed.wait(min(max(nearest, 0.05), _LOOK))


def _pending(verb: Verb) -> tuple[tuple[str, str], ...]:
    return tuple((name, "pending") for name in steps_of(verb))


def sweep(guest: Guest) -> None:
    """Remove what a killed snapshot or restore left on the server, where there is one."""
    manager = guest.manager
    if manager.datastore.backup is not None and manager.service.pid() is not None:
        manager.backup.sweep()
