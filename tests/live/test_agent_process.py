"""The agent as a process: one, small, quiet, and obedient to signals."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oslo_messaging
import psutil
import pytest

from guestagent.config import without_file
from guestagent.rpc.client import connect
from guestagent.rpc.transport import open_transport
from tests.agents import LiveAgent, Site, site, until
from tests.cases import cases, node_of
from tests.fixtures_rabbit import Broker

MEBIBYTE = 1024 * 1024
ENDS_WITHIN = 5.0
"""Seconds that an agent may take to end."""


@pytest.fixture
def place() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture
def agent(place: Site) -> LiveAgent:
    return place.agent("g1", "toy", "1.0")


def process_of(agent: LiveAgent) -> psutil.Process:
    assert agent.process is not None
    return psutil.Process(agent.process.pid)


def started(agent: LiveAgent) -> float:
    """Start an agent; return the processor time in seconds that it took."""
    agent.start()
    spent = process_of(agent).cpu_times()
    return spent.user + spent.system


def test_one_line_says_ready_and_nothing_follows(agent: LiveAgent) -> None:
    agent.start()
    assert agent.ready == {"ready": "g1", "pid": process_of(agent).pid, "epoch": 1}
    found = agent.status()
    assert (found["pid"], found["epoch"], found["guest_id"]) == (agent.ready["pid"], 1, "g1")
    assert found["heartbeat_at"]
    assert agent.process is not None
    assert agent.process.stdout is not None
    process, out = agent.process, agent.process.stdout
    process.terminate()
    assert out.read() == b""
    assert process.wait(60) == 0


def test_it_is_one_process_without_eventlet_and_without_the_command_line(agent: LiveAgent) -> None:
    """Every module that it imports is listed by the interpreter itself."""
    command = [sys.executable, "-X", "importtime", "-m", "guestagent.main", "agent", "start"]
    with agent.log.open("wb") as log:
        agent.process = subprocess.Popen(
            [*command, "--config-file", str(agent.configuration())], stdout=subprocess.PIPE, stderr=log
        )
    agent.wait_ready()
    agent.prepare()
    agent.ostler("backup", "create")
    mine = process_of(agent)
    servers = {each.pid for each in agent.servers()}
    assert not [each for each in mine.children(recursive=True) if each.pid not in servers]
    assert "greenlet" not in Path(f"/proc/{mine.pid}/maps").read_text()
    assert agent.terminate() == 0
    loaded = set(re.findall(r"\| +([\w.]+)$", agent.log.read_text(), re.MULTILINE))
    assert {"oslo_messaging", "oslo_service.backend._threading.service", "guestagent.agent"} <= loaded
    # An import that is refused is listed, too: what eventlet itself imports would be there if it were not.
    for name in ("eventlet.hubs", "eventlet.greenthread", "greenlet", "cliff", "rich", "guestagent.cli"):
        assert not [each for each in loaded if each == name or each.startswith(f"{name}.")], name


def test_it_stays_small_and_starts_cheaply(place: Site) -> None:
    """60 MB a minute after its start, datastore's driver loaded; 1 CPU second until the first heartbeat."""
    agents = [place.agent(f"m{number}", name, version) for number, (name, version, _) in enumerate(cases())]
    for each in agents:
        costs = [started(each)]
        while costs[-1] > 1.0 and len(costs) < 3:  # others' work makes ours slower, too
            each.kill()
            costs.append(started(each))
        assert min(costs) <= 1.0, (each.datastore, costs)
        each.prepare()
    time.sleep(60)
    for each in agents:
        each.ostler("status", "--wait", "HEALTHY", "--timeout", "120")
        servers = {found.pid for found in each.servers()}
        mine = process_of(each)
        tree = [mine, *(child for child in mine.children(recursive=True) if child.pid not in servers)]
        pss = sum(found.memory_full_info().pss for found in tree)
        assert pss <= 60_000_000, f"{each.datastore}: {pss / MEBIBYTE:.1f} MiB"


