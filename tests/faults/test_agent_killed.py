"""A real agent killed in the middle of what it does, beside a real server.

``make test`` kills once in the middle of each of prepare, backup, restore and settings;
with ``OSTLER_COUNT`` of 10 and more it is killed before and after every step.
After each kill: the database is whole and answers, the operation's state is true within
five seconds of the restart, nothing of the attempt is left, and the next one succeeds.
"""

import json
import os
import time
from collections.abc import Iterator

import pytest

from guestagent import declarations
from tests.agents import LiveAgent, Site, site, until

COUNT = int(os.environ.get("OSTLER_COUNT", "1"))
MIDDLE = {"prepare": "secure:before", "backup": "stream:after", "restore": "stream:after", "settings": "switch:after"}
STEPS = {
    "prepare": ["guard", "settings", "stage", "swap", "start", "secure", "accounts", "finish"],
    "backup": ["lease", "key", "open", "stream", "close", "manifest", "check", "finish"],
    "restore": ["manifest", "key", "space", "stream", "replay", "swap", "start", "finish"],
    "settings": ["check", "write", "switch", "apply", "confirm"],
}


def points(verb: str) -> list[str]:
    """Return the kill points of a verb for this run."""
    if COUNT < 10:
        return [MIDDLE[verb]]
    return [f"{step}:{when}" for step in STEPS[verb] for when in ("before", "after")]


ENDED = {"succeeded", "failed", "interrupted", "cancelled"}


@pytest.fixture
def place() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture
def case(place: Site, datastore_case: tuple[str, str, dict[str, str]]) -> LiveAgent:
    name, version, options = datastore_case
    return place.agent("g1", name, version, **options)


def request_of(agent: LiveAgent) -> dict[str, object]:
    has = declarations.load(agent.datastore).parts()
    databases = [{"name": "shop"}] if has["databases"] else []
    users = [{"name": "ann", "password": "pw-ann-1"}] if has["users"] else []
    return {name: value for name, value in (("databases", databases), ("users", users)) if value}


def killed(agent: LiveAgent, verb: str, point: str, *words: str, request: object = None) -> dict[str, object]:
    """Let the agent kill itself at a point of a verb; return the operation as it is after the restart."""
    agent.terminate()
    agent.start(kill_at=f"{verb}:{point}")
    rest = ["--request", "-"] if request is not None else []
    command = agent.begin(*words, *rest, "-f", "json", request=request)
    if request is not None:
        assert command.stdin is not None
        command.stdin.write(json.dumps(request))
        command.stdin.close()
        command.stdin = None
    assert agent.wait_gone() == -9, f"{verb}:{point} did not kill: {agent.tail()}"
    began = time.monotonic()
    agent.start()
    operation = newest(agent)
    until(
        lambda: newest(agent)["state"] in ENDED or _goes_on(agent, operation),
        5 - min(4, time.monotonic() - began),
        point,
    )
    command.communicate(timeout=120)
    until(lambda: newest(agent)["state"] in ENDED, 120, f"{verb}:{point} ends")
    return newest(agent)


def _goes_on(agent: LiveAgent, operation: dict[str, object]) -> bool:
    return newest(agent)["id"] == operation["id"] and newest(agent)["state"] == "running"


def newest(agent: LiveAgent) -> dict[str, object]:
    rows = agent.ostler("operation", "list")
    assert isinstance(rows, list)
    return max(rows, key=lambda each: str(each["started_at"]))


def clean(agent: LiveAgent) -> None:
    """Nothing of a dead attempt is left beside the data, and exactly one server runs."""
    left = {each.name for each in agent.root.iterdir()} - {"data", "config", "config.d", "temp"}
    assert not left, left
    assert not [each for each in (agent.root / "temp").rglob("*") if each.is_file()]
    assert agent.ostler("status", "--wait", "HEALTHY", "--timeout", "30")


@pytest.mark.parametrize("point", points("prepare"))
def test_prepare(case: LiveAgent, point: str) -> None:
    case.start()
    seen = killed(case, "prepare", point, "prepare", request=request_of(case))
    if seen["state"] != "succeeded":
        assert seen["state"] in ("failed", "interrupted")
        case.prepare(**request_of(case))
    clean(case)


@pytest.mark.parametrize("point", points("backup"))
def test_backup(case: LiveAgent, point: str) -> None:
    case.start().prepare(**request_of(case))
    pid = case.status()["server_pid"]
    seen = killed(case, "backup", point, "backup", "create")
    assert case.status()["server_pid"] == pid
    clean(case)
    plan = case.ostler("purge", "--dry-run")
    assert isinstance(plan, dict)
    if seen["state"] == "succeeded":
        assert seen["result"]["state"] == "COMPLETED"  # type: ignore[index]
        assert not plan["free"]
    else:
        listed = case.ostler("backup", "list")
        assert isinstance(listed, list)
        assert [each["state"] for each in listed] in (["FAILED"], [])
        assert bool(plan["free"]) == any(path.is_file() for path in case.site.clusters[0].rglob("[!.]*/[!.]*"))
    made = case.ostler("backup", "create")
    assert isinstance(made, dict)
    assert made["state"] == "COMPLETED"


@pytest.mark.parametrize("point", points("restore"))
def test_restore(case: LiveAgent, point: str) -> None:
    case.start().prepare(**request_of(case))
    made = case.ostler("backup", "create")
    assert isinstance(made, dict)
    seen = killed(case, "restore", point, "backup", "restore", str(made["id"]))
    if seen["state"] != "succeeded":
        assert seen["state"] in ("failed", "interrupted")
        case.ostler("backup", "restore", str(made["id"]))
    clean(case)


@pytest.mark.parametrize("point", points("settings"))
def test_settings(case: LiveAgent, point: str, dynamic_setting: tuple[str, str, str]) -> None:
    name, one, other = dynamic_setting
    case.start().prepare(**request_of(case))
    case.ostler("settings", "set", f"{name}={one}")
    seen = killed(case, "settings", point, "settings", "set", f"{name}={other}")
    rows = case.ostler("settings", "list")
    assert isinstance(rows, list)
    value = next(each["value"] for each in rows if each["name"] == name)
    assert value == (other if seen["state"] == "succeeded" else one)
    case.ostler("settings", "set", f"{name}={other}")
    clean(case)
