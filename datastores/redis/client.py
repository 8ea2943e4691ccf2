"""Commands to a server and its replies: redis-py, with all that it would do by itself switched off.

A connection is a session (an account, a database, a transaction), so it is never opened again behind the
caller's back, and nothing is sent twice, nor anything but what the caller says.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Union

from redis import exceptions
from redis.connection import AbstractConnection, DefaultParser, UnixDomainSocketConnection
from redis.connection import Connection as PortConnection

from datastores.contract import BadInput, DatastoreError, Endpoint, Node, NotReady, Secret, ToolFailed

Reply = Union[None, int, bytes, "list[Reply]"]
Word = str | bytes | int
ACCOUNT = "ostler"
PASSWORD = "agent-password"  # noqa: S105 - the name it is kept under

_WAITING = ("LOADING", "BUSY", "MASTERDOWN", "NOMASTERLINK", "MISCONF", "TRYAGAIN")


class ServerError(ToolFailed):
    """The server answered with an error; ``code`` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(f"the server refused: {text[:300]}")
        self.code = text.split(" ", 1)[0]
        self.text = text

    def verdict(self) -> DatastoreError:
        """Return what to raise: ``NotReady`` where the server says that it will answer later."""
        return NotReady(self.text) if self.code in _WAITING else self


class _Parser(DefaultParser):  # type: ignore[misc,valid-type]
    """Keeps an error's text whole, with its code; for redis-py some errors would end the connection."""

    EXCEPTION_CLASSES: dict[str, type[Exception]] = {}


class _SocketConnection(UnixDomainSocketConnection):
    """Has the two names that redis-py asks every connection for when it cannot connect."""

    host = ""
    port = 0

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__(path, **_options(timeout))  # type: ignore[no-untyped-call]


class Connection:
    """One connection: send commands, read replies; ``NotReady`` where the other end is gone."""

    def __init__(self, line: AbstractConnection) -> None:
        self._line = line
        with _translated():
            line.connect()

    def call(self, *words: Word) -> Reply:
        """Send one command and return its reply; ``ServerError`` where it was refused."""
        reply = self.pipeline([words])[0]
        if isinstance(reply, ServerError):
            raise reply.verdict()
        return reply

    def text(self, *words: Word) -> str:
        """Return a reply that must be a string."""
        reply = self.call(*words)
        if not isinstance(reply, bytes):
            raise ToolFailed(f"the server answered {words[0]!r} with no string")
        return reply.decode("utf-8", "surrogateescape")

    def items(self, *words: Word) -> list[Reply]:
        """Return a reply that must be an array."""
        reply = self.call(*words)
        if not isinstance(reply, list):
            raise ToolFailed(f"the server answered {words[0]!r} with no array")
        return reply

    def pipeline(self, commands: Sequence[Sequence[Word]]) -> list[Reply | ServerError]:
        """Send commands at once and return a reply, or the error, for each."""
        packed = self._packed(commands)
        if not self._line.is_connected:
            raise NotReady("the connection to the server has ended")
        with _translated():
            self._line.send_packed_command(packed)
            return [self._reply() for _ in commands]

    def close(self) -> None:
        """End the connection."""
        self._line.disconnect()

    def _packed(self, commands: Sequence[Sequence[Word]]) -> object:
        try:
            return self._line.pack_commands(commands)
        except UnicodeEncodeError:
            # The error holds the word, and the word may be a password.
            raise BadInput("a word of the command is not Unicode") from None

    def _reply(self) -> Reply | ServerError:
        try:
            return _read(self._line.read_response())
        except exceptions.ResponseError as error:
            return ServerError(str(error))


def dial(endpoint: Endpoint, timeout: float = 30.0) -> Connection:
    """Return a connection over the server's socket that nobody has logged in to."""
    return Connection(_SocketConnection(str(endpoint.socket), timeout))


def outside(endpoint: Endpoint, timeout: float = 30.0) -> Connection:
    """Return a connection over TCP, as a tenant has it."""
    return Connection(PortConnection(host=endpoint.host, port=endpoint.port, **_options(timeout)))


@contextlib.contextmanager
def agent(node: Node, timeout: float = 30.0) -> Iterator[Connection]:
    """Yield a connection of the agent's own account; ``NotReady`` where the server is not there."""
    secret = agent_secret(node)
    connection = dial(node.endpoint, timeout)
    try:
        login(connection, ACCOUNT, secret)
        yield connection
    finally:
        connection.close()


def agent_secret(node: Node) -> Secret:
    """Return the password of the agent's account; ``NotReady`` before it was made."""
    secret = node.secrets.load(PASSWORD)
    if secret is None:
        raise NotReady("there is no agent account yet")
    return secret


def login(connection: Connection, name: str, password: Secret) -> None:
    """Log in; ``ServerError`` with the code WRONGPASS where it is refused."""
    connection.call("AUTH", name, password.reveal())


def info(connection: Connection, section: str) -> dict[str, str]:
    """Return one section of INFO by field."""
    return fields(connection.text("INFO", section))


def fields(text: str) -> dict[str, str]:
    """Return the fields of an INFO reply."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
    return {name: value.strip() for name, value in pairs}


def _options(timeout: float) -> dict[str, object]:
    """Return what makes redis-py say nothing but what it is told to; without ``retry`` it tries once."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "protocol": 2,
        "driver_info": None,
        "encoding_errors": "surrogateescape",
        "parser_class": _Parser,
    }


def _read(found: object) -> Reply:
    """Return a reply of the four forms; one with an error in it is that error."""
    if isinstance(found, list):
        return [_read(each) for each in found]
    if isinstance(found, exceptions.ResponseError):
        raise found
    if found is None or isinstance(found, int | bytes):
        return found
    raise exceptions.InvalidResponse


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        raise NotReady(f"the server does not answer: {error}") from error
    except (exceptions.RedisError, ValueError, RecursionError) as error:
        raise ToolFailed("the server's answer is not of its protocol") from error
