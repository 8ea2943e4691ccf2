"""The oslo.messaging driver of ``unix://``: a socket for each server, in a folder only we may enter.

``unix:///FOLDER`` needs no broker.  A server listens on ``FOLDER/TOPIC@SERVER``, mode 0600.  A cast returns when the
server has answered it, which an agent does after it has committed it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oslo_messaging import exceptions
from oslo_messaging._drivers import base
from oslo_messaging._drivers import common as driver_common

from guestagent.errors import AgentError, DeadlinePassed
from guestagent.rpc import framing
from guestagent.rpc.listener import UnixListener

_FOR_EVER = 86400.0


class UnixDriver(base.BaseDriver):  # type: ignore[misc]
    """Calls and casts over sockets in the folder that the URL names."""

    def __init__(self, conf: Any, url: Any, default_exchange: Any = None, allowed_remote_exmods: Any = None) -> None:
        super().__init__(conf, url, default_exchange, allowed_remote_exmods)
        self.folder = Path("/") / (url.virtual_host or "")

    def send(  # noqa: PLR0913 - the driver interface has as many
        self,
        target: Any,
        ctxt: Mapping[str, object],
        message: Mapping[str, object],
        wait_for_reply: bool | None = None,
        timeout: float | None = None,
        call_monitor_timeout: float | None = None,
        retry: int | None = None,
        transport_options: object = None,
    ) -> object:
        """Send to one server, or to all of a topic; return after the answer, or a cast's receipt."""
        frame = {"message": message, "context": dict(ctxt), "reply": bool(wait_for_reply)}
        if call_monitor_timeout:
            frame["beats"] = call_monitor_timeout
        answer: object = None
        for path in self._paths(target):
            try:
                found = framing.converse(path, frame, timeout or _FOR_EVER, call_monitor_timeout)
            except DeadlinePassed as error:
                raise exceptions.MessagingTimeout(str(error)) from error
            except AgentError as error:
                raise exceptions.MessageDeliveryFailure(str(error)) from error
            if found.get("failure"):
                raise driver_common.deserialize_remote_exception(found["failure"], self._allowed_remote_exmods)
            answer = found.get("result")
        return answer if wait_for_reply else None

    def _paths(self, target: Any) -> list[Path]:
        if target.server:
            return [framing.socket_path(self.folder, target.topic, target.server)]
        found = sorted(each for each in self.folder.glob(f"{target.topic}@*") if each.is_socket())
        if not found:
            raise exceptions.MessageDeliveryFailure(f"nobody listens for {target.topic} in {self.folder}")
        return found if target.fanout else found[:1]

    def send_notification(self, target: Any, ctxt: Any, message: Any, version: Any, retry: Any = None) -> None:
        """Refuse: notifications want somebody to keep them, and here is nobody."""
        raise base.TransportDriverError("unix:// carries calls and casts, not notifications")

    def listen(self, target: Any, batch_size: int, batch_timeout: float | None) -> "UnixListener":
        """Return the listener of ``target``; ``SecondAgent`` where a living one has that name."""
        return UnixListener(self.folder, target.topic, target.server)

    def listen_for_notifications(
        self, targets_and_priorities: Any, pool: Any, batch_size: Any, batch_timeout: Any
    ) -> None:
        """Refuse, as ``send_notification`` does."""
        raise base.TransportDriverError("unix:// carries calls and casts, not notifications")

    def cleanup(self) -> None:
        """Do nothing: no connection outlives its request."""
