"""Connections to the server: over its socket, as the agent's account; and what its errors mean.

The driver's own retries and monitors are kept out of the way: a server that does not listen is seen at once.
"""

import contextlib
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, InvalidName, OperationFailure, PyMongoError

from datastores.contract import BadInput, DatastoreError, Endpoint, Node, NotReady, Secret, ToolFailed

ACCOUNT = "ostler"
PASSWORD = "agent-password"
AUTH = "admin"
"""The one database every user is made in and logs in at."""
MECHANISM = "SCRAM-SHA-256"

Document = dict[str, Any]
Client = MongoClient[Document]

UNREACHED = frozenset({18, 89, 91, 94, 189, 10107, 11600, 11602, 13435, 13436})
REFUSED = frozenset({2, 9, 73, 13297})


def agent_password(node: Node) -> Secret:
    """Return the agent's own password; it is made where there is none yet."""
    kept = node.secrets.load(PASSWORD)
    if kept is None:
        kept = Secret(secrets.token_hex(32))
        node.secrets.keep(PASSWORD, kept)
    return kept


@contextlib.contextmanager
def agent(node: Node, *, timeout: float = 30.0) -> Iterator[Client]:
    """Open a connection as the agent, yield it, close it; ``NotReady`` where the server does not answer us."""
    password = node.secrets.load(PASSWORD)
    if password is None:
        raise NotReady("the agent has no account at this server yet")
    with session(node.endpoint.socket, password, timeout=timeout) as client:
        yield client


@contextlib.contextmanager
def session(path: Path, password: Secret | None = None, *, timeout: float = 30.0) -> Iterator[Client]:
    """Open a connection over a socket; without a password to a server that asks for none."""
    _listens(path)
    word = password.reveal() if password is not None else None
    with told(), contextlib.closing(_client(quote(str(path), safe=""), ACCOUNT, word, timeout)) as client:
        yield client


def outside(endpoint: Endpoint, name: str, password: Secret) -> Client:
    """Return a connection over the port, as a tenant would open it."""
    return _client(f"{endpoint.host}:{endpoint.port}", name, password.reveal(), 10.0)


@contextlib.contextmanager
def told(field: str | None = None) -> Iterator[None]:
    """Turn the driver's errors into ours; where the server refuses a name, ``field`` says whose."""
    try:
        yield
    except PyMongoError as error:
        raise _translated(error, field) from None


def _client(where: str, name: str | None, password: str | None, timeout: float) -> Client:
    login: Document = {}
    if password is not None:
        login = {"username": name, "password": password, "authSource": AUTH, "authMechanism": MECHANISM}
    return MongoClient(
        f"mongodb://{where}",
        directConnection=True,
        serverSelectionTimeoutMS=5000,
        connectTimeoutMS=5000,
        socketTimeoutMS=int(timeout * 1000),
        retryReads=False,
        retryWrites=False,
        maxPoolSize=2,
        appname="ostler",
        tz_aware=True,
        **login,
    )


def _listens(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except OSError as error:
            raise NotReady(f"the server does not listen at {path.name}: {error.strerror or error}") from None


def _translated(error: PyMongoError, field: str | None) -> DatastoreError:
    code = error.code if isinstance(error, OperationFailure) else None
    said = str(error).partition(", full error")[0][:300]
    if isinstance(error, ConnectionFailure) or code in UNREACHED:
        return NotReady(f"the server does not answer the agent's account: {said}")
    if field is not None and (isinstance(error, InvalidName) or code in REFUSED):
        return BadInput(f"the server refuses this {field}: {said}", field=field)
    return ToolFailed(f"the server refused: {said}")
