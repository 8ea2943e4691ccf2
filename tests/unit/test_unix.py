"""The socket transport: who is heard, who is not, and that nobody keeps the others waiting."""

import json
import os
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest

from guestagent.config import without_file
from guestagent.errors import DeadlinePassed, Refused, SecondAgent, Unreachable
from guestagent.rpc import framing
from guestagent.rpc.listener import CALLERS, UnixIncoming, UnixListener
from guestagent.rpc.transport import open_transport
from tests.fakes_site import until

TOPIC, SERVER = "ostler.g1", "g1"


class Echo:
    """A listener that answers each request with its own message; ``held`` makes it wait."""

    def __init__(self, folder: Path) -> None:
        self.held = threading.Event()
        self.held.set()
        self.casts: list[object] = []
        self.listener = UnixListener(folder, TOPIC, SERVER)
        self.listener.start(lambda incoming: threading.Thread(target=self._answer, args=incoming, daemon=True).start())
        self.path = framing.socket_path(folder, TOPIC, SERVER)

    def _answer(self, incoming: UnixIncoming) -> None:
        self.held.wait(20)
        if not incoming.expects_reply:
            self.casts.append(incoming.message)
        incoming.reply(incoming.message)

    def end(self) -> None:
        self.held.set()
        self.listener.stop()
        self.listener.cleanup()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ux", dir="/tmp") as name:
        yield Path(name) / "bus"


@pytest.fixture
def echo(folder: Path) -> Iterator[Echo]:
    made = Echo(folder)
    yield made
    made.end()


def ask(echo: Echo, **message: object) -> object:
    return framing.converse(echo.path, {"message": message, "context": {}, "reply": True}, 10.0)["result"]


def dial(echo: Echo) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(echo.path))
    return connection


def test_a_request_is_answered(echo: Echo) -> None:
    assert ask(echo, text="ünïcode ☃", number=1.5, none=None) == {"text": "ünïcode ☃", "number": 1.5, "none": None}


def test_folder_and_socket_are_private(echo: Echo, folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}


def test_a_cast_returns_after_it_was_taken(echo: Echo) -> None:
    framing.converse(echo.path, {"message": {"n": 1}, "context": {}, "reply": False}, 10.0)
    assert echo.casts == [{"n": 1}]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        framing.HEADER.pack(framing.REQUEST_CAP + 1),
        framing.HEADER.pack(3) + b"\xff\xfe\xfd",
        framing.HEADER.pack(2) + b"[]",
        framing.HEADER.pack(4) + b"null",
        framing.HEADER.pack(0),
        framing.HEADER.pack(2) + b"{}",
        framing.HEADER.pack(11) + b'{"a":1,"a":2}'[:11],
        framing.HEADER.pack(13) + b'{"a":1,"a":2}',
        framing.HEADER.pack(9) + b'{"a":NaN}',
        framing.HEADER.pack(200_000) + b"[" * 200_000,
        framing.HEADER.pack(34) + b'{"message":[],"context":{},"x":12}',
    ],
)
def test_garbage_is_refused_and_the_next_is_answered(echo: Echo, garbage: bytes) -> None:
    with dial(echo) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    if answer:
        assert json.loads(answer[framing.HEADER.size :])["result"]["error"]["type"] == "Refused"
    assert ask(echo, n=1) == {"n": 1}


def test_slow_and_silent_callers_delay_nobody(echo: Echo) -> None:
    slow = [dial(echo) for _ in range(30)]
    for number, each in enumerate(slow):
        each.sendall((framing.HEADER.pack(100) + b'{"messa')[: number % 11])
    threads = threading.active_count()
    assert [ask(echo, n=number) for number in range(50)] == [{"n": number} for number in range(50)]
    until(lambda: threading.active_count() <= threads + 2)
    for each in slow:
        each.close()


def test_callers_who_wait_for_an_answer_delay_nobody_else_up_to_a_bound(echo: Echo) -> None:
    echo.held.clear()
    frame = framing.encode({"message": {"n": 1}, "context": {}, "reply": True})
    waiting = [dial(echo) for _ in range(CALLERS)]
    for each in waiting:
        each.sendall(frame)
    with pytest.raises(Unreachable):
        ask(echo, n=2)
    echo.held.set()
    for each in waiting:
        assert each.recv(4)
        each.close()
    assert ask(echo, n=2) == {"n": 2}


def test_a_dead_agents_socket_is_replaced(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(framing.socket_path(folder, TOPIC, SERVER)))
    left.close()
    with pytest.raises(Unreachable):
        framing.converse(framing.socket_path(folder, TOPIC, SERVER), {}, 1.0)
    made = Echo(folder)
    assert ask(made, n=1) == {"n": 1}
    made.end()


