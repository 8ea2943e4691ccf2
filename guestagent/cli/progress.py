"""Progress on standard error: a bar on a terminal, a line a step elsewhere, or nothing.

``--progress plain|none`` forces the latter two.
"""

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from datastores.contract import JSON


class Follower(Protocol):
    """Is told of an operation (its JSON) or of plain figures again and again."""

    def operation(self, seen: Mapping[str, JSON]) -> None:
        """Show an operation's step and progress."""

    def figures(self, done: int, total: int) -> None:
        """Show bytes done of a total."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def follower(title: str, wanted: str | None) -> Follower:
    """Return who shows progress: ``wanted`` is ``plain``, ``none`` or None (bars on a terminal only)."""
    if wanted == "none":
        return Silent()
    if wanted == "plain":
        return Plain(title)
    return Bar(title) if sys.stderr.isatty() else Silent()


class Silent:
    """Shows nothing."""

    def operation(self, seen: Mapping[str, JSON]) -> None:
        """Show nothing."""

    def figures(self, done: int, total: int) -> None:
        """Show nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Plain(Silent):
    """Prints a line whenever the step changes."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.step: object = None

    def operation(self, seen: Mapping[str, JSON]) -> None:
        if seen.get("step") != self.step:
            self.step = seen.get("step")
            if self.step:
                print(f"{self.title}: {self.step}", file=sys.stderr, flush=True)


class Bar(Silent):
    """Draws a bar with the step, the bytes and the time that is left."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.task: TaskID = self.bar.add_task(title, total=None)

    def operation(self, seen: Mapping[str, JSON]) -> None:
        progress = seen.get("progress")
        done, total = 0, 0
        if isinstance(progress, dict):
            done, total = _number(progress.get("done")), _number(progress.get("total"))
        self.bar.update(self.task, description=f"{self.title} · {seen.get('step') or 'waiting'}")
        self.figures(done, total)

    def figures(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=max(done, total) or None)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()


def _number(value: JSON) -> int:
    return int(value) if isinstance(value, int | float) else 0
