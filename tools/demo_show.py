"""What the demo says: a line as each step ends, figures that a person can read, and a closing table."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

Figures = dict[str, object]


@dataclass
class Step:
    """One step of the story, as it goes into the record."""

    name: str
    ok: bool = False
    seconds: float = 0.0
    figures: Figures = field(default_factory=dict)


class Show:
    """Tell a story of steps; on a terminal with colour, elsewhere in plain lines."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.console = Console(highlight=False, soft_wrap=True)

    def title(self, text: str) -> None:
        """Begin a chapter."""
        self.console.print(f"\n{text}", style="bold", markup=False)

    @contextmanager
    def step(self, name: str, text: str) -> Iterator[Figures]:
        """Run a block as one step; what it puts into the figures is shown and recorded."""
        step = Step(name)
        self.steps.append(step)
        began = time.monotonic()
        if sys.stdout.isatty():
            self.console.print(f"  … {text}", end="\r", markup=False)
        try:
            yield step.figures
            step.ok = True
        finally:
            step.seconds = round(time.monotonic() - began, 2)
            sign = "✓" if step.ok else "✗"
            self.console.print(f"  {sign} {text:<58} {step.seconds:6.1f} s  {told(step.figures)}", markup=False)

    def table(self) -> None:
        """Print the closing table."""
        table = Table(title="What was shown", title_justify="left")
        for heading in ("step", "", "seconds", "figures"):
            table.add_column(heading, justify="right" if heading == "seconds" else "left")
        for each in self.steps:
            table.add_row(each.name, "ok" if each.ok else "FAILED", f"{each.seconds:.1f}", told(each.figures))
        self.console.print("")
        Console(width=None if sys.stdout.isatty() else 140).print(table)

    def record(self, path: Path, ok: bool) -> None:
        """Write the record for machines."""
        path.write_text(json.dumps({"ok": ok, "steps": [vars(each) for each in self.steps]}, indent=2) + "\n")


def told(figures: Figures) -> str:
    """Return figures in one line; a name that ends in ``bytes`` is a size."""
    kinds: dict[type, Callable[[object], str]] = {bool: lambda v: "yes" if v else "no", float: lambda v: f"{v:.3g}"}
    parts = []
    for name, value in figures.items():
        if name.endswith("bytes") and isinstance(value, int):
            parts.append(f"{name.removesuffix('_bytes')} {size(value)}")
        else:
            parts.append(f"{name.replace('_', ' ')} {kinds.get(type(value), str)(value)}")
    return ", ".join(parts)


def size(value: int) -> str:
    """Return bytes as a person reads them."""
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if value >= least:
            return f"{value / least:.1f} {unit}"
    return f"{value} B"
