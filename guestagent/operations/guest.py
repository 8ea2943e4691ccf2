"""``Guest``: one node with all that an operation may use."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from datastores.manager import Manager
from guestagent.errors import AgentError
from guestagent.journal import Journal
from guestagent.status import Questions
from objectstore.archive import Archive

Ask = Callable[[AgentError], None]


class Signals:
    """Which live operation hears whom: the door through which one is asked to end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, Ask] = {}

    def listen(self, operation: str, ask: Ask) -> None:
        """Let ``ask`` be called with the reason when somebody wants the operation to end."""
        with self._lock:
            self._listeners[operation] = ask

    def leave(self, operation: str) -> None:
        """Listen no more; no error where nobody did."""
        with self._lock:
            self._listeners.pop(operation, None)

    def ask(self, operation: str, reason: AgentError) -> bool:
        """Ask a live operation to end; return whether there was one to hear it."""
        with self._lock:
            ask = self._listeners.get(operation)
        if ask is not None:
            ask(reason)
        return ask is not None


@dataclass(frozen=True)
class Guest:
    """One database, its archive and its journal; ``archive`` is None where no realm was configured."""

    guest_id: str
    boot_epoch: int
    manager: Manager
    archive: Archive | None
    journal: Journal
    state_dir: Path
    signals: Signals = field(default_factory=Signals)
    questions: Questions = field(default_factory=Questions)

    def current(self) -> "Guest":
        """Return the guest as it is after the restores that its data has seen."""
        return replace(self, manager=self.manager.with_epoch(self.journal.restore_epoch))
