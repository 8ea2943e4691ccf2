"""Functions and aggregates of tenants: listed and deleted by name and types.

The server runs none, and takes none, unless the setting ``user_defined_functions_enabled`` is on: a tenant's Java then
runs inside the server.  What was made while it was on is still there when it is off again, and can be deleted.
"""

import builtins
import re
from dataclasses import dataclass

from datastores.cassandra.client import Session, session, told
from datastores.cassandra.dialect import identifier
from datastores.cassandra.schema import tenants
from datastores.contract import JSON, BadInput, Functions, NotFound


@dataclass(frozen=True)
class Function:
    """A function, or an aggregate of functions; types as the server writes them."""

    keyspace: str
    name: str
    types: tuple[str, ...]
    kind: str
    language: str

    @property
    def signature(self) -> str:
        """Return its name and types as it is listed."""
        return f"{self.name}({', '.join(self.types)})"

    @property
    def place(self) -> str:
        """Return where it stands in the list."""
        return f"{self.keyspace}.{self.signature}"

    @property
    def quoted(self) -> str:
        """Return it as statements want it; an argument itself cannot be frozen, though the server tells it so."""
        bare = [re.sub(r"(?s)\Afrozen<(.*)>\Z", r"\1", each) for each in self.types]
        return f"{identifier(self.keyspace)}.{identifier(self.name)}({', '.join(bare)})"


class CassandraFunctions(Functions):
    """The functions of all the tenant's keyspaces."""

    def list(self, *, after: str | None = None, limit: int = 1000) -> "builtins.list[dict[str, JSON]]":
        """List functions and aggregates; their code is not shown."""
        if limit < 1:
            raise BadInput("limit must be at least 1", field="limit")
        with session(self.node) as cql:
            rest = [each for each in found(cql) if after is None or each.place > after]
        return [
            {"name": each.signature, "database": each.keyspace, "kind": each.kind, "language": each.language}
            for each in rest[:limit]
        ]

    def delete(self, name: str, *, database: str) -> None:
        """Delete a function, or an aggregate; one that is part of another is refused by the server."""
        with session(self.node) as cql, told("name"):
            there = next((each for each in found(cql) if (each.keyspace, each.signature) == (database, name)), None)
            if there is None:
                raise NotFound(f"there is no function {name[:200]!r} in {database[:80]!r}", field="name")
            cql.execute(f"DROP {there.kind.upper()} IF EXISTS {there.quoted}")


def found(cql: Session) -> "builtins.list[Function]":
    """Return every function and aggregate of tenants, in the order of the list."""
    made = [
        Function(each.keyspace_name, each.function_name, tuple(each.argument_types or ()), "function", each.language)
        for each in cql.execute("SELECT * FROM system_schema.functions")
    ]
    made += [
        Function(each.keyspace_name, each.aggregate_name, tuple(each.argument_types or ()), "aggregate", "")
        for each in cql.execute("SELECT * FROM system_schema.aggregates")
    ]
    return sorted((each for each in made if tenants(each.keyspace)), key=lambda each: each.place)
