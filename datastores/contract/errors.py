"""What a datastore may raise.

::

    DatastoreError
    ├── BadInput       refused before anything changed; ``field`` names what
    ├── Unsupported    this datastore has no such part
    ├── NotFound       the object that was named is not there
    ├── NotReady       not now; the only one here that may be tried again
    ├── ToolFailed     a program of the server's ended badly
    ├── NoSpace        there is not room enough; nothing was touched
    ├── Incomplete     a backup's stream ended before its inventory was whole
    └── Mismatch       these bytes are not what they must be
        └── Hole       the log since the parent has a gap; the message names it

The type answers one question, *may I try again?*: where ``retry`` is true,
yes; otherwise never.  ``hint`` tells a person what to do about it.
No message ever holds a secret.
"""

from typing import ClassVar


class DatastoreError(Exception):
    """Say what was attempted, on what, and why it failed."""

    retry: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint


class BadInput(DatastoreError):
    """The request was refused and nothing has changed."""


class Unsupported(DatastoreError):
    """This datastore does not have the part that was asked for."""


class NotFound(DatastoreError):
    """The named object does not exist."""


class NotReady(DatastoreError):
    """The server does not answer yet; ask again later."""

    retry = True


class ToolFailed(DatastoreError):
    """A program that was run ended with a status other than zero."""


class NoSpace(DatastoreError):
    """The machine has not the room; nothing was touched."""


class Incomplete(DatastoreError):
    """A snapshot's extents did not add up to its inventory."""


class Mismatch(DatastoreError):
    """The bytes, the datastore or the position are not the expected ones."""


class Hole(Mismatch):
    """The change log since the parent backup has a gap."""
