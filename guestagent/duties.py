"""Duties: loops that run as long as the agent does, and survive whatever goes wrong in one turn.

* ``Heartbeat`` commits the guest's status to the outbox; an unsent one is replaced by the next;
* ``Post`` sends what is in the outbox, oldest first, again and again until it is confirmed;
* ``Tidying`` destroys old outcomes, forgets old operations and sets the disk reserve aside again.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Protocol

from datastores.contract import JSON
from guestagent.errors import Unreachable
from guestagent.journal.clock import now
from guestagent.operations.guest import Guest
from guestagent.operations.run import attempt
from guestagent.status import Status, report, route

LOG = logging.getLogger(__name__)
LONGEST = 30.0
TOLD_FOR = timedelta(days=1)
KEPT_FOR = timedelta(days=8)


class Reporter(Protocol):
    """Where reports go."""

    def report(self, kind: str, body: Mapping[str, JSON], sent: float) -> None:
        """Send one report and return once it is confirmed; else raise ``Unreachable``."""


class Heartbeat:
    """Say how the guest is.  ``spare`` holds the last one where the journal takes none."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._last: Status | None = None
        self.spare: dict[str, JSON] | None = None

    def beat(self) -> None:
        """Commit one heartbeat to the outbox."""
        guest = self._guest.current()
        at = now()
        body = {**report(guest), "heartbeat_at": at}
        self._follow(Status(str(body["status"])))
        if guest.journal.trouble:
            self.spare = body
            guest.journal.outbox.news.set()
            return
        guest.journal.facts.set("heartbeat_at", at)
        guest.journal.outbox.put("heartbeat", "heartbeat", body)

    def _follow(self, status: Status) -> None:
        for each in route(self._last, status) if self._last is not None else (status,):
            LOG.info("status: %s", each)
        self._last = status


class Post:
    """Send what waits in the outbox."""

    def __init__(self, guest: Guest, reporter: Reporter, heartbeat: Heartbeat) -> None:
        self._guest = guest
        self._reporter = reporter
        self._heartbeat = heartbeat
        self._stamp = 0.0

    def drain(self) -> None:
        """Send all reports in order; the first that is not confirmed ends the turn and stays."""
        outbox = self._guest.journal.outbox
        outbox.news.clear()
        if self._guest.journal.trouble:
            self._last_word()
            return
        while (found := outbox.first()) is not None:
            self._reporter.report(found.kind, found.body, outbox.stamp())
            outbox.confirm(found)

    def _last_word(self) -> None:
        """Without a journal only the status is told, stamped by the clock alone."""
        spare, self._heartbeat.spare = self._heartbeat.spare, None
        if spare is not None:
            self._stamp = max(time.time(), self._stamp + 0.000_001)
            self._reporter.report("heartbeat", spare, self._stamp)


class Tidying:
    """Keep secrets and the journal no longer than they are needed."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def tidy(self) -> None:
        """Destroy outcomes that are a day old, forget operations that ended more than a week ago."""
        journal = self._guest.journal
        if journal.trouble:
            return
        journal.database.keep_reserve()
        for row in journal.ledger.all():
            if row.live or row.ended_at is None:
                continue
            age = datetime.now(UTC) - datetime.fromisoformat(row.ended_at)
            if age > KEPT_FOR:
                journal.bodies.remove(row)
            elif age > TOLD_FOR:
                journal.bodies.destroy(row.id)


class Loop:
    """Take a turn every ``interval`` seconds, or when ``wake`` is set; after a failure wait longer and longer."""

    def __init__(
        self, name: str, interval: float, turn: Callable[[], None], wake: threading.Event | None = None
    ) -> None:
        self.name = name
        self._interval = interval
        self._turn = turn
        self._wake = wake or threading.Event()
        self._ended = threading.Event()
        self._alone = False
        self._thread = threading.Thread(target=self._go_round, name=name, daemon=True)

    def start(self) -> None:
        """Begin with a first turn now."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Take no further turn."""
        self._ended.set()
        self._wake.set()
        self._thread.join(timeout)

    def _go_round(self) -> None:
        failures = 0
        while not self._ended.is_set():
            _, error = attempt(self.name, self._take_turn)
            failures = 0 if error is None else failures + 1
            if failures:
                self._ended.wait(min(2.0**failures / 4, LONGEST))
            else:
                self._wake.wait(self._interval)

    def _take_turn(self) -> None:
        """Take a turn; that nobody listens is no news worth a line each time."""
        if self._ended.is_set():
            return
        try:
            self._turn()
        except Unreachable as error:
            LOG.log(logging.DEBUG if self._alone else logging.INFO, "%s: %s", self.name, error)
            self._alone = True
            self._ended.wait(min(self._interval, LONGEST))
        else:
            self._alone = False


def loops(guest: Guest, reporter: Reporter, interval: float) -> tuple[Heartbeat, tuple[Loop, ...]]:
    """Return the heartbeat, for a first beat by hand, and the duties' loops, not started."""
    heartbeat = Heartbeat(guest)
    post = Post(guest, reporter, heartbeat)
    return heartbeat, (
        Loop("heartbeat", interval, heartbeat.beat),
        Loop("outbox", interval, post.drain, guest.journal.outbox.news),
        Loop("tidying", 600.0, Tidying(guest).tidy),
    )
