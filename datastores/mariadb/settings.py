"""What may be set (``settings.toml``), what is set, and making it so.

A value has one spelling: ``ON``/``OFF``, whole bytes, a plain decimal.  Every other (``1``, ``16M``, ``10.000``)
is read as what it means, so that what was asked, written and used compare as text.
"""

import functools
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from datastores.contract import BadInput, Command, Mismatch, Rule, Settings
from datastores.mariadb.client import rows, session, told
from datastores.mariadb.dialect import identifier

CONFIG = "my.cnf"
SECTION = "mariadbd"
LOG = "binlog"
CHARSET = "utf8mb4"
DOMAIN = "1"
FIXED = {
    "server_id": "the guest's own number",
    "gtid_domain_id": DOMAIN,
    "gtid_strict_mode": "ON",
    "log_bin": LOG,
    "log_slave_updates": "ON",
    "binlog_format": "ROW",
    "local_infile": "OFF",
    "lower_case_table_names": "0",
    "skip_name_resolve": "ON",
}
"""What the design fixes; ``datadir`` and its kin need no mention, for what is no rule is refused anyway."""

_TRUE, _FALSE = frozenset({"1", "on", "true", "yes"}), frozenset({"0", "off", "false", "no"})
_SIZE = re.compile(r"([0-9]{1,20})([kmgtpe]?)")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{0,12})?(e[+-]?[0-9]{1,2})?")
_PLAIN = re.compile(r"[A-Za-z0-9_./:,+-]+")


