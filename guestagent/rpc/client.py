"""The client of an agent: calls, casts, and waiting for what an operation comes to.

``connect(url)`` takes ``unix:///FOLDER?id=GUEST`` or ``rabbit://USER@HOST:PORT/VHOST?id=GUEST``.  The broker's password
is never in an argument or the environment: it is read from the file that ``OSTLER_AGENT_PASSWORD_FILE`` names
(mode 0600 or 0400).

Every request has a deadline of its own, in seconds, and it holds whatever is down: oslo.messaging's does not
cover connecting, so it is asked in a thread that is left behind when the time is over.
"""

import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from datastores.contract import JSON
from guestagent.errors import AgentError, DeadlinePassed, Refused, Told, Unreachable
from guestagent.rpc import framing
from guestagent.rpc.envelope import Envelope, opened

VERSION = "1.0"
ENDED = ("succeeded", "failed", "interrupted", "cancelled")
PASSWORD_FILE = "OSTLER_AGENT_PASSWORD_FILE"
_PROBE = 3.0
_SILENCE = 60.0
_AMQP = 5672

Progress = Callable[[Mapping[str, JSON]], None]


@dataclass(frozen=True)
class Order:
    """One request: the message and whether its answer is wanted."""

    namespace: str
    method: str
    args: Mapping[str, JSON]
    wants_reply: bool

    def message(self) -> dict[str, object]:
        """Return the message as oslo.messaging has it."""
        return {"namespace": self.namespace, "method": self.method, "version": VERSION, "args": dict(self.args)}


class Wire(Protocol):
    """How a request gets to one agent."""

    def send(self, order: Order, seconds: float) -> JSON:
        """Return the answer; ``Unreachable``, or ``DeadlinePassed`` after at most ``seconds``."""

    def close(self) -> None:
        """Give up what was connected."""


class Client:
    """Asks one agent."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def close(self) -> None:
        """Give up what was connected; a later request connects again."""
        self._wire.close()

    def call(
        self,
        noun: str,
        verb: str,
        args: Mapping[str, JSON],
        *,
        deadline: float = 60.0,
        request_id: str | None = None,
        expires: float | None = None,
    ) -> JSON:
        """Return the answer to a question, or the operation that a changing verb became.

        ``deadline``: seconds until there must be an answer.  ``expires``: seconds until the operation must have ended.
        ``Told`` is the agent's own refusal; ``Unreachable`` and ``DeadlinePassed`` say that there was no answer.
        """
        return opened(self._wire.send(self._order(noun, verb, args, request_id, expires, True), deadline))

    def cast(
        self,
        noun: str,
        verb: str,
        args: Mapping[str, JSON],
        *,
        deadline: float = 60.0,
        request_id: str | None = None,
        expires: float | None = None,
    ) -> str:
        """Give a changing order that waits for its turn; return its request id when the order is safe.

        Safe: committed by the agent (``unix://``) or kept by the broker, for an agent that need not be there now.
        """
        order = self._order(noun, verb, args, request_id, expires, False)
        opened(self._wire.send(order, deadline))
        return str(order.args["request_id"])

    def wait_for(
        self, operation: str, *, deadline: float | None = None, progress: Progress | None = None
    ) -> dict[str, JSON]:
        """Return the JSON of an operation when it has ended, however it has.

        ``progress`` is told of each look.  An agent that does not answer is waited for: it may be starting again;
        ``Unreachable`` after a minute of silence, ``DeadlinePassed`` after ``deadline`` seconds.
        """
        until = None if deadline is None else time.monotonic() + deadline
        began = heard = time.monotonic()
        while True:
            left = _SILENCE if until is None else until - time.monotonic()
            if left <= 0:
                raise DeadlinePassed("the operation has not ended in time", operation=operation)
            seen = self._look(operation, min(left, 10.0))
            if seen is not None:
                heard = time.monotonic()
                if progress is not None:
                    progress(seen)
                if seen["state"] in ENDED:
                    return seen
            elif time.monotonic() - heard > _SILENCE:
                raise Unreachable("the agent has not answered for a minute", operation=operation)
            # Short ones are seen to end at once, long ones are not asked about all the time.
            time.sleep(min(max(0.05, (time.monotonic() - began) / 8), 1.0, left))

    def _look(self, operation: str, seconds: float) -> dict[str, JSON] | None:
        try:
            found = self.call("operation", "show", {"id": operation}, deadline=seconds)
        except (Unreachable, DeadlinePassed):
            return None
        except Told as error:
            if error.fault.retry:
                return None
            raise
        return found if isinstance(found, dict) else None

    def _order(
        self,
        noun: str,
        verb: str,
        args: Mapping[str, JSON],
        request_id: str | None,
        expires: float | None,
        wants_reply: bool,
    ) -> Order:
        until = None if expires is None else time.time() + expires
        envelope = Envelope(request_id or str(uuid.uuid4()), until, caller=f"uid {os.geteuid()}")
        return Order(noun, verb, {**args, **envelope.to_json()}, wants_reply)


def connect(url: str) -> Client:
    """Return a client of the agent at ``url``; nothing is connected yet.  ``Refused`` names what is wrong with it."""
    parts = urlsplit(url)
    guest = dict(parse_qsl(parts.query)).get("id", "")
    if not guest:
        raise Refused("the agent's URL says for no guest: ?id=GUEST is missing", field="agent")
    if parts.scheme == "unix":
        return Client(UnixWire(framing.socket_path(Path(unquote(parts.path)), f"ostler.{guest}", guest)))
    if parts.scheme not in ("rabbit", "kombu+memory"):
        raise Refused(f"{parts.scheme or 'nothing'}:// is not unix:// or rabbit://", field="agent")
    return Client(BrokerWire(parts, guest))


class UnixWire:
    """A socket in a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, order: Order, seconds: float) -> JSON:
        """Send over a connection of its own; a cast's receipt is an answer, too."""
        frame = {"message": order.message(), "context": {}, "reply": order.wants_reply}
        return framing.converse(self._path, frame, seconds).get("result")

    def close(self) -> None:
        """Do nothing: no connection outlives its request."""


