"""CQL's own way of writing names and strings.

The server takes no bound values in statements about schema, roles and rights: whatever stands there goes through
``identifier`` or ``literal``, and through nothing else.  Each doubles the one character that could end it; nothing
else means anything between the quotes.
"""

from collections.abc import Mapping

KEYSPACE = ("CREATE", "ALTER", "DROP", "SELECT", "MODIFY", "UNMASK", "SELECT_MASKED")
TABLE = KEYSPACE[1:]
FUNCTIONS = ("CREATE", "ALTER", "DROP", "EXECUTE")
"""All rights there are on a keyspace, a table and a keyspace's functions, but the one to grant (AUTHORIZE)."""


def identifier(name: str) -> str:
    """Return a name quoted, whatever is in it; its case is kept."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a string quoted, whatever is in it."""
    return "'" + text.replace("'", "''") + "'"


def dotted(database: str) -> str:
    """Return ``keyspace`` or ``keyspace.table`` quoted."""
    return ".".join(identifier(each) for each in database.split(".", 1))


def rights(database: str) -> dict[str, tuple[str, ...]]:
    """Return what a user of ``keyspace`` or ``keyspace.table`` is given, by the resource as a statement names it."""
    if "." in database:
        return {f"TABLE {dotted(database)}": TABLE}
    quoted = identifier(database)
    return {f"KEYSPACE {quoted}": KEYSPACE, f"ALL FUNCTIONS IN KEYSPACE {quoted}": FUNCTIONS}


def resources(database: str) -> dict[str, frozenset[str]]:
    """Return the same by the resource as the server's table of rights names it."""
    if "." in database:
        return {"data/" + database.replace(".", "/", 1): frozenset(TABLE)}
    return {f"data/{database}": frozenset(KEYSPACE), f"functions/{database}": frozenset(FUNCTIONS)}


def grants(database: str, role: str) -> list[str]:
    """Return the statements that give a role all rights on ``keyspace`` or ``keyspace.table``."""
    return [f"GRANT {', '.join(what)} ON {where} TO {identifier(role)}" for where, what in rights(database).items()]


def across(factors: Mapping[str, int]) -> str:
    """Return a keyspace's replication, by data centre."""
    pairs = "".join(f", {literal(center)}: {factor}" for center, factor in factors.items())
    return f"{{'class': 'NetworkTopologyStrategy'{pairs}}}"
