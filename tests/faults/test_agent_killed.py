"""A real agent killed in the middle of what it does, beside a real server.

``make test`` kills once in the middle of each of prepare, backup, restore and settings;
with ``OSTLER_COUNT`` of 10 and more it is killed before and after every step.
After each kill: the operation's state is true within five seconds of the restart, the database is
whole and answers, nothing of the attempt is left, who ordered it is told, and the next one succeeds.
"""

import contextlib
import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from datastores.contract import JSON
from guestagent import declarations
from guestagent.operations.queries import steps_of
from tests.aftermath import (
    ENDED,
    PASSWORD,
    Aftermath,
    alone,
    attempts,
    files_of,
    listed,
    no_drafts,
    objects,
    operation_of,
    shown,
    waste,
    whole,
)
from tests.agents import LiveAgent, Site, site, until
from tests.cases import Case, node_of, sample_of

COUNT = int(os.environ.get("OSTLER_COUNT", "1"))
MIDDLE = {"prepare": "secure:before", "backup": "stream:after", "restore": "stream:after", "settings": "switch:after"}
SIZE = 300_000
TRUE_WITHIN = 5.0


def points(verb: str) -> list[str]:
    """Return the kill points of a verb for this run."""
    if COUNT < 10:
        return [MIDDLE[verb]]
    return [f"{step}:{when}" for step in steps_of(verb) for when in ("before", "after")]


@pytest.fixture
def place() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture
def case(place: Site, datastore_case: Case) -> LiveAgent:
    name, version, options = datastore_case
    return place.agent("g1", name, version, **options)


@pytest.fixture(scope="module")
def filled(datastore_case: Case) -> Iterator[LiveAgent]:
    """One guest for all the tests of a datastore: what one kill leaves, the next may stumble over."""
    name, version, options = datastore_case
    with site() as made:
        agent = made.agent("g1", name, version, **options).start()
        agent.prepare(**request_of(agent))
        sample_of(agent).fill(SIZE)
        yield agent


@pytest.fixture(scope="module")
def undisturbed(datastore_case: Case) -> frozenset[str]:
    """What lies in the folders of a guest whose prepare nobody disturbed."""
    name, version, options = datastore_case
    with site() as made:
        agent = made.agent("g1", name, version, **options).start()
        agent.prepare(**request_of(agent))
        return files_of(agent)


def request_of(agent: LiveAgent) -> dict[str, object]:
    has = declarations.load(agent.datastore).parts()
    databases = [{"name": "shop"}] if has["databases"] else []
    users = [{"name": "ann", "password": PASSWORD}] if has["users"] else []
    return {name: value for name, value in (("databases", databases), ("users", users)) if value}


def failed(agent: LiveAgent) -> list[object]:
    """Return the backups that came to nothing."""
    rows = agent.ostler("backup", "list", "--filter", "state=FAILED")
    assert isinstance(rows, list)
    return rows


def killed(agent: LiveAgent, verb: str, point: str, *words: str, request: object = None) -> dict[str, JSON]:
    """Let the agent kill itself at a point of a verb; return the operation as it ended after the restart."""
    agent.terminate()
    agent.start(kill_at=f"{verb}:{point}")
    name = f"killed-{uuid.uuid4()}"
    command = order(agent, name, *words, request=request)
    until(lambda: gone(agent) or command.poll() is not None, 180, f"{verb}:{point} kills: {agent.tail()}")
    until(lambda: gone(agent), 20, f"{verb}:{point} kills: {command.poll()}, {agent.tail()}")
    assert agent.wait_gone() == -9
    began, stood = time.monotonic(), stood_in_line(os.getpid())
    agent.start()
    first = operation_of(agent, name)
    assert agent.process is not None
    late = time.monotonic() - began - stood_in_line(agent.process.pid) - (stood_in_line(os.getpid()) - stood)
    assert late < TRUE_WITHIN, f"{first['state']} was told {late:.1f} s after the restart"
    # What goes on says so; what cannot go on has ended, and said so, by now.
    until(lambda: goes_on_or_ended(agent, first), max(TRUE_WITHIN - late, 2), f"the state of {verb} is true")
    until(lambda: shown(agent, first["id"])["state"] in ENDED, 120, f"{verb}:{point} ends")
    operation = shown(agent, first["id"])
    is_told(agent, name, command, operation, *words, request=request)
    return operation


def stood_in_line(pid: int) -> float:
    """Return the seconds for which the threads of a process had to wait for a core that others had."""
    stood = 0
    for each in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            stood += int(each.read_text().split()[1])
    return stood / 1e9


def order(agent: LiveAgent, name: str, *words: str, request: object = None) -> "subprocess.Popen[str]":
    rest = ["--request", "-"] if request is not None else []
    command = agent.begin("--request-id", name, *words, *rest, "-f", "json", request=request)
    if request is not None:
        assert command.stdin is not None
        command.stdin.write(json.dumps(request))
        command.stdin.close()
        command.stdin = None
    return command