class BrokerWire:
    """A broker, through oslo.messaging."""

    def __init__(self, parts: SplitResult, guest: str) -> None:
        self._parts, self._guest = parts, guest
        self._lock = threading.Lock()
        self._transport: Any = None

    def send(self, order: Order, seconds: float) -> JSON:
        """Send in a thread of its own, which is left behind when the time is over."""
        until = time.monotonic() + seconds
        framing.encode(order.message())  # too large is too large, whatever carries it
        self._probe(min(seconds, _PROBE))
        done: Future[JSON] = Future()
        threading.Thread(target=self._deliver, args=(order, until, done), name="request", daemon=True).start()
        try:
            return done.result(timeout=max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise DeadlinePassed(f"no answer from {self._guest} in {seconds:g} s") from None

    def close(self) -> None:
        """Close the connections to the broker."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.cleanup()

    def _probe(self, seconds: float) -> None:
        """Raise ``Unreachable`` where no broker listens: oslo.messaging would try for ever."""
        if not self._parts.hostname:
            return
        address = (self._parts.hostname, self._parts.port or _AMQP)
        try:
            socket.create_connection(address, timeout=seconds).close()
        except OSError as error:
            raise Unreachable(f"no broker answers at {address[0]}:{address[1]}: {error.strerror or error}") from error

    def _deliver(self, order: Order, until: float, done: "Future[JSON]") -> None:
        from oslo_messaging import exceptions

        try:
            done.set_result(self._send(order, until))
        except exceptions.MessagingTimeout:
            done.set_exception(DeadlinePassed(f"no answer from {self._guest} in time"))
        except exceptions.MessageUndeliverable:
            done.set_exception(Unreachable(f"no agent has ever served {self._guest} at this broker"))
        except exceptions.MessagingException as error:
            done.set_exception(Unreachable(f"the broker did not take the request: {error}"))
        except AgentError as error:
            done.set_exception(error)

    def _send(self, order: Order, until: float) -> JSON:
        import oslo_messaging

        topic = f"ostler.{self._guest}"
        target = oslo_messaging.Target(topic=topic, server=self._guest, namespace=order.namespace, version=VERSION)
        options = oslo_messaging.TransportOptions(at_least_once=True)
        client = oslo_messaging.get_rpc_client(
            self._opened(), target, timeout=max(1, round(until - time.monotonic())), transport_options=options
        )
        found: JSON = (client.call if order.wants_reply else client.cast)({}, order.method, **order.args)
        return found

    def _opened(self) -> Any:
        from guestagent.config import without_file
        from guestagent.rpc.transport import open_transport

        with self._lock:
            if self._transport is None:
                self._transport = open_transport(without_file(), self._url())
            return self._transport

    def _url(self) -> str:
        parts = self._parts
        user = parts.username or "guest"
        password = quote(unquote(parts.password) if parts.password else _password(user), safe="")
        if not parts.hostname:
            return f"{parts.scheme}://{parts.path or '/'}"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"{parts.scheme}://{user}:{password}@{host}:{parts.port or _AMQP}{parts.path}"


def _password(user: str) -> str:
    """Return the broker's password: from its file, or the one every broker knows ``guest`` by on loopback."""
    named = os.environ.get(PASSWORD_FILE)
    if not named and user == "guest":
        return "guest"
    if not named:
        raise Refused(f"no password for the broker's user {user!r}", field="agent", hint=f"{PASSWORD_FILE}=FILE")
    try:
        found = Path(named).stat()
        if stat.S_IMODE(found.st_mode) not in (0o600, 0o400):
            raise Refused(f"{named} must have mode 0600 or 0400", field=PASSWORD_FILE)
        return Path(named).read_text().strip()
    except OSError as error:
        raise Refused(f"{named} cannot be read: {error.strerror}", field=PASSWORD_FILE) from error
