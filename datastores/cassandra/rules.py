"""The table of what a tenant may set: rules, and how each is changed on a running server."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from datastores.cassandra.units import UNITS, parse, spell
from datastores.contract import BadInput, Rule

TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
BEANS = {
    "StorageService": "org.apache.cassandra.db:type=StorageService",
    "StorageProxy": "org.apache.cassandra.db:type=StorageProxy",
    "Guardrails": "org.apache.cassandra.db:type=Guardrails",
    "CredentialsCache": "org.apache.cassandra.auth:type=CredentialsCache",
    "RolesCache": "org.apache.cassandra.auth:type=RolesCache",
    "PermissionsCache": "org.apache.cassandra.auth:type=PermissionsCache",
}


@dataclass(frozen=True)
class Way:
    """One setting: its rule (bounds of a unit in nanoseconds or bytes), its finest unit, its bean and attribute."""

    rule: Rule
    unit: str = ""
    bean: str = ""
    attribute: str = ""

    def canonical(self, value: str) -> str:
        """Return a value in the server's spelling; ``BadInput`` names the rule."""
        if self.rule.kind == "boolean":
            return self._truth(value.lower())
        if self.rule.kind == "enum":
            return self._choice(value)
        return self._quantity(value) if self.rule.kind in UNITS else self._number(value)

    def managed(self, value: str) -> object:
        """Return what the attribute is set to for a value in the server's spelling."""
        if self.rule.kind in UNITS:
            return parse(self.rule.kind, value) // UNITS[self.rule.kind][self.unit]
        return value == "true" if self.rule.kind == "boolean" else int(value)

    def _truth(self, value: str) -> str:
        if value in TRUE or value in FALSE:
            return "true" if value in TRUE else "false"
        raise self._bad("true or false")

    def _choice(self, value: str) -> str:
        if value in self.rule.choices:
            return value
        raise self._bad(f"one of {', '.join(self.rule.choices)}")

    def _quantity(self, value: str) -> str:
        kind, low, high = self.rule.kind, int(self.rule.low or 0), int(self.rule.high or 0)
        try:
            amount = parse(kind, value)
        except ValueError:
            amount = -1
        if not low <= amount <= high or amount % UNITS[kind][self.unit]:
            units = [each for each, factor in UNITS[kind].items() if factor >= UNITS[kind][self.unit]]
            bounds = f"from {spell(kind, low, self.unit)} to {spell(kind, high, self.unit)}"
            raise self._bad(f"a whole number with its unit ({', '.join(units)}), {bounds}")
        return spell(kind, amount, self.unit)

    def _number(self, value: str) -> str:
        whole = self.rule.kind == "integer"
        plain = len(value) < 20 and value.isascii() and value.replace(".", "", 0 if whole else 1).isdigit()
        low, high = self.rule.low or 0, self.rule.high or 0
        number = (int(value) if whole else float(value)) if plain else low - 1
        if not low <= number <= high:
            raise self._bad(f"{'a whole number' if whole else 'a number'} from {low:.10g} to {high:.10g}")
        return str(number) if whole else f"{number:g}"

    def _bad(self, wanted: str) -> BadInput:
        return BadInput(f"setting {self.rule.name} must be {wanted}", field=self.rule.name)


@cache
def table() -> Mapping[str, Way]:
    """Return every setting by name."""
    rows = tomllib.loads(files(__package__).joinpath("settings.toml").read_text())
    return {name: _way(name, row) for name, row in rows.items()}


def writable() -> dict[str, tuple[str, ...]]:
    """Return the attributes that settings change, by bean."""
    found: dict[str, tuple[str, ...]] = {}
    for way in table().values():
        if way.bean in BEANS.values():
            found[way.bean] = (*found.get(way.bean, ()), way.attribute)
    return found


def _way(name: str, row: Mapping[str, object]) -> Way:
    kind, choices = str(row["kind"]), row.get("choices", ())
    bean, _, attribute = str(row.get("attribute", "")).partition(".")
    rule = Rule(
        name=name,
        kind=kind,
        dynamic=bool(row["dynamic"]),
        low=_bound(kind, row.get("low")),
        high=_bound(kind, row.get("high")),
        choices=tuple(map(str, choices)) if isinstance(choices, list) else (),
    )
    return Way(rule, str(row.get("unit", "")), BEANS.get(bean, ""), attribute)


def _bound(kind: str, value: object) -> float | None:
    if isinstance(value, str):
        return parse(kind, value)
    return value if isinstance(value, int | float) else None
