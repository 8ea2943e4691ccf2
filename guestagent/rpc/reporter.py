"""Reports: casts to topic ``ostler-conductor``, confirmed or not sent."""

import threading
from collections.abc import Mapping
from typing import Any

import oslo_messaging
from oslo_messaging import exceptions

from datastores.contract import JSON
from guestagent.errors import Unreachable

TOPIC = "ostler-conductor"
VERSION = "1.0"


class Reporter:
    """Casts ``report(guest_id, epoch, sent, kind, body)``, one at a time.

    A broker must confirm that a queue took it (mandatory); on ``unix://`` the conductor itself must.
    """

    def __init__(self, transport: Any, guest_id: str, epoch: int) -> None:
        self._guest_id, self._epoch = guest_id, epoch
        self._lock = threading.Lock()
        self._client = oslo_messaging.get_rpc_client(
            transport,
            oslo_messaging.Target(topic=TOPIC, version=VERSION),
            transport_options=oslo_messaging.TransportOptions(at_least_once=True),
        ).prepare(retry=1, timeout=10)

    def report(self, kind: str, body: Mapping[str, JSON], sent: float) -> None:
        """Return when somebody has taken the report, or raise ``Unreachable``; then it stays in the outbox."""
        with self._lock:
            try:
                self._client.cast(
                    {},
                    "report",
                    guest_id=self._guest_id,
                    epoch=self._epoch,
                    sent=sent,
                    kind=kind,
                    body=dict(body),
                )
            except (exceptions.MessagingException, exceptions.MessageUndeliverable) as error:
                raise Unreachable(f"nobody took a report of kind {kind}: {type(error).__name__}") from error
