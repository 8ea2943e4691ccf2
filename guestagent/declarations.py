"""What the agent can do, read from the declarations; nothing here is listed by hand.

A verb is a marked method of one of the contract's parts, or a marked function of
``guestagent.operations``.  This module finds them, says what their arguments are,
and checks a request's arguments at the door.  RPC, client, command line, table and
tests all ask here.
"""

import inspect
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from datastores.contract import JSON, BadInput, Datastore, Mark, Secret, Unsupported, mark_of
from guestagent.errors import Refused

GROUP = "ostler.datastores"
API_VERSION = "1.0"


@dataclass(frozen=True)
class Argument:
    """One argument of a verb, as its signature declares it."""

    name: str
    annotation: object
    required: bool
    positional: bool
    default: object = None
    help: str = ""

    @property
    def kind(self) -> str:
        """Name the JSON that is wanted, for ``describe`` and the command line."""
        return _kind(self.annotation)

    @property
    def secret(self) -> bool:
        """Say whether a secret is in it, which never comes by argument."""
        return _holds_secret(self.annotation)


@dataclass(frozen=True)
class Verb:
    """One verb: its noun, its name (with underscores), its mark and its arguments.

    ``part`` is the part of the datastore that answers, or None for a function of the
    agent's own; ``function`` is the marked function or the contract's method.
    """

    noun: str
    name: str
    mark: Mark
    args: tuple[Argument, ...]
    part: str | None
    function: Callable[..., object]

    @property
    def key(self) -> str:
        """Return ``noun.name``, the name operations are journalled under."""
        return f"{self.noun}.{self.name}"

    @property
    def doc(self) -> str:
        """Return the first line of the docstring: the help text."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0].replace("``", "")

    @property
    def text(self) -> str:
        """Return the docstring without its lines about arguments: the description in the help."""
        paragraphs = (inspect.getdoc(self.function) or "").split("\n\n")
        return "\n\n".join(each for each in paragraphs if not each.startswith("``")).replace("``", "")

    @property
    def by_request(self) -> bool:
        """Say whether the command takes ``--request FILE``: a secret or a structure is among the arguments."""
        return any(each.secret or each.kind in ("object", "objects") for each in self.args)

    def parse(self, values: Mapping[str, object]) -> dict[str, object]:
        """Return checked arguments; ``Refused`` names the first that is unknown, missing or of a wrong type."""
        known = {each.name for each in self.args}
        for name in values:
            if name not in known:
                raise Refused(f"{self.key} takes no argument {name!r}", field=name)
        parsed: dict[str, object] = {}
        for each in self.args:
            if each.name in values:
                parsed[each.name] = convert(each.annotation, values[each.name], each.name)
            elif each.required:
                raise Refused(f"{self.key} needs {each.name}", field=each.name)
        return parsed

    def describe(self) -> dict[str, JSON]:
        """Return the verb as ``describe`` prints it."""
        args: list[JSON] = [{"name": each.name, "type": each.kind, "required": each.required} for each in self.args]
        reply = "operation" if self.mark.changes else _kind(_hints(self.function).get("return"))
        found: dict[str, JSON] = {
            "name": self.key,
            "scope": self.mark.scope,
            "changes": self.mark.changes,
            "args": args,
            "reply": reply,
            "timeout": self.mark.timeout,
        }
        if self.mark.deprecated:
            found["deprecated"] = self.mark.deprecated
        return found


def installed() -> dict[str, EntryPoint]:
    """Return the datastores that are installed, by name, none of them loaded."""
    return {each.name: each for each in sorted(entry_points(group=GROUP), key=lambda e: e.name)}


def load(name: str) -> Datastore:
    """Return a datastore by name; ``Refused`` lists those that are installed."""
    found = installed()
    if name not in found:
        raise Refused(
            f"there is no datastore {name!r} here", field="datastore_manager", hint=f"installed: {', '.join(found)}"
        )
    declared = found[name].load()
    if not isinstance(declared, Datastore):
        raise Refused(f"entry point {name!r} is not a Datastore", field="datastore_manager")
    return declared


def verbs() -> dict[str, Verb]:
    """Return every verb there is, by ``noun.name``, whichever parts a datastore has."""
    found = [*_part_verbs(), *_agent_verbs()]
    return {each.key: each for each in sorted(found, key=lambda v: v.key)}


def require(verb: Verb, datastore: Datastore) -> None:
    """Raise ``Unsupported`` where the datastore has not the verb's part."""
    if verb.part is not None and getattr(datastore, verb.part) is None:
        raise Unsupported(f"{datastore.name} has no {verb.part}")


def describe(datastore: Datastore, version: str) -> dict[str, JSON]:
    """Return what ``describe`` prints: the datastore's parts and the verbs it answers."""
    have = datastore.parts()
    served: list[JSON] = [each.describe() for each in verbs().values() if each.part is None or have[each.part]]
    return {
        "api": API_VERSION,
        "datastore": datastore.name,
        "version": version,
        "level": datastore.level,
        "parts": dict(have),
        "verbs": served,
    }


