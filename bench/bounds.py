"""What was promised beside what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass

from demo_show import Show


@dataclass(frozen=True)
class Bound:
    """A figure and where it must stay: at most ``most``, at least ``least``."""

    value: float
    most: float | None = None
    least: float | None = None

    @property
    def held(self) -> bool:
        """Say whether it did."""
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def __str__(self) -> str:
        limit = f"at most {self.most:g}" if self.most is not None else f"at least {self.least:g}"
        return f"{self.value:10.4g}   {limit:<16} {'held' if self.held else 'MISSED'}"


def all_held(show: Show, bounds: Mapping[str, Bound]) -> bool:
    """Print and record every figure beside its bound; say whether all of them held."""
    with show.step("bounds", "what was promised") as figures:
        for name, bound in bounds.items():
            show.console.print(f"  {name:<52} {bound}", markup=False)
            figures[name] = round(bound.value, 5)
        figures["held"] = all(bound.held for bound in bounds.values())
    return bool(figures["held"])
