"""Two versions of one datastore at the same time, each with its agent: neither disturbs the other."""

from collections.abc import Iterator

import psutil
import pytest

from guestagent import declarations
from guestagent.image import read_image
from tests.aftermath import PASSWORD, Aftermath, alone, whole
from tests.agents import LiveAgent, site
from tests.cases import sample_of
from tests.guests import IMAGE

MANY = [name for name in declarations.installed() if len(read_image(IMAGE).versions(name)) > 1]


@pytest.fixture(params=MANY)
def agents(request: pytest.FixtureRequest) -> Iterator[list[LiveAgent]]:
    """An agent for every version that the image has of the datastore, prepared and with data of its own."""
    with site() as place:
        versions = read_image(IMAGE).versions(request.param)
        made = [place.agent(f"g{number}", request.param, version) for number, version in enumerate(versions)]
        for number, agent in enumerate(made):
            agent.start().prepare(users=[{"name": "ann", "password": PASSWORD}])
            sample_of(agent).fill(200_000 * (number + 1))
        yield made


def test_there_are_two_to_try() -> None:
    assert MANY


def test_versions_live_side_by_side(agents: list[LiveAgent]) -> None:
    """Each backs up, adds to it and restores its own, and refuses the other's before a byte."""
    programs = {psutil.Process(int(str(each.status()["server_pid"]))).exe() for each in agents}
    assert len(programs) == len(agents)
    assert [each.status()["version"] for each in agents] == [each.version for each in agents]
    digests = [sample_of(each).digest() for each in agents]
    assert len({str(each) for each in digests}) == len(agents)
    made = []
    for agent in agents:
        made.append(agent.ostler("backup", "create"))
        sample_of(agent).change(0.1)
        after = agent.ostler("backup", "create", "--on-hole", "full")
        assert isinstance(after, dict)
        assert (after["state"], str(after["version"])[:3]) == ("COMPLETED", agent.version)
    for agent, mine, digest in zip(agents, made, digests, strict=True):
        changed, before = sample_of(agent).digest(), Aftermath.of(agent)
        assert changed != digest
        for other in made:
            if other is not mine:
                refused = agent.run("backup", "restore", str(other["id"]))  # type: ignore[index]
                assert (refused.status, refused.error["type"]) == (7, "Mismatch")
        whole(agent, changed)
        agent.ostler("backup", "restore", str(mine["id"]))  # type: ignore[index]
        whole(agent, digest)
        alone(agent)
        assert Aftermath.of(agent) == before
    for agent in agents:
        agent.kill()
        agent.start()
    for agent, digest in zip(agents, digests, strict=True):
        whole(agent, digest)
