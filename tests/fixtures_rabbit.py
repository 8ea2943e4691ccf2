"""The distribution's RabbitMQ as a private server on loopback, for tests.

It and its port mapper are children that die with the test process, in whatever way that ends.
"""

import atexit
import contextlib
import ctypes
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import reserve

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CONTROL = SERVER.with_name("rabbitmqctl")
_PR_SET_PDEATHSIG = 1
_PRCTL = ctypes.CDLL(None).prctl
"""Looked up here: between fork and exec somebody else's thread may hold the loader's lock for ever."""
_START = 90.0


class Broker:
    """One broker; ``url()`` is what an agent or a client is given."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rmq", dir="/tmp"))
        self.port, self._dist, self._epmd_port = reserve(), reserve(), reserve()
        self._node = f"t{self.port}@localhost"
        self._epmd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def url(self, scheme: str = "rabbit", query: str = "") -> str:
        return f"{scheme}://guest:guest@127.0.0.1:{self.port}/{query}"

    def agent_url(self, guest_id: str) -> str:
        """Return what ``--agent`` takes."""
        return f"rabbit://guest@127.0.0.1:{self.port}/?id={guest_id}"

    def start(self) -> "Broker":
        environment = self._environment()
        for program in (SERVER, shutil.which("epmd")):
            assert program, "RabbitMQ is missing: tools/servers rabbitmq"
            assert Path(program).exists(), f"{program} is missing: tools/servers rabbitmq"
        if self._epmd is None:
            self._epmd = _child(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"], environment, None)
            _until(lambda: listens(self._epmd_port), 10, "epmd listens")
        with (self.folder / "out").open("ab") as out:
            self._server = _child([str(SERVER)], environment, out.fileno())
        _until(self._answers, _START, f"RabbitMQ answers; {self.folder}/out has its words")
        return self

    def kill(self) -> None:
        """SIGKILL the broker; ``start`` brings it back with what was durable."""
        assert self._server is not None
        os.killpg(self._server.pid, signal.SIGKILL)
        self._server.wait()
        self._server = None
        _until(lambda: not listens(self.port), 10, "the broker is gone")

    def control(self, *words: str) -> None:
        """Run ``rabbitmqctl``."""
        command = [str(CONTROL), "-n", self._node, *words]
        subprocess.run(command, env=self._environment(), check=True, capture_output=True, timeout=60)

    def end(self) -> None:
        for each in (self._server, self._epmd):
            if each is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(each.pid, signal.SIGKILL)
                each.wait()
        self._server = self._epmd = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.folder / "out").read_text()[-2000:]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(probe.recv(1))
        return False

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.console = false\nheartbeat = 10\n"
        )
        (folder / "plugins").write_text("[].\n")
        (folder / "env.conf").write_text("")
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(self._dist),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(folder / "m"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
        }


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _child(argv: list[str], environment: dict[str, str], out: int | None) -> "subprocess.Popen[bytes]":
    quiet = subprocess.DEVNULL if out is None else out
    return subprocess.Popen(
        argv, env=environment, stdin=subprocess.DEVNULL, stdout=quiet, stderr=quiet, preexec_fn=_die_with_us
    )


def _die_with_us() -> None:
    os.setsid()
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _until(check: "object", timeout: float, what: str) -> None:
    assert callable(check)
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(0.1)


@functools.cache
def shared_broker() -> Broker:
    """Return the one broker of this run; a test takes guest ids of its own."""
    made = Broker()
    atexit.register(made.end)
    return made.start()


@pytest.fixture
def own_broker() -> Iterator[Broker]:
    """A broker that the test may kill."""
    made = Broker()
    try:
        yield made.start()
    finally:
        made.end()
