"""Commands made from the declarations: one class for each verb, none of them written by hand."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import get_origin, get_type_hints

from cliff.command import Command

from guestagent.cli import requests
from guestagent.cli.agents import Asking
from guestagent.cli.show import Object, Rows
from guestagent.declarations import Verb, verbs
from guestagent.errors import Failed

BARE = "agent"
"""The noun that is not spelled on the command line."""


class Reading(Asking):
    """A verb that is answered at once."""

    verb: Verb

    def get_description(self) -> str:
        """Return the verb's own docstring."""
        return self.verb.text

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)  # type: ignore[misc]
        requests.declare(parser, self.verb)
        return parser


class ReadObject(Reading, Object):
    """A reading verb that answers with one object."""

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        return _object(self.ask(self.verb, requests.collect(parsed, self.verb)))


class ReadRows(Reading, Rows):
    """A reading verb that answers with a list."""

    def rows(self, parsed: argparse.Namespace) -> Sequence[Mapping[str, object]]:
        return _rows(self.ask(self.verb, requests.collect(parsed, self.verb)))


class Changing(Reading):
    """A verb that becomes an operation: waited for, unless told not to."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--no-wait", action="store_true", help="print the operation and return at once")
        return parser

    def operation(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        """Send the request; return the operation, ended unless ``--no-wait``."""
        begun = self.ask(self.verb, requests.collect(parsed, self.verb))
        if not isinstance(begun, dict):
            raise Failed("the agent did not answer with an operation")
        return begun if parsed.no_wait else self.outcome(begun)


class ChangeObject(Changing, Object):
    """A changing verb: prints its result, or the operation where there is none."""

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        operation = self.operation(parsed)
        result = operation.get("result")  # None also where it is told once, and was
        _warn(result)
        return operation if parsed.no_wait or not self.verb.mark.result or result is None else _object(result)


class ChangeRows(Changing, Rows):
    """A changing verb whose result is a list."""

    def rows(self, parsed: argparse.Namespace) -> Sequence[Mapping[str, object]]:
        operation = self.operation(parsed)
        return [operation] if parsed.no_wait or not self.verb.mark.result else _rows(operation.get("result"))


def _warn(result: object) -> None:
    """Say what is not as it should be, though the operation succeeded."""
    match result:
        case {"state": "DEGRADED", "id": str(backup), "copies": {"have": have, "wanted": wanted}}:
            text = f"warning: {have} of {wanted} copies; `ostler backup repair {backup}` makes the others"
            print(text, file=sys.stderr)


def _object(answer: object) -> Mapping[str, object]:
    return answer if isinstance(answer, dict) else {"result": answer}


def _rows(answer: object) -> Sequence[Mapping[str, object]]:
    return [_object(each) for each in answer] if isinstance(answer, list) else [_object(answer)]


def _returns(verb: Verb) -> object:
    hints = get_type_hints(verb.function, {**verb.function.__globals__, "list": list})
    return hints.get("return")


def _kind(verb: Verb) -> type:
    listed = get_origin(_returns(verb)) is list
    if verb.mark.changes:
        return ChangeRows if listed else ChangeObject
    return ReadRows if listed else ReadObject


def command_name(verb: Verb) -> str:
    """Return the words of the command line for a verb."""
    words = [] if verb.noun == BARE else [verb.noun]
    return " ".join([*words, verb.name.replace("_", "-")])


def commands() -> dict[str, type[Command]]:
    """Return a command for every verb there is."""
    return {
        command_name(each): type(each.key, (_kind(each),), {"verb": each, "__doc__": each.doc})
        for each in verbs().values()
    }
