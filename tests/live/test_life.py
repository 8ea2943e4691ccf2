"""The life of a guest on real servers, by its agents and the command, for every datastore.

Fill, back up, change, back up again, take a cluster away, restore elsewhere, compare;
and the bytes that are wrong are never released.
"""

import os
import random  # noqa: TID251 - which byte is damaged is no secret
import shutil
import uuid
from pathlib import Path

import pytest

from datastores.contract import Secret
from tests.agents import LiveAgent, Site, until
from tests.cases import cases, sample_of

COUNT = int(os.environ.get("OSTLER_COUNT", "1"))
SIZE = 8_000_000


@pytest.fixture(scope="module")
def agent(agent: LiveAgent) -> LiveAgent:
    sample_of(agent).fill(SIZE)
    return agent


@pytest.fixture(scope="module")
def full(agent: LiveAgent) -> dict[str, object]:
    sample_of(agent).settle()
    made = agent.ostler("backup", "create")
    assert isinstance(made, dict)
    assert (made["kind"], made["state"], made["parent"]) == ("full", "COMPLETED", None)
    return made


def second_guest(agent: LiveAgent, name: str) -> LiveAgent:
    return agent.site.agent(name, agent.datastore, agent.version, **agent.options).start()


def test_an_increment_restores_as_a_full_one_on_another_guest(agent: LiveAgent, full: dict[str, object]) -> None:
    sample = sample_of(agent)
    sample.change(0.03)
    sample.settle()
    wanted = sample.digest()
    made = agent.ostler("backup", "create")
    assert isinstance(made, dict)
    assert (made["kind"], made["parent"]) == ("incremental", full["id"])
    assert int(made["stored_bytes"]) < int(str(full["stored_bytes"]))
    agent.ostler("backup", "delete", str(full["id"]))
    other = second_guest(agent, "g2")
    try:
        other.prepare(restore={"backup": made["id"], "digest": made["digest"]})
        assert sample_of(other).digest() == wanted
        assert sample_of(other).login("ann", Secret("pw-ann-1"))
        assert other.ostler("status", "--wait", "HEALTHY", "--timeout", "120")
    finally:
        other.end()


def test_a_cluster_that_is_away_degrades_and_repair_brings_its_copies_back(agent: LiveAgent) -> None:
    east = agent.site.clusters[0]
    away = east.with_name("east-away")
    east.rename(away)
    try:
        made = agent.run("backup", "create", "--parent", "none")
        assert made.status == 0
        backup = made.json
        assert isinstance(backup, dict)
        assert (backup["state"], backup["copies"]) == ("DEGRADED", {"have": 1, "wanted": 2})
        assert f"warning: 1 of 2 copies; `ostler backup repair {backup['id']}`" in made.stderr
        wanted = sample_of(agent).digest()
        other = second_guest(agent, "g3")
        try:
            other.prepare(restore={"backup": backup["id"], "digest": backup["digest"]})
            assert sample_of(other).digest() == wanted
        finally:
            other.end()
    finally:
        away.rename(east)
    repaired = agent.ostler("backup", "repair", str(backup["id"]))
    assert isinstance(repaired, dict)
    assert (repaired["state"], repaired["copies"]) == ("COMPLETED", {"have": 2, "wanted": 2})


def test_a_restore_over_data_brings_the_old_state_back(agent: LiveAgent) -> None:
    sample = sample_of(agent)
    sample.settle()
    before = sample.digest()
    made = agent.ostler("backup", "create")
    assert isinstance(made, dict)
    sample.change(0.2, seed=7)
    assert sample.digest() != before
    done = agent.ostler("backup", "restore", str(made["id"]), "--digest", str(made["digest"]))
    assert isinstance(done, dict)
    assert done["state"] == "succeeded"
    assert sample_of(agent).digest() == before
    after = agent.ostler("backup", "create")
    assert isinstance(after, dict)
    assert after["state"] == "COMPLETED"


def damage(place: Site, backup: dict[str, object], seed: int) -> Path:
    """Damage one object of a backup in both clusters, in the same way."""
    chance = random.Random(seed)
    container = f"ostler-g-{backup['generation']}"
    names = sorted(path.name for path in (place.clusters[0] / container).glob(f"{backup['attempt']}.*"))
    victim = chance.choice(names)
    where = chance.randrange((place.clusters[0] / container / victim).stat().st_size)
    for cluster in place.clusters:
        path = cluster / container / victim
        data = bytearray(path.read_bytes())
        data[where] ^= 1 << (seed % 8)
        path.write_bytes(data)
    return Path(container) / victim


def test_a_damaged_backup_is_refused_and_the_old_data_stays_served(agent: LiveAgent) -> None:
    made = agent.ostler("backup", "create", "--parent", "none")
    assert isinstance(made, dict)
    keep = agent.site.folder / "keep"
    shutil.copytree(agent.site.clusters[0], keep)
    before = sample_of(agent).digest()
    pid = agent.status()["server_pid"]
    for seed in range(20 * COUNT):
        damage(agent.site, made, seed)
        answer = (
            agent.run("backup", "restore", str(made["id"]))
            if seed < 3
            else agent.run("backup", "extract", str(made["id"]), "--into", str(agent.site.folder / f"kit{seed}"))
        )
        assert answer.status == 7, (seed, answer.stderr)
        for cluster in agent.site.clusters:
            shutil.copytree(keep, cluster, dirs_exist_ok=True)
    assert agent.run("backup", "verify", str(made["id"])).status == 0
    assert agent.status()["server_pid"] == pid
    assert sample_of(agent).digest() == before


def test_a_backup_can_be_cancelled(agent: LiveAgent) -> None:
    begun = agent.ostler("backup", "create", "--parent", "none", "--bandwidth", "50000", "--no-wait")
    assert isinstance(begun, dict)
    until(lambda: _step(agent, str(begun["id"])) == "stream", 60, "the stream has begun")
    assert agent.run("user", "list").status == 0
    busy = agent.run("service", "stop")
    assert busy.status == 4
    assert busy.error["operation"] == begun["id"]
    agent.ostler("operation", "cancel", str(begun["id"]))
    assert agent.run("operation", "wait", str(begun["id"])).status == 9
    made = agent.ostler("backup", "create")
    assert isinstance(made, dict)
    assert made["state"] == "COMPLETED"


def _step(agent: LiveAgent, operation: str) -> object:
    seen = agent.ostler("operation", "show", operation)
    assert isinstance(seen, dict)
    return seen["step"]


def test_a_running_database_is_adopted_by_the_next_agent(agent: LiveAgent) -> None:
    pid = agent.status()["server_pid"]
    agent.kill()
    agent.start()
    assert agent.status()["server_pid"] == pid
    assert agent.terminate() == 0
    agent.start()
    assert agent.status()["server_pid"] == pid
    assert len([each for each in agent.servers() if each.pid == pid]) == 1


def test_a_backup_of_another_datastore_is_refused(agent: LiveAgent) -> None:
    made = agent.ostler("backup", "create")
    assert isinstance(made, dict)
    name, version, options = next(case for case in cases() if case[0] != agent.datastore)
    other = agent.site.agent("g9", name, version, **options).start()
    try:
        refused = other.run("prepare", request={"restore": {"backup": made["id"], "digest": made["digest"]}})
        assert (refused.status, refused.error["type"]) == (7, "Mismatch")
        assert other.status()["server_pid"] is None
    finally:
        other.end()


def test_a_backup_that_is_not_there_is_not_found(agent: LiveAgent) -> None:
    assert agent.run("backup", "restore", str(uuid.uuid4())).status == 6
