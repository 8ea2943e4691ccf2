"""MariaDB's own way of writing names.

Whatever cannot be bound goes through ``identifier``, and through nothing else.  MariaDB takes
identifiers for account names, too, so there is one quoting rule for all: backticks, doubled inside.
It depends on no ``sql_mode``, and a backslash means nothing in it.  A password never
travels at all: the server is told its hash.
"""

import hashlib

from datastores.contract import BadInput, Secret

PATTERN_LENGTH = 64
"""What the server keeps of a database's pattern in a grant."""


def identifier(name: str) -> str:
    """Return ``name`` quoted, whatever is in it; NUL cannot be part of any name."""
    if "\0" in name:
        raise BadInput("a name may not hold the character NUL", field="name")
    return "`" + name.replace("`", "``") + "`"


def account(name: str, host: str) -> str:
    """Return an account as statements want it."""
    return f"{identifier(name)}@{identifier(host)}"


def pattern(database: str) -> str:
    """Return the pattern that matches this database and no other (a grant takes patterns).

    The server keeps 64 characters of it; a longer one would be cut, so it is refused.
    """
    escaped = "".join("\\" + each if each in "\\_%" else each for each in database)
    if len(escaped) > PATTERN_LENGTH:
        raise BadInput(
            f"database {database!r} cannot be granted: with its _ and % escaped its name is {len(escaped)} "
            f"characters long, and the server keeps {PATTERN_LENGTH}",
            field="database",
        )
    return escaped


def literal(found: str) -> str:
    """Return the database that a pattern made by ``pattern`` stands for."""
    letters = iter(found)
    return "".join(next(letters, each) if each == "\\" else each for each in letters)


def native_hash(password: Secret) -> str:
    """Return the hash by which ``mysql_native_password`` knows a password: of its UTF-8 bytes."""
    inner = hashlib.sha1(password.reveal().encode()).digest()
    return "*" + hashlib.sha1(inner).hexdigest().upper()