def gone(agent: LiveAgent) -> bool:
    assert agent.process is not None
    return agent.process.poll() is not None


def goes_on_or_ended(agent: LiveAgent, first: dict[str, JSON]) -> bool:
    now = shown(agent, first["id"])
    running = now["state"] == "running" and now["epoch"] == agent.ready["epoch"]
    return now["state"] in ENDED or running


def is_told(
    agent: LiveAgent,
    name: str,
    command: "subprocess.Popen[str]",
    operation: dict[str, JSON],
    *words: str,
    request: object = None,
) -> None:
    """Who waits is told the outcome; who was not even told that it was accepted asks again, with the same id."""
    out, err = command.communicate(timeout=120)
    if command.returncode == 3:
        assert json.loads(err.splitlines()[-1])["error"]["retry"] is True
        command = order(agent, name, *words, request=request)
        out, err = command.communicate(timeout=120)
    assert command.returncode == (0 if operation["state"] == "succeeded" else 1), (operation, out, err)
    assert operation_of(agent, name)["id"] == operation["id"]


@pytest.mark.parametrize("point", points("prepare"))
def test_prepare(case: LiveAgent, point: str, undisturbed: frozenset[str]) -> None:
    case.start()
    seen = killed(case, "prepare", point, "prepare", request=request_of(case))
    # Every step of it can be made again, so no kill is a reason to fail.
    assert seen["state"] == "succeeded", seen["error"]
    whole(case, sample_of(case).digest())
    alone(case)
    assert files_of(case) == undisturbed
    again = case.prepare(**request_of(case))
    assert isinstance(again, dict)
    assert again["state"] == "succeeded"
    assert not objects(case)


@pytest.mark.parametrize("point", points("backup"))
def test_backup(filled: LiveAgent, point: str) -> None:
    """An increment killed before each step, a full one after each."""
    sample, first = sample_of(filled), filled.ostler("backup", "create")
    assert isinstance(first, dict)
    wasted, fell = waste(filled), failed(filled)
    sample.change(0.1)
    before, digest, there = Aftermath.of(filled), sample.digest(), objects(filled)
    pid = filled.status()["server_pid"]
    parent = "auto" if point.endswith("before") else "none"
    seen = killed(filled, "backup", point, "backup", "create", "--parent", parent)
    assert filled.status()["server_pid"] == pid
    alone(filled)
    assert Aftermath.of(filled) == before
    whole(filled, digest)
    new = attempts(objects(filled) - there)
    if seen["state"] == "succeeded":
        assert isinstance(seen["result"], dict)
        assert seen["result"]["state"] == "COMPLETED"
        assert listed(filled, seen["result"]["id"])["state"] == "COMPLETED"
        assert waste(filled) == wasted
    else:
        assert seen["state"] == "interrupted"
        assert waste(filled) == wasted | new
        assert not [each for each in new if "/manifest." in each or "/lease." in each]
    assert len(failed(filled)) == len(fell) + (seen["state"] != "succeeded")
    made = filled.ostler("backup", "create")
    assert isinstance(made, dict)
    assert (made["state"], made["kind"]) == ("COMPLETED", "incremental")
    assert filled.run("backup", "verify", str(made["id"])).status == 0
    assert waste(filled) == (wasted if seen["state"] == "succeeded" else wasted | new)
    no_drafts(filled)


@pytest.mark.parametrize("point", points("restore"))
def test_restore(filled: LiveAgent, point: str) -> None:
    sample, made = sample_of(filled), filled.ostler("backup", "create")
    assert isinstance(made, dict)
    old, wasted = sample.digest(), waste(filled)
    sample.change(0.3, seed=5)
    assert sample.digest() != old
    before = Aftermath.of(filled)
    seen = killed(filled, "restore", point, "backup", "restore", str(made["id"]))
    assert seen["state"] == "succeeded", seen["error"]
    whole(filled, old)
    alone(filled)
    assert Aftermath.of(filled) == before
    sample.change(0.3, seed=6)
    filled.ostler("backup", "restore", str(made["id"]))
    whole(filled, old)
    assert Aftermath.of(filled) == before
    assert waste(filled) == wasted


@pytest.mark.parametrize("point", points("settings"))
def test_settings(filled: LiveAgent, point: str, dynamic_setting: tuple[str, str, str]) -> None:
    name, one, other = dynamic_setting
    filled.ostler("settings", "set", f"{name}={one}")
    before, digest = Aftermath.of(filled), sample_of(filled).digest()
    seen = killed(filled, "settings", point, "settings", "set", f"{name}={other}")
    assert seen["state"] == "succeeded", seen["error"]
    rows = filled.ostler("settings", "list")
    assert isinstance(rows, list)
    assert next(each["value"] for each in rows if each["name"] == name) == other
    effective = declarations.load(filled.datastore).settings(node_of(filled)).effective()
    assert effective[name] == other
    whole(filled, digest)
    alone(filled)
    filled.ostler("settings", "set", f"{name}={one}")
    assert Aftermath.of(filled) == before
