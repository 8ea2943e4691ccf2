"""The client and the stream against servers that answer badly: they fail in our words, soon, and show no secret."""

import contextlib
import secrets
import socket
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from datastores.contract import BadInput, DatastoreError, Endpoint, NotReady, Secret, ToolFailed
from datastores.redis.client import Connection, ServerError, dial, fields, login
from datastores.redis.stream import Stream
from tests.fakes_site import until

Answering = Callable[..., Connection]
Listening = Callable[[bytes], Endpoint]


@pytest.fixture
def heard() -> list[bytes]:
    """What the server was told, filled as it comes."""
    return []


@pytest.fixture
def listening(heard: list[bytes]) -> Iterator[Listening]:
    """Yield a function that starts a server with one answer, which it gives to each connection's first words.

    Without an answer it keeps silent, and the connection open.
    """
    with contextlib.ExitStack() as stack:

        def serve(data: bytes) -> Endpoint:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="oc-", dir="/tmp"))
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(f"{folder}/s")
            listener.listen()
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            threading.Thread(target=_answer, args=(listener, data, heard), daemon=True).start()
            return Endpoint("", 0, Path(folder, "s"))

        yield serve


def _answer(listener: socket.socket, data: bytes, heard: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        while True:
            channel, _ = listener.accept()
            with channel, contextlib.suppress(ConnectionError):
                heard.append(channel.recv(65536))
                if data:
                    channel.sendall(data)
                    channel.shutdown(socket.SHUT_WR)
                while more := channel.recv(65536):
                    heard.append(more)


@pytest.fixture
def answering(listening: Listening) -> Iterator[Answering]:
    """Yield a function that returns a connection to such a server."""
    with contextlib.ExitStack() as stack:

        def connected(data: bytes, timeout: float = 5) -> Connection:
            return stack.enter_context(contextlib.closing(dial(listening(data), timeout)))

        yield connected


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"+OK\r\n", b"OK"),
        (b":-5\r\n", -5),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"*3\r\n:1\r\n*1\r\n$1\r\nx\r\n$-1\r\n", [1, [b"x"], None]),
        (b"$9000000\r\n" + bytes(9_000_000) + b"\r\n", bytes(9_000_000)),
    ],
)
def test_answers_are_read(answering: Answering, data: bytes, wanted: object) -> None:
    assert answering(data).call("PING") == wanted


@pytest.mark.parametrize(
    "data",
    [
        b"+OK",
        b"$5\r\nab",
        b"*2\r\n:1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"\r\n",
        b"x" * 200_000,
        b"$x\r\n",
        b"*y\r\n",
        b":\r\n",
    ]
    + [b"$-7\r\n", b"$99999999999999\r\n", b"*1\r\n" * 5000],
)
def test_garbage_is_an_error_of_ours(answering: Answering, data: bytes) -> None:
    with pytest.raises(DatastoreError):
        answering(data).call("PING")


@pytest.mark.parametrize(
    "code", ["WRONGPASS", "NOAUTH", "NOPERM", "ERR", "READONLY", "OOM", "EXECABORT", "NOSCRIPT", "MOVED", "ODD"]
)
def test_an_error_keeps_its_code_and_ends_nothing(answering: Answering, code: str) -> None:
    connection = answering(f"-{code} max number of clients reached\r\n+PONG\r\n".encode())
    with pytest.raises(ServerError) as caught:
        connection.call("GET", "a")
    assert (caught.value.code, caught.value.text) == (code, f"{code} max number of clients reached")
    assert isinstance(caught.value, ToolFailed)
    assert connection.call("PING") == b"PONG"


@pytest.mark.parametrize("code", ["LOADING", "BUSY", "MASTERDOWN", "MISCONF"])
def test_a_server_that_is_busy_may_be_asked_again(answering: Answering, code: str) -> None:
    with pytest.raises(NotReady, match=code):
        answering(f"-{code} not now\r\n".encode()).call("PING")


def test_an_error_inside_an_answer_is_the_answer(answering: Answering) -> None:
    connection = answering(b"*2\r\n:1\r\n-WRONGTYPE no list\r\n+PONG\r\n")
    first, second = connection.pipeline([("EXEC",), ("PING",)])
    assert isinstance(first, ServerError)
    assert (first.code, second) == ("WRONGTYPE", b"PONG")


def test_no_error_shows_a_password(answering: Answering) -> None:
    word = secrets.token_hex(8)
    for data in (b"-WRONGPASS invalid username-password pair\r\n", b"+OK", b"HTTP/1.1 200 OK\r\n", b"$x\r\n"):
        with pytest.raises(DatastoreError) as caught:
            login(answering(data), "bob", Secret(word))
        assert word not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    with pytest.raises(BadInput) as refused:
        login(answering(b"+OK\r\n"), "bob", Secret(f"{word}\ud800"))
    assert word not in "".join(traceback.format_exception(refused.value)) + repr(refused.value)


def test_a_silent_server_is_not_waited_for_and_a_lost_session_never_begun_again(
    answering: Answering, heard: list[bytes]
) -> None:
    connection = answering(b"", timeout=0.1)
    for _ in range(2):
        with pytest.raises(NotReady):
            connection.call("PING")
    until(lambda: bool(heard))
    assert heard == [b"*1\r\n$4\r\nPING\r\n"]


def test_a_server_that_is_not_there_is_not_ready(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="No such file"):
        dial(Endpoint("", 0, tmp_path / "s"))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"-WRONGPASS no\r\n", ServerError),
        (b"-LOADING not now\r\n", NotReady),
        (b"+OK\r\n-ERR no\r\n", ServerError),
        (b"+OK\r\n", NotReady),
        (b"HTTP/1.1 200 OK\r\n", ToolFailed),
        (b"+" * 200_000, ToolFailed),
    ],
)
def test_a_stream_that_is_refused_says_so_without_the_password(
    listening: Listening, data: bytes, wanted: type[DatastoreError]
) -> None:
    word = secrets.token_hex(8)
    with pytest.raises(wanted) as caught:
        Stream(listening(data), Secret(word), 5)
    assert word not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_a_stream_gives_lines_and_then_bytes(listening: Listening, heard: list[bytes]) -> None:
    window = memoryview(bytearray(64))
    with contextlib.closing(Stream(listening(b"+OK\r\n+OK\r\n\n\n+A line\r\nand \x00"), Secret("a\r\nb"), 5)) as stream:
        stream.skip_empty_lines()
        assert stream.line() == b"+A line"
        taken = b""
        while count := stream.readinto(window):
            taken += window[:count]
        assert taken == b"and \x00"
    assert b"".join(heard).startswith(b"*3\r\n$4\r\nAUTH\r\n$6\r\nostler\r\n$4\r\na\r\nb\r\n")


def test_commands_are_never_built_from_text(answering: Answering, heard: list[bytes]) -> None:
    assert answering(b"+OK\r\n").call("SET", "a b\r\nFLUSHALL", b"\x00\xff", 7, "\udcff") == b"OK"
    assert heard == [b"*5\r\n$3\r\nSET\r\n$13\r\na b\r\nFLUSHALL\r\n$2\r\n\x00\xff\r\n$1\r\n7\r\n$1\r\n\xff\r\n"]


def test_fields_of_info() -> None:
    assert fields("# Server\r\nredis_version:7.0.15\r\nslave0:ip=1,port=2\r\n") == {
        "redis_version": "7.0.15",
        "slave0": "ip=1,port=2",
    }
