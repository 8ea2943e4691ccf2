"""Results as cliff's tables, JSON, YAML and values.

A result is one JSON object or a list of them.  JSON and YAML print it as it is;
a table shows what lies inside in words and leaves empty things blank.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cliff.columns import FormattableColumn
from cliff.command import Command
from cliff.lister import Lister
from cliff.show import ShowOne


class Inside(FormattableColumn[Any]):
    """A value that JSON shows whole and a table shows in words."""

    def human_readable(self) -> str:
        return _plain(self._value)


def _plain(value: object) -> str:
    """Return a value as a table shows it: nothing for nothing, a list by lines, an object by its members."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items() if each is not None)
    if isinstance(value, list | tuple):
        return "\n".join(_plain(each) for each in value)
    return str(value)


def columns_of(rows: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """Return the keys of all rows, in the order they are first seen."""
    return tuple(dict.fromkeys(key for row in rows for key in row))


class Object(ShowOne):
    """A command whose result is one object."""

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        found = self.result(parsed_args)
        return tuple(found), tuple(Inside(each) for each in found.values())

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        """Return the object to print."""
        raise TypeError(f"{type(self).__name__} prints nothing")


class Rows(Lister):
    """A command whose result is a list of objects; ``summary`` names the columns that a table has room for."""

    summary: tuple[str, ...] = ()

    def take_action(self, parsed_args: argparse.Namespace) -> Any:
        rows = self.rows(parsed_args)
        columns = columns_of(rows) or self.summary or ("name",)
        if self.summary and parsed_args.formatter == "table" and not parsed_args.columns:
            columns = self.summary
        return columns, ([Inside(row.get(each)) for each in columns] for row in rows)

    def rows(self, parsed: argparse.Namespace) -> Sequence[Mapping[str, object]]:
        """Return the objects to print."""
        raise TypeError(f"{type(self).__name__} prints nothing")


class Lines(Command):
    """A command whose result is plain lines, or with ``-f json`` a list."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        wanted = ("table", "json", "yaml", "value")
        parser.add_argument("-f", "--format", choices=wanted, default="value", help="default: plain lines")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        found = self.found(parsed_args)
        if parsed_args.format in ("json", "yaml"):  # JSON is YAML
            print(json.dumps(list(found), indent=2, ensure_ascii=False), file=self.app.stdout)
            return 0
        for each in found:
            print(self.line(each), file=self.app.stdout)
        return 0

    def found(self, parsed: argparse.Namespace) -> Sequence[object]:
        """Return what is to be printed."""
        raise TypeError(f"{type(self).__name__} prints nothing")

    def line(self, each: Any) -> str:
        """Return one line."""
        return str(each)
