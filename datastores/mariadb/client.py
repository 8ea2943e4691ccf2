"""Connections to the server, over its socket alone, as the account of the agent's own system user.

The server asks the kernel who is at the other end (``unix_socket``), so there is no password anywhere.
The account is named after that user because 10.11 compares just the two names.
"""

import os
import pwd
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import Cursor

from datastores.contract import BadInput, DatastoreError, Node, NotReady, ToolFailed

HOST = "localhost"
# NO_BACKSLASH_ESCAPES is not in it, and so the driver's escaping of bound values holds whatever the tenant set.
MODE = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION"
OPENING = f"SET SESSION sql_mode='{MODE}', lock_wait_timeout=30, net_write_timeout=60"
Row = tuple[object, ...]

UNREACHED = frozenset({1040, 1045, 1053, 1129, 1130, 1203, 1698, 2002, 2003, 2006, 2013})
REFUSED = frozenset({1006, 1059, 1102, 1115, 1210, 1231, 1232, 1253, 1273, 1470})
SYNTAX = 1064
NO_STAT, TOO_LONG = 13, "Errcode: 36"
# A name that is short enough for the server may be too long for the file system, in the server's spelling of it.
STAT, NAME_TOO_LONG = 13, "(Errcode: 36 "


def agent_account() -> str:
    """Return the name of the agent's account at the server: that of the system user the agent runs as."""
    return pwd.getpwuid(os.geteuid()).pw_name


@contextmanager
def session(node: Node, *, logged: bool = True, timeout: float = 60.0) -> Iterator[Cursor]:
    """Open a connection, yield its cursor, close it; ``logged`` False keeps what is done out of the binary log.

    ``NotReady`` where the server does not answer us; any other error of the server's is a ``ToolFailed``.
    """
    with told(), _connected(node, timeout) as connection, connection.cursor() as cursor:
        cursor.execute(OPENING)
        if not logged:
            cursor.execute("SET SESSION sql_log_bin=0")
        yield cursor


def rows(cursor: Cursor, statement: str, values: Sequence[object] | None = None) -> list[Row]:
    """Run a statement with bound values and return its rows."""
    cursor.execute(statement, values)
    return list(cursor.fetchall())


@contextmanager
def told(field: str | None = None) -> Iterator[None]:
    """Turn the driver's errors into ours; where the server refuses a name or value, ``field`` says whose."""
    try:
        yield
    except pymysql.err.MySQLError as error:
        raise _translated(error, field) from None


def code_of(error: pymysql.err.MySQLError) -> int:
    """Return the server's number of an error, 0 where it has none."""
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


@contextmanager
def _connected(node: Node, timeout: float) -> "Iterator[Connection[Cursor]]":
    connection = pymysql.connect(
        unix_socket=str(node.endpoint.socket),
        user=agent_account(),
        charset="utf8mb4",
        autocommit=True,
        local_infile=False,
        # The socket needs none, and to read the machine's certificates takes 20 ms of every connection.
        ssl_disabled=True,
        connect_timeout=5,
        read_timeout=timeout,
        write_timeout=timeout,
    )
    try:
        yield connection
    finally:
        # A connection that broke is closed already; to close it again is an error to the driver.
        if connection.open:
            connection.close()


def _translated(error: pymysql.err.MySQLError, field: str | None) -> DatastoreError:
    code = code_of(error)
    # The message of a syntax error quotes the statement, which may hold a password's hash.
    said = "a statement was not understood" if code == SYNTAX else str(error.args[-1] if error.args else error)[:300]
    if code in UNREACHED or isinstance(error, pymysql.err.InterfaceError):
        return NotReady(f"the server does not answer the agent's account: {code} {said}")
    long = code == STAT and NAME_TOO_LONG in str(error)
    if field is not None and (code in REFUSED or long):
        said = "it is too long as the name of a file" if long else said
        return BadInput(f"the server refuses this {field}: {said}", field=field)
    return ToolFailed(f"the server refused: {code} {said}")
