"""Settings of a toy server: a file of ``name = value`` lines, read back by the server's own reader."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from datastores.contract import BadInput, Command, Mismatch, Rule, Settings
from ostler_toy.wire import connection


class KeyValueLines:
    """The one file of a toy server."""

    def dump(self, layers: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
        """Return ``toyd.conf``; later lines win."""
        lines = [f"{name} = {value}\n" for layer in layers for name, value in layer.items()]
        return {"toyd.conf": "".join(lines).encode()}


class ToySettings(Settings):
    """What a tenant may set is in ``settings.toml``."""

    def rules(self) -> Mapping[str, Rule]:
        """Return the rules by name."""
        tables = tomllib.loads((Path(__file__).parent / "settings.toml").read_text())
        return {
            name: Rule(name, **{**each, "choices": tuple(each.get("choices", ()))}) for name, each in tables.items()
        }

    def base(self) -> Mapping[str, str]:
        """Return where the server finds and puts things."""
        at, places = self.node.endpoint, self.node.places
        return {"data": str(places.data), "socket": str(at.socket), "bind": at.host, "port": str(at.port)}

    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the values as the server spells them."""
        rules = self.rules()
        for name in values:
            if name not in rules:
                raise BadInput(f"setting {name!r} is not one that may be set", field=name)
        return {name: _checked(rules[name], value) for name, value in values.items()}

    def written(self) -> dict[str, str]:
        """Ask the server's own reader."""
        program = str(self.node.installation.tools["server"])
        done = self.node.host.run(Command((program, "--print-config", str(self.node.places.config))), as_owner=True)
        return {str(name): str(value) for name, value in json.loads(done.stdout).items()}

    def effective(self) -> dict[str, str]:
        """Ask the running server."""
        with connection(self.node) as ask:
            return {str(name): str(value) for name, value in ask("config", values={}).items()}

    def apply(self, values: Mapping[str, str]) -> None:
        """Set on the running server, and read back."""
        with connection(self.node) as ask:
            found = ask("config", values=dict(values))
        for name, value in values.items():
            if found[name] != value:
                raise Mismatch(f"setting {name} was not taken", field=name)


def _checked(rule: Rule, value: str) -> str:
    if rule.kind in ("integer", "size"):
        number = int(value) if value.isascii() and value.isdigit() else -1
        if not (rule.low or 0) <= number <= (rule.high or 0):
            raise BadInput(f"setting {rule.name} must be a number from {rule.low} to {rule.high}", field=rule.name)
        return str(number)
    if rule.kind == "boolean":
        if value.lower() not in ("yes", "no", "true", "false", "on", "off", "0", "1"):
            raise BadInput(f"setting {rule.name} must be a boolean, as yes or no", field=rule.name)
        return "yes" if value.lower() in ("yes", "true", "on", "1") else "no"
    if rule.choices and value not in rule.choices:
        raise BadInput(f"setting {rule.name} must be one of {', '.join(rule.choices)}", field=rule.name)
    if rule.pattern and not re.fullmatch(rule.pattern, value):
        raise BadInput(f"setting {rule.name} must match {rule.pattern}", field=rule.name)
    return value
