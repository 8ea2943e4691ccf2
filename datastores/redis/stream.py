"""The socket under the replication stream, which no client library reads.

Lines in the server's protocol while the two sides agree, raw bytes afterwards.
"""

import contextlib
import select
import socket
from collections.abc import Iterator, Sequence

from datastores.contract import Endpoint, NotReady, Secret, ToolFailed
from datastores.redis.client import ACCOUNT, ServerError, Word

_LINE = 64 * 1024
_CHUNK = 256 * 1024


def encode(words: Sequence[Word]) -> bytes:
    """Return a command as the array of bulk strings that the server reads."""
    parts = [each if isinstance(each, bytes) else str(each).encode() for each in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in parts)


class Stream:
    """A connection of the agent's account, ready to be a replica's; ``NotReady`` where the other end is gone."""

    def __init__(self, endpoint: Endpoint, secret: Secret, timeout: float) -> None:
        self._kept = bytearray()
        self._at = 0
        self._channel = socket.socket(socket.AF_UNIX)
        with contextlib.ExitStack() as unless_ready:
            unless_ready.callback(self.close)
            self._channel.settimeout(timeout)
            with _lost():
                self._channel.connect(str(endpoint.socket))
            self._order("AUTH", ACCOUNT, secret.reveal())
            self._order("REPLCONF", "capa", "eof", "capa", "psync2")
            unless_ready.pop_all()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        with _lost():
            self._channel.sendall(data)

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
        return not self.pending and not select.select([self._channel], [], [], seconds)[0]

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
            return self._channel.recv_into(window)

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _order(self, *words: Word) -> None:
        self.send(encode(words))
        found = self.line()
        if found.startswith(b"-"):
            raise ServerError(found[1:].decode("utf-8", "replace")).verdict()
        if not found.startswith(b"+"):
            raise ToolFailed("the server's answer is not of its protocol")

    def _more(self) -> None:
        del self._kept[: self._at]
        self._at = 0
        with _lost():
            data = self._channel.recv(_CHUNK)
        if not data:
            raise NotReady("the server closed the connection")
        self._kept += data


@contextlib.contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotReady(f"the server does not answer: {error.strerror or type(error).__name__}") from error
