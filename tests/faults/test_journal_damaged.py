"""A journal that is not what was written, and the agent that finds it: a torn tail is dropped, damage is told.

The journal is the agent's own, whatever it keeps beside it; so these run on one datastore only.
"""

import os
import random  # noqa: TID251 - which bit is flipped is no secret
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.aftermath import ask
from tests.agents import LiveAgent, Site, site, until
from tests.cases import sample_of

COUNT = int(os.environ.get("OSTLER_COUNT", "1"))
SEED = int(os.environ.get("OSTLER_SEED", "1"))
FLIPS = [SEED * 1000 + number for number in range(4 * COUNT)]


@pytest.fixture(scope="module")
def place() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture(scope="module")
def dead(place: Site) -> LiveAgent:
    """An agent that did some work and was killed; its journal's log has commits in it."""
    agent = place.agent("g1", "toy", "1.0").start()
    agent.prepare(databases=[{"name": "shop"}], users=[{"name": "ann", "password": "pw-ann-1"}])
    sample_of(agent).fill(10_000)
    agent.ostler("backup", "create")
    agent.ostler("user", "create", request={"name": "bob", "password": "pw-bob-1"})
    # The log begins anew when an operation has ended; the next heartbeats fill it.
    log = agent.state / "journal.db-wal"
    until(lambda: log.stat().st_size > 3 * 4096, 20, "the journal's log has commits in it")
    agent.kill()
    shutil.copytree(agent.state, place.folder / "kept", ignore=shutil.ignore_patterns("run"))
    return agent


@pytest.fixture
def agent(dead: LiveAgent) -> Iterator[LiveAgent]:
    """That agent, its journal as it was when it was killed."""
    for path in dead.state.glob("journal.db*"):
        path.unlink()
    for path in (dead.site.folder / "kept").glob("journal.db*"):
        shutil.copy(path, dead.state / path.name)
    yield dead
    if dead.process is not None:
        dead.kill()


def works(agent: LiveAgent) -> None:
    """Orders are taken and done."""
    agent.ostler("user", "set-password", request={"name": "ann", "password": "pw-ann-1"})
    agent.ostler("status", "--wait", "HEALTHY", "--timeout", "60")


def refuses(agent: LiveAgent) -> None:
    """Questions are answered, changes are refused, and why is told; the database is not touched."""
    server = {each.pid for each in agent.servers()}
    found = agent.status()
    assert {found["server_pid"]} == server
    assert [each["name"] for each in agent.ostler("user", "list")] == ["ann", "bob"]  # type: ignore[attr-defined]
    for words, request in (
        (("user", "create"), {"name": "eve", "password": "pw-eve-1"}),
        (("backup", "create"), None),
        (("service", "stop"), None),
    ):
        refused = agent.run(*words, request=request)
        assert refused.status == 1, refused
        assert refused.error["type"] == "JournalCorrupt"
        assert "journal" in str(refused.error["message"])
    assert {each.pid for each in agent.servers()} == server
    assert [each["name"] for each in agent.ostler("user", "list")] == ["ann", "bob"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("torn", [1, 700, 4096])
def test_a_torn_tail_is_dropped(agent: LiveAgent, torn: int) -> None:
    log = agent.state / "journal.db-wal"
    size = log.stat().st_size
    assert size > 3 * 4096, "the log was empty, so nothing could be torn"
    os.truncate(log, size - torn)
    agent.start()
    rows = ask(agent, "operation", "list")
    assert isinstance(rows, list)
    assert [each["verb"] for each in rows][:2] == ["agent.prepare", "backup.create"]  # type: ignore[index,call-overload]
    works(agent)


@pytest.mark.parametrize("seed", FLIPS)
def test_a_flipped_bit_is_told_or_changes_nothing(agent: LiveAgent, seed: int) -> None:
    """In the file or in its log, wherever; what lies where nothing is written any more does no harm."""
    agent.start()
    before = ask(agent, "operation", "list")
    agent.kill()
    flip(agent.state, seed)
    agent.start()
    answer = agent.run("user", "set-password", request={"name": "ann", "password": "pw-ann-1"})
    if answer.status == 0:
        after = ask(agent, "operation", "list")
        assert isinstance(after, list)
        assert after[:-1] == before, f"seed {seed}"
    else:
        refuses(agent)


def test_a_damaged_body_is_told_and_the_agent_serves_again_with_a_whole_journal(agent: LiveAgent) -> None:
    """Bits everywhere but in the first page, so what is in use is surely among them."""
    agent.start()
    assert agent.terminate() == 0
    path = agent.state / "journal.db"
    data = bytearray(path.read_bytes())
    for place in range(4096, len(data), 64):
        data[place] ^= 1
    good = path.read_bytes()
    path.write_bytes(data)
    agent.start()
    refuses(agent)
    assert agent.terminate() == 0
    for log in agent.state.glob("journal.db-*"):
        log.unlink()
    path.write_bytes(good)
    agent.start()
    works(agent)


def flip(state: Path, seed: int) -> None:
    """Flip one bit of the journal, in the file or in its log by turns."""
    chance = random.Random(seed)
    path = state / ("journal.db" if seed % 2 else "journal.db-wal")
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
