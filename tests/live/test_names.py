"""Names and passwords of every kind on the live servers: each makes exactly that object, or is refused by name.

Written once over the declared rules; ``OSTLER_COUNT`` multiplies the counts.
"""

import itertools
import os
import random  # noqa: TID251  (a seeded stream of names, no secrets)
from collections.abc import Callable, Iterator

import pytest

from datastores.contract import BadInput, Databases, NameRule, NotReady, Secret, Users
from datastores.manager import Manager
from tests.guests import Guests, having, sample

COUNT = 500 * int(os.environ.get("OSTLER_COUNT", "1"))
BATCH = 25

PIECES = (
    *"abzAZ019_-.%*?$@#!/&|;:,<>()[]{}=+~^ ",
    "'",
    '"',
    "`",
    "\\",
    "\n",
    "\r",
    "\t",
    "\x1b",
    "\x7f",
    "\0",
    ":name",
    "%s",
    "%(x)s",
    "{0}",
    "\\'",
    "''",
    "--",
    "/*",
    "é",
    "ß",
    "İ",
    "ı",
    "Ω",
    "漢",
    "字",
    "א",
    "ب",
    "\u202e",
    "\u200b",
    "e\u0301",
    "😀",
    "🐴",
    "\U0010ffff",
    "\ufeff",
    "\u00a0",
    "\u2028",
)
INJECTIONS = (
    "' OR '1'='1",
    "a'; DROP USER root; --",
    "a`; DROP DATABASE x; --",
    "x\r\nFLUSHALL\r\n",
    "a\nb",
    "~* &* +@all",
    "on nopass",
    ">password",
    "%",
    "_",
    "%_%",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "$(id)",
    "`id`",
    "-x",
    "--help",
    "#",
    '"',
    "\\",
    "NULL",
    "None",
    "0",
    "",
    " ",
    " lead",
    "trail ",
)


def drawn(rule: NameRule, seed: str) -> Iterator[str]:
    """Yield odd strings for ever: the known attacks, the limits of length, then pieces in any order.

    Every second one is of such pieces alone as the rule allows, so that a narrow rule, too, is met often enough.
    """
    yield from INJECTIONS
    for length in (rule.least, rule.length, rule.length + 1, rule.length * 4):
        yield from ("x" * length, "é" * length, "😀" * length, "%" * length)
    for word in (*rule.reserved, *rule.prefixes):
        yield from (word, word.upper(), word.capitalize(), word + "x")
    yield from ("lone \ud800", "a\0b", "\0")
    stream = random.Random(seed)
    plain = [each for each in PIECES if allowed(rule, each)]
    for pieces in itertools.cycle((PIECES, plain)):
        yield "".join(stream.choice(pieces) for _ in range(stream.randint(1, stream.choice((2, 6, 20)))))


def allowed(rule: NameRule, value: str) -> bool:
    """Say whether the declaration allows a value."""
    try:
        return rule.check(value, "name") == value
    except BadInput:
        return False


def sorted_out(rule: NameRule, seed: str) -> tuple[list[str], list[str]]:
    """Return ``COUNT`` different allowed values, folded and trimmed ones apart, and the refused ones met on the way."""
    good: dict[str, str] = {}
    wrong: dict[str, None] = {}
    for value in drawn(rule, seed):
        if allowed(rule, value):
            good.setdefault(value, value)
        else:
            wrong[value] = None
        if len(good) >= COUNT:
            return list(good), list(wrong)
    raise AssertionError("the stream of names ended")


def batches(values: list[str]) -> Iterator[list[str]]:
    return (values[at : at + BATCH] for at in range(0, len(values), BATCH))


@pytest.fixture(scope="module")
def managers(inn: Guests) -> dict[str, Manager]:
    return {}


@pytest.fixture
def served(request: pytest.FixtureRequest, inn: Guests, managers: dict[str, Manager]) -> Manager:
    name: str = request.param
    if name not in managers:
        managers[name] = inn.manager(name, quick=True)
        sample(managers[name]).fill(20_000)
    return managers[name]


def users(manager: Manager) -> Users:
    part = manager.part("users")
    assert isinstance(part, Users)
    return part


def databases(manager: Manager) -> Databases:
    part = manager.part("databases")
    assert isinstance(part, Databases)
    return part


def everything(manager: Manager) -> tuple[list[str], list[str], dict[str, str]]:
    """Return all that must not change by itself."""
    known = [str(each["name"]) for each in users(manager).list()]
    places = manager.datastore.databases
    tables = [str(each["name"]) for each in databases(manager).list()] if places else []
    return known, tables, sample(manager).digest()


