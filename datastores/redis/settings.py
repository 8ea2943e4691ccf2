"""What may be set on a Redis server, what is set, and making it so."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from datastores.contract import BadInput, Rule, Settings
from datastores.redis import acl
from datastores.redis.client import Connection, ServerError, agent
from datastores.redis.conf import FILE, SYNONYMS, read
from datastores.redis.values import canonical
from datastores.redis.versions import traits

FIXED: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfilename": "appendonly.aof",
    "aof-use-rdb-preamble": "yes",
    "daemonize": "no",
    "protected-mode": "yes",
    "repl-backlog-ttl": "0",
    "requirepass": "",
    "sanitize-dump-payload": "clients",
    "save": "",
}
"""What the design fixes: durable by its log alone, whose stream is never dropped; passwords are ACL users' own."""

_BACKLOG = "67108864"


class RedisSettings(Settings):
    """Rules in ``settings.toml``; the truth from CONFIG GET."""

    def rules(self) -> Mapping[str, Rule]:
        """Return what a tenant may set on this version, by name."""
        return table(self.node.installation.version)

    def base(self) -> Mapping[str, str]:
        """Return the agent's own layer: paths, endpoint, what the design fixes."""
        places, endpoint = self.node.places, self.node.endpoint
        return {
            **{name: value for name, value in FIXED.items() if name != "requirepass"},
            **traits(self.node.installation.version).own,
            "aclfile": str(places.data / acl.FILE),
            "bind": endpoint.host,
            "dir": str(places.data),
            "logfile": "",
            "pidfile": str(places.run / "redis.pid"),
            "port": str(endpoint.port),
            "repl-backlog-size": _BACKLOG,
            "supervised": "no",
            "unixsocket": str(endpoint.socket),
            "unixsocketperm": "700",
        }

    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the values in the server's spelling; ``BadInput`` names the first bad one and its rule."""
        rules, seen, found = self.rules(), dict[str, str](), dict[str, str]()
        for name, value in values.items():
            if name not in rules:
                raise BadInput(f"setting {name[:80]!r} is not one that may be set here", field=name[:80])
            one = SYNONYMS.get(name, name)
            if one in seen:
                raise BadInput(
                    f"{name} and {seen[one]} are the same setting", field=name, hint="set one of them, drop the other"
                )
            seen[one] = name
            found[name] = canonical(rules[name], value)
        return found

    def written(self) -> dict[str, str]:
        """Return what the server would read from ``places.config``, by all its names.

        Redis has no program that prints this; ``conf.read`` splits as the server does, and a test
        holds it against CONFIG GET of servers started on such files.
        """
        return self._spelled(read((self.node.places.config / FILE).read_bytes()))

    def effective(self) -> dict[str, str]:
        """Return what the running server really uses, in the spelling of ``check``."""
        with agent(self.node) as connection:
            return self._spelled(_get(connection, "*"))

    def apply(self, values: Mapping[str, str]) -> None:
        """Apply dynamic settings to the running server, and read them back."""
        wanted, rules = self.check(values), self.rules()
        with agent(self.node) as connection:
            for name, value in wanted.items():
                if not rules[name].dynamic:
                    raise BadInput(f"setting {name} takes effect at a restart only", field=name)
                self._apply(connection, rules[name], value)

    def _apply(self, connection: Connection, rule: Rule, value: str) -> None:
        try:
            connection.call("CONFIG", "SET", rule.name, value)
        except ServerError as error:
            raise BadInput(
                f"setting {rule.name} was refused by the server: {error.text[:200]}", field=rule.name
            ) from error
        now = _get(connection, rule.name).get(rule.name, "")
        if canonical(rule, now) != value:
            raise BadInput(f"setting {rule.name} did not take: the server uses {now[:80]!r}", field=rule.name)

    def _spelled(self, found: Mapping[str, str]) -> dict[str, str]:
        rules = self.rules()
        everything = {
            **found,
            **{old: found[new] for old, new in SYNONYMS.items() if new in found and old not in found},
        }
        return {name: canonical(rules[name], value) if name in rules else value for name, value in everything.items()}


@cache
def table(version: str) -> Mapping[str, Rule]:
    """Return the rules of one version, by name."""
    rows = tomllib.loads(files(__package__).joinpath("settings.toml").read_text())
    return {name: _rule(name, row) for name, row in rows.items() if version in row.get("versions", (version,))}


def _rule(name: str, row: Mapping[str, object]) -> Rule:
    low, high, choices = row.get("low"), row.get("high"), row.get("choices", ())
    return Rule(
        name=name,
        kind=str(row["kind"]),
        dynamic=bool(row["dynamic"]),
        low=low if isinstance(low, int) else None,
        high=high if isinstance(high, int) else None,
        choices=tuple(map(str, choices)) if isinstance(choices, list) else (),
    )


def _get(connection: Connection, pattern: str) -> dict[str, str]:
    words = [
        each.decode("utf-8", "surrogateescape") if isinstance(each, bytes) else ""
        for each in connection.items("CONFIG", "GET", pattern)
    ]
    return dict(zip(words[::2], words[1::2], strict=True))