def test_a_tool_that_did_not_die_with_it_is_ended_by_the_next(agent: LiveAgent) -> None:
    """One that was started in the moment of the kill has not asked the kernel to die with its parent yet."""
    agent.start().prepare()
    server = agent.status()["server_pid"]
    agent.ostler("backup", "create", "--bandwidth", "10", "--no-wait")
    agent.kill()
    # The kernel shows them as programs of the image, as their tool's path is among their first words.
    tool = str(node_of(agent).installation.tools["server"])
    argv = ["/bin/dash", "-c", "read line", tool]
    staging, data, temp = (str(agent.root / each) for each in ("staging", "data", "temp"))
    with contextlib.ExitStack() as stack:
        # One on staged data, a server that takes something in from there, and one that has nothing to do with it.
        left, serving, other = (
            stack.enter_context(subprocess.Popen([*argv, *words], stdin=subprocess.PIPE))
            for words in ([staging], [staging, data], [temp])
        )
        for each in (left, serving, other):
            stack.callback(each.kill)
        agent.start()
        assert left.wait(60) == -signal.SIGKILL
        assert (serving.poll(), other.poll()) == (None, None)
        assert agent.status()["server_pid"] == server


def test_a_status_is_waited_for_before_there_is_an_agent(agent: LiveAgent) -> None:
    waiting = agent.begin("status", "--wait", "NEW", "--timeout", "120", "-f", "json")
    time.sleep(3)
    assert waiting.poll() is None
    agent.start()
    assert json.loads(waiting.communicate(timeout=150)[0])["status"] == "NEW"
    assert waiting.returncode == 0


def test_sigterm_ends_it_and_leaves_the_database(agent: LiveAgent) -> None:
    agent.start().prepare()
    server = agent.status()["server_pid"]
    begun = time.monotonic()
    assert agent.terminate() == 0
    assert time.monotonic() - begun < ENDS_WITHIN
    assert isinstance(server, int)
    assert psutil.pid_exists(server)
    agent.start()
    assert agent.status()["server_pid"] == server


def test_sighup_reads_the_log_level_again_however_often(agent: LiveAgent) -> None:
    agent.start()
    config = agent.site.folder / "g1.conf"
    mine = process_of(agent)

    def logged(level: str) -> bool:
        agent.log.write_text("")
        return _within(lambda: f" {level} " in agent.log.read_text(), 3.0)

    until(lambda: logged("DEBUG"), 60, "the unsent heartbeats are told at DEBUG")
    config.write_text(config.read_text().replace("debug = true", "debug = false"))
    mine.send_signal(signal.SIGHUP)
    mine.send_signal(signal.SIGHUP)
    until(lambda: not logged("DEBUG"), 60, "the level is INFO")
    config.write_text(config.read_text().replace("debug = false", "debug = true"))
    mine.send_signal(signal.SIGHUP)
    until(lambda: logged("DEBUG"), 60, "the level is DEBUG again")
    config.write_text("nonsense\n")
    mine.send_signal(signal.SIGHUP)
    until(lambda: "not read again" in agent.log.read_text(), 60, "a bad file is told")
    assert connect(agent.url).call("agent", "status", {})
    begun = time.monotonic()
    assert agent.terminate() == 0
    assert time.monotonic() - begun < ENDS_WITHIN


def test_two_signals_to_end_end_it_once(agent: LiveAgent) -> None:
    agent.start()
    process_of(agent).send_signal(signal.SIGTERM)
    with contextlib.suppress(psutil.NoSuchProcess):
        process_of(agent).send_signal(signal.SIGINT)
    assert agent.wait_gone() == 0


