"""Transports of oslo.messaging, made as an agent and its clients need them, and kept from telling secrets.

Durable queues, few unacknowledged messages, short waits for callers who have gone: those are our
defaults, and a configuration file may still say otherwise in ``[oslo_messaging_rabbit]``.
"""

import logging
from typing import Any

import oslo_messaging
from oslo_messaging._metrics import client as metrics
from oslo_messaging._tracing import client as tracing

from guestagent.config import transport as with_our_driver

TALKATIVE = ("oslo_messaging", "oslo.messaging", "oslo_service", "kombu", "amqp", "stevedore")
"""Libraries that log message bodies, or too much, at DEBUG."""

RABBIT = "oslo_messaging_rabbit"
_RABBIT_DEFAULTS = {
    "amqp_durable_queues": True,
    "rabbit_qos_prefetch_count": 32,
    "kombu_missing_consumer_retry_timeout": 5,
    "kombu_reconnect_splay": 1.0,
    "conn_pool_min_size": 1,
}


def open_transport(conf: Any, url: str) -> Any:
    """Return a transport for ``url`` with the options of ``conf``; nothing is connected yet."""
    hush()
    url = with_our_driver(url)
    conf.register_opts(metrics.oslo_messaging_metrics, group="oslo_messaging_metrics")
    conf.register_opts(tracing.oslo_messaging_tracing, group="oslo_messaging_tracing")
    oslo_messaging.TransportURL(conf)  # registers the options of which the next line sets one
    conf.set_default("control_exchange", "ostler")
    if not url.startswith("unix:"):
        _set_rabbit_defaults(conf)
    return oslo_messaging.get_rpc_transport(conf, url)


def hush() -> None:
    """Keep libraries that log what they carry at INFO or above, whatever the level of the agent is."""
    for name in TALKATIVE:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.getEffectiveLevel(), logging.INFO))


def _set_rabbit_defaults(conf: Any) -> None:
    from oslo_messaging._drivers import amqp, impl_rabbit

    conf.register_opts(impl_rabbit.rabbit_opts, group=RABBIT)
    conf.register_opts(amqp.amqp_opts, group=RABBIT)
    for name, value in _RABBIT_DEFAULTS.items():
        conf.set_default(name, value, group=RABBIT)
