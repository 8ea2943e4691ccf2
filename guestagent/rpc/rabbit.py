"""The oslo.messaging driver of RabbitMQ that acknowledges a request only when it is in the journal.

Registered as ``ostler`` (``ostler+rabbit://``).  oslo's own acknowledges in its consumer before anything has
happened, so that a kill loses what was accepted.  Here, in the consumer thread and in this order: size cap, shape,
commit (which drops duplicates by the request's id), acknowledge.  What cannot be committed now is kept,
unacknowledged and in its order, and tried again; the broker gives it to the next agent when this one dies.
A reading request is acknowledged with its answer, so that the prefetch count bounds what waits.

The consumers are exclusive: while an agent consumes, the broker refuses a second one.
"""

import contextlib
import functools
import logging
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from typing import Any

from amqp import exceptions as amqp_errors
from kombu.exceptions import KombuError
from oslo_messaging import TransportURL, exceptions
from oslo_messaging._drivers import amqp as driver_amqp
from oslo_messaging._drivers import amqpdriver, base, impl_rabbit
from oslo_messaging._drivers import common as driver_common

from guestagent.errors import Refused, SecondAgent
from guestagent.rpc.framing import REQUEST_CAP
from guestagent.rpc.intake import Arrival, Intake, NotCommitted, Verdict

LOG = logging.getLogger(__name__)

TAKEOVER = 15.0
"""Seconds for which the broker may still hold the connection of an agent that has just died."""

UNREADABLE = (
    KombuError,
    driver_common.RPCException,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)
"""What decoding a message may raise that is none."""

_POLL = 0.25
_PAUSE = 0.5


class OstlerDriver(impl_rabbit.RabbitDriver):  # type: ignore[misc]
    """oslo's RabbitMQ driver with a listener of our own.

    ``intake`` is asked before a request is acknowledged; whoever listens sets it first.
    """

    intake: Intake | None = None

    def __init__(self, conf: Any, url: Any, default_exchange: Any = None, allowed_remote_exmods: Any = None) -> None:
        _, _, scheme = url.transport.partition("+")
        plain = TransportURL(conf, scheme or "rabbit", url.virtual_host, url.hosts, url.query)
        super().__init__(conf, plain, default_exchange, allowed_remote_exmods)

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send as oslo's driver does; whatever the broker or the network do to it is a delivery failure."""
        try:
            return super().send(*args, **kwargs)
        except (KombuError, amqp_errors.AMQPError, driver_amqp.AMQPDestinationNotFound, OSError) as error:
            raise exceptions.MessageDeliveryFailure(f"{type(error).__name__}: {error}") from error

    def listen(self, target: Any, batch_size: int, batch_timeout: float | None) -> Any:
        """Consume the queues of a topic and of its server; ``SecondAgent`` where somebody else does.

        A broker that does not answer is waited for; one that refuses us is ``Refused``.
        """
        try:
            connection = self._get_connection(driver_common.PURPOSE_LISTEN)
        except (KombuError, amqp_errors.AMQPError) as error:
            raise Refused(f"the broker refuses us: {error}", field="transport_url") from error
        listener = OstlerListener(self, connection, self.intake)
        queues = (target.topic, f"{target.topic}.{target.server}")
        consumers = [_consumer(connection, self._get_exchange(target), name, listener.take) for name in queues]
        for each in consumers:
            connection.declare_consumer(each)
        listener.begin(consumers)
        return base.PollStyleListenerAdapter(listener, batch_size, batch_timeout)


def _consumer(connection: Any, exchange: str, name: str, callback: Callable[[Any], None]) -> "OstlerConsumer":
    return OstlerConsumer(
        exchange_name=exchange,
        queue_name=name,
        routing_key=name,
        type="topic",
        durable=connection.durable,
        exchange_auto_delete=connection.amqp_auto_delete,
        queue_auto_delete=connection.amqp_auto_delete,
        callback=callback,
        rabbit_quorum_queue=connection.rabbit_quorum_queue,
        rabbit_quorum_queue_config=connection.rabbit_quorum_queue_config,
    )


class OstlerConsumer(impl_rabbit.Consumer):  # type: ignore[misc]
    """One queue, consumed by us alone; what cannot be a request is dropped here, before it is decoded."""

    excluded = False

    def consume(self, conn: Any, tag: int) -> None:
        """Start consuming; ``excluded`` says afterwards whether the broker kept us out for another consumer."""
        if conn.channel != self._declared_on:
            self.declare(conn)
        self.excluded = False
        try:
            conn.channel.basic_consume(self.queue_name, str(tag), callback=self._callback, exclusive=True)
        except amqp_errors.ChannelError as error:
            # The broker has closed the channel: all of its consumers are to be started again.
            conn._new_tags = set(conn._consumers.values())
            self.excluded = "exclusive use" in str(error)
            raise

    def _callback(self, message: Any) -> None:
        reason = _unfit(message)
        raw = self.queue.channel.message_to_python(message) if not reason else None
        try:
            request = impl_rabbit.RabbitMessage(raw) if raw is not None else None
        except UNREADABLE as error:
            request, reason = None, f"it is no request ({type(error).__name__})"
        if request is None:
            LOG.warning("A message was dropped: %s", reason)
            message.channel.basic_reject(message.delivery_tag, requeue=False)
        else:
            self.callback(request)