@dataclass(frozen=True)
class OptionFile:
    """The codec: one ``my.cnf`` for a generation."""

    def dump(self, layers: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
        """Return the file; a collation that no longer fits the character set is left out, or no server would start."""
        merged = {name: value for layer in layers for name, value in layer.items()}
        charset = merged.get("character_set_server", CHARSET)
        if not fits(merged.get("collation_server", charset), charset):
            del merged["collation_server"]
        lines = [f"[{SECTION}]", *(f"{name} = {_quoted(name, value)}" for name, value in sorted(merged.items()))]
        return {CONFIG: ("\n".join(lines) + "\n").encode()}


class MariaDBSettings(Settings):
    """The table of rules, held against the server's own reader and its own variables."""

    def rules(self) -> Mapping[str, Rule]:
        """Return the table."""
        return {name: each.rule for name, each in _table().items()}

    def base(self) -> Mapping[str, str]:
        """Return what the agent says: where things are, who this server is, and that what it confirms is kept."""
        places, endpoint = self.node.places, self.node.endpoint
        network = {"port": str(endpoint.port), "bind_address": endpoint.host} if endpoint.port else {}
        return {
            **{name: value for name, value in FIXED.items() if name != "server_id"},
            **(network or {"skip_networking": "ON"}),
            "server_id": str(self.node.server_number),
            "datadir": f"{places.data}/",
            "tmpdir": str(places.temp),
            "secure_file_priv": f"{places.temp}/",
            "socket": str(endpoint.socket),
            "pid_file": str(places.run / "mariadb.pid"),
            "log_error": str(places.log / "mariadb.log"),
            "character_set_server": CHARSET,
            "performance_schema": "OFF",
            "innodb_flush_log_at_trx_commit": "1",
            "sync_binlog": "1",
            "expire_logs_days": "7",
            # Of a server that starts with 0 (no limit) the limit cannot be changed while it runs.
            "max_user_connections": "2147483647",
        }

    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the values in their one spelling; a collation must be given with its character set."""
        checked = {name: spelled(name, value) for name, value in values.items()}
        collation, charset = checked.get("collation_server"), checked.get("character_set_server", CHARSET)
        if collation is not None and not fits(collation, charset):
            raise BadInput(
                f"collation_server {collation} is not one of character set {charset}",
                field="collation_server",
                hint="set, or drop, character_set_server with it",
            )
        return checked

    def written(self) -> dict[str, str]:
        """Ask ``my_print_defaults``, which reads as the server does."""
        reader, config = self.node.installation.tools["defaults"], self.node.places.config / CONFIG
        told = self.node.host.run(Command((str(reader), f"--defaults-file={config}", SECTION)), as_owner=True)
        pairs = (line.removeprefix("--").partition("=") for line in told.stdout.decode().splitlines())
        found = {name.replace("-", "_"): value for name, _, value in pairs}
        return {name: _as_told(name, value) for name, value in found.items()}

    def effective(self) -> dict[str, str]:
        """Return the server's variables: every one that has a rule or that the agent's layer sets."""
        base = self.base()
        with session(self.node) as cursor:
            found = {str(name): str(value) for name, value in rows(cursor, "SHOW GLOBAL VARIABLES")}
        # The server tells whether it logs, not under which name.
        found["log_bin"] = Path(found.get("log_bin_basename", "")).name
        return {name: _as_told(name, found[name]) for name in sorted({*base, *_table()}) if name in found}

    def apply(self, values: Mapping[str, str]) -> None:
        """Set the running server's variables and compare what it has then."""
        # Each by itself: what fits together is asked of all that is set, not of what is new on the server.
        checked, table = {name: spelled(name, value) for name, value in values.items()}, _table()
        static = next((name for name in checked if not table[name].rule.dynamic), None)
        if static is not None:
            raise BadInput(f"setting {static} needs a restart", field=static)
        with session(self.node) as cursor:
            for name in sorted(checked):
                with told(name):
                    cursor.execute(f"SET GLOBAL {identifier(name)} = %s", (_typed(name, checked[name]),))
        now = self.effective()
        for name, value in checked.items():
            if now.get(name) != value:
                raise Mismatch(f"setting {name} was set to {value}, the server uses {now.get(name)}", field=name)

    def defaults(self, names: Collection[str]) -> dict[str, str]:
        """Ask the server's own table, but for a collation: what its default is the character set says."""
        wanted = tuple(name for name in names if _table()[name].rule.kind != "collation")
        statement = (
            "SELECT LOWER(VARIABLE_NAME), DEFAULT_VALUE FROM information_schema.SYSTEM_VARIABLES "
            "WHERE VARIABLE_NAME IN %s AND DEFAULT_VALUE IS NOT NULL"
        )
        with session(self.node) as cursor:
            found = rows(cursor, statement, (wanted,)) if wanted else ()
        told: dict[str, str] = {}
        for name, value in found:
            with suppress(BadInput):  # what may not be set is left to a restart
                told[str(name)] = spelled(str(name), str(value))
        return told


@dataclass(frozen=True)
class Row:
    """A rule and the multiple its values are rounded down to."""

    rule: Rule
    step: int = 1


@functools.cache
def _table() -> Mapping[str, Row]:
    found = tomllib.loads(Path(__file__).with_name("settings.toml").read_text("utf-8"))
    return {name: _row(name, dict(each)) for name, each in found.items()}


def _row(name: str, each: dict[str, object]) -> Row:
    step = each.pop("step", 1)
    choices = each.pop("choices", ())
    assert isinstance(step, int) and isinstance(choices, list | tuple)
    return Row(Rule(name=name, choices=tuple(choices), **each), step)  # type: ignore[arg-type]


def spelled(name: str, value: str) -> str:
    """Return ``value`` in the one spelling of its kind; ``BadInput`` names the setting and its rule."""
    row = _table().get(name)
    if row is None:
        raise BadInput(f"setting {name[:80]!r} is not one that may be set here", field=name[:80])
    return _KINDS[row.rule.kind](row, value.strip())


def fits(collation: str, charset: str) -> bool:
    """Say whether a collation belongs to a character set: its name begins with it."""
    return collation == charset or collation.startswith(f"{charset}_")


def _refused(row: Row, value: str, reason: str) -> BadInput:
    return BadInput(f"setting {row.rule.name}: {value[:80]!r} is refused, it must be {reason}", field=row.rule.name)


def _boolean(row: Row, value: str) -> str:
    if value.lower() in _TRUE:
        return "ON"
    if value.lower() in _FALSE:
        return "OFF"
    raise _refused(row, value, "ON or OFF")


def _number(row: Row, value: str) -> str:
    found = _SIZE.fullmatch(value.lower())
    if not found or (found[2] and row.rule.kind != "size"):
        raise _refused(
            row, value, "a whole number" + (" with or without K, M, G or T" if row.rule.kind == "size" else "")
        )
    number = int(found[1]) << (10 * " kmgtpe".index(found[2] or " "))
    _bounded(row, value, number)
    return str(number - number % row.step)


def _float(row: Row, value: str) -> str:
    if not _DECIMAL.fullmatch(value):
        raise _refused(row, value, "a plain number")
    number = Decimal(value)
    _bounded(row, value, number)
    # The server keeps six places of a fraction.
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _bounded(row: Row, value: str, number: "int | Decimal") -> None:
    low, high = row.rule.low or 0, row.rule.high
    if number < low or (high is not None and number > high):
        raise _refused(row, value, f"from {low} to {high}")


def _choice(row: Row, value: str) -> str:
    wanted = "utf8mb3" if row.rule.kind == "charset" and value.lower() == "utf8" else value
    found = next((each for each in row.rule.choices if each.lower() == wanted.lower()), None)
    if found is None:
        raise _refused(row, value, "one of " + ", ".join(row.rule.choices))
    return found


def _collation(row: Row, value: str) -> str:
    folded = value.lower()
    belongs = any(fits(folded, each) for each in _table()["character_set_server"].rule.choices)
    if len(folded) > 64 or not re.fullmatch(row.rule.pattern, folded) or not belongs:
        raise _refused(row, value, "the name of a collation")
    return folded


_KINDS = {
    "boolean": _boolean,
    "integer": _number,
    "size": _number,
    "float": _float,
    "enum": _choice,
    "charset": _choice,
    "collation": _collation,
}


def _as_told(name: str, value: str) -> str:
    """Return a value the server tells in our spelling; one that no rule covers stays as it is."""
    try:
        return spelled(name, value) if name in _table() else value
    except BadInput:
        return value


def _typed(name: str, value: str) -> object:
    kind = _table()[name].rule.kind
    if kind in ("integer", "size"):
        return int(value)
    return float(value) if kind == "float" else value


def _quoted(name: str, value: str) -> str:
    if any(each in value for each in "\0\r\n"):
        raise BadInput(f"setting {name} may not hold a line break or NUL", field=name)
    return value if _PLAIN.fullmatch(value) else '"' + value.replace("\\", "\\\\") + '"'
