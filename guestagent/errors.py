"""How an error leaves the house: its name, its exit status and whether to try again.

The two libraries raise their own trees (``datastores.contract.errors``,
``objectstore.store``); the agent's own stands here::

    AgentError
    ├── Refused        bad input: nothing has changed (and BadVersion, UnknownVerb)
    ├── Busy           another operation excludes this one; ``operation`` names it
    ├── SecondAgent    an agent with this guest id is at work already
    ├── Unreachable    no agent, or no broker, answers
    ├── UnknownOperation
    ├── DeadlinePassed
    ├── Cancelled
    ├── Interrupted    killed at a step that may not be repeated
    ├── JournalCorrupt changes are refused until somebody has looked
    ├── ImageMismatch  the image lacks what its description names
    └── Failed         anything nobody foresaw

On the wire and with ``-f json`` an error is one object, ``Fault``: the type is the
name of its class, and the class decides the exit status by the table below.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

from datastores import contract
from objectstore import store


class AgentError(Exception):
    """Say what was attempted, on what, and why it failed."""

    retry: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        hint: str | None = None,
        operation: str | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint
        self.operation = operation


class Refused(AgentError):
    """The request was refused and nothing has changed."""


class UnknownVerb(Refused):
    """There is no such verb, or it is not one that may be called."""


class BadVersion(Refused):
    """This version of the interface is not served."""


class Busy(AgentError):
    """Another operation excludes this one, or the queue is full; it was not accepted."""

    retry = True


class SecondAgent(AgentError):
    """An agent with this guest id holds the state directory."""


class Unreachable(AgentError):
    """Nobody answers at that address."""

    retry = True


class UnknownOperation(AgentError):
    """There is no operation with this id."""


class DeadlinePassed(AgentError):
    """There was no answer, or no outcome, before the deadline."""


class Cancelled(AgentError):
    """The operation was cancelled."""


class Interrupted(AgentError):
    """The agent was killed at a step that may not be repeated."""


class JournalCorrupt(AgentError):
    """The journal cannot be trusted; changes are refused."""


class ImageMismatch(AgentError):
    """The machine is not what its image description says."""


class Failed(AgentError):
    """It failed; the message says how."""


EXIT_STATUS: dict[type[BaseException], int] = {
    Refused: 2,
    UnknownVerb: 2,
    BadVersion: 2,
    contract.BadInput: 2,
    store.BadName: 2,
    store.BadRequest: 2,
    store.Exists: 2,
    Unreachable: 3,
    contract.NotReady: 3,
    store.Unavailable: 3,
    Busy: 4,
    SecondAgent: 4,
    contract.Unsupported: 5,
    contract.NotFound: 6,
    UnknownOperation: 6,
    store.Missing: 6,
    contract.Mismatch: 7,
    contract.Hole: 7,
    store.Corrupt: 7,
    DeadlinePassed: 8,
    Cancelled: 9,
}
"""Every class that ends in a status other than 1."""

_BY_NAME = {kind.__name__: status for kind, status in EXIT_STATUS.items()}


@dataclass(frozen=True)
class Fault:
    """An error as it crosses the wire; the JSON of INTERFACES, section 1."""

    type: str
    message: str
    field: str | None = None
    hint: str | None = None
    retry: bool = False
    operation: str | None = None

    @classmethod
    def of(cls, error: BaseException) -> "Fault":
        """Describe an error, or hand on what was told; one not of our three trees shows its kind, never its text."""
        if isinstance(error, Told):
            return error.fault
        known = isinstance(error, AgentError | contract.DatastoreError | store.StoreError)
        text = str(error) if known else f"{type(error).__name__} (the agent's log has the rest)"
        return cls(
            type=type(error).__name__ if known else "Failed",
            message=text[:1024],
            field=getattr(error, "field", None) if known else None,
            hint=getattr(error, "hint", None) if known else None,
            retry=bool(getattr(error, "retry", False)) if known else False,
            operation=getattr(error, "operation", None) if known else None,
        )

    @property
    def exit_status(self) -> int:
        """Return the command's exit status for this error."""
        return _BY_NAME.get(self.type, 1)

    def to_json(self) -> dict[str, object]:
        """Return the object of ``{"error": ...}``."""
        return asdict(self)


class Told(AgentError):
    """An error that somebody else told us of; it is shown as it was told."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message, field=fault.field, hint=fault.hint, operation=fault.operation)
        self.fault = fault
