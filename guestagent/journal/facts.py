"""Small sealed facts about this guest that outlive the agent: epochs, whether it was prepared, the last stamp."""

import sqlite3
from typing import TYPE_CHECKING

from datastores.contract import JSON
from guestagent.journal.sealing import Sealer

if TYPE_CHECKING:
    from guestagent.journal.database import Database


class Facts:
    """Named JSON values."""

    def __init__(self, database: "Database", host: Sealer) -> None:
        self._database = database
        self._host = host

    def get(self, name: str) -> JSON:
        """Return a fact, or None where it was never set."""
        found = self._database.rows("SELECT body FROM fact WHERE name = ?", (name,))
        if not found:
            return None
        return self._host.read(f"fact {name}", found[0][0])

    def number(self, name: str) -> int:
        """Return a fact that counts; 0 where it was never set."""
        value = self.get(name)
        return value if isinstance(value, int) else 0

    def set(self, name: str, value: JSON) -> None:
        """Commit a fact."""
        self._database.change(lambda connection: self._write(connection, name, value))

    def set_all(self, values: dict[str, JSON]) -> None:
        """Commit several facts at once."""

        def work(connection: sqlite3.Connection) -> None:
            for name, value in values.items():
                self._write(connection, name, value)

        self._database.change(work)

    def _write(self, connection: sqlite3.Connection, name: str, value: JSON) -> None:
        body = self._host.write(f"fact {name}", value)
        connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, body))
