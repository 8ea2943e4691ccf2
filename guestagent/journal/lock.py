"""One guest id, one agent: the lock on the state directory; one data root, one agent: the lock on that."""

import fcntl
import os
from pathlib import Path

from guestagent.errors import SecondAgent
from guestagent.files import made


class Lock:
    """A held lock; it ends with ``close`` or with the process, however that ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Let go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def hold(state_dir: Path, *, shared: bool = False) -> Lock:
    """Lock the state directory, or raise ``SecondAgent``; ``shared`` only keeps an agent away."""
    descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise SecondAgent(f"an agent is at work on {state_dir}", hint="end it first") from error
    return Lock(descriptor)


def claim(root: Path) -> None:
    """Have the data root for this process alone, until it ends, or raise ``SecondAgent``; it is made if missing."""
    made(root, 0o711, "root")
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise SecondAgent(f"another agent is at work on {root}", hint="give each guest a root of its own") from error