def _unfit(message: Any) -> str:
    """Say why a message is not even decoded, or nothing."""
    if len(message.body) > REQUEST_CAP:
        return f"it has {len(message.body)} bytes, more than {REQUEST_CAP}"
    if (message.properties.get("application_headers") or {}).get("compression"):
        return "it is compressed, so that its size cannot be known"
    return ""


class OstlerIncoming(amqpdriver.AMQPIncomingMessage):  # type: ignore[misc]
    """A request; ``verdict`` is its answer where it was committed already."""

    verdict: Verdict | None = None
    answered: Callable[[], None] | None = None

    def reply(self, reply: object = None, failure: Any = None) -> None:
        """Answer the caller, and acknowledge what was not acknowledged before."""
        super().reply(reply, failure)
        if self.answered is not None:
            self.answered()


class OstlerListener(base.PollStyleListener):  # type: ignore[misc]
    """The consumer thread: takes, commits and acknowledges."""

    def __init__(self, driver: OstlerDriver, connection: Any, intake: Intake | None) -> None:
        super().__init__(driver.prefetch_size)
        self.driver = driver
        self._connection = connection
        self._intake = intake
        self._gone = amqpdriver.ObsoleteReplyQueuesCache()
        self._waiting: deque[OstlerIncoming] = deque()
        self._kept: deque[tuple[Any, OstlerIncoming]] = deque()
        self._retry_at = 0.0
        self._answered: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = threading.Event()

    def begin(self, consumers: list[OstlerConsumer]) -> None:
        """Become the one consumer, or raise ``SecondAgent`` when the other's connection stays."""
        until = time.monotonic() + TAKEOVER
        while not self._started():
            if any(each.excluded for each in consumers) and time.monotonic() > until:
                self._connection.close()
                raise SecondAgent(f"another agent consumes {consumers[0].queue_name} already")
            time.sleep(_POLL)

    def _started(self) -> bool:
        with contextlib.suppress(driver_common.Timeout, exceptions.MessageDeliveryFailure):
            self._connection.consume(timeout=_POLL)
        return not self._connection._new_tags

    def poll(self, timeout: float | None = None, batch_size: int = 1, batch_timeout: float | None = None) -> list[Any]:
        """Return the next request that is to be answered, alone in a list; an empty one after ``stop``."""
        while True:
            self._acknowledge_answered()
            self._try_again()
            if self._waiting or self._stopped.is_set():
                return [self._waiting.popleft()] if self._waiting else []
            with contextlib.suppress(driver_common.Timeout):
                self._connection.consume(timeout=_POLL)

    def stop(self) -> None:
        """Consume no more; what is unacknowledged stays with the broker."""
        self._stopped.set()
        self._connection.stop_consuming()

    def cleanup(self) -> None:
        """Close the connection."""
        self._connection.close()

    def take(self, message: Any) -> None:
        """Commit and acknowledge one request, or keep it; runs in the consumer thread."""
        incoming = self._incoming(message)
        in_turn = bool(incoming.orig_msg_id) or not self._kept
        if not in_turn or not self._settle(message, incoming):
            self._kept.append((message, incoming))

    def _incoming(self, message: Any) -> OstlerIncoming:
        context = driver_amqp.unpack_context(message)
        return OstlerIncoming(
            self,
            context.to_dict(),
            message,
            message.pop(driver_amqp.UNIQUE_ID, None) or uuid.uuid4().hex,
            context.msg_id,
            context.reply_q,
            context.client_timeout,
            self._gone,
            None,
        )

    def _settle(self, message: Any, incoming: OstlerIncoming) -> bool:
        """Commit and acknowledge; False where it is to be tried again."""
        try:
            incoming.verdict = self._commit(incoming)
        except NotCommitted as error:
            LOG.warning("A request is not acknowledged yet: %s", error)
            self._retry_at = time.monotonic() + _PAUSE
            return False
        if incoming.verdict is None and self._intake is not None:
            incoming.answered = functools.partial(self._answered.put, message)
        else:
            self._acknowledge(message)
        self._waiting.append(incoming)
        return True

    def _commit(self, incoming: OstlerIncoming) -> Verdict | None:
        if self._intake is None:
            return None
        wants_reply = bool(incoming.orig_msg_id)
        return self._intake(Arrival(incoming.message, incoming.ctxt, incoming.unique_id, wants_reply))

    def _try_again(self) -> None:
        """Settle what was kept, in its order; what came over a connection that is lost comes again."""
        while self._kept and time.monotonic() >= self._retry_at:
            message, incoming = self._kept[0]
            lost = message._raw_message.channel is not self._connection.channel
            if not lost and not self._settle(message, incoming):
                return
            self._kept.popleft()

    def _acknowledge_answered(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._acknowledge(self._answered.get_nowait())

    def _acknowledge(self, message: Any) -> None:
        """Acknowledge; where the connection is lost the broker sends it again, and its id is known."""
        try:
            message.acknowledge()
        except (amqp_errors.AMQPError, OSError) as error:
            LOG.warning("A committed request could not be acknowledged: %s", error)
