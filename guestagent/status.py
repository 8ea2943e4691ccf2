"""How the database is: the states, the moves between them, and what they are judged by."""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from datastores.contract import JSON, DatastoreError

if TYPE_CHECKING:
    from guestagent.operations.guest import Guest


class Status(StrEnum):
    """NEW: never prepared. BUILDING: being prepared, restored or started. RUNNING: answers.

    HEALTHY: prepared, and a probe held. CRASHED: should run and does not answer. SHUTDOWN: ended on purpose.
    FAILED: a person must look.
    """

    NEW = "NEW"
    BUILDING = "BUILDING"
    RUNNING = "RUNNING"
    HEALTHY = "HEALTHY"
    CRASHED = "CRASHED"
    SHUTDOWN = "SHUTDOWN"
    FAILED = "FAILED"


_S = Status
MOVES: Final[dict[Status, frozenset[Status]]] = {
    _S.NEW: frozenset({_S.BUILDING, _S.FAILED}),
    _S.BUILDING: frozenset({_S.RUNNING, _S.SHUTDOWN, _S.CRASHED, _S.FAILED, _S.NEW}),
    _S.RUNNING: frozenset({_S.HEALTHY, _S.BUILDING, _S.CRASHED, _S.SHUTDOWN, _S.FAILED}),
    _S.HEALTHY: frozenset({_S.RUNNING, _S.BUILDING, _S.CRASHED, _S.SHUTDOWN, _S.FAILED}),
    _S.CRASHED: frozenset({_S.RUNNING, _S.BUILDING, _S.SHUTDOWN, _S.FAILED}),
    _S.SHUTDOWN: frozenset({_S.RUNNING, _S.BUILDING, _S.CRASHED, _S.FAILED}),
    _S.FAILED: frozenset({_S.BUILDING, _S.RUNNING, _S.CRASHED, _S.SHUTDOWN}),
}


@dataclass(frozen=True)
class Seen:
    """What was found: in the journal (``sound changing prepared failed stopped``) and at the server."""

    sound: bool = True
    changing: bool = False
    prepared: bool = False
    failed: bool = False
    stopped: bool = False
    answers: bool = False
    probed: bool = False


CHANGING: Final = frozenset({"agent.prepare", "backup.restore", "service.start", "service.restart"})
"""The verbs during which a server that is down has not crashed."""
PATIENCE: Final = 3.0
"""Seconds for which a server may think about a question; two of them and a bit are what ``status`` may take."""


def judge(seen: Seen) -> Status:
    """Return the status that was seen."""
    if not seen.sound:
        return Status.FAILED
    if seen.answers:
        return Status.HEALTHY if seen.probed else Status.RUNNING
    if seen.prepared and seen.stopped:
        return Status.SHUTDOWN
    if seen.changing:
        return Status.BUILDING
    if seen.prepared:
        return Status.CRASHED
    return Status.FAILED if seen.failed else Status.NEW


def route(old: Status, new: Status) -> tuple[Status, ...]:
    """Return the allowed moves from one status to another, the shortest way, ``new`` last; none where they are one."""
    if old == new:
        return ()
    ways: deque[tuple[Status, ...]] = deque([(old,)])
    while ways:
        way = ways.popleft()
        for status in sorted(MOVES[way[-1]] - set(way)):
            if status == new:
                return (*way[1:], status)
            ways.append((*way, status))
    raise AssertionError(f"no way leads from {old} to {new}")


def look(guest: "Guest") -> Seen:
    """Look at the journal and, where there should be one, at the server."""
    facts, journal = guest.journal.facts, guest.journal
    if journal.trouble:
        return Seen(sound=False)
    changing = any(row.verb in CHANGING for row in journal.ledger.all(live=True))
    prepared = facts.get("prepared") is not None
    answers = prepared and _holds(guest, "ping")
    return Seen(
        changing=changing,
        prepared=prepared,
        failed=bool(facts.get("failed")),
        stopped=bool(facts.get("stopped")),
        answers=answers,
        probed=answers and _holds(guest, "probe"),
    )


def report(guest: "Guest") -> dict[str, JSON]:
    """Return the ``status`` JSON."""
    node, journal = guest.manager.node, guest.journal
    readable = not journal.trouble
    live: list[JSON] = [row.id for row in journal.ledger.all(live=True)] if readable else []
    return {
        "guest_id": guest.guest_id,
        "epoch": guest.boot_epoch,
        "pid": os.getpid(),
        "server_pid": guest.manager.service.pid(),
        "datastore": guest.manager.datastore.name,
        "version": node.installation.version,
        "status": str(judge(look(guest))),
        "role": guest.manager.datastore.roles[0],
        "endpoint": {"host": node.endpoint.host, "port": node.endpoint.port, "socket": str(node.endpoint.socket)},
        "operations": live,
        "heartbeat_at": journal.facts.get("heartbeat_at") if readable else None,
        "trouble": journal.trouble,
    }


def _holds(guest: "Guest", question: str) -> bool:
    if guest.manager.service.pid() is None:
        return False
    admin = guest.manager.admin
    return guest.questions.holds(question, {"ping": admin.ping, "probe": admin.probe}[question])


class Questions:
    """Ask the server and do not wait for ever: one that hangs has not answered, and is not asked twice at a time."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, "question")
        self._asked: dict[str, Future[bool]] = {}

    def holds(self, question: str, move: Callable[[], None]) -> bool:
        """Return whether ``move`` ended well, and soon; whoever asks meanwhile shares the answer.

        A shared no may be of a moment before ours, when the server was not up yet: then it is asked once more.
        """
        end = time.monotonic() + self._patience
        with contextlib.suppress(TimeoutError):
            found, shared = self._ask(question, move)
            if found.result(self._patience) or not shared:
                return found.result()
            found, _ = self._ask(question, move)
            return found.result(max(0.0, end - time.monotonic()))
        return False

    def _ask(self, question: str, move: Callable[[], None]) -> tuple[Future[bool], bool]:
        """Return the answer to come, and whether it was somebody else who asked."""
        with self._lock:
            found = self._asked.get(question)
            if found is not None and not found.done():
                return found, True
            found = self._asked[question] = self._pool.submit(_answers, move)
            return found, False


def _answers(move: Callable[[], None]) -> bool:
    try:
        move()
    except DatastoreError:
        return False
    return True
