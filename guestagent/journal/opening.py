"""Opening the journal: locked, checked body by body, and counted as a new life of the agent."""

from dataclasses import dataclass
from pathlib import Path

from datastores.contract import JSON
from guestagent.errors import JournalCorrupt, UnknownOperation
from guestagent.files import made
from guestagent.journal.bodies import Bodies
from guestagent.journal.database import Database
from guestagent.journal.facts import Facts
from guestagent.journal.lock import Lock, hold
from guestagent.journal.outbox import Outbox
from guestagent.journal.rows import Ledger, Row
from guestagent.journal.sealing import Sealer, host_key, new_key, plain


@dataclass(frozen=True)
class Journal:
    """What was asked and how far it went; survives a kill at any moment.

    ``boot_epoch`` counts the agent's lives.  Where the file cannot be trusted, ``trouble`` says why: reads are
    answered as far as they can be, every change raises ``JournalCorrupt``.
    """

    ledger: Ledger
    bodies: Bodies
    outbox: Outbox
    facts: Facts
    boot_epoch: int
    database: Database
    lock: Lock

    @property
    def trouble(self) -> str | None:
        """Return why changes are refused, or None."""
        return self.database.trouble

    @property
    def restore_epoch(self) -> int:
        """Return how many restores this guest's data has seen."""
        return 0 if self.trouble else self.facts.number("restore_epoch")

    def show(self, operation: str) -> dict[str, JSON]:
        """Return an operation's JSON, its result included unless that is told once only."""
        return self.told(self.ledger.find(operation))

    def told(self, row: Row, *, deliver: bool = False) -> dict[str, JSON]:
        """Return a row's JSON; ``deliver`` tells an outcome that is told once, and destroys it."""
        if row.live or (row.once and not deliver):
            return row.to_json()
        shown = row.to_json(plain(self.bodies.outcome(row.id)))
        if row.once:
            self.bodies.destroy(row.id)
        return shown

    def close(self) -> None:
        """Close the file and let another agent in."""
        self.database.close()
        self.lock.close()


def open_journal(state_dir: Path) -> Journal:
    """Open the journal of ``state_dir`` for its one agent, or raise ``SecondAgent``."""
    made(state_dir, 0o711, "state_dir")  # the server's account passes through
    lock = hold(state_dir)
    path = state_dir / "journal.db"
    if not path.exists() or path.stat().st_size == 0:
        # The key first: a journal that is there without its key is never believed again.
        host_key(state_dir / "keys", create=True)
    database = Database(path)
    host = _host(state_dir, database)
    journal = _assemble(database, host, lock, 0)
    _check(journal, host)
    return _assemble(database, host, lock, _next_epoch(journal))


def look(state_dir: Path) -> Journal:
    """Open the journal of a dead agent to read it; nothing is changed.  ``SecondAgent`` while one lives."""
    path = state_dir / "journal.db"
    if not path.exists():
        raise UnknownOperation(f"there is no journal in {state_dir}", field="state_dir")
    lock = hold(state_dir, shared=True)
    database = Database(path, writable=False)
    return _assemble(database, host_key(state_dir / "keys", create=False), lock, 0)


def _assemble(database: Database, host: Sealer, lock: Lock, epoch: int) -> Journal:
    facts = Facts(database, host)
    outbox = Outbox(database, host, facts)
    return Journal(Ledger(database, host, outbox), Bodies(database, host), outbox, facts, epoch, database, lock)


def _host(state_dir: Path, database: Database) -> Sealer:
    try:
        return host_key(state_dir / "keys", create=False)
    except JournalCorrupt as error:
        database.trouble = database.trouble or str(error)
        return Sealer(new_key())


def _check(journal: Journal, host: Sealer) -> None:
    """Open every sealed body once; the first that is not what was written is the trouble."""
    database = journal.database
    if database.trouble:
        return
    try:
        live = {str(name) for (name,) in database.rows("SELECT id FROM operation WHERE ended = 0")}
        for row in journal.ledger.all():
            if row.live != (row.id in live):
                raise JournalCorrupt(f"the journal contradicts itself about operation {row.id}")
            journal.bodies.outcome(row.id)
            if row.live:
                journal.bodies.request(row.id)
                journal.bodies.results(row.id)
        for name, body in database.rows("SELECT name, body FROM fact"):
            host.open(f"fact {name}", body)
        for subject, body in database.rows("SELECT subject, body FROM outbox"):
            host.open(f"report {subject}", body)
    except (JournalCorrupt, TypeError, ValueError) as error:
        database.trouble = str(error)


def _next_epoch(journal: Journal) -> int:
    if journal.trouble:
        return 0
    epoch = journal.facts.number("boot_epoch") + 1
    journal.facts.set("boot_epoch", epoch)
    return epoch
