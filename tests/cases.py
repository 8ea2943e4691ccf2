"""Which datastores the suites run on, asked of what is installed, and what a case needs to know of each."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from datastores.contract import Node, Rule, Sample
from guestagent import declarations
from guestagent.image import installation, read_image
from guestagent.node import node_for
from tests.agents import LiveAgent, Site, site
from tests.guests import IMAGE, prefix

COUNT = int(os.environ.get("OSTLER_COUNT", "1"))
Case = tuple[str, str, dict[str, str]]


def cases() -> list[Case]:
    """Return every installed datastore with the version its image prefers and its agent's options."""
    found: list[Case] = []
    image = read_image(IMAGE)
    for name in declarations.installed():
        found.append((name, image.versions(name)[0], {}))
    return found


def frugal() -> list[Case]:
    """Return the datastores that every run pays for: those of our own distribution; all of them in a long run."""
    own = [case for case in cases() if declarations.installed()[case[0]].module.startswith("datastores.")]
    return own if COUNT < 10 else cases()


@pytest.fixture(scope="module", params=cases(), ids=lambda case: case[0])
def datastore_case(request: pytest.FixtureRequest) -> Case:
    """Return a datastore, its version and the options its agent wants."""
    case: Case = request.param
    return case


def first_request(datastore: str) -> dict[str, object]:
    """Return what ``prepare`` is asked for: the database ``shop`` and the user ``ann``, as far as there are such."""
    has = declarations.load(datastore).parts()
    databases = ["shop"] if has["databases"] else []
    ann = {"name": "ann", "password": "pw-ann-1", "databases": databases}
    return {"databases": [{"name": each} for each in databases], "users": [ann] if has["users"] else []}


@pytest.fixture(scope="module")
def place(datastore_case: Case) -> Iterator[Site]:
    """Hold a site as long as the module runs on one datastore."""
    with site() as made:
        yield made


@pytest.fixture(scope="module")
def agent(place: Site, datastore_case: Case) -> LiveAgent:
    """Return an agent that has prepared its guest."""
    name, version, options = datastore_case
    made = place.agent("g1", name, version, **options).start()
    made.prepare(**first_request(name))
    return made


@pytest.fixture
def dynamic_setting(datastore_case: Case, tmp_path: Path) -> tuple[str, str, str]:
    """Return a whole-numbered dynamic setting and two values of it."""
    name, version, _ = datastore_case
    kind = declarations.load(name).settings
    rules = kind(_node("none", name, version, tmp_path)).rules()
    rule = next(each for each in rules.values() if _simple(each))
    low = int(rule.low or 0)
    return rule.name, str(low + 10), str(low + 20)


def _simple(rule: Rule) -> bool:
    wide = rule.low is not None and rule.high is not None and rule.high - rule.low > 100
    return rule.dynamic and rule.kind == "integer" and wide


def _node(guest: str, name: str, version: str, home: Path) -> Node:
    facts = installation(read_image(IMAGE), name, version, prefix())
    return node_for(guest, declarations.load(name), version, facts, home / "data", home / "state", port=0)


def sample_of(agent: LiveAgent) -> Sample:
    """Return the sample data of an agent's datastore, at its server."""
    module = declarations.installed()[agent.datastore].module
    made: Sample = importlib.import_module(f"{module}.sample").SAMPLE(node_of(agent))
    return made


def node_of(agent: LiveAgent) -> Node:
    """Return the node an agent keeps, to ask its server without the agent."""
    return _node(agent.guest_id, agent.datastore, agent.version, agent.site.folder / agent.guest_id)
