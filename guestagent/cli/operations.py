"""Operations: waiting for one, its steps, and the journal of an agent that is not there."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from cliff.command import Command

from guestagent.cli.agents import Asking
from guestagent.cli.show import Object, Rows
from guestagent.cli.verbs import ReadObject, ReadRows
from guestagent.declarations import verbs
from guestagent.errors import Refused, UnknownOperation
from guestagent.journal import read_offline
from guestagent.operations.queries import steps_of


class List(ReadRows):
    """List the agent's operations, or those in a state directory while it is dead."""

    verb = verbs()["operation.list"]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return _offline(super().get_parser(prog_name))

    def rows(self, parsed: argparse.Namespace) -> Sequence[Mapping[str, object]]:
        if parsed.state_dir is None:
            return super().rows(parsed)
        return read_offline(Path(parsed.state_dir))


class Show(ReadObject):
    """Show one operation, also from a state directory while the agent is dead."""

    verb = verbs()["operation.show"]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return _offline(super().get_parser(prog_name))

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        if parsed.state_dir is None:
            return super().result(parsed)
        for each in read_offline(Path(parsed.state_dir)):
            if each["id"] == parsed.id:
                return each
        raise UnknownOperation(f"no operation {parsed.id} in {parsed.state_dir}", operation=parsed.id)


class Wait(Asking, Object):
    """Wait for an operation's outcome; the exit status is the operation's."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="ID")
        return parser

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        return self.outcome({"id": parsed.id, "verb": "operation"})


class Steps(Rows):
    """List the steps of a verb, in their order."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("verb", metavar="VERB", help="as prepare, 'backup create' or backup.create")
        return parser

    def rows(self, parsed: argparse.Namespace) -> Sequence[Mapping[str, object]]:
        return [{"name": each} for each in steps_of(find_verb(parsed.verb))]


def find_verb(words: str) -> str:
    """Return a verb's key from how people say it: ``prepare``, ``restore``, ``user create``."""
    known = verbs()
    key = words.replace(" ", ".").replace("-", "_")
    short = [each.key for each in known.values() if each.mark.changes and (key in (each.name, each.noun))]
    if key in known:
        return key
    if len(short) == 1:
        return short[0]
    hint = ", ".join(short or sorted(each.key for each in known.values() if each.mark.changes))
    raise Refused(f"there is no one verb {words!r}", field="verb", hint=f"one of: {hint}")


def _offline(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--state-dir", metavar="D", help="read this journal instead of asking the agent")
    return parser


def commands() -> dict[str, type[Command]]:
    """Return this room's commands by name."""
    return {"operation list": List, "operation show": Show, "operation wait": Wait, "operation steps": Steps}
