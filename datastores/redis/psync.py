"""The replication stream, read as a replica reads it, but never counted as one.

``REPLCONF ACK`` always says 0, so ``WAIT`` never takes a backup for a copy of the data; it is sent all
the time, because the server cuts a replica that is silent for ``repl-timeout``.  Source: the server's
replication protocol (PSYNC2, end-of-file marker), traced on 6.2 and 7.0.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from datastores.contract import Incomplete, Node, NotReady, ToolFailed
from datastores.redis.client import agent_secret
from datastores.redis.stream import Stream, encode

MARK = 40
_CHUNK = 512 * 1024
_LEAST = 64 * 1024
_SILENCE = 300.0
_STALLED = 60.0
_TICK = 1.0
_ACK = encode(["REPLCONF", "ACK", "0"])


@dataclass(frozen=True)
class Resync:
    """The server's answer to a full synchronisation: its stream's id, and where the RDB stands in it."""

    replication_id: str
    offset: int


class Feed:
    """One replication connection; ``close`` it, always."""

    def __init__(self, node: Node) -> None:
        self._stream = Stream(node.endpoint, agent_secret(node), _SILENCE)

    def close(self) -> None:
        """End the connection; the server forgets it."""
        self._stream.close()

    def ask(self) -> Iterator[None]:
        """Ask for everything; yield every second as long as the server has other work."""
        self._stream.send(encode(["PSYNC", "?", -1]))
        yield from self._answer()

    def full(self) -> Resync:
        """Return where everything will stand; after ``ask``."""
        words = self._line().split()
        if len(words) != 3 or words[0] != b"+FULLRESYNC":
            raise ToolFailed(f"the server answered PSYNC with {words[:1]!r}")
        return Resync(words[1].decode("ascii"), int(words[2]))

    def resume(self, replication_id: str, offset: int) -> str | None:
        """Ask for what came after ``offset``; return the stream's id, or None where the server would begin anew.

        After None the connection is of no use: the server has begun to send everything.
        """
        words = self._ask(replication_id, offset + 1).split()
        if words[:1] == [b"+CONTINUE"]:
            return words[1].decode("ascii") if len(words) > 1 else replication_id
        if words[:1] == [b"+FULLRESYNC"]:
            return None
        raise ToolFailed(f"the server answered PSYNC with {words[:1]!r}")

    def rdb(self) -> Iterator[memoryview]:
        """Yield the bytes of the RDB; ``Incomplete`` where the connection ends before the marker.

        As long as none come, an empty piece is yielded every second, so that the caller can think again.
        The last ``MARK`` bytes are always held back, for the marker may come in pieces.
        """
        window = memoryview(bytearray(_CHUNK + MARK))
        for _ in self._answer():
            yield window[:0]
        marker, held = self._marker(), 0
        while True:
            if self._stream.waits(_TICK):
                yield window[:0]
                continue
            held += self._some(window[held:])
            if held >= MARK and window[held - MARK : held] == marker:
                yield window[: held - MARK]
                return
            if held > len(window) - _LEAST:
                yield window[: held - MARK]
                window[:MARK] = bytes(window[held - MARK : held])
                held = MARK

    def log(self, count: int) -> Iterator[memoryview]:
        """Yield exactly the next ``count`` bytes of the stream."""
        # Small pieces, so that a slow reader is heard of often enough.
        window = memoryview(bytearray(_LEAST))
        heard, pause = time.monotonic(), 0.02
        self._stream.send(_ACK)
        while count:
            if self._stream.waits(pause):
                # The first ones may come too early: the server listens once it has buried its child.
                self._stream.send(_ACK)
                pause = min(1.0, pause * 2)
                if time.monotonic() - heard > _STALLED:
                    raise Incomplete(f"the replication stream stalled {count} bytes before its end")
                continue
            size = self._some(window[: min(count, len(window))])
            count -= size
            yield window[:size]
            self._stream.send(_ACK)
            heard = time.monotonic()

    def _ask(self, replication_id: str, offset: int) -> bytes:
        self._stream.send(encode(["PSYNC", replication_id, offset]))
        return self._line()

    def _answer(self) -> Iterator[None]:
        """Yield every second until a line comes that is not empty; the server sends empty ones meanwhile."""
        try:
            while not self._stream.pending:
                if self._stream.waits(_TICK):
                    yield
                else:
                    self._stream.skip_empty_lines()
        except NotReady as error:
            raise Incomplete(f"the server did not begin its dump: {error}") from error

    def _line(self) -> bytes:
        """Read the next line that is not empty: empty ones say that the server is still there."""
        while not (found := self._stream.line()):
            pass
        if found.startswith(b"-"):
            raise NotReady(f"the server does not replicate now: {found[1:200].decode('utf-8', 'replace')}")
        return found

    def _marker(self) -> bytes:
        try:
            line = self._line()
        except NotReady as error:
            raise Incomplete(f"the server did not begin its dump: {error}") from error
        if not line.startswith(b"$EOF:") or len(line) != 5 + MARK:
            raise ToolFailed("the server dumps to its disk first, not to us: repl-diskless-sync is off")
        return line[5:]

    def _some(self, window: memoryview) -> int:
        try:
            count = self._stream.readinto(window)
        except NotReady as error:
            raise Incomplete(f"the replication stream broke: {error}") from error
        if not count:
            raise Incomplete("the server closed the replication stream before its end")
        return count
