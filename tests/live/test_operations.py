"""Operations beside real servers: limits the kernel shows, a clean end in the middle, settings that do not hold."""

import contextlib
import time
from typing import Any

import psutil
import pytest

from guestagent.image import installation, read_image
from tests.agents import LiveAgent, until
from tests.cases import sample_of
from tests.guests import IMAGE, prefix

ENDS_WITHIN = 5.0
"""Seconds that an agent may take to end."""
RATE = 50_000
"""Bytes a second; what is filled in takes more than a minute then, however slow the machine is meanwhile."""


@pytest.fixture(scope="module")
def agent(agent: LiveAgent) -> LiveAgent:
    sample_of(agent).fill(4_000_000)
    return agent


def streaming(agent: LiveAgent, *words: str) -> str:
    begun: Any = agent.ostler("backup", "create", "--parent", "none", "--bandwidth", str(RATE), *words, "--no-wait")
    until(lambda: shown(agent, begun["id"])["progress"]["done"] > 0, 60, "bytes are streaming")
    return str(begun["id"])


def tools(agent: LiveAgent) -> list[psutil.Process]:
    """Return the agent's programs: its children but for the server and the server's own."""
    assert agent.process is not None
    server = psutil.Process(int(str(agent.status()["server_pid"])))
    own = {server.pid, *(each.pid for each in server.children(recursive=True))}
    return [each for each in psutil.Process(agent.process.pid).children(recursive=True) if each.pid not in own]


def reads_by_a_tool(agent: LiveAgent) -> bool:
    """Say whether the datastore's backups are made by a program beside the agent."""
    facts = installation(read_image(IMAGE), agent.datastore, agent.version, prefix())
    return "backup" in facts.tools


def shown(agent: LiveAgent, operation: str) -> Any:
    return agent.ostler("operation", "show", operation)


def test_bandwidth_and_niceness_are_kept(agent: LiveAgent) -> None:
    operation = streaming(agent, "--nice", "7", "--workers", "1")
    assert agent.process is not None
    us = psutil.Process(agent.process.pid)
    assert {each.nice() for each in tools(agent)} == ({7} if reads_by_a_tool(agent) else set())

    def nice() -> int:
        found = 0
        for each in us.threads():
            with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended
                found += psutil.Process(each.id).nice() == 7
        return found

    until(lambda: nice() >= 2, 60, "the operation's own thread is nice, and one that seals")
    first, begun = shown(agent, operation)["progress"]["done"], time.monotonic()
    time.sleep(4)
    last, took = shown(agent, operation)["progress"]["done"], time.monotonic() - begun
    # An extent may be a megabyte or two, and passes before it is waited for.
    assert last - first <= RATE * took + (2 << 20)
    agent.ostler("operation", "cancel", operation)
    assert agent.run("operation", "wait", operation).status == 9
    assert tools(agent) == []


def in_time(agent: LiveAgent) -> bool:
    """End the agent in the middle of a backup and start it again; say whether it was soon gone, and had said so."""
    server = agent.status()["server_pid"]
    operation = streaming(agent)
    begun = time.monotonic()
    assert agent.terminate() == 0
    took = time.monotonic() - begun
    until(lambda: {each.pid for each in agent.servers()} == {server}, 60, "the server is alone")
    told: Any = agent.run("operation", "show", operation, "--state-dir", str(agent.state)).json
    agent.start()
    until(lambda: shown(agent, operation)["state"] == "interrupted", 60, "it has ended")
    assert agent.status()["server_pid"] == server
    return took < ENDS_WITHIN and (told["state"], told["step"]) == ("interrupted", "stream")


def test_the_end_of_the_agent_ends_a_backup_and_says_so(agent: LiveAgent) -> None:
    """Once of three times: where others have the cores, what cannot be ended in time is ended by the next life."""
    assert any(in_time(agent) for _ in range(3))
    failed = [each for each in agent.ostler("backup", "list") if each["state"] == "FAILED"]  # type: ignore
    assert {each["guest_id"] for each in failed} == {"g1"}
    made: Any = agent.ostler("backup", "create")
    assert made["state"] == "COMPLETED"


def test_the_server_is_stopped_started_and_restarted(agent: LiveAgent) -> None:
    before = agent.status()["server_pid"]
    agent.ostler("service", "stop")
    assert (agent.status()["status"], agent.status()["server_pid"]) == ("SHUTDOWN", None)
    assert agent.servers() == []
    agent.ostler("service", "start")
    agent.ostler("status", "--wait", "HEALTHY", "--timeout", "120")
    first = agent.status()["server_pid"]
    agent.ostler("service", "restart")
    agent.ostler("status", "--wait", "HEALTHY", "--timeout", "120")
    assert len({before, first, agent.status()["server_pid"]}) == 3


def test_a_server_that_dies_has_crashed_and_is_started_again_when_asked(agent: LiveAgent) -> None:
    psutil.Process(int(str(agent.status()["server_pid"]))).kill()
    agent.ostler("status", "--wait", "CRASHED", "--timeout", "120")
    agent.ostler("service", "start")
    agent.ostler("status", "--wait", "HEALTHY", "--timeout", "120")


def test_no_server_is_started_where_the_data_is_not(agent: LiveAgent) -> None:
    """A disk that is not mounted is an empty folder; a server would make a new database in it."""
    agent.ostler("service", "stop")
    data = agent.root / "data"
    away = data.rename(data.with_name("away"))
    data.mkdir()
    refused = agent.run("service", "start")
    assert (refused.status, refused.error["type"]) == (3, "NotReady"), refused
    assert list(data.iterdir()) == []
    data.rmdir()
    away.rename(data)
    agent.ostler("service", "start")
    agent.ostler("status", "--wait", "HEALTHY", "--timeout", "120")


def test_settings_with_which_the_server_does_not_come_up_are_rolled_back(agent: LiveAgent) -> None:
    """A generation spoiled behind the agent's back stands for whatever no rule foresaw."""
    found: Any = agent.ostler("settings", "list", "--all")
    mine = [each for each in found if each["source"] == "image" and not each["dynamic"] and each["value"]]
    name, value = mine[0]["name"], mine[0]["value"]
    agent.ostler("settings", "set", f"{name}={value}")
    generation = (agent.root / "config").resolve()
    for path in generation.iterdir():
        if path.name != "layers.json":
            path.write_bytes(path.read_bytes() + b"\n[mysqld]\nthis-is-no-setting-anywhere = 1\n")
    answer = agent.run("service", "restart")
    assert answer.status == 1, answer
    assert "rolled back" in str(answer.error["message"])
    agent.ostler("status", "--wait", "HEALTHY", "--timeout", "120")
    assert (agent.root / "config").resolve() != generation