def test_a_living_agents_socket_is_not(echo: Echo, folder: Path) -> None:
    before = echo.path.stat().st_ino
    with pytest.raises(SecondAgent):
        UnixListener(folder, TOPIC, SERVER)
    assert echo.path.stat().st_ino == before
    assert ask(echo, n=1) == {"n": 1}


def test_the_name_is_free_after_the_end(folder: Path) -> None:
    for _ in range(3):
        made = Echo(folder)
        made.end()
        assert not made.path.exists()


def test_a_path_the_kernel_would_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        framing.socket_path(tmp_path / ("x" * 100), TOPIC, SERVER)
    assert refused.value.field == "transport_url"
    assert "107" in str(refused.value)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720])
def test_a_folder_others_may_write_to_is_refused(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(Refused) as refused:
        UnixListener(folder, TOPIC, SERVER)
    assert refused.value.field == "transport_url"


def test_only_root_and_ourselves_are_heard() -> None:
    assert framing.trusted(os.geteuid())
    assert framing.trusted(0)
    assert not framing.trusted(os.geteuid() + 12345)


def test_another_user_is_not_heard(echo: Echo, folder: Path) -> None:
    """Where the door stands open by mistake the kernel still says who knocks."""
    if os.geteuid() != 0:
        with dial(echo) as connection:
            assert framing.peer(connection) == os.geteuid()
        return  # only root can become somebody else
    for each in (folder.parent, folder):
        each.chmod(0o755)
    echo.path.chmod(0o666)
    frame = framing.encode({"message": {"n": 1}, "context": {}, "reply": True})
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        heard = 1
        try:
            with dial(echo) as connection:
                connection.sendall(frame)
                heard = len(connection.recv(1))
        except OSError:
            heard = 0
        os._exit(heard)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert ask(echo, n=1) == {"n": 1}


def test_nobody_there(folder: Path) -> None:
    with pytest.raises(Unreachable):
        framing.converse(framing.socket_path(folder, TOPIC, SERVER), {}, 5.0)


def test_a_deadline_holds(echo: Echo) -> None:
    echo.held.clear()
    with pytest.raises(DeadlinePassed):
        framing.converse(echo.path, {"message": {}, "context": {}, "reply": True}, 0.2)


def test_a_server_that_dies_before_its_answer_is_unreachable(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    path = framing.socket_path(folder, TOPIC, SERVER)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(1)

        def take() -> None:
            connection, _ = listening.accept()
            connection.recv(10)
            connection.close()

        thread = threading.Thread(target=take)
        thread.start()
        with pytest.raises(Unreachable):
            framing.converse(path, {"message": {}, "context": {}, "reply": True}, 5.0)
        thread.join()


class Endpoint:
    """What any program with oslo.messaging might serve."""

    def add(self, context: object, a: int, b: int) -> int:
        return a + b

    def fail(self, context: object) -> None:
        raise ValueError("on purpose")


@pytest.fixture
def client(folder: Path) -> Iterator[Any]:
    folder.mkdir(mode=0o700)
    transport = open_transport(without_file(), f"unix://{folder}")
    target = oslo_messaging.Target(topic="sums", server="one")
    server = oslo_messaging.get_rpc_server(transport, target, [Endpoint()])
    server.start()
    yield oslo_messaging.get_rpc_client(transport, oslo_messaging.Target(topic="sums"), timeout=10)
    server.stop()
    server.wait()


def test_any_program_with_oslo_messaging_may_serve_and_ask(client: Any) -> None:
    assert client.call({}, "add", a=1, b=2) == 3
    assert client.prepare(server="one").call({}, "add", a=2, b=2) == 4
    assert client.prepare(fanout=True).cast({}, "add", a=2, b=2) is None
    assert client.prepare(call_monitor_timeout=5).call({}, "add", a=1, b=1) == 2


def test_its_errors_cross_as_it_knows_them(client: Any) -> None:
    with pytest.raises(ValueError, match="on purpose"):
        client.call({}, "fail")
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        client.prepare(server="two").call({}, "add", a=1, b=2)
    with pytest.raises(oslo_messaging.MessageDeliveryFailure):
        client.prepare(topic="products").call({}, "add", a=1, b=2)


def test_notifications_are_refused(folder: Path) -> None:
    transport = open_transport(without_file(), f"unix://{folder}")
    with pytest.raises(oslo_messaging.MessagingException):
        transport._driver.send_notification(None, {}, {}, 2.0)
    with pytest.raises(oslo_messaging.MessagingException):
        transport._driver.listen_for_notifications([], None, 1, 1)
