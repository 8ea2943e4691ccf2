"""What every suite may ask for."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from datastores.contract import Node
from datastores.manager import Manager
from tests.guests import PREFIX, Guests, guests, stage

pytest_plugins = ("tests.cases", "tests.fixtures_rabbit")

# The same examples each time, but in a long run; and a machine that is busy with others is no failure.
settings.register_profile("suites", deadline=None, derandomize=int(os.environ.get("OSTLER_COUNT", "1")) < 10)
settings.load_profile("suites")


@pytest.fixture(scope="session", autouse=True)
def programs() -> Iterator[None]:
    """Servers' programs that their accounts can reach, wherever the checkout lies."""
    if os.environ.get(PREFIX):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="op-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        if stage(Path(folder)):
            os.environ[PREFIX] = folder
        yield
        os.environ.pop(PREFIX, None)


@pytest.fixture(scope="module")
def inn() -> Iterator[Guests]:
    """Guests that live as long as the module; every server is stopped at its end."""
    with guests() as made:
        yield made


@pytest.fixture
def node(inn: Guests) -> Callable[..., Node]:
    """``node(datastore, version=None, guest_id=None)``: a node with its folders, nothing running."""
    return inn.node


@pytest.fixture
def manager(inn: Guests) -> Callable[..., Manager]:
    """``manager(datastore, version=None, start=True)``: a manager of a real server, secured."""
    return inn.manager
