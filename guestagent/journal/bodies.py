"""What operations were asked, what their steps gave and what they answered: sealed under their own keys.

A key is destroyed when the operation ends (a new one then seals the outcome), when an outcome that is told once
was told, and when an outcome expires.  What it sealed is gone with it.
"""

import sqlite3
from typing import TYPE_CHECKING

from datastores.contract import JSON
from guestagent.journal.sealing import Sealer

if TYPE_CHECKING:
    from guestagent.journal.database import Database
    from guestagent.journal.rows import Row


class Bodies:
    """Read the sealed bodies of operations, and destroy them."""

    def __init__(self, database: "Database", host: Sealer) -> None:
        self._database = database
        self._host = host

    def request(self, operation: str) -> JSON:
        """Return the arguments of a live operation, as they were sent."""
        return self._read(operation, "request")

    def results(self, operation: str) -> dict[str, JSON]:
        """Return what the finished steps of a live operation gave, by name."""
        own = self._own(operation)
        if own is None:
            return {}
        found = self._database.rows("SELECT name, result FROM step WHERE operation = ?", (operation,))
        return {str(name): own.read(f"step {operation} {name}", body) for name, body in found}

    def outcome(self, operation: str) -> JSON:
        """Return the result of an operation that has ended; None once it is destroyed."""
        return self._read(operation, "outcome")

    def destroy(self, operation: str) -> None:
        """Destroy an operation's key, and with it whatever it sealed."""
        statement = "UPDATE operation SET key = NULL, request = NULL, outcome = NULL WHERE id = ? AND ended = 1"
        if self._own(operation) is not None:
            self._database.change(lambda connection: connection.execute(statement, (operation,)))
            self._database.forget()

    def remove(self, row: "Row") -> None:
        """Remove an operation that has ended from the journal, and what nobody heard about it."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM operation WHERE id = ? AND ended = 1", (row.id,))
            connection.execute("DELETE FROM outbox WHERE subject = ?", (f"operation {row.id}",))

        self._database.change(work)

    def _read(self, operation: str, column: str) -> JSON:
        own = self._own(operation)
        [(body,)] = self._database.rows(f"SELECT {column} FROM operation WHERE id = ?", (operation,))  # noqa: S608
        return None if own is None or body is None else own.read(f"{column} {operation}", body)

    def _own(self, operation: str) -> Sealer | None:
        [(key,)] = self._database.rows("SELECT key FROM operation WHERE id = ?", (operation,))
        return None if key is None else Sealer(self._host.open(f"key {operation}", key))
