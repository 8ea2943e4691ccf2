"""The client against servers that answer badly: it fails in its own words, soon, and without a secret."""

import contextlib
import socket
import threading

import pytest

from datastores.contract import DatastoreError, NotReady, Secret, ToolFailed
from datastores.redis.wire import Connection, ServerError, encode, fields, login


def answering(data: bytes) -> Connection:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)

    def answer() -> None:
        with theirs, contextlib.suppress(ConnectionError):
            theirs.sendall(data)
            theirs.shutdown(socket.SHUT_WR)
            while theirs.recv(65536):
                pass

    threading.Thread(target=answer, daemon=True).start()
    return Connection(ours)


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
    ],
)
def test_answers_are_read(data: bytes, wanted: object) -> None:
    assert answering(data).call("PING") == wanted


@pytest.mark.parametrize(
    "data",
    [
        b"",
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
    + [b"*-5\r\n", b"$-7\r\n", b"$99999999999999\r\n", b"*1\r\n" * 5000],
)
def test_garbage_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(DatastoreError):
        answering(data).call("PING")


def test_an_error_keeps_its_code_and_says_nothing_of_a_password() -> None:
    with pytest.raises(ServerError) as caught:
        login(answering(b"-WRONGPASS invalid username-password pair\r\n"), "bob", Secret("canary"))
    assert caught.value.code == "WRONGPASS"
    assert "canary" not in repr(caught.value)
    assert isinstance(caught.value, ToolFailed)
    for code in ("LOADING", "BUSY", "MASTERDOWN"):
        with pytest.raises(NotReady):
            answering(f"-{code} not now\r\n".encode()).call("PING")


def test_commands_are_never_built_from_text() -> None:
    assert (
        encode(["SET", "a\r\nFLUSHALL", b"\x00", 7])
        == b"*4\r\n$3\r\nSET\r\n$11\r\na\r\nFLUSHALL\r\n$1\r\n\x00\r\n$1\r\n7\r\n"
    )


def test_fields_of_info() -> None:
    assert fields("# Server\r\nredis_version:7.0.15\r\nslave0:ip=1,port=2\r\n") == {
        "redis_version": "7.0.15",
        "slave0": "ip=1,port=2",
    }
