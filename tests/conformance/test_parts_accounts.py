"""Every installed datastore's databases, users, grants and root, as far as it has them.  Written once."""

import pytest

from datastores.contract import BadInput, Databases, Grants, NotFound, Root, Secret, Users
from datastores.manager import Manager
from tests.guests import Guests, having, sample

WORD = Secret("A first pass-word, 'quoted' \\ and \"more\"")
OTHER = Secret("other 2:word@{}$%")


@pytest.fixture(scope="module")
def managers(inn: Guests) -> dict[str, Manager]:
    return {}


@pytest.fixture
def served(request: pytest.FixtureRequest, inn: Guests, managers: dict[str, Manager]) -> Manager:
    name: str = request.param
    if name not in managers:
        managers[name] = inn.manager(name)
    return managers[name]


def on(*parts: str) -> pytest.MarkDecorator:
    """Run a test on every datastore that has these parts."""
    return pytest.mark.parametrize("served", having(*parts), indirect=True)


def databases(manager: Manager) -> Databases:
    part = manager.part("databases")
    assert isinstance(part, Databases)
    return part


def users(manager: Manager) -> Users:
    part = manager.part("users")
    assert isinstance(part, Users)
    return part


def grants(manager: Manager) -> Grants:
    part = manager.part("grants")
    assert isinstance(part, Grants)
    return part


def root(manager: Manager) -> Root:
    part = manager.part("root")
    assert isinstance(part, Root)
    return part


@on("databases")
def test_databases_are_made_listed_by_page_and_deleted(served: Manager) -> None:
    part = databases(served)
    names = [f"page{n:02d}" for n in range(7)]
    for name in reversed(names):
        part.create(name)
        part.create(name)
    assert [each["name"] for each in part.list() if str(each["name"]).startswith("page")] == names
    seen: list[object] = []
    after = "page00"
    while page := [each["name"] for each in part.list(after=after, limit=2) if str(each["name"]).startswith("page")]:
        assert len(page) <= 2
        seen += page
        after = str(page[-1])
    assert seen == names[1:]
    for name in names:
        part.delete(name)
    assert not [each for each in part.list() if str(each["name"]).startswith("page")]
    with pytest.raises(NotFound):
        part.delete(names[0])


@on("databases")
def test_a_deleted_database_is_empty_when_made_again(served: Manager) -> None:
    data = sample(served)
    data.fill(20_000)
    before = data.digest()
    databases(served).create("untouched")
    databases(served).delete("untouched")
    assert data.digest() == before


@on("users")
def test_a_user_logs_in_with_this_password_and_no_other(served: Manager) -> None:
    part, login = users(served), sample(served).login
    part.create("ann", WORD)
    assert login("ann", WORD)
    assert not login("ann", OTHER)
    assert not login("nobody-here", WORD)
    part.set_password("ann", OTHER)
    assert login("ann", OTHER)
    assert not login("ann", WORD)
    part.create("ann", WORD)
    assert login("ann", WORD)
    assert not login("ann", OTHER)
    assert [each["name"] for each in part.list()].count("ann") == 1
    part.delete("ann")
    assert not login("ann", WORD)
    with pytest.raises(NotFound):
        part.delete("ann")
    with pytest.raises(NotFound):
        part.set_password("ann", WORD)


@on("users")
def test_users_are_listed_by_page_without_passwords(served: Manager) -> None:
    part = users(served)
    names = [f"list{n}" for n in range(5)]
    for name in names:
        part.create(name, WORD)
    listed = [each for each in part.list() if str(each["name"]).startswith("list")]
    assert [each["name"] for each in listed] == names
    assert all(set(each) == {"name", "host", "databases"} and each["databases"] == [] for each in listed)
    assert [each["name"] for each in part.list(after="list1", limit=2)] == ["list2", "list3"]
    for name in names:
        part.delete(name)


@on("users")
def test_our_own_accounts_are_neither_listed_nor_touched(served: Manager) -> None:
    part = users(served)
    listed = {str(each["name"]) for each in part.list()}
    reserved = [each for each in served.datastore.names["user"].reserved if each]
    assert reserved
    assert not listed & set(reserved)
    for name in reserved:
        with pytest.raises(BadInput) as caught:
            part.create(name, WORD)
        assert caught.value.field in ("user", "name")
    served.admin.ping()
    served.admin.probe()


@on("users")
def test_accounts_survive_a_restart(served: Manager) -> None:
    part = users(served)
    part.create("stays", WORD)
    served.service.stop()
    served.service.start()
    assert sample(served).login("stays", WORD)
    part.delete("stays")


@on("users", "grants")
def test_grants_are_given_taken_and_listed(served: Manager) -> None:
    for name in ("shop", "sh_p", "archive"):
        databases(served).create(name)
    users(served).create("ben", WORD, databases=("shop",))

    def held() -> object:
        return next(each["databases"] for each in users(served).list() if each["name"] == "ben")

    assert held() == ["shop"]
    grants(served).grant("ben", database="sh_p")
    grants(served).grant("ben", database="sh_p")
    assert held() == ["sh_p", "shop"]
    grants(served).revoke("ben", database="shop")
    assert held() == ["sh_p"]
    with pytest.raises(NotFound):
        grants(served).revoke("ben", database="archive")
    with pytest.raises(NotFound):
        grants(served).revoke("nobody-here", database="shop")
    with pytest.raises(NotFound):
        grants(served).grant("nobody-here", database="shop")
    users(served).create("ben", WORD, databases=("archive",))
    assert held() == ["archive"]
    users(served).delete("ben")


@on("root")
def test_root_comes_with_a_new_password_each_time_and_goes(served: Manager) -> None:
    part, login = root(served), sample(served).login
    assert part.show() == {"enabled": False}
    part.disable()
    first, second = part.enable(), part.enable()
    assert part.show() == {"enabled": True}
    assert set(first) == {"name", "password"}
    assert first["name"] == second["name"]
    assert first["password"] != second["password"]
    assert len(str(second["password"])) >= 20
    assert login(str(second["name"]), Secret(str(second["password"])))
    assert not login(str(first["name"]), Secret(str(first["password"])))
    served.admin.probe()
    served.admin.secure()
    served.admin.probe()
    part.disable()
    assert part.show() == {"enabled": False}
    assert not login(str(second["name"]), Secret(str(second["password"])))
