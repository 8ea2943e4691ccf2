"""The client: where it goes, what it never shows, and that its own deadline holds whatever is down."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from datastores.contract import JSON
from guestagent.errors import Busy, DeadlinePassed, Fault, Refused, Told, Unreachable
from guestagent.rpc import client as client_module
from guestagent.rpc.client import Client, Order, connect
from guestagent.rpc.envelope import fault


class Script:
    """A wire that answers as it was told, one after the other; the last answer stays."""

    def __init__(self, *answers: JSON | Exception) -> None:
        self.answers = list(answers)
        self.orders: list[Order] = []

    def send(self, order: Order, seconds: float) -> JSON:
        self.orders.append(order)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.orders.clear()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "unix:///tmp/bus",
        "unix:///tmp/bus?id=",
        "http://127.0.0.1/?id=g1",
        "rabbit://127.0.0.1/",
        "amqp://127.0.0.1/?id=g1",
        f"unix:///tmp/{'x' * 120}?id=g1",
        "unix:///tmp/bus?id=../g1",
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url: str) -> None:
    with pytest.raises(Refused):
        connect(url)


def test_the_request_is_the_verbs_arguments_and_the_envelope() -> None:
    wire = Script({"id": "1"})
    Client(wire).call("user", "create", {"name": "a"}, request_id="r1", expires=60.0)
    [order] = wire.orders
    assert (order.namespace, order.method, order.wants_reply) == ("user", "create", True)
    args = dict(order.args)
    assert time.time() + 50 < cast(float, args.pop("deadline")) < time.time() + 70
    assert str(args.pop("caller")).startswith("uid ")
    assert args == {"name": "a", "request_id": "r1"}


def test_every_request_has_an_id_of_its_own() -> None:
    wire = Script({})
    client = Client(wire)
    told = [client.cast("user", "create", {}) for _ in range(3)]
    assert [each.args["request_id"] for each in wire.orders] == told
    assert len(set(told)) == 3


def test_an_error_comes_out_as_it_was_told() -> None:
    told = Fault("Busy", "a backup runs", hint="wait", operation="o1")
    with pytest.raises(Told) as error:
        Client(Script(fault(Told(told)))).call("user", "create", {})
    assert error.value.fault == told
    assert error.value.operation == "o1"


def test_an_operation_that_failed_is_no_error_of_the_call() -> None:
    failed: JSON = {"id": "1", "state": "failed", "error": {"type": "NotFound", "message": "no"}}
    assert Client(Script(failed)).call("operation", "show", {"id": "1"}) == failed
    assert Client(Script(failed)).wait_for("1") == failed


def test_waiting_goes_on_while_the_agent_starts_again() -> None:
    running: JSON = {"id": "1", "state": "running"}
    busy = fault(Busy("questions wait"))
    down = Unreachable("nobody")
    wire = Script(running, down, DeadlinePassed("late"), busy, running, {"id": "1", "state": "succeeded"})
    seen: list[object] = []
    assert Client(wire).wait_for("1", progress=lambda each: seen.append(each["state"]))["state"] == "succeeded"
    assert seen == ["running", "running", "succeeded"]


def test_waiting_ends_at_its_deadline() -> None:
    begun = time.monotonic()
    with pytest.raises(DeadlinePassed) as error:
        Client(Script({"id": "1", "state": "running"})).wait_for("1", deadline=0.3)
    assert error.value.operation == "1"
    assert time.monotonic() - begun < 5


def test_waiting_for_what_is_not_there_ends_at_once() -> None:
    with pytest.raises(Told):
        Client(Script(fault(Told(Fault("UnknownOperation", "no"))))).wait_for("1")


def test_a_broker_that_is_not_there_is_unreachable_at_once() -> None:
    with socket.socket() as probe:
        # Nobody else can take it, and nobody listens.
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(Unreachable) as error:
            connect(f"rabbit://guest@127.0.0.1:{port}/?id=g1").call("agent", "status", {}, deadline=60)
    assert str(port) in str(error.value)
    assert time.monotonic() - begun < 40


def late(url: str, send: str = "call", **environment: str) -> str:
    """Return what a request to a broker that says nothing comes to.

    The process is another one: oslo.messaging goes on trying to connect for as long as it lives.
    """
    code = (
        "from guestagent.rpc.client import connect\n"
        "from guestagent.errors import DeadlinePassed\n"
        "import time\n"
        "begun = time.monotonic()\n"
        "try:\n"
        f"    connect({url!r}).{send}('agent', 'status', {{}}, deadline=1.0)\n"
        "except DeadlinePassed as error:\n"
        "    print('late:' if time.monotonic() - begun < 20 else 'too late:', error)\n"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, **environment},
    )
    assert asked.stdout.startswith("late: "), asked
    return asked.stdout + asked.stderr


@pytest.mark.parametrize("send", ["call", "cast"])
def test_the_deadline_holds_at_first_use_where_the_broker_says_nothing(silent: int, send: str) -> None:
    """oslo.messaging's own does not cover connecting: it would wait for ever.  Nor is its thread waited for."""
    late(f"rabbit://guest@127.0.0.1:{silent}/?id=g1", send)


def test_a_request_that_is_too_large_is_refused_before_it_leaves() -> None:
    with pytest.raises(Refused):
        connect("rabbit://guest@127.0.0.1:1/?id=g1").call("user", "create", {"name": "x" * (2 << 20)})


def test_the_password_comes_from_a_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: int) -> None:
    url = f"rabbit://agent@127.0.0.1:{silent}/?id=g1"
    with pytest.raises(Refused) as refused:
        connect(url).call("agent", "status", {}, deadline=5)
    assert client_module.PASSWORD_FILE in str(refused.value.hint)
    kept = tmp_path / "password"
    kept.write_text("canary-pw\n")
    monkeypatch.setenv(client_module.PASSWORD_FILE, str(kept))
    for mode in (0o644, 0o640, 0o604):
        kept.chmod(mode)
        with pytest.raises(Refused) as refused:
            connect(url).call("agent", "status", {}, deadline=5)
        assert refused.value.field == client_module.PASSWORD_FILE
    kept.chmod(0o600)
    assert "canary" not in late(url, **{client_module.PASSWORD_FILE: str(kept)})


def test_asking_over_a_socket_loads_no_messaging() -> None:
    code = (
        "import sys\n"
        "from guestagent.rpc.client import connect\n"
        "connect('unix:///tmp/bus?id=g1')\n"
        "print([each for each in ('oslo_messaging', 'oslo_config', 'kombu', 'eventlet.hubs') if each in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
