"""What every suite may ask for."""

from collections.abc import Callable, Iterator

import pytest

from datastores.contract import Node
from datastores.manager import Manager
from tests.guests import Guests, guests

pytest_plugins = ("tests.cases",)


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
