"""``backup restore --only`` by an agent and the command, for every datastore that can."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from datastores.contract import Secret
from tests.agents import LiveAgent, site
from tests.cases import cases, sample_of
from tests.guests import having

SIZE = 1_000_000


@pytest.fixture(
    scope="module", params=[case for case in cases() if case[0] in having("imports")], ids=lambda case: case[0]
)
def agent(request: pytest.FixtureRequest) -> Iterator[LiveAgent]:
    name, version, options = request.param
    with site() as place:
        made = place.agent("g1", name, version, **options).start()
        made.prepare(databases=[{"name": "besides"}])
        sample_of(made).fill(SIZE)
        yield made


def filled(agent: LiveAgent) -> str:
    """Return the name of the database that the sample is in."""
    rows: Any = agent.ostler("database", "list")
    [name] = (each["name"] for each in rows if each["name"] != "besides")
    return str(name)


def test_a_part_comes_back_and_all_else_stays(agent: LiveAgent) -> None:
    """The agent is killed in the middle of it, too; the server is the same all the time."""
    name, sample = filled(agent), sample_of(agent)
    made: Any = agent.ostler("backup", "create")
    then, server = sample.digest(), agent.status()["server_pid"]
    agent.ostler("user", "create", request={"name": "late", "password": "pw-late-1"})
    for kill in ("stream:after", "replay:before", "replay:after"):
        sample.change(0.2, seed=len(kill))
        assert sample.digest() != then
        agent.kill()
        agent.start(kill_at=f"restore:{kill}")
        begun: Any = agent.begin("backup", "restore", made["id"], "--only", name)
        agent.wait_gone()
        agent.start()
        begun.communicate(timeout=120)
        agent.ostler("operation", "wait", agent.ostler("operation", "list")[-1]["id"])  # type: ignore[index,arg-type]
        assert sample.digest() == then
        assert not (agent.root / "staging").exists()
    told: Any = agent.ostler("backup", "restore", made["id"], "--digest", made["digest"], "--only", name)
    assert told["result"]["only"] == name
    assert sample.digest() == then
    assert agent.status()["server_pid"] == server
    assert sample.login("late", Secret("pw-late-1"))
    again: Any = agent.ostler("backup", "create")
    assert (again["kind"], again["parent"]) == ("incremental", made["id"])


def test_what_cannot_be_is_told_by_its_status(agent: LiveAgent) -> None:
    made: Any = agent.ostler("backup", "create")
    missing = agent.run("backup", "restore", made["id"], "--only", "nothing_here")
    assert (missing.status, missing.error["field"]) == (6, "only")
    assert filled(agent) in str(missing.error["message"])
    assert agent.run("backup", "restore", str(uuid.uuid4()), "--only", filled(agent)).status == 6
    whole = agent.run("backup", "restore", made["id"], "--only", filled(agent), "--discard-current")
    assert (whole.status, whole.error["field"]) == (2, "discard_current")
