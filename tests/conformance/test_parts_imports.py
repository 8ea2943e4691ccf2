"""A part of a backup into a running server, for every installed datastore that can.  Written once."""

import pytest

from datastores.contract import BadInput, Databases, File, NotFound
from datastores.manager import Manager
from tests.fakes_host import Keeper, Taken
from tests.guests import Guests, having, sample

SIZE = 300_000
CHANGED = 0.3


@pytest.fixture(scope="module", params=having("imports", "backup", "databases"))
def served(request: pytest.FixtureRequest, inn: Guests) -> Manager:
    manager = inn.manager(request.param)
    sample(manager).fill(SIZE)
    databases(manager).create("besides")
    sample(manager).settle()
    return manager


@pytest.fixture(scope="module")
def taken(served: Manager) -> Taken:
    return Keeper().take(served.backup)


@pytest.fixture(scope="module")
def then(served: Manager, taken: Taken) -> dict[str, str]:
    """What the data was when the backup was taken."""
    return sample(served).digest()


def databases(manager: Manager) -> Databases:
    part = manager.part("databases")
    assert isinstance(part, Databases)
    return part


def names(manager: Manager) -> list[str]:
    return [str(each["name"]) for each in databases(manager).list()]


def filled(manager: Manager) -> str:
    """Return the name of the database that the sample is in."""
    [name] = (each for each in names(manager) if each not in ("besides", "later"))
    return name


def chosen(manager: Manager, taken: Taken, name: str) -> tuple[File, ...]:
    """Return the part's files as the agent gives them back: in the order of the inventory."""
    wanted = {each.path for each in manager.imports.choose(taken.in_order(), name, taken.private)}
    return tuple(each for each in taken.in_order() if each.path in wanted)


def take_in(manager: Manager, taken: Taken, name: str) -> None:
    """Do what the agent does, into an empty folder that it removes."""
    host, staging, files = manager.node.host, manager.node.places.staging, chosen(manager, taken, name)
    host.remove(staging)
    host.folder(staging)
    paths = {each.path for each in files}
    manager.imports.receive(files, (each for each in taken.extents() if each[0] in paths), staging)
    manager.imports.load(files, taken.checkpoint, staging, name)
    host.remove(staging)


def test_what_changed_since_is_as_it_was(served: Manager, taken: Taken, then: dict[str, str]) -> None:
    server, account = served.service.pid(), served.backup.server_id()
    databases(served).create("later")
    sample(served).change(CHANGED, seed=3)
    sample(served).fill(SIZE // 10)
    assert sample(served).digest() != then
    take_in(served, taken, filled(served))
    digest = sample(served).digest()
    assert {name: digest[name] for name in then} == then
    assert "later" in names(served)
    assert (served.service.pid(), served.backup.server_id()) == (server, account)
    served.admin.probe()
    databases(served).delete("later")


def test_what_was_deleted_comes_back_and_may_come_twice(served: Manager, taken: Taken, then: dict[str, str]) -> None:
    name = filled(served)
    databases(served).delete(name)
    for _ in range(2):
        take_in(served, taken, name)
        assert name in names(served)
        assert sample(served).digest() == then
    sample(served).change(CHANGED, seed=4)
    assert sample(served).digest() != then


def test_it_outlives_a_restart_and_is_in_the_next_increment(
    served: Manager, taken: Taken, then: dict[str, str], inn: Guests
) -> None:
    take_in(served, taken, filled(served))
    served.service.stop()
    served.service.start()
    assert sample(served).digest() == then
    second = Keeper(taken).take(served.backup)
    assert second.kind == "incremental"
    sample(served).change(CHANGED, seed=5)
    take_in(served, second, filled(served))
    assert sample(served).digest() == then


def test_an_empty_database_is_a_part_too(served: Manager, taken: Taken, then: dict[str, str]) -> None:
    databases(served).delete("besides")
    take_in(served, taken, "besides")
    assert "besides" in names(served)
    assert sample(served).digest().keys() == then.keys()


def test_what_is_not_there_is_told_with_what_is(served: Manager, taken: Taken) -> None:
    with pytest.raises(NotFound, match=filled(served)) as missing:
        chosen(served, taken, "nothing_here")
    assert missing.value.field == "only"


@pytest.mark.parametrize("name", ["", "a\0b", "../x", "x" * 5000])
def test_a_name_that_cannot_be_is_refused(served: Manager, taken: Taken, name: str) -> None:
    with pytest.raises((BadInput, NotFound)) as refused:
        chosen(served, taken, name)
    assert refused.value.field == "only"


def test_the_rest_of_the_backup_is_not_asked_for(served: Manager, taken: Taken) -> None:
    whole, part = chosen(served, taken, filled(served)), chosen(served, taken, "besides")
    assert {each.path for each in whole} < {each.path for each in taken.files}
    assert not {each.path for each in whole if not each.private} & {each.path for each in part if not each.private}
