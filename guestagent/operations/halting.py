"""How an operation is made to end before its time: cancelled, past its deadline, or because the agent ends.

The reason is set from any thread.  The operation hears it at its next ``check``; the programs it waits for are
killed meanwhile.  Beyond the point of no return nothing stops it any more.
"""

import threading
from collections.abc import Callable

from guestagent.errors import AgentError


class Halt:
    """One operation's ear.  ``interrupt`` kills the programs that the operation's thread waits for."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._deaf = False
        self._unwinding = False
        self._frozen = threading.Event()
        self.reason: AgentError | None = None

    def ask(self, reason: AgentError) -> None:
        """Ask the operation to end; the first reason counts.  Asking again kills what was started since."""
        with self._lock:
            if self._deaf:
                return
            self.reason = self.reason or reason
            self._asked.set()
            if not self._unwinding:
                self._interrupt()

    def check(self) -> None:
        """Raise the reason, if there is one."""
        if self._asked.is_set() and self.reason is not None and not self._deaf:
            self.unwind()
            raise self.reason

    def pause(self, seconds: float) -> None:
        """Sleep, but not longer than until somebody asks."""
        if self._deaf:
            threading.Event().wait(seconds)
        elif self._asked.wait(seconds):
            self.check()

    def freeze(self) -> None:
        """Let the operation go no further in this life: nothing fails, nothing is undone, the next life goes on."""
        self._frozen.set()

    def park(self) -> None:
        """Never return where it is frozen; the thread ends with the process."""
        if self._frozen.is_set():
            threading.Event().wait()

    def unwind(self) -> None:
        """From here on the operation cleans up after itself: its programs are left alone."""
        with self._lock:
            self._unwinding = True

    def commit(self, *, again: bool = False) -> None:
        """Pass the point of no return: raise the reason now, or hear none any more; ``again``: it was passed before."""
        with self._lock:
            asked = self._asked.is_set() and not again
            if not asked:
                self._deaf, self.reason = True, None
        if asked:
            self.check()
