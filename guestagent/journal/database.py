"""The journal's file: SQLite with a write-ahead log, every commit on the disk before it returns.

One connection behind one lock.  A reserve of disk space is given up when the disk is full, so that
a failure can still be written down.  A file that cannot be trusted stays readable as far as
it goes, and is never written again.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from guestagent.errors import JournalCorrupt
from guestagent.journal.log import damage

SCHEMA = 1
RESERVE = 1 << 20

_TABLES = (
    "CREATE TABLE fact (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    """CREATE TABLE operation (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        request_id TEXT NOT NULL UNIQUE,
        ended INTEGER NOT NULL,
        head BLOB NOT NULL,
        key BLOB,
        request BLOB,
        outcome BLOB)""",
    """CREATE TABLE step (
        operation TEXT NOT NULL,
        name TEXT NOT NULL,
        result BLOB NOT NULL,
        PRIMARY KEY (operation, name)) WITHOUT ROWID""",
    """CREATE TABLE outbox (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        subject TEXT NOT NULL UNIQUE,
        body BLOB NOT NULL)""",
    f"PRAGMA user_version = {SCHEMA}",
)

T = TypeVar("T")
Row = tuple[Any, ...]


class Database:
    """A connection, its lock, its reserve, and what is wrong with it (``trouble``), if anything."""

    def __init__(self, path: Path, *, writable: bool = True) -> None:
        self._lock = threading.RLock()
        self._reserve = path.with_name("reserve")
        self.trouble = damage(path.with_name(f"{path.name}-wal"))
        # What is damaged is looked at as it is: opening it to write would drop the evidence.
        self._writable = writable and self.trouble is None
        self._connection = _connect(path, self._writable)
        self._prepare()

    def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in one transaction, durable when this returns; all of it or nothing.

        ``work`` may be run a second time, after the reserve was given up.
        """
        with self._lock:
            self.must_be_sound()
            try:
                return self._once(work)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_FULL or not self._release():
                    raise
                return self._once(work)
            except sqlite3.DatabaseError as error:
                if not isinstance(error, sqlite3.IntegrityError):
                    self.trouble = str(error)
                raise

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Return the rows of a query."""
        with self._lock:
            try:
                return self._connection.execute(statement, values).fetchall()
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                raise JournalCorrupt(f"the journal cannot be read: {error}") from error

    def must_be_sound(self) -> None:
        """Raise ``JournalCorrupt`` where changes are refused."""
        if self.trouble:
            raise JournalCorrupt(
                f"the journal is damaged and changes are refused: {self.trouble}",
                hint="look at the state directory; to start over, move journal.db* away, and the data with it",
            )

    def forget(self) -> None:
        """Rid the file and its log of what was deleted."""
        with self._lock:
            if not self.trouble:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def keep_reserve(self) -> None:
        """Set the reserve aside again, if there is room."""
        if not self._writable or self._reserve.exists():
            return
        descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE)
        except OSError:
            self._reserve.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        done = False
        try:
            result = work(connection)
            connection.execute("COMMIT")
            done = True
            return result
        finally:
            if not done and connection.in_transaction:
                connection.execute("ROLLBACK")

    def _release(self) -> bool:
        there = self._reserve.exists()
        self._reserve.unlink(missing_ok=True)
        return there

    def _prepare(self) -> None:
        try:
            for pragma in _pragmas(self._writable):
                self._connection.execute(pragma).fetchall()
            self.trouble = self.trouble or next(self._troubles(), None)
            if self.trouble is None and self._writable:
                self._make_tables()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self.trouble = str(error)
        if self.trouble is None:
            self.keep_reserve()

    def _troubles(self) -> Iterator[str]:
        [(schema,)] = self._connection.execute("PRAGMA user_version").fetchall()
        if schema > SCHEMA:
            yield f"it was written by a newer agent (schema {schema}, we know {SCHEMA})"
        for (line,) in self._connection.execute("PRAGMA integrity_check(1)").fetchall():
            if line != "ok":
                yield str(line)

    def _make_tables(self) -> None:
        [(schema,)] = self._connection.execute("PRAGMA user_version").fetchall()
        if schema == 0:
            self._once(lambda connection: [connection.execute(each) for each in _TABLES])


def _connect(path: Path, writable: bool) -> sqlite3.Connection:
    mode = "rwc" if writable else "ro"
    previous = os.umask(0o077)
    try:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=10.0,
        )
    finally:
        os.umask(previous)


def _pragmas(writable: bool) -> tuple[str, ...]:
    if not writable:
        return ("PRAGMA query_only = ON",)
    return (
        "PRAGMA locking_mode = EXCLUSIVE",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA secure_delete = ON",
        "PRAGMA wal_autocheckpoint = 100",
        "PRAGMA temp_store = MEMORY",
    )
