"""One operation as the journal knows it, and the ledger of all of them."""

import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from datastores.contract import JSON
from guestagent.errors import Refused, UnknownOperation
from guestagent.journal.clock import now
from guestagent.journal.sealing import Sealer, decode, encode, new_key, plain

if TYPE_CHECKING:
    from guestagent.journal.database import Database
    from guestagent.journal.outbox import Outbox

QUEUED, RUNNING = "queued", "running"
SUCCEEDED, FAILED, INTERRUPTED, CANCELLED = "succeeded", "failed", "interrupted", "cancelled"
LIVE = (QUEUED, RUNNING)

_COLUMNS = "number, id, request_id, head"


@dataclass(frozen=True)
class Row:
    """One operation, without what it was asked and what it answered: those are sealed apart.

    ``steps`` are pairs of name and state (``pending running done failed``), ``version`` names the code that runs it,
    ``digest`` is a keyed digest of the arguments, ``deadline`` in Unix seconds, ``note`` what the operation wants
    known about itself, never a secret.
    """

    id: str
    request_id: str
    verb: str
    version: str
    state: str
    steps: tuple[tuple[str, str], ...]
    digest: str
    deadline: float
    epoch: int
    caller: str = ""
    tenant: str = ""
    once: bool = False
    accepted_at: str = field(default_factory=now)
    started_at: str | None = None
    ended_at: str | None = None
    progress: tuple[int, int, str] = (0, 0, "")
    note: Mapping[str, JSON] = field(default_factory=dict)
    error: Mapping[str, JSON] | None = None
    number: int = 0

    @property
    def live(self) -> bool:
        """Say whether it is still to end."""
        return self.state in LIVE

    @property
    def step(self) -> str | None:
        """Return the step it is in, or the last one it was in."""
        begun = [name for name, state in self.steps if state != "pending"]
        return begun[-1] if begun else None

    def with_step(self, name: str, state: str) -> "Row":
        """Return the row with one step's state changed."""
        return replace(self, steps=tuple((each, state if each == name else old) for each, old in self.steps))

    def step_state(self, name: str) -> str:
        """Return a step's state; ``pending`` for one that is not known."""
        return dict(self.steps).get(name, "pending")

    def to_json(self, result: JSON = None) -> dict[str, JSON]:
        """Return the ``operation`` JSON."""
        done, total, unit = self.progress
        return {
            "id": self.id,
            "request_id": self.request_id,
            "verb": self.verb,
            "state": self.state,
            "step": self.step,
            "steps": [{"name": name, "state": state} for name, state in self.steps],
            "progress": {"done": done, "total": total, "unit": unit},
            "result": result,
            "error": dict(self.error) if self.error is not None else None,
            "accepted_at": self.accepted_at,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "epoch": self.epoch,
        }


class Ledger:
    """The operations in the order in which they were accepted."""

    def __init__(self, database: "Database", host: Sealer, outbox: "Outbox") -> None:
        self._database = database
        self._host = host
        self._outbox = outbox

    def digest(self, args: object) -> str:
        """Return the keyed digest under which arguments are compared."""
        return self._host.digest(encode(args))

    def add(self, row: Row, args: object) -> Row:
        """Commit a new operation with its arguments, and its report."""
        key = new_key()
        request = Sealer(key).write(f"request {row.id}", args)

        def work(connection: sqlite3.Connection) -> Row:
            cursor = connection.execute(
                "INSERT INTO operation (id, request_id, ended, head, key, request) VALUES (?, ?, 0, ?, ?, ?)",
                (row.id, row.request_id, self._head(row), self._host.seal(f"key {row.id}", key), request),
            )
            added = replace(row, number=cursor.lastrowid or 0)
            self._outbox.insert(connection, "operation", row.id, added.to_json())
            return added

        return self._database.change(work)

    def save(self, row: Row) -> None:
        """Commit how far a live operation is."""
        values = (self._head(row), row.id)
        self._database.change(lambda c: c.execute("UPDATE operation SET head = ? WHERE id = ? AND ended = 0", values))

    def keep(self, row: Row, step: str, result: object) -> None:
        """Commit a finished step with its result."""
        body = self._own(row.id).write(f"step {row.id} {step}", result)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE operation SET head = ? WHERE id = ? AND ended = 0", (self._head(row), row.id))
            connection.execute("INSERT OR REPLACE INTO step VALUES (?, ?, ?)", (row.id, step, body))

        self._database.change(work)

    def end(self, row: Row, outcome: object) -> None:
        """Commit the outcome; what was asked, and every step's result, is destroyed with their key."""
        key = new_key()
        sealed = Sealer(key).write(f"outcome {row.id}", outcome)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE operation SET ended = 1, head = ?, key = ?, request = NULL, outcome = ? WHERE id = ?",
                (self._head(row), self._host.seal(f"key {row.id}", key), sealed, row.id),
            )
            connection.execute("DELETE FROM step WHERE operation = ?", (row.id,))
            told = row.to_json(None if row.once else plain(outcome))
            self._outbox.insert(connection, "operation", row.id, told)

        self._database.change(work)
        self._database.forget()

    def find(self, operation: str) -> Row:
        """Return an operation by its id, or raise ``UnknownOperation``."""
        found = self._select("WHERE id = ?", operation)
        if not found:
            raise UnknownOperation(f"there is no operation {operation[:80]!r}", field="operation")
        return found[0]

    def by_request(self, request_id: str) -> Row | None:
        """Return the operation that a request made, or None."""
        found = self._select("WHERE request_id = ?", request_id)
        return found[0] if found else None

    def all(self, *, live: bool = False) -> list[Row]:
        """Return all operations, or those that are still to end."""
        return self._select("WHERE ended = 0 ORDER BY number" if live else "ORDER BY number")

    def page(self, after: str | None = None, limit: int | None = None) -> list[Row]:
        """Return operations behind the one called ``after``, at most ``limit``, in their order."""
        if limit is not None and limit < 1:
            raise Refused("limit must be at least 1", field="limit")
        try:
            number = self.find(after).number if after is not None else 0
        except UnknownOperation as error:
            raise UnknownOperation(str(error), field="after") from None
        return self._select("WHERE number > ? ORDER BY number LIMIT ?", number, -1 if limit is None else limit)

    def _select(self, clause: str, *values: object) -> list[Row]:
        found = self._database.rows(f"SELECT {_COLUMNS} FROM operation {clause}", values)  # noqa: S608
        return [self._row(*each) for each in found]

    def _row(self, number: Any, operation: Any, request_id: Any, head: Any) -> Row:
        values: Any = decode(self._host.open(f"head {operation} {request_id}", head))
        values["steps"] = tuple((name, state) for name, state in values["steps"])
        values["progress"] = tuple(values["progress"])
        return Row(number=number, id=operation, request_id=request_id, **values)

    def _head(self, row: Row) -> bytes:
        values = asdict(row)
        for name in ("number", "id", "request_id"):
            del values[name]
        return self._host.write(f"head {row.id} {row.request_id}", values)

    def _own(self, operation: str) -> Sealer:
        [(key,)] = self._database.rows("SELECT key FROM operation WHERE id = ?", (operation,))
        return Sealer(self._host.open(f"key {operation}", key))
