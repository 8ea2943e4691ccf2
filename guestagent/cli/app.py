"""The application: global options, which command is meant, and how errors end it.

An error of ours prints one line and its hint on standard error (one JSON object
with ``-f json``) and decides the exit status; anything else is a defect and shows
its traceback with ``--debug``.
"""

import argparse
import json
import os
import re
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from cliff.app import App
from cliff.command import Command
from cliff.commandmanager import CommandManager

from datastores.contract import DatastoreError
from guestagent.cli import agents, backups, images, operations, verbs
from guestagent.cli.requests import seconds
from guestagent.errors import AgentError, Failed, Fault, Refused
from objectstore.store import StoreError

DESCRIPTION = """\
Ostler keeps the database it runs beside: prepare it, users, settings, backup, restore.

  ostler --agent unix:///run/ostler/bus?id=g1 status
  ostler --agent ... backup create
  ostler backup list -f json
"""
INTERRUPTED = 130


class Ostler(App):
    """The ``ostler`` command."""

    NAME = "ostler"

    def __init__(self) -> None:
        manager = CommandManager("ostler.commands")
        for room in (verbs, agents, backups, operations, images):
            for name, command in room.commands().items():
                manager.add_command(name, command)
        self._kept: list[str] = []
        super().__init__(DESCRIPTION, version("ostler"), manager, deferred_help=True)

    def build_option_parser(
        self, description: str | None, version: str | None, argparse_kwargs: dict[str, object] | None = None
    ) -> argparse.ArgumentParser:
        # Abbreviated, --request-id would swallow the --request of a verb.
        wanted = {
            "formatter_class": argparse.RawDescriptionHelpFormatter,
            "allow_abbrev": False,
            **(argparse_kwargs or {}),
        }
        parser: argparse.ArgumentParser = super().build_option_parser(description, version, wanted)
        group = parser.add_argument_group("the agent")
        group.add_argument(
            "--agent",
            metavar="URL",
            default=os.environ.get("OSTLER_AGENT"),
            help="unix:///dir?id=GUEST or rabbit://user@host:port/vhost?id=GUEST (environment: OSTLER_AGENT)",
        )
        group.add_argument(
            "--request-id", metavar="ID", help="the same id is the same operation, however often it is sent"
        )
        group.add_argument("--deadline", metavar="SECONDS", type=seconds, help="give up after this long")
        group.add_argument("--progress", choices=("plain", "none"), help="lines or nothing instead of bars")
        return parser

    def run(self, argv: list[str]) -> int:
        """Run the command line; ``--version V`` behind a command is the command's, not ours."""
        self.parser.error = lambda message: _leave(message, argv)  # type: ignore[method-assign]
        own, kept = _apart(argv)
        self._kept = kept
        return int(super().run(own))

    def run_subcommand(self, argv: list[str]) -> int:
        """Run the command that ``argv`` names; every error of ours leaves here, as an exit status."""
        try:
            return self._run([*argv, *self._kept])
        except (AgentError, DatastoreError, StoreError) as error:
            fault = Fault.of(error)
            if self.options.debug:
                traceback.print_exc()
            print(_shown(fault, as_json=_wants_json(argv)), file=sys.stderr)
            return fault.exit_status
        except BrokenPipeError:
            raise
        except OSError as error:
            fault = Fault.of(Failed(f"{error.filename or 'the system'}: {error.strerror or type(error).__name__}"))
            print(_shown(fault, as_json=_wants_json(argv)), file=sys.stderr)
            return fault.exit_status

    def _run(self, argv: list[str]) -> int:
        factory, name, rest = self._find(argv)
        command = factory(self, self.options, cmd_name=name)
        parser = command.get_parser(f"{self.NAME} {name}")
        parser.error = _refuse  # type: ignore[method-assign]
        parser.allow_abbrev = False
        return int(command.run(parser.parse_args(rest)) or 0)

    def _find(self, argv: list[str]) -> tuple[type[Command], str, list[str]]:
        """Return the command, its name and its words; unlike cliff, take no shortened name: ``d`` may be delete."""
        try:
            found = self.command_manager.find_command(argv)
        except ValueError:
            found = None
        if found is None or argv[: len(found[1].split())] != found[1].split():
            words = [word for word in argv[:2] if not word.startswith("-")]
            near = ", ".join(self.get_fuzzy_matches(argv[0]))
            raise Refused(f"there is no command {' '.join(words)!r}", hint=f"did you mean: {near}")
        return found

    def interact(self) -> NoReturn:
        """Print the help and end with 2: nothing was asked for, and there is no prompt of our own."""
        self.parser.print_help(sys.stderr)
        sys.exit(2)


def _apart(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words, and apart from them a ``--version`` that names a version."""
    words = list(argv)
    for at, word in enumerate(words):
        if at and word == "--version" and words[at + 1 :] and not words[at + 1].startswith("-"):
            return words[:at] + words[at + 2 :], words[at : at + 2]
        if word.startswith("--version="):
            return words[:at] + words[at + 1 :], [word]
    return words, []


def _refused(message: str) -> Refused:
    """Return the error for what the parser found, with the name of the argument where it says one."""
    named = re.match(r"argument (?:-\w/)?-*([\w-]+)", message)
    return Refused(
        message, field=named[1].replace("-", "_").lower() if named else None, hint="--help shows what is wanted"
    )


def _refuse(message: str) -> NoReturn:
    raise _refused(message)


def _leave(message: str, argv: Sequence[str]) -> NoReturn:
    """End where the application's own options are wrong, before there is a command."""
    fault = Fault.of(_refused(message))
    print(_shown(fault, as_json=_wants_json(argv)), file=sys.stderr)
    sys.exit(fault.exit_status)


def _wants_json(argv: Sequence[str]) -> bool:
    words = list(argv)
    return any(
        word in ("-fjson", "-f=json", "--format=json")
        or (word in ("-f", "--format") and words[n + 1 : n + 2] == ["json"])
        for n, word in enumerate(words)
    )


def _shown(fault: Fault, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"error": fault.to_json()}, ensure_ascii=False)
    hint = f"\n  hint: {fault.hint}" if fault.hint else ""
    return f"{fault.type}: {fault.message}{hint}"


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    try:
        return int(Ostler().run(list(sys.argv[1:] if argv is None else argv)))
    except KeyboardInterrupt:
        return INTERRUPTED
