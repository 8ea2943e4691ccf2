"""The protocol of Redis (RESP2) over a socket, as far as the agent speaks it.

Source: the server's protocol specification.  A small client of our own: the same few
lines carry commands and the replication stream, and the agent stays small in memory.
"""

import contextlib
import re
import select
import socket
from collections.abc import Iterator, Sequence
from typing import Union

from datastores.contract import Endpoint, Node, NotReady, Secret, ToolFailed

Reply = Union[None, int, bytes, "list[Reply]"]
Word = str | bytes | int
ACCOUNT = "ostler"
PASSWORD = "agent-password"  # noqa: S105 - the name it is kept under

_WAITING = ("LOADING", "BUSY", "MASTERDOWN", "NOMASTERLINK", "MISCONF", "TRYAGAIN")
_LINE = 64 * 1024
_BULK = 1 << 30
_DEPTH = 16
_NUMBER = re.compile(rb"-?[0-9]{1,19}")
_CHUNK = 256 * 1024


class ServerError(ToolFailed):
    """The server answered with an error; ``code`` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(f"the server refused: {text[:300]}")
        self.code = text.split(" ", 1)[0]
        self.text = text


def encode(words: Sequence[Word]) -> bytes:
    """Return a command as the array of bulk strings that the server reads."""
    parts = [each if isinstance(each, bytes) else str(each).encode() for each in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in parts)


class Connection:
    """One connection: send commands, read replies; ``NotReady`` where the other end is gone."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._kept = bytearray()
        self._at = 0

    def call(self, *words: Word) -> Reply:
        """Send one command and return its reply; ``ServerError`` where it was refused."""
        reply = self.pipeline([words])[0]
        if isinstance(reply, ServerError):
            raise NotReady(reply.text) if reply.code in _WAITING else reply
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
        self.send(b"".join(encode(each) for each in commands))
        return [self._reply() for _ in commands]

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        with _lost():
            self.channel.sendall(data)

    def line(self) -> bytes:
        """Read one line, without its end."""
        while (end := self._kept.find(b"\n", self._at)) < 0:
            if self.pending > _LINE:
                raise ToolFailed("the server's answer is not of its protocol")
            self._more()
        found = bytes(self._kept[self._at : end])
        self._at = end + 1
        return found.removesuffix(b"\r")

    @property
    def pending(self) -> int:
        """Return how many bytes were read from the socket and not taken yet."""
        return len(self._kept) - self._at

    def waits(self, seconds: float) -> bool:
        """Wait so long for bytes; return whether none came."""
        return not self.pending and not select.select([self.channel], [], [], seconds)[0]

    def skip_empty_lines(self) -> None:
        """Take what has come, and drop the line ends it begins with."""
        if not self.pending:
            self._more()
        while self.pending and self._kept[self._at] == 10:
            self._at += 1

    def readinto(self, window: memoryview) -> int:
        """Fill what has come already, else what comes next; 0 only at the end of the connection."""
        if self.pending:
            count = min(self.pending, len(window))
            window[:count] = self._kept[self._at : self._at + count]
            self._at += count
            return count
        with _lost():
            return self.channel.recv_into(window)

    def close(self) -> None:
        """End the connection."""
        self.channel.close()

    def _reply(self, depth: int = 0) -> Reply | ServerError:
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ServerError(rest.decode("utf-8", "replace"))
        if kind not in (b":", b"$", b"*") or depth > _DEPTH or not _NUMBER.fullmatch(rest):
            raise ToolFailed("the server's answer is not of its protocol")
        number = int(rest)
        if kind == b":":
            return number
        if number == -1:
            return None
        if number < 0:
            raise ToolFailed("the server's answer has a length below zero")
        return self._bulk(number) if kind == b"$" else [self._item(depth + 1) for _ in range(number)]

    def _item(self, depth: int) -> Reply:
        found = self._reply(depth)
        if isinstance(found, ServerError):
            raise found
        return found

    def _bulk(self, size: int) -> bytes:
        if size > _BULK:
            raise ToolFailed("the server's answer is too long")
        while self.pending < size + 2:
            self._more()
        found = bytes(self._kept[self._at : self._at + size])
        self._at += size + 2
        return found

    def _more(self) -> None:
        del self._kept[: self._at]
        self._at = 0
        with _lost():
            data = self.channel.recv(_CHUNK)
        if not data:
            raise NotReady("the server closed the connection")
        self._kept += data


def dial(endpoint: Endpoint, timeout: float = 30.0) -> Connection:
    """Return a connection that nobody has logged in to; the socket where there is one, else the port."""
    with _lost():
        if endpoint.socket.exists():
            channel = socket.socket(socket.AF_UNIX)
            channel.settimeout(timeout)
            try:
                channel.connect(str(endpoint.socket))
            except OSError:
                channel.close()
                raise
            return Connection(channel)
        raise NotReady("the server does not listen")


def outside(endpoint: Endpoint, timeout: float = 30.0) -> Connection:
    """Return a connection over TCP, as a tenant has it."""
    with _lost():
        return Connection(socket.create_connection((endpoint.host, endpoint.port), timeout=timeout))


@contextlib.contextmanager
def agent(node: Node, timeout: float = 30.0) -> Iterator[Connection]:
    """Yield a connection of the agent's own account; ``NotReady`` where the server is not there."""
    secret = node.secrets.load(PASSWORD)
    if secret is None:
        raise NotReady("there is no agent account yet")
    connection = dial(node.endpoint, timeout)
    try:
        login(connection, ACCOUNT, secret)
        yield connection
    finally:
        connection.close()


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


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotReady(f"the server does not answer: {error.strerror or type(error).__name__}") from error
