"""Results as cliff's tables, JSON, YAML and values.

A result is one JSON object or a list of them.  JSON and YAML print it as it is;
a table shows what lies inside in words and leaves empty things blank.
"""

import argparse
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
    """A command whose result is plain lines."""

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        for line in self.lines(parsed_args):
            print(line, file=self.app.stdout)
        return 0

    def lines(self, parsed: argparse.Namespace) -> Sequence[str]:
        """Return the lines to print."""
        raise TypeError(f"{type(self).__name__} prints nothing")
