"""The agent killed at any moment of a streaming backup and of a restore, not only between two steps.

``OSTLER_COUNT`` multiplies the moments, and with 10 and more every installed datastore has them.
The seed of each is in the message of what fails, and ``OSTLER_SEED`` takes another series.
"""

import os
import random  # noqa: TID251 - when to kill is no secret
import time
from collections.abc import Iterator

import pytest

from guestagent import declarations
from tests.aftermath import (
    PASSWORD,
    Aftermath,
    alone,
    attempts,
    begin,
    ends,
    no_drafts,
    objects,
    shown,
    streaming,
    waste,
    whole,
)
from tests.agents import LiveAgent, site
from tests.cases import COUNT, frugal, sample_of

SEED = int(os.environ.get("OSTLER_SEED", "1"))
SIZE = 4_000_000
STREAM = 20.0
"""Seconds that a backup would stream."""
EARLY = 1.8
"""Seconds of them within which it is killed, and before these are over a slow machine has come to do it."""

MOMENTS = [SEED * 1000 + number for number in range(2 * COUNT)]


@pytest.fixture(scope="module", params=frugal(), ids=lambda case: case[0])
def agent(request: pytest.FixtureRequest) -> Iterator[LiveAgent]:
    name, version, options = request.param
    with site() as made:
        agent = made.agent("g1", name, version, **options).start()
        databases = {"databases": [{"name": "shop"}]} if declarations.load(name).parts()["databases"] else {}
        agent.prepare(**databases, users=[{"name": "ann", "password": PASSWORD}])
        sample_of(agent).fill(SIZE)
        yield agent


def test_a_streaming_backup_is_killed_and_the_next_one_is_whole(agent: LiveAgent) -> None:
    first = agent.ostler("backup", "create")
    assert isinstance(first, dict)
    pace, wasted = int(first["read_bytes"] / STREAM), waste(agent)
    sample, pid = sample_of(agent), agent.status()["server_pid"]
    for seed in MOMENTS:
        chance = random.Random(seed)
        sample.change(0.05, seed)
        before, digest, there = Aftermath.of(agent), sample.digest(), objects(agent)
        operation = begin(agent, "backup", "create", parent="none", bandwidth=pace)
        streaming(agent, operation)
        time.sleep(chance.uniform(0.0, EARLY))
        agent.kill()
        agent.start()
        ended = ends(agent, operation, 60)
        assert (ended["state"], ended["step"]) == ("interrupted", "stream"), f"seed {seed}: {ended}"
        alone(agent)
        assert Aftermath.of(agent) == before, f"seed {seed}"
        whole(agent, digest)
        wasted |= attempts(objects(agent) - there)
        assert waste(agent) == wasted, f"seed {seed}\n{agent.tail()}"
    assert agent.status()["server_pid"] == pid
    made = agent.ostler("backup", "create")
    assert isinstance(made, dict)
    assert (made["state"], made["kind"]) == ("COMPLETED", "incremental")
    no_drafts(agent)
    digest = sample.digest()
    sample.change(0.2, 77)
    agent.ostler("backup", "restore", str(made["id"]), "--digest", str(made["digest"]))
    whole(agent, digest)


def test_a_restore_is_killed_at_any_moment_and_goes_on(agent: LiveAgent) -> None:
    sample, made = sample_of(agent), agent.ostler("backup", "create")
    assert isinstance(made, dict)
    digest, wasted = sample.digest(), waste(agent)
    began = time.monotonic()
    operation = begin(agent, "backup", "restore", backup=str(made["id"]))
    assert ends(agent, operation)["state"] == "succeeded"
    took = time.monotonic() - began
    before = Aftermath.of(agent)
    for seed in MOMENTS:
        chance = random.Random(seed)
        sample.change(0.3, seed)
        operation = begin(agent, "backup", "restore", backup=str(made["id"]))
        time.sleep(chance.uniform(0.0, took))
        agent.kill()
        agent.start()
        assert shown(agent, operation)["state"] in ("running", "succeeded"), f"seed {seed}"
        ended = ends(agent, operation)
        assert ended["state"] == "succeeded", f"seed {seed}: {ended['error']}"
        whole(agent, digest)
        alone(agent)
        assert Aftermath.of(agent) == before, f"seed {seed}"
    assert waste(agent) == wasted
