"""Arguments of a verb: from the command line, from ``--request FILE|-``, or from a prompt.

A required positional argument is a word of the command, a keyword-only one an option.  A
secret is never either: it stands in the request, or is asked for on a terminal.
"""

import argparse
import getpass
import json
import sys
from pathlib import Path

from datastores.contract import JSON
from guestagent.declarations import Argument, Verb
from guestagent.errors import Refused

_TYPES = {"integer": int, "number": float}
_METAVARS = {"integer": "N", "number": "N"}
_LONGEST = 10.0 * 365 * 86400


def seconds(text: str) -> float:
    """Return a time to wait, more than nothing; ``ValueError`` for what is none."""
    value = float(text)
    if not 0 < value <= _LONGEST:
        raise ValueError(text)
    return value


def declare(parser: argparse.ArgumentParser, verb: Verb) -> None:
    """Add the verb's arguments to its parser."""
    if verb.by_request:
        parser.add_argument(
            "--request",
            metavar="FILE|-",
            help="the request as one JSON object, from a file or standard input; a password never comes by argument",
        )
    for each in verb.args:
        if not each.secret and each.kind not in ("object", "objects"):
            _declare_one(parser, each, optional=verb.by_request)


def _declare_one(parser: argparse.ArgumentParser, arg: Argument, *, optional: bool) -> None:
    flag = "--" + arg.name.replace("_", "-")
    text = _help(arg)
    if arg.kind == "pairs":
        parser.add_argument(arg.name, nargs="+", metavar="NAME=VALUE", help=text)
    elif arg.kind == "strings" and arg.positional:
        parser.add_argument(arg.name, nargs="+", metavar="NAME", help=text)
    elif arg.kind == "strings":
        parser.add_argument(flag, dest=arg.name, nargs="*", metavar="NAME", help=text)
    elif arg.kind == "boolean":
        parser.add_argument(flag, dest=arg.name, action="store_true", default=None, help=text)
    elif arg.positional:
        parser.add_argument(arg.name, nargs="?" if optional else None, metavar=arg.name.upper(), help=text)
    else:
        choices = arg.kind.split("|") if "|" in arg.kind else None
        shown = None if choices else _METAVARS.get(arg.kind, arg.name.upper())
        parser.add_argument(
            flag,
            dest=arg.name,
            required=arg.required and not optional,
            type=_TYPES.get(arg.kind, str),
            choices=choices,
            metavar=shown,
            help=text,
        )


def _help(arg: Argument) -> str:
    default = [f"(default: {arg.default})"] if arg.default not in (None, False, 0, "", ()) else []
    return " ".join([arg.help, *default]).strip().replace("%", "%%")


def collect(parsed: argparse.Namespace, verb: Verb) -> dict[str, JSON]:
    """Return the verb's arguments as JSON; ``Refused`` names what is missing or malformed."""
    values: dict[str, JSON] = dict(_request(parsed.request)) if getattr(parsed, "request", None) else {}
    for each in verb.args:
        given = getattr(parsed, each.name, None)
        if given is not None:
            if each.name in values:
                raise Refused(f"{each.name} is given twice: in the request, and beside it", field=each.name)
            values[each.name] = _pairs(given) if each.kind == "pairs" else given
    for each in verb.args:
        if each.kind == "secret" and each.required and each.name not in values:
            values[each.name] = _ask(verb, each)
    verb.parse(values)
    return values


def _request(source: str) -> dict[str, JSON]:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        found = json.loads(text, object_pairs_hook=_once)
    except OSError as error:
        raise Refused(f"request {source}: {error.strerror}", field="request") from error
    except (ValueError, RecursionError) as error:
        raise Refused(f"request {source} is not JSON, or too deep", field="request") from error
    if not isinstance(found, dict):
        raise Refused(f"request {source} must be one JSON object", field="request")
    return found


def _once(members: list[tuple[str, JSON]]) -> dict[str, JSON]:
    found: dict[str, JSON] = {}
    for name, value in members:
        if name in found:
            raise Refused(f"{name} is given twice", field=name)
        found[name] = value
    return found


def _pairs(words: list[str]) -> JSON:
    pairs: dict[str, JSON] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Refused(f"{word!r} must be NAME=VALUE", field=name or word)
        if name in pairs:
            raise Refused(f"{name} is given twice", field=name)
        pairs[name] = value
    return pairs


def _ask(verb: Verb, arg: Argument) -> str:
    if not sys.stdin.isatty():
        raise Refused(
            f"{verb.key} needs {arg.name}", field=arg.name, hint="--request FILE with a JSON object, or - for stdin"
        )
    first = getpass.getpass(f"{arg.name}: ")
    if getpass.getpass(f"{arg.name} again: ") != first:
        raise Refused(f"the two {arg.name}s differ", field=arg.name)
    return first
