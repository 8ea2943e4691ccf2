"""What may be set on a MongoDB server, what is set, and making it so.

A rule's ``parameter`` is the server parameter that changes it at run time; three are changed in ways of their own.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from pymongo.errors import OperationFailure

from datastores.contract import BadInput, Command, Rule, Settings
from datastores.mongodb.admin import KEYFILE, SET
from datastores.mongodb.client import Client, Document, agent
from datastores.mongodb.conf import CONFIG, PARAMETER, read, spelled

FIXED: Mapping[str, str] = {
    "security.authorization": "enabled",
    "storage.directoryPerDB": "false",
    "storage.engine": "wiredTiger",
    "storage.journal.enabled": "true",
    "replication.replSetName": SET,
}
"""What the design fixes: accounts are asked for, writes are journalled, and there is an oplog."""

TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
VERBOSITY, PROFILE, OPLOG = "verbosity", "profile", "oplog"
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Way:
    """How one setting is read and changed at run time, and what it is where nobody has set it."""

    rule: Rule
    parameter: str
    default: str


class MongoSettings(Settings):
    """Rules in ``settings.toml``; the truth from the server's command line and parameters."""

    def rules(self) -> Mapping[str, Rule]:
        """Return what a tenant may set, by name."""
        return {name: way.rule for name, way in table().items()}

    def base(self) -> Mapping[str, str]:
        """Return the agent's own layer: paths, endpoint, what the design fixes."""
        places, endpoint = self.node.places, self.node.endpoint
        return {
            **FIXED,
            "net.bindIp": f"{endpoint.host},{endpoint.socket}",
            "net.ipv6": "true" if ":" in endpoint.host else "false",
            "net.port": str(endpoint.port),
            # The one we name is listened at all the same; without this there would be another, named by the port.
            "net.unixDomainSocket.enabled": "false",
            "net.unixDomainSocket.filePermissions": "448",
            "security.keyFile": str(places.data / KEYFILE),
            "storage.dbPath": str(places.data),
            "storage.wiredTiger.engineConfig.cacheSizeGB": "0.25",
            "replication.oplogSizeMB": "990",
            f"{PARAMETER}.diagnosticDataCollectionEnabled": "false",
            f"{PARAMETER}.shutdownTimeoutMillisForSignaledShutdown": "100",
        }

    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the values in the server's spelling; ``BadInput`` names the first bad one and its rule."""
        rules, found = self.rules(), dict[str, str]()
        for name, value in values.items():
            if name not in rules:
                raise BadInput(f"setting {name[:80]!r} is not one that may be set here", field=name[:80])
            found[name] = canonical(rules[name], value)
        return found

    def written(self) -> dict[str, str]:
        """Return what the server would read from ``places.config``, as it prints that itself."""
        server, config = self.node.installation.tools["server"], self.node.places.config / CONFIG
        done = self.node.host.run(Command((str(server), "--config", str(config), "--outputConfig")), as_owner=True)
        return read(done.stdout)

    def effective(self) -> dict[str, str]:
        """Return what the running server really uses, in the spelling of ``check``."""
        with agent(self.node) as client:
            given = _flat(client.admin.command("getCmdLineOpts")["parsed"])
            running = _Running(client)
            found = dict(given)
            for name, way in table().items():
                now = running.value(way)
                found[name] = self._spelled(way.rule, now if now is not None else given.get(name, way.default))
        return found

    def apply(self, values: Mapping[str, str]) -> None:
        """Apply dynamic settings to the running server, and read them back."""
        wanted = self.check(values)
        with agent(self.node) as client:
            for name, value in wanted.items():
                way = table()[name]
                if not way.rule.dynamic:
                    raise BadInput(f"setting {name} takes effect at a restart only", field=name)
                try:
                    _change(client, way, value)
                except OperationFailure as error:
                    said = str(error.details.get("errmsg") if error.details else error)[:200]
                    raise BadInput(f"setting {name} was refused by the server: {said}", field=name) from None
            running = _Running(client)
            for name, value in wanted.items():
                now = running.value(table()[name])
                if now is None or self._spelled(table()[name].rule, now) != value:
                    raise BadInput(f"setting {name} did not take: the server uses {now!r}", field=name)

    def _spelled(self, rule: Rule, value: str) -> str:
        try:
            return canonical(rule, value)
        except BadInput:
            return value


