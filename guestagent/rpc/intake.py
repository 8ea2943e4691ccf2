"""What a driver that can wait with its acknowledgement asks before it gives it.

``Arrival`` is a request as it came; an ``Intake`` commits it and says what to answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from datastores.contract import JSON


class NotCommitted(Exception):
    """The request is not in the journal, through no fault of its own: it must not be acknowledged yet."""


@dataclass(frozen=True)
class Arrival:
    """A request off the wire: ``message`` has namespace, method, version and args; ``fallback_id`` names it
    where its envelope does not; ``wants_reply`` is False for a cast."""

    message: Mapping[str, object]
    context: Mapping[str, object]
    fallback_id: str
    wants_reply: bool


Verdict = dict[str, JSON]
Intake = Callable[[Arrival], Verdict | None]
"""Commit a changing request and return its answer, the verdict; None for a reading one; or raise ``NotCommitted``."""