def _part_verbs() -> Iterator[Verb]:
    hints = get_type_hints(Datastore)
    for part in Datastore.PARTS:
        kind = next(iter(get_args(each) for each in (hints[part], *get_args(hints[part])) if get_origin(each) is type))
        for name, function in vars(kind[0]).items():
            mark = mark_of(function)
            if mark is not None:
                yield Verb(kind[0].noun, name, mark, _arguments(function), part, function)


def _agent_verbs() -> Iterator[Verb]:
    from guestagent.operations import MODULES

    for module in MODULES:
        for name, function in vars(module).items():
            mark = mark_of(function)
            if mark is not None and function.__module__ == module.__name__:
                yield Verb(mark.noun, name.rstrip("_"), mark, _arguments(function), None, function)


def _hints(function: Callable[..., object]) -> dict[str, Any]:
    return get_type_hints(function, {**getattr(function, "__globals__", {}), "list": list})


def _arguments(function: Callable[..., object]) -> tuple[Argument, ...]:
    """Return the declared arguments, without the first: ``self``, the run or the guest."""
    hints, told = _hints(function), _told(function)
    rest = list(inspect.signature(function).parameters.values())[1:]
    return tuple(
        Argument(
            name=each.name,
            annotation=hints[each.name],
            required=each.default is each.empty,
            positional=each.kind is each.POSITIONAL_OR_KEYWORD,
            default=None if each.default is each.empty else each.default,
            help=told.get(each.name, ""),
        )
        for each in rest
    )


def _told(function: Callable[..., object]) -> dict[str, str]:
    """Return what the docstring says of each argument: its lines that begin with ````name````."""
    found = re.finditer(r"^``(\w+)``\s+(.+?)(?=^``|\Z|\n\n)", inspect.getdoc(function) or "", re.MULTILINE | re.DOTALL)
    return {each[1]: " ".join(each[2].split()).replace("``", "") for each in found}


def _kind(annotation: object) -> str:
    annotation = _without_none(annotation)
    simple = {str: "string", int: "integer", float: "number", bool: "boolean", Secret: "secret"}
    if annotation is None or annotation is type(None):
        return "null"
    if isinstance(annotation, type) and annotation in simple:
        return simple[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return "|".join(str(each) for each in inner)
    if origin is tuple:
        return "objects" if is_dataclass(inner[0]) else "strings"
    if origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return "pairs" if inner == (str, str) else "object"
    if origin is list:
        return "objects"
    return "object"


def _without_none(annotation: object) -> object:
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [each for each in get_args(annotation) if each is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def _holds_secret(annotation: object) -> bool:
    annotation = _without_none(annotation)
    if annotation is Secret:
        return True
    if is_dataclass(annotation):
        return any(_holds_secret(each) for each in get_type_hints(annotation).values())
    return any(_holds_secret(each) for each in get_args(annotation) if each is not annotation)


def convert(annotation: object, value: object, field: str) -> object:
    """Return ``value`` as ``annotation`` wants it; ``Refused`` names the field otherwise."""
    inner = _without_none(annotation)
    if value is None and inner is not annotation:
        return None
    origin, args = get_origin(inner), get_args(inner)
    if origin is Literal:
        if value not in args:
            raise Refused(f"{field} must be one of {', '.join(map(str, args))}", field=field)
        return value
    if origin is tuple:
        return tuple(convert(args[0], each, f"{field}[{n}]") for n, each in enumerate(_list(value, field)))
    if origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {str(k): convert(args[1], v, f"{field}.{k}") for k, v in _object(value, field).items()}
    if is_dataclass(inner):
        return _structure(inner, _object(value, field), field)
    return _scalar(inner, value, field)


def _scalar(wanted: object, value: object, field: str) -> object:
    if wanted is Secret:
        if not isinstance(value, str):
            raise Refused(f"{field} must be a string", field=field)
        return Secret(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    good = isinstance(wanted, type) and isinstance(value, wanted)
    if not good or (isinstance(value, bool) and wanted is not bool):
        raise Refused(f"{field} must be a {_kind(wanted)}", field=field)
    return value


def _structure(kind: Any, value: Mapping[str, object], field: str) -> object:
    hints = get_type_hints(kind)
    unknown = next((name for name in value if name not in hints), None)
    if unknown is not None:
        raise Refused(f"{field} has no member {unknown!r}", field=f"{field}.{unknown}")
    given = {name: convert(hints[name], each, f"{field}.{name}") for name, each in value.items()}
    for each in fields(kind):
        if each.name not in given and each.default is MISSING and each.default_factory is MISSING:
            raise Refused(f"{field} needs {each.name}", field=f"{field}.{each.name}")
    try:
        return kind(**given)
    except BadInput as error:
        raise Refused(str(error), field=error.field or field) from error


def _list(value: object, field: str) -> list[object]:
    if not isinstance(value, list | tuple):
        raise Refused(f"{field} must be a list", field=field)
    return list(value)


def _object(value: object, field: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise Refused(f"{field} must be an object", field=field)
    return value
