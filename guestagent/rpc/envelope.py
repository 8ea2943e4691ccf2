"""What goes with every request, and how an answer is wrapped.

A request's arguments are those of its verb plus the envelope: ``request_id``, ``deadline`` (Unix time,
seconds), ``caller``, ``tenant``.  An envelope may also come as the context of oslo.messaging; the arguments win.
An answer is the verb's own JSON, or an object of the one member ``error``, as the command prints it: no
exception, class or traceback ever crosses.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeGuard, cast

from datastores.contract import JSON
from guestagent.errors import DeadlinePassed, Fault, Refused, Told

NAMES = ("request_id", "deadline", "caller", "tenant")
_LONGEST = 200
_FARTHEST = 1e11


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
    if deadline is not None and not _is_time(deadline):
        raise Refused("deadline must be a number: seconds of Unix time", field="deadline")
    envelope = Envelope(
        request_id=_text(given["request_id"] or fallback_id, "request_id"),
        deadline=None if deadline is None else float(deadline),
        caller=_text(given["caller"] or "", "caller"),
        tenant=_text(given["tenant"] or "", "tenant"),
    )
    rest = {name: cast(JSON, value) for name, value in args.items() if name not in NAMES}
    return envelope, rest


def fault(error: BaseException) -> dict[str, JSON]:
    """Return the answer that tells of an error; the text of an unforeseen one stays here."""
    told = Fault.of(error)
    return {"error": cast(JSON, told.to_json())}


def opened(answer: object) -> JSON:
    """Return an answer, or raise the ``Told`` that it tells of."""
    if isinstance(answer, Mapping) and set(answer) == {"error"} and isinstance(answer["error"], Mapping):
        raise Told(_told(answer["error"]))
    return cast(JSON, answer)


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


def _is_time(value: object) -> TypeGuard[float]:
    """Say whether it is a moment that clocks can reach: neither infinite nor no number at all."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _FARTHEST


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST or not value.isprintable():
        raise Refused(f"{field} must be a string of at most {_LONGEST} printable characters", field=field)
    return value
