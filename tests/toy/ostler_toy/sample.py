"""Data for the suites."""

import hashlib
import json

from datastores.contract import BadInput, Sample, Secret
from ostler_toy.wire import connection

DATABASE = "sample"
ROW = 512


class ToySample(Sample):
    """Rows of half a kilobyte in one database."""

    def fill(self, size: int) -> None:
        """Put about ``size`` bytes in."""
        with connection(self.node) as ask:
            ask("create", name=DATABASE)
            have = len(ask("get", database=DATABASE))
            more = range(have, have + max(1, size // ROW))
            for at in range(0, len(more), 200):
                ask("set", database=DATABASE, rows={f"{n:08d}": _value(n, 0) for n in more[at : at + 200]})

    def change(self, share: float, seed: int = 0) -> int:
        """Change neighbours, from a place that the seed decides."""
        with connection(self.node) as ask:
            keys = sorted(ask("get", database=DATABASE))
            count = max(1, round(len(keys) * share))
            first = (seed * 7919) % max(1, len(keys) - count + 1)
            hot = keys[first : first + count]
            for at in range(0, len(hot), 200):
                ask("set", database=DATABASE, rows={key: _value(int(key), seed + 1) for key in hot[at : at + 200]})
        return count

    def digest(self) -> dict[str, str]:
        """Return a digest of every database."""
        with connection(self.node) as ask:
            tables = {name: ask("get", database=name) for name in ask("databases")}
        return {
            name: hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()
            for name, table in tables.items()
        }

    def login(self, name: str, password: Secret) -> bool:
        """Log in over TCP."""
        try:
            with connection(self.node, name, password) as ask:
                return str(ask("ping")) == "pong"
        except BadInput:
            return False

    def settle(self) -> None:
        """Nothing is ever owed."""


SAMPLE = ToySample


def _value(number: int, seed: int) -> str:
    return hashlib.shake_256(f"{seed}.{number}".encode()).hexdigest(ROW // 2)
