"""The parts of oslo.messaging that our drivers use and that nobody promises to keep.

When one of these fails after an upgrade, read ``guestagent/rpc/unix.py`` and ``rabbit.py`` against the new release
before the pin in ``requirements.txt`` is moved.
"""

import inspect
from importlib.metadata import entry_points, version
from pathlib import Path

import kombu
import kombu.message
import oslo_messaging
import pytest
from amqp import Channel, basic_message
from oslo_messaging import dispatcher, server
from oslo_messaging._drivers import amqp, amqpdriver, base, common, impl_rabbit
from oslo_messaging._metrics import client as metrics
from oslo_messaging._tracing import client as tracing
from oslo_messaging.rpc.server import RPCServer

from guestagent.rpc.listener import UnixIncoming, UnixListener
from guestagent.rpc.rabbit import OstlerConsumer, OstlerDriver, OstlerIncoming, OstlerListener
from guestagent.rpc.unix import UnixDriver


def names(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


def test_the_pin_is_the_one_we_read() -> None:
    assert version("oslo.messaging").startswith("18.")
    requirements = Path(__file__).parents[2].joinpath("requirements.txt").read_text()
    assert "oslo.messaging>=18.3,<19" in requirements


def test_our_drivers_are_found_and_rabbit_is_still_oslos() -> None:
    found = {each.name: each.value for each in entry_points(group="oslo.messaging.drivers")}
    assert found["unix"] == "guestagent.rpc.unix:UnixDriver"
    assert found["ostler"] == "guestagent.rpc.rabbit:OstlerDriver"
    assert found["rabbit"] == "oslo_messaging._drivers.impl_rabbit:RabbitDriver"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (base.BaseDriver, UnixDriver),
        (base.Listener, UnixListener),
        (base.RpcIncomingMessage, UnixIncoming),
        (impl_rabbit.RabbitDriver, OstlerDriver),
        (base.PollStyleListener, OstlerListener),
        (amqpdriver.AMQPIncomingMessage, OstlerIncoming),
        (impl_rabbit.Consumer, OstlerConsumer),
    ],
)
def test_we_keep_every_abstract_promise(theirs: type, ours: type) -> None:
    assert issubclass(ours, theirs)
    assert not getattr(ours, "__abstractmethods__", frozenset())


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (
            base.BaseDriver.send,
            "self target ctxt message wait_for_reply timeout call_monitor_timeout retry transport_options",
        ),
        (base.BaseDriver.listen, "self target batch_size batch_timeout"),
        (base.BaseDriver.send_notification, "self target ctxt message version retry"),
        (base.BaseDriver.listen_for_notifications, "self targets_and_priorities pool batch_size batch_timeout"),
        (base.BaseDriver.__init__, "self conf url default_exchange allowed_remote_exmods"),
        (base.Listener.__init__, "self batch_size batch_timeout prefetch_size"),
        (base.Listener.start, "self on_incoming_callback"),
        (base.PollStyleListener.poll, "self timeout batch_size batch_timeout"),
        (base.PollStyleListenerAdapter.__init__, "self poll_style_listener batch_size batch_timeout"),
        (base.RpcIncomingMessage.reply, "self reply failure"),
        (
            amqpdriver.AMQPIncomingMessage.__init__,
            "self listener ctxt message unique_id msg_id reply_q client_timeout obsolete_reply_queues"
            " message_operations_handler",
        ),
        (amqpdriver.AMQPIncomingMessage.reply, "self reply failure"),
        (amqp.unpack_context, "msg"),
        (impl_rabbit.Consumer.consume, "self conn tag"),
        (impl_rabbit.Consumer.declare, "self conn"),
        (impl_rabbit.Consumer._callback, "self message"),
        (impl_rabbit.Connection.consume, "self timeout"),
        (impl_rabbit.Connection.declare_consumer, "self consumer"),
        (impl_rabbit.Connection.stop_consuming, "self"),
        (common.serialize_remote_exception, "failure_info"),
        (common.deserialize_remote_exception, "data allowed_remote_exmods"),
        (RPCServer.__init__, "self transport target dispatcher executor"),
        (dispatcher.DispatcherBase.dispatch, "self incoming"),
        (kombu.message.Message.ack, "self multiple"),
    ],
)
def test_signatures_are_those_we_call_and_override(function: object, wanted: str) -> None:
    assert names(function) == wanted.split()


def test_a_consumer_is_made_as_theirs() -> None:
    words = (
        "exchange_name queue_name routing_key type durable exchange_auto_delete queue_auto_delete callback"
        " rabbit_quorum_queue rabbit_quorum_queue_config"
    )
    wanted = set(words.split())
    assert wanted <= set(names(impl_rabbit.Consumer.__init__))


def test_the_channel_takes_an_exclusive_consumer() -> None:
    assert {"queue", "consumer_tag", "callback", "exclusive"} <= set(names(Channel.basic_consume))
    assert names(Channel.basic_consume)[:3] == ["self", "queue", "consumer_tag"]
    assert {"delivery_tag", "requeue"} <= set(names(Channel.basic_reject))
    assert "body" in inspect.signature(basic_message.Message.__init__).parameters


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (impl_rabbit.Connection, ["self._new_tags", "self._consumers", "self.channel = ", "self.amqp_auto_delete"]),
        (impl_rabbit.Connection, ["self.rabbit_quorum_queue_config", "def durable"]),
        (impl_rabbit.Consumer, ["self._declared_on", "self.queue_name", "self.callback", "self.queue = "]),
        (impl_rabbit.RabbitMessage, ["self._raw_message = ", "def acknowledge"]),
        (amqpdriver.AMQPIncomingMessage, ["self.orig_msg_id", "self.unique_id"]),
        (amqpdriver.AMQPDriverBase, ["def _get_connection", "def _get_exchange"]),
        (RPCServer, ["message.acknowledge()", "message.reply(res)", "self.dispatcher.dispatch(message)"]),
        (server.MessageHandlingServer, ["override_pool_size", "self.listener.start(self._on_incoming)"]),
    ],
)
def test_the_members_we_reach_for_are_there(source: type, words: list[str]) -> None:
    text = inspect.getsource(source)
    assert not [each for each in words if each not in text]


def test_the_two_lists_of_options_that_only_the_global_object_has() -> None:
    """A private ConfigOpts needs them registered by hand, or every call fails."""
    assert {each.name for each in metrics.oslo_messaging_metrics} >= {"metrics_enabled"}
    assert {each.name for each in tracing.oslo_messaging_tracing} >= {"tracing_enabled"}
    assert amqp.UNIQUE_ID == "_unique_id"
    assert common.PURPOSE_LISTEN == "listen"
    assert issubclass(common.Timeout, common.RPCException)
    assert not issubclass(oslo_messaging.MessageUndeliverable, oslo_messaging.MessagingException)
