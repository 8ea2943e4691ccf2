"""The outbox: reports that wait in the journal until the broker has confirmed them.

An unsent report about a subject is replaced by a newer one about the same, so that the box does not grow while nobody
listens.  The stamp ``sent`` is taken when a report is sent and committed before it leaves.
"""

import sqlite3
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datastores.contract import JSON
from guestagent.journal.sealing import Sealer

if TYPE_CHECKING:
    from guestagent.journal.database import Database
    from guestagent.journal.facts import Facts

TICK = 0.000_001


@dataclass(frozen=True)
class Report:
    """One report: ``kind`` is ``heartbeat``, ``operation`` or ``backup``; ``body`` its JSON."""

    number: int
    kind: str
    body: dict[str, JSON]


class Outbox:
    """What is to be reported, in order; ``news`` is set whenever something was added."""

    def __init__(self, database: "Database", host: Sealer, facts: "Facts") -> None:
        self._database = database
        self._host = host
        self._facts = facts
        self.news = threading.Event()

    def put(self, kind: str, name: str, body: dict[str, JSON]) -> None:
        """Commit a report about ``name``; an unsent one about the same is replaced."""
        self._database.change(lambda connection: self.insert(connection, kind, name, body))

    def insert(self, connection: sqlite3.Connection, kind: str, name: str, body: dict[str, JSON]) -> None:
        """Add a report within a transaction that is under way."""
        subject = f"{kind} {name}"
        sealed = self._host.write(f"report {subject}", body)
        connection.execute("DELETE FROM outbox WHERE subject = ?", (subject,))
        connection.execute("INSERT INTO outbox (subject, body) VALUES (?, ?)", (subject, sealed))
        self.news.set()

    def first(self) -> Report | None:
        """Return the oldest unsent report, or None."""
        found = self._database.rows("SELECT number, subject, body FROM outbox ORDER BY number LIMIT 1")
        return self._report(*found[0]) if found else None

    def stamp(self) -> float:
        """Return the next ``sent`` in Unix seconds, greater than every one before, committed.

        It follows the clock.  Where the clock was set back it grows by the least step until the clock has caught up.
        """
        last = self._facts.get("sent")
        sent = time.time()
        if isinstance(last, float) and sent <= last:
            sent = last + TICK
        self._facts.set("sent", sent)
        return sent

    def confirm(self, report: Report) -> None:
        """Forget a report that was confirmed; a newer one about the same subject stays."""
        self._database.change(lambda c: c.execute("DELETE FROM outbox WHERE number = ?", (report.number,)))

    def waiting(self) -> int:
        """Return how many reports wait."""
        [(count,)] = self._database.rows("SELECT count(*) FROM outbox")
        return int(str(count))

    def _report(self, number: Any, subject: str | Any, sealed: Any) -> Report:
        body: Any = self._host.read(f"report {subject}", sealed)
        return Report(number, str(subject).partition(" ")[0], body)
