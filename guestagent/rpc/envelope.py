"""What goes with every request, and how an answer is wrapped.

A request's arguments are those of its verb plus the envelope: ``request_id``, ``deadline`` (Unix time,
seconds), ``caller``, ``tenant``.  An envelope may also come as the context of oslo.messaging; the arguments win.
An answer is ``{"ok": value}`` or ``{"fault": {...}}``: no exception, class or traceback ever crosses.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import cast

from datastores.contract import JSON
from guestagent.errors import DeadlinePassed, Fault, Refused, Told

NAMES = ("request_id", "deadline", "caller", "tenant")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

Reply = dict[str, JSON]


@dataclass(frozen=True)
class Envelope:
    """Who asks, until when it is worth doing, and under which id it is done once."""

    request_id: str
    deadline: float | None = None
    caller: str = ""
    tenant: str = ""

    def to_json(self) -> dict[str, JSON]:
        """Return the members that go beside a verb's arguments."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}

    def check(self) -> None:
        """Raise ``DeadlinePassed`` where nobody waits any more."""
        if self.deadline is not None and time.time() >= self.deadline:
            raise DeadlinePassed("the request's deadline had passed when it arrived", field="deadline")


def unpack(
    args: Mapping[str, object], context: Mapping[str, object], fallback_id: str
) -> tuple[Envelope, dict[str, JSON]]:
    """Return the envelope and the verb's own arguments; ``Refused`` names a member of a wrong kind."""
    given = {name: args.get(name, context.get(name)) for name in NAMES}
    deadline = given["deadline"]
    if deadline is not None and (isinstance(deadline, bool) or not isinstance(deadline, int | float)):
        raise Refused("deadline must be a number: seconds of Unix time", field="deadline")
    envelope = Envelope(
        request_id=_text(given["request_id"] or fallback_id, "request_id"),
        deadline=None if deadline is None else float(deadline),
        caller=_text(given["caller"] or "", "caller"),
        tenant=_text(given["tenant"] or "", "tenant"),
    )
    if not _REQUEST_ID.fullmatch(envelope.request_id):
        raise Refused("request_id must be 1 to 128 of letters, digits, . _ : -", field="request_id")
    rest = {name: cast(JSON, value) for name, value in args.items() if name not in NAMES}
    return envelope, rest


def ok(value: JSON) -> Reply:
    """Wrap an answer."""
    return {"ok": value}


def fault(error: BaseException) -> Reply:
    """Wrap an error; the text of an unforeseen one stays here."""
    told = error.fault if isinstance(error, Told) else Fault.of(error)
    return {"fault": cast(JSON, told.to_json())}


def opened(reply: object) -> JSON:
    """Return what is in an answer, or raise the ``Told`` that it tells of."""
    if isinstance(reply, Mapping) and "ok" in reply:
        return cast(JSON, reply["ok"])
    if isinstance(reply, Mapping) and isinstance(reply.get("fault"), Mapping):
        raise Told(_told(reply["fault"]))
    raise Told(Fault("Failed", "the answer is not one of ours"))


def _told(given: Mapping[str, object]) -> Fault:
    optional = {name: _maybe(given.get(name)) for name in ("field", "hint", "operation")}
    return Fault(
        type=str(given.get("type", "Failed")),
        message=str(given.get("message", "")),
        retry=given.get("retry") is True,
        **optional,
    )


def _maybe(value: object) -> str | None:
    return None if value is None else str(value)


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or len(value) > 255:
        raise Refused(f"{field} must be a string of at most 255 characters", field=field)
    return value
