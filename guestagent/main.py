"""Where the ``ostler`` command begins.

``agent start`` runs the agent and loads nothing of the command line; everything else is ``guestagent.cli``.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guestagent.agent import Agent

LOG = logging.getLogger(__name__)

Order = str | BaseException
"""What wakes the main thread: ``ready``, ``stop``, ``reset``, or the error with which starting ended."""


class Orders:
    """A queue that signals fill while the main thread waits for it.

    The kernel may hand a signal to any thread, and then nothing interrupts the main thread, which alone runs
    Python's handlers: it therefore waits for a pipe that the interpreter writes to on every signal.
    """

    def __init__(self) -> None:
        self._waiting: deque[Order] = deque()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def put(self, order: Order) -> None:
        """Add an order; from any thread or handler."""
        self._waiting.append(order)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b"\0")

    def get(self) -> Order:
        """Wait for the next order and return it; in the main thread."""
        while not self._waiting:
            os.read(self._woken, 4096)
        return self._waiting.popleft()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:2] == ["agent", "start"]:
        return start_agent(words[2:])
    from guestagent.cli import run as command

    return command(words)


def start_agent(words: Sequence[str]) -> int:
    """Run the agent in the foreground until SIGTERM or SIGINT; return the exit status of what prevented it."""
    import guestagent.rpc  # noqa: F401 - threads are chosen before anything of oslo is loaded
    from datastores.contract import DatastoreError
    from guestagent.config import load
    from guestagent.errors import AgentError, Fault
    from guestagent.memory import keep_little
    from objectstore.store import StoreError

    keep_little()
    orders = Orders()
    listen(orders)
    try:
        configuration = load(words)
        configuration.set_up_logging()
        from guestagent.agent import Agent

        run(Agent(configuration), orders)
    except (AgentError, DatastoreError, StoreError) as error:
        fault = Fault.of(error)
        field = f"{fault.field}: " if fault.field and fault.field not in fault.message else ""
        print(f"ostler: {fault.type}: {field}{fault.message}", file=sys.stderr)
        if fault.hint:
            print(f"ostler: {fault.hint}", file=sys.stderr)
        return fault.exit_status
    return 0


def run(agent: "Agent", orders: Orders) -> None:
    """Start the agent in a thread, as a broker may keep it waiting, and obey signals until it is to end."""
    threading.Thread(target=_start, args=(agent, orders), name="start", daemon=True).start()
    while (order := orders.get()) != "stop":
        if isinstance(order, BaseException):
            raise order
        if order == "ready":
            agent.tell_ready()
        else:
            agent.reset()
    LOG.info("The agent ends")
    agent.stop()
    logging.shutdown()
    # A question that never got its answer has a thread that nobody can end.
    os._exit(0)


def listen(orders: Orders) -> None:
    """Turn signals into orders, however many come; the handlers stay for good."""

    def order(number: int, frame: FrameType | None) -> None:
        orders.put("reset" if number == signal.SIGHUP else "stop")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, order)


def _start(agent: "Agent", orders: Orders) -> None:
    failed: Order = RuntimeError("the agent could not be started; see above")
    try:
        agent.start()
        failed = "ready"
    except _ours() as error:
        failed = error
    finally:
        orders.put(failed)


def _ours() -> tuple[type[Exception], ...]:
    from datastores.contract import DatastoreError
    from guestagent.errors import AgentError
    from objectstore.store import StoreError

    return (AgentError, DatastoreError, StoreError)


if __name__ == "__main__":
    sys.exit(main())
