"""Redis by the agent and the real archive: increments, a hole that is named, and what a full after it stores."""

import pytest

from datastores.contract import JSON
from tests.agents import LiveAgent, site
from tests.cases import sample_of

TOO_MANY = "maxclients=1000000"
"""More files than a process may open here: the rules cannot know, the running server refuses it."""


def backup(agent: LiveAgent, *words: str) -> dict[str, object]:
    made = agent.ostler("backup", "create", *words)
    assert isinstance(made, dict)
    assert made["state"] == "COMPLETED"
    return made


def size(made: dict[str, object]) -> int:
    return int(str(made["stored_bytes"]))


def test_a_restart_is_a_hole_that_is_named_and_costs_little() -> None:
    with site(mirror=1) as place:
        agent = place.agent("g1", "redis", "7.0").start()
        agent.prepare(users=[{"name": "ann", "password": "pw"}])
        sample = sample_of(agent)
        sample.fill(12_000_000)
        full = backup(agent)
        sample.change(0.03, 1)
        increment = backup(agent)
        assert (increment["kind"], increment["parent"]) == ("incremental", full["id"])
        assert size(increment) <= 0.02 * size(full)
        agent.ostler("service", "restart")
        refused = agent.run("backup", "create")
        assert (refused.status, refused.error["type"]) == (7, "Hole")
        position = full["position"]
        assert isinstance(position, dict)
        assert str(position["replication_id"]) in str(refused.error["message"])
        hole = backup(agent, "--on-hole", "full")
        assert hole["kind"] == "full"
        assert hole["parent"] is not None
        assert size(hole) <= 0.07 * size(full)
        sample.change(0.01, 2)
        last = backup(agent)
        assert last["kind"] == "incremental"
        wanted = sample.digest()
        for each in (full, increment, hole):
            agent.ostler("backup", "delete", str(each["id"]))
        other = place.agent("g2", "redis", "7.0").start()
        other.prepare(restore={"backup": last["id"], "digest": last["digest"]})
        assert sample_of(other).digest() == wanted
        agent.ostler("backup", "restore", str(last["id"]))
        assert sample.digest() == wanted
        assert backup(agent)["kind"] == "full", "restored data is a lineage of its own"


def used(agent: LiveAgent, name: str) -> tuple[JSON, JSON]:
    """Return a setting's value and whether it waits for a restart."""
    rows = agent.ostler("settings", "list", "--all")
    assert isinstance(rows, list)
    return next((each["value"], each["pending_restart"]) for each in rows if each["name"] == name)


@pytest.mark.parametrize("version", ["7.0", "6.2"])
def test_settings_hold_together_or_not_at_all(version: str) -> None:
    with site(mirror=1) as place:
        agent = place.agent("g1", "redis", version).start()
        agent.prepare(settings={"slave-priority": 17})
        before = used(agent, "hz")
        refused = agent.run("settings", "set", "hz=77", TOO_MANY)
        assert (refused.status, refused.error["field"]) == (1, "maxclients")
        assert used(agent, "hz") == before, "one that was set before the other was refused is set back"
        twice = agent.run("settings", "set", "replica-priority=18")
        assert (twice.status, twice.error["field"]) == (2, "replica-priority"), twice
        assert used(agent, "replica-priority") == ("17", False)
        agent.ostler("settings", "drop", "slave-priority")
        agent.ostler("settings", "set", "replica-priority=18")
        assert used(agent, "replica-priority") == ("18", False)
