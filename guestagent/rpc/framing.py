"""The wire of ``unix://``: one request and its answer over one connection to a socket in a folder.

A frame is four bytes of length, most significant first, and that many bytes of JSON: one object, no
member twice, no NaN.  A request: ``{"message", "context", "reply": bool}``.  An answer: any number of
``{"beat": true}`` and then ``{"result"}`` or ``{"failure"}``; a cast is answered, too: that is its receipt.
The socket of a server is ``FOLDER/TOPIC@SERVER``.  Nothing here needs oslo, so the command starts fast.
"""

import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import cast

from datastores.contract import JSON
from guestagent.errors import DeadlinePassed, Refused, Unreachable

REQUEST_CAP = 1 << 20
"""Bytes of JSON a request may have."""

ANSWER_CAP = 16 << 20
HEADER = struct.Struct("!I")
LONGEST_PATH = 107
"""What the kernel takes as the path of a socket, in bytes."""

_CREDENTIALS = struct.Struct("3i")
Frame = dict[str, JSON]


def socket_path(folder: Path, topic: str, server: str) -> Path:
    """Return where ``server`` listens for ``topic``; ``Refused`` where the kernel would not take it."""
    path = folder / f"{topic}@{server}"
    if "/" in topic + server or "\0" in str(path):
        raise Refused(f"{topic}@{server} cannot be the name of a socket", field="guest_id")
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise Refused(
            f"the socket's path {path} has more than {LONGEST_PATH} bytes",
            field="transport_url",
            hint="use a folder with a shorter path",
        )
    return path


def encode(frame: Mapping[str, object], cap: int = REQUEST_CAP) -> bytes:
    """Return a frame's bytes; ``Refused`` where it is larger than ``cap``."""
    try:
        text = json.dumps(frame, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise Refused(f"the message is not plain JSON: {type(error).__name__}", field="request") from None
    body = text.encode(errors="surrogatepass")
    if len(body) > cap:
        raise Refused(f"the message has {len(body)} bytes, more than {cap}", field="request")
    return HEADER.pack(len(body)) + body


def decode(body: bytes) -> Frame:
    """Return what a frame says; ``Refused`` where it is not one object of plain JSON."""
    try:
        found = json.loads(body.decode(errors="surrogatepass"), parse_constant=_no_constant, object_pairs_hook=_members)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the message is not plain JSON: {type(error).__name__}", field="request") from None
    if not isinstance(found, dict):
        raise Refused("the message is not an object", field="request")
    return cast(Frame, found)


def peer(connection: socket.socket) -> int:
    """Return the user id at the other end, as the kernel saw it."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(packed)[1])


def trusted(user: int) -> bool:
    """Say whether this user may give orders: root, and the one we run as."""
    return user in (0, os.geteuid())


def converse(path: Path, frame: Mapping[str, object], seconds: float, silence: float | None = None) -> Frame:
    """Send one request and return its answer.

    ``Unreachable``: nobody listens, or it hung up before it answered (what it had committed it
    knows by the request's id).  ``DeadlinePassed``: nothing within ``seconds``, or within ``silence``
    since the last beat.
    """
    data = encode(frame)
    until = time.monotonic() + seconds
    with _dial(path, until) as connection:
        try:
            connection.settimeout(_left(until))
            connection.sendall(data)
            return _answer(connection, until, silence)
        except TimeoutError:
            raise DeadlinePassed(f"no answer from {path.name} in time") from None
        except OSError as error:
            raise Unreachable(f"{path.name} hung up: {error.strerror}") from error


def _answer(connection: socket.socket, until: float, silence: float | None) -> Frame:
    while True:
        limit = until if silence is None else min(until, time.monotonic() + silence)
        (size,) = HEADER.unpack(_exactly(connection, HEADER.size, limit))
        if size > ANSWER_CAP:
            raise Unreachable("the answer is larger than any of ours")
        found = decode(_exactly(connection, size, limit))
        if not found.get("beat"):
            return found


def _exactly(connection: socket.socket, size: int, until: float) -> bytes:
    received = bytearray()
    while len(received) < size:
        connection.settimeout(_left(until))
        part = connection.recv(min(size - len(received), 1 << 16))
        if not part:
            raise Unreachable("the agent hung up before it answered", hint="try again with the same request id")
        received += part
    return bytes(received)


def _dial(path: Path, until: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    with ExitStack() as unless_trusted:
        unless_trusted.callback(connection.close)
        while not _connected(connection, path, until):
            time.sleep(0.02)
        if os.geteuid() != 0 and not trusted(peer(connection)):
            raise Unreachable(f"{path.name} belongs to another user")
        unless_trusted.pop_all()
    return connection


def _connected(connection: socket.socket, path: Path, until: float) -> bool:
    """Connect; False where the other side has its hands full just now."""
    try:
        connection.settimeout(_left(until))
        connection.connect(os.fspath(path))
    except BlockingIOError:
        return False
    except TimeoutError:
        raise DeadlinePassed(f"{path.name} did not take the connection in time") from None
    except OSError as error:
        raise Unreachable(f"nobody answers at {path}: {error.strerror or error}") from error
    return True


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member occurs twice")
    return found