class _Running:
    """The running server's parameters, read once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._parameters: Document = client.admin.command("getParameter", "*")

    def value(self, way: Way) -> str | None:
        """Return what is in force; None where only the command line can tell."""
        if way.parameter == VERBOSITY:
            component = self._parameters["logComponentVerbosity"]
            for each in _component(way.rule.name):
                component = component[each]
            return spelled(component["verbosity"])
        if way.parameter == PROFILE:
            return spelled(self._client.admin.command("profile", -1)["slowms"])
        if way.parameter == OPLOG:
            status = self._client.local.command("collStats", "oplog.rs")
            return spelled(int(status["maxSize"]) // MEBIBYTE)
        found = self._parameters.get(way.parameter)
        return None if found is None else spelled(found)


def _change(client: Client, way: Way, value: str) -> None:
    if way.parameter == VERBOSITY:
        tree: Document = {"verbosity": int(value)}
        for each in reversed(_component(way.rule.name)):
            tree = {each: tree}
        client.admin.command("setParameter", 1, logComponentVerbosity=tree)
    elif way.parameter == PROFILE:
        level = client.admin.command("profile", -1)["was"]
        client.admin.command("profile", level, slowms=int(value))
    elif way.parameter == OPLOG:
        client.admin.command("replSetResizeOplog", 1, size=float(value))
    else:
        client.admin.command("setParameter", 1, **_parameter(way, value))


def _component(name: str) -> list[str]:
    """Return the path of ``systemLog[.component.X[.Y]].verbosity`` in the server's tree of components."""
    path = name.removeprefix("systemLog.").removesuffix("verbosity").removeprefix("component.").strip(".")
    return path.split(".") if path else []


def _parameter(way: Way, value: str) -> Document:
    return {way.parameter: _driver(way.rule, value)}


def _driver(rule: Rule, value: str) -> object:
    kinds: dict[str, Callable[[str], object]] = {"boolean": lambda text: text == "true", "integer": int, "float": float}
    return kinds.get(rule.kind, str)(value)


def canonical(rule: Rule, value: str) -> str:
    """Return a value in the server's spelling; ``BadInput`` names the rule."""
    if rule.kind == "boolean":
        folded = value.lower()
        if folded in TRUE or folded in FALSE:
            return "true" if folded in TRUE else "false"
        raise BadInput(f"setting {rule.name} must be true or false", field=rule.name)
    if rule.kind == "enum":
        if value in rule.choices:
            return value
        raise BadInput(f"setting {rule.name} must be one of {', '.join(rule.choices)}", field=rule.name)
    return spelled(_number(rule, value))


def _number(rule: Rule, value: str) -> int | float:
    plain = value.isascii() and value.replace(".", "", rule.kind != "integer").lstrip("-").isdigit()
    try:
        number: int | float | None = (int(value) if rule.kind == "integer" else float(value)) if plain else None
    except ValueError:
        number = None
    low, high = rule.low or 0, rule.high or 0
    if number is None or not low <= number <= high:
        kind = "a whole number" if rule.kind == "integer" else "a number"
        raise BadInput(f"setting {rule.name} must be {kind} from {low:.10g} to {high:.10g}", field=rule.name)
    return number


@cache
def table() -> Mapping[str, Way]:
    """Return every setting by name."""
    rows = tomllib.loads(files(__package__).joinpath("settings.toml").read_text())
    return {name: _way(name, row) for name, row in rows.items()}


def _way(name: str, row: Mapping[str, object]) -> Way:
    low, high, choices = row.get("low"), row.get("high"), row.get("choices", ())
    rule = Rule(
        name=name,
        kind=str(row["kind"]),
        dynamic=bool(row["dynamic"]),
        low=low if isinstance(low, int | float) else None,
        high=high if isinstance(high, int | float) else None,
        choices=tuple(map(str, choices)) if isinstance(choices, list) else (),
    )
    parameter = name.removeprefix(f"{PARAMETER}.") if name.startswith(PARAMETER) else str(row.get("parameter", ""))
    return Way(rule, parameter, str(row.get("default", "")))


def _flat(tree: Mapping[str, object], above: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{above}{key}."))
        else:
            found[f"{above}{key}"] = spelled(value)
    return found