@pytest.mark.parametrize(
    ("option", "value", "status", "word"),
    [
        ("port", "70000", 2, "port"),
        ("bind", "nowhere", 2, "bind"),
        ("root", "relative", 2, "root"),
        ("supervisor", "cron", 2, "supervisor"),
        ("key_file", "/nowhere/kek", 2, "key_file"),
        ("realm", "/nowhere/realm.toml", 2, "realm"),
        ("image", "windows-3", 2, "windows-3"),
        ("transport_url", "amqp://broker", 2, "transport_url"),
        ("transport_url", f"unix:///tmp/{'x' * 120}", 2, "transport_url"),
    ],
)
def test_what_prevents_it_is_named(place: Site, option: str, value: str, status: int, word: str) -> None:
    made = place.agent("bad", "toy", "1.0", **{option: value})
    made.start(wait=False)
    assert made.wait_gone() == status
    assert word in " ".join(made.tail().splitlines()[-2:])
    assert "Traceback" not in made.tail()


def test_a_key_that_others_may_read_is_refused(place: Site, agent: LiveAgent) -> None:
    place.key_file.chmod(0o644)
    agent.start(wait=False)
    assert agent.wait_gone() == 2
    assert "key_file" in agent.tail()


def test_without_a_realm_it_serves_and_backups_say_what_is_missing(place: Site) -> None:
    made = place.agent("bare", "toy", "1.0", realm="", key_file="")
    made.start().prepare()
    answer = made.run("backup", "create")
    assert answer.status != 0
    assert "realm" in answer.error["message"]  # type: ignore[operator]


def test_the_datastore_must_be_one_that_is_installed(place: Site) -> None:
    made = place.agent("odd", "abacus", "1.0")
    made.start(wait=False)
    assert made.wait_gone() == 2
    assert "abacus" in made.tail()


def test_heartbeats_reach_a_conductor_that_comes_late_and_sent_never_falls(agent: LiveAgent) -> None:
    heard: list[dict[str, Any]] = []
    agent.start()
    end = _conductor(agent, heard)
    try:
        until(lambda: len(heard) >= 3, 60, "three heartbeats have arrived")
        agent.kill()
        agent.start()
        until(lambda: heard[-1]["epoch"] == 2, 60, "the next life is heard")
    finally:
        end()
    stamps = [each["sent"] for each in heard]
    assert stamps == sorted(set(stamps))
    assert stamps[-1] <= time.time() + 1
    assert {each["guest_id"] for each in heard} == {"g1"}
    beat = next(each for each in heard if each["kind"] == "heartbeat")
    assert beat["body"]["status"] == "NEW"


def test_a_broker_that_is_not_there_yet_is_waited_for(place: Site, own_broker: Broker) -> None:
    own_broker.kill()
    guest = f"g{uuid.uuid4().hex[:8]}"
    made = place.agent(guest, "toy", "1.0", transport_url=own_broker.url(), url=own_broker.agent_url(guest))
    made.start(wait=False)
    until(lambda: "Connection failed" in made.tail(), 60, "the log says that there is no broker")
    assert made.terminate() == 0
    made.start(wait=False)
    until(lambda: "Connection failed" in made.tail(), 60, "the log says it again")
    own_broker.start()
    made.wait_ready()
    assert made.status()["guest_id"] == guest


def test_no_password_of_the_broker_is_logged(place: Site, own_broker: Broker) -> None:
    canary = f"canary{uuid.uuid4().hex}"
    url = f"rabbit://guest:{canary}@127.0.0.1:{own_broker.port}/"
    made = place.agent("who", "toy", "1.0", transport_url=url)
    made.start(wait=False)
    assert made.wait_gone() == 2
    assert "transport_url" in made.tail()
    assert canary not in made.log.read_text()


def _conductor(agent: LiveAgent, heard: list[dict[str, Any]]) -> Any:
    class Conductor:
        def report(self, context: object, **values: Any) -> None:
            heard.append(json.loads(json.dumps(values)))

    transport = open_transport(without_file(), agent.bus)
    target = oslo_messaging.Target(topic="ostler-conductor", server=socket.gethostname(), version="1.0")
    server = oslo_messaging.get_rpc_server(transport, target, [Conductor()])
    # In more than one thread what comes later may be heard first.
    server.start(override_pool_size=1)

    def end() -> None:
        server.stop()
        server.wait()

    return end


def _within(check: Any, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