def refused(act: Callable[[], object], kind: str, value: str) -> None:
    with pytest.raises(BadInput) as caught:
        act()
    assert caught.value.field in (kind, "name", "database"), value
    assert kind != "password" or not value.strip() or len(value) < 4 or value not in str(caught.value)


@pytest.mark.parametrize("served", having("users"), indirect=True)
def test_every_allowed_user_is_made_and_logs_in(served: Manager) -> None:
    part, login = users(served), sample(served).login
    before = everything(served)
    good, _ = sorted_out(served.datastore.names["user"], "users")
    for batch in batches(good):
        words = {name: Secret(f"pass word {number}'\\") for number, name in enumerate(batch)}
        for name in batch:
            part.create(name, words[name])
        listed = [str(each["name"]) for each in part.list()]
        assert sorted(listed) == sorted([*before[0], *batch])
        for name in batch:
            assert login(name, words[name]), name
            assert not login(name, Secret("another pass word")), name
        for name in batch:
            part.delete(name)
    assert everything(served) == before


@pytest.mark.parametrize("served", having("users"), indirect=True)
def test_every_other_user_is_refused_and_nothing_changes(served: Manager) -> None:
    part, rule = users(served), served.datastore.names["user"]
    before = everything(served)
    _, wrong = sorted_out(rule, "users")
    assert len(wrong) >= 5
    for name in wrong:
        refused(lambda name=name: part.create(name, Secret("a good pass word")), "user", name)  # type: ignore[misc]
        refused(lambda name=name: part.set_password(name, Secret("a good pass word")), "user", name)  # type: ignore[misc]
        refused(lambda name=name: part.delete(name), "user", name)  # type: ignore[misc]
    assert everything(served) == before
    served.admin.probe()


@pytest.mark.parametrize("served", having("users"), indirect=True)
def test_every_allowed_password_is_the_password(served: Manager) -> None:
    part, login = users(served), sample(served).login
    before = everything(served)
    good, wrong = sorted_out(served.datastore.names["password"], "passwords")
    part.create("holder", Secret("the first pass word"))
    last = Secret("the first pass word")
    for value in good:
        part.set_password("holder", Secret(value))
        assert login("holder", Secret(value)), value
        assert not login("holder", last), value
        last = Secret(value)
    for value in wrong:
        refused(lambda value=value: part.set_password("holder", Secret(value)), "password", value)  # type: ignore[misc]
        refused(lambda value=value: part.create("never", Secret(value)), "password", value)  # type: ignore[misc]
    assert login("holder", last)
    part.delete("holder")
    assert everything(served) == before


def server_takes(part: Databases, name: str) -> bool:
    """Make a database; where the server itself does not take the name (limits of its disk), it must be named."""
    try:
        part.create(name)
    except BadInput as error:
        assert error.field in ("database", "name"), name
        return False
    return True


@pytest.mark.parametrize("served", having("databases"), indirect=True)
def test_every_allowed_database_is_made_and_no_other(served: Manager) -> None:
    part, rule = databases(served), served.datastore.names["database"]
    before = everything(served)
    good, wrong = sorted_out(rule, "databases")
    too_much = list[str]()
    for batch in batches(good):
        made = [name for name in batch if server_takes(part, name)]
        too_much += [name for name in batch if name not in made]
        listed = [str(each["name"]) for each in part.list()]
        assert sorted(listed) == sorted([*before[1], *made])
        for name in made:
            part.delete(name)
    assert len(too_much) <= COUNT / 50, too_much
    for name in wrong:
        refused(lambda name=name: part.create(name), "database", name)  # type: ignore[misc]
        refused(lambda name=name: part.delete(name), "database", name)  # type: ignore[misc]
    assert everything(served) == before


@pytest.mark.parametrize("served", having("grants"), indirect=True)
def test_a_grant_holds_for_the_literal_name_only(served: Manager) -> None:
    part, names = users(served), served.datastore.names["database"]
    made = [each for each in ("gr_nt", "grant", "gr%nt", "gr'nt", "gr`nt", "gr\\nt") if allowed(names, each)]
    for name in made:
        databases(served).create(name)
    for name in made:
        part.create("literal", Secret("a good pass word"), databases=(name,))
        assert next(each["databases"] for each in part.list() if each["name"] == "literal") == [name]
    part.delete("literal")
    for name in made:
        databases(served).delete(name)


def test_the_suite_itself_sees_a_server_that_is_down(inn: Guests) -> None:
    name = having("users")[0]
    manager = inn.manager(name, start=False)
    with pytest.raises(NotReady):
        users(manager).list()
