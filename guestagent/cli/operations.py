"""Operations: waiting for one, its steps, and the journal of an agent that is not there."""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from cliff.command import Command

from guestagent.cli.agents import Asking
from guestagent.cli.show import Object, Rows
from guestagent.cli.verbs import ReadObject, ReadRows
from guestagent.declarations import verbs
from guestagent.journal import look
from guestagent.operations.queries import steps_of


class List(ReadRows):
    """List the agent's operations, or those in a state directory while it is dead."""

    verb = verbs()["operation.list"]
    summary = ("id", "verb", "state", "step", "started_at", "ended_at")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return _offline(super().get_parser(prog_name))

    def rows(self, parsed: argparse.Namespace) -> Sequence[Mapping[str, object]]:
        if parsed.state_dir is None:
            return super().rows(parsed)
        with closing(look(Path(parsed.state_dir))) as journal:
            return [row.to_json() for row in journal.ledger.page(parsed.after, parsed.limit)]


class Show(ReadObject):
    """Show one operation, also from a state directory while the agent is dead."""

    verb = verbs()["operation.show"]

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        return _offline(super().get_parser(prog_name))

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        if parsed.state_dir is None:
            return super().result(parsed)
        with closing(look(Path(parsed.state_dir))) as journal:
            return journal.show(parsed.id)


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
        parser.add_argument("verb", metavar="VERB", help="prepare, backup, restore, settings, or as user.create")
        return parser

    def rows(self, parsed: argparse.Namespace) -> Sequence[Mapping[str, object]]:
        return [{"name": each} for each in steps_of(parsed.verb)]


def _offline(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--state-dir", metavar="D", help="read this journal instead of asking the agent")
    return parser


def commands() -> dict[str, type[Command]]:
    """Return this room's commands by name."""
    return {"operation list": List, "operation show": Show, "operation wait": Wait, "operation steps": Steps}
