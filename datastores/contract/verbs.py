"""The mark that makes a method a verb.

One mark, many readers: the RPC endpoints, the client, the command line, the
capability table and the conformance tests all come from it, so nothing is said
twice.  The signature is part of the declaration, too:

* a positional argument is required and named by its place on the command line,
* a keyword-only argument is an option there,
* a ``Secret`` (or a structure that holds one) never comes by argument: such a
  verb takes ``--request FILE``,
* the annotations are the types that are checked at the door.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, Union

JSON = Union[None, bool, int, float, str, "list[JSON]", "dict[str, JSON]"]
"""What may cross a wire or be journalled."""

_ATTRIBUTE = "__ostler_verb__"
F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class Mark:
    """How a verb is run.

    ``scope``    what it touches: lifecycle, data, accounts, settings, topology
                 or ``none``; one table says which scopes exclude which.
    ``changes``  a changing verb becomes an operation; a reading one is answered.
    ``timeout``  seconds: the deadline of a request that brings none.
    ``noun``     on a plain function: the noun it belongs to.  On a part's method
                 the part's ``noun`` is meant.
    ``steps``    the names of the operation's steps, where there is more than one.
    ``once``     its result is delivered once and then destroyed.
    ``result``   a command that waited prints the operation's result, not the operation.
    ``deprecated``  since which release, or the empty string.
    ``check``    on a plain function: raises, before an order is accepted, where its arguments can never
                 do; called as ``check(guest, **arguments)`` with every argument there is.
    """

    scope: str = "none"
    changes: bool = False
    timeout: float = 60.0
    noun: str = ""
    steps: tuple[str, ...] = ()
    once: bool = False
    result: bool = False
    deprecated: str = ""
    check: Callable[..., object] | None = None


def verb(
    *,
    scope: str = "none",
    changes: bool = False,
    timeout: float = 60.0,
    noun: str = "",
    steps: tuple[str, ...] = (),
    once: bool = False,
    result: bool = False,
    deprecated: str = "",
    check: Callable[..., object] | None = None,
) -> Callable[[F], F]:
    """Mark a method of a part, or a function of ``guestagent.operations``, as served."""
    mark = Mark(scope, changes, timeout, noun, steps, once, result, deprecated, check)

    def attach(function: F) -> F:
        setattr(function, _ATTRIBUTE, mark)
        return function

    return attach


def mark_of(function: object) -> Mark | None:
    """Return the mark of a function or method, or None where it is not served."""
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, Mark) else None
