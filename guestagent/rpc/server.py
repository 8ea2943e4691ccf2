"""The door of the agent: which verbs may be called, how they are answered, and how the agent is served.

``Door`` has one table, made from the declarations: what is not in it cannot be called, whatever it is named.
A changing request is committed by ``Operations`` before anybody is told; a reading one is answered in a
thread of a small pool and within its time, so that a long one never keeps an order waiting.
Whatever goes wrong leaves as a fault; nothing is ever raised into oslo.messaging, which would send its text.
"""

import logging
import sqlite3
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import oslo_messaging
from oslo_messaging.dispatcher import DispatcherBase
from oslo_messaging.rpc.server import RPCServer

from datastores.contract import JSON, Datastore, DatastoreError, NotReady
from guestagent.declarations import API_VERSION, Verb, require
from guestagent.errors import AgentError, BadVersion, Busy, DeadlinePassed, JournalCorrupt, Refused, UnknownVerb
from guestagent.operations.engine import Request
from guestagent.rpc.envelope import Envelope, fault, unpack
from guestagent.rpc.intake import Arrival, NotCommitted, Verdict
from objectstore.store import StoreError

LOG = logging.getLogger(__name__)

KEPT_MINORS = 2
"""How many minor versions back a caller may be."""

OURS = (AgentError, DatastoreError, StoreError)

READERS = 8
_LINE = 12
_SPARE = 4
_COMMITTING = 30.0


class Orders(Protocol):
    """What the door hands requests to: ``operations.engine.Operations``."""

    def read(self, verb: str, args: Mapping[str, JSON]) -> JSON:
        """Answer a reading verb."""

    def accept(self, request: Request) -> dict[str, JSON]:
        """Commit a call."""

    def enqueue(self, request: Request) -> dict[str, JSON]:
        """Commit a cast."""


class Door(DispatcherBase):  # type: ignore[misc]
    """Finds the verb of a request and answers it."""

    def __init__(self, orders: Orders, verbs: Mapping[str, Verb], datastore: Datastore) -> None:
        self._orders = orders
        self._verbs = verbs
        self._datastore = datastore
        self._open = True
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read")
        self._clerk = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._reading: set[Future[JSON]] = set()

    def close(self) -> None:
        """Take no more orders; what is being read is still answered."""
        self._open = False

    def dispatch(self, incoming: Any) -> JSON:
        """Answer one request of oslo.messaging's."""
        verdict: Verdict | None = getattr(incoming, "verdict", None)
        if verdict is not None:
            return verdict
        wants_reply = bool(getattr(incoming, "expects_reply", getattr(incoming, "orig_msg_id", True)))
        arrival = Arrival(incoming.message, incoming.ctxt, incoming.msg_id, wants_reply)
        try:
            verb, envelope, args = self._understand(arrival)
            if verb.mark.changes:
                return self._commit(verb, envelope, args, wants_reply)
            return self._read(verb, envelope, args)
        except NotCommitted as error:
            return fault(NotReady(str(error)))
        except OURS as error:
            return fault(error)

    def commit(self, arrival: Arrival) -> Verdict | None:
        """Commit a changing request for a driver that has not acknowledged it yet (``intake.Intake``).

        A call is told at once why it was not accepted.  A cast has nobody to tell: where it may
        be accepted later it is not acknowledged, where it never will be it is logged and dropped.
        """
        try:
            verb, envelope, args = self._understand(arrival)
            if not verb.mark.changes:
                return None
            return self._commit(verb, envelope, args, arrival.wants_reply, insist=not arrival.wants_reply)
        except OURS as error:
            if not arrival.wants_reply:
                LOG.warning("A cast was refused: %s (%s)", type(error).__name__, getattr(error, "field", None))
            return fault(error)

    def _understand(self, arrival: Arrival) -> tuple[Verb, Envelope, dict[str, JSON]]:
        message = arrival.message
        check_version(str(message.get("version") or API_VERSION))
        key = f"{message.get('namespace')}.{message.get('method')}"
        verb = self._verbs.get(key)
        if verb is None:
            raise UnknownVerb(f"there is no verb {key[:80]!r}", field="verb")
        require(verb, self._datastore)
        args = message.get("args") or {}
        if not isinstance(args, Mapping):
            raise Refused("the arguments are not an object", field="args")
        envelope, rest = unpack(args, arrival.context, arrival.fallback_id)
        return verb, envelope, rest

    def _commit(
        self, verb: Verb, envelope: Envelope, args: dict[str, JSON], wants_reply: bool, insist: bool = False
    ) -> Verdict:
        if not self._open:
            raise NotCommitted("the agent is about to end")
        request = Request(
            envelope.request_id, verb.key, args, envelope.deadline, caller=envelope.caller, tenant=envelope.tenant
        )
        take = self._orders.accept if wants_reply else self._orders.enqueue
        found = self._clerk.submit(take, request)
        try:
            error = found.exception(timeout=_COMMITTING)
        except TimeoutError:
            raise NotCommitted(f"{verb.key} has not been committed in {_COMMITTING:g} s") from None
        if error is None:
            return dict(found.result())
        if isinstance(error, sqlite3.Error | OSError) or (insist and may_be_taken_later(error)):
            raise NotCommitted(f"{verb.key} cannot be committed now: {type(error).__name__}") from error
        return self._fault(verb, error)

    def _read(self, verb: Verb, envelope: Envelope, args: dict[str, JSON]) -> JSON:
        envelope.check()
        if len(self._reading) >= _LINE:
            raise Busy(f"{_LINE} questions wait already")
        asked = self._readers.submit(self._orders.read, verb.key, args)
        self._reading.add(asked)
        asked.add_done_callback(self._reading.discard)
        try:
            error = asked.exception(timeout=verb.mark.timeout)
        except TimeoutError:
            asked.cancel()
            raise DeadlinePassed(f"{verb.key} has not answered in {verb.mark.timeout:g} s") from None
        return asked.result() if error is None else self._fault(verb, error)

    def _fault(self, verb: Verb, error: BaseException) -> Verdict:
        if not isinstance(error, OURS):
            # The text of an error that nobody foresaw may hold anything; its place may not.
            where = "".join(traceback.format_tb(error.__traceback__))
            LOG.error("%s failed: %s\n%s", verb.key, type(error).__name__, where)
        return fault(error)


def may_be_taken_later(error: BaseException) -> bool:
    """Say whether a request that was not accepted may be accepted as it is some time later."""
    return isinstance(error, Busy | JournalCorrupt) or bool(getattr(error, "retry", False))


def check_version(wanted: str, ours: str = API_VERSION) -> None:
    """Raise ``BadVersion`` unless ``wanted`` is our version or at most two minor versions older."""
    try:
        (major, minor), (our_major, our_minor) = (map(int, each.split(".")[:2]) for each in (wanted, ours))
    except ValueError:
        raise BadVersion(f"{wanted[:20]!r} is not a version", field="version") from None
    if major != our_major or not our_minor - KEPT_MINORS <= minor <= our_minor:
        raise BadVersion(f"version {major}.{minor} is not served; ours is {ours}", field="version")


def topic_of(guest_id: str) -> str:
    """Return the topic on which a guest listens."""
    return f"ostler.{guest_id}"


def serve(transport: Any, guest_id: str, door: Door) -> Callable[[], None]:
    """Serve the door's verbs; return when the agent is listening.  The answer ends it.

    ``SecondAgent`` where another one serves this guest; it has consumed nothing then.  Where no broker answers
    this waits until one does.
    """
    if hasattr(transport._driver, "intake"):
        transport._driver.intake = door.commit
    target = oslo_messaging.Target(topic=topic_of(guest_id), server=guest_id)
    server = RPCServer(transport, target, door)
    server.start(override_pool_size=_LINE + _SPARE)

    def end() -> None:
        door.close()
        server.stop()
        server.wait()

    return end
