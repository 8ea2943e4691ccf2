"""Every installed datastore's settings: refused by name and rule, layered, written, applied, taken back."""

import itertools
from collections.abc import Iterator

import pytest

from datastores.contract import BadInput, Rule
from datastores.manager import Manager
from datastores.settings import LayeredSettings
from guestagent.declarations import installed
from tests.guests import Guests

KINDS = ("boolean", "integer", "float", "string", "enum", "size")


@pytest.fixture(scope="module", params=list(installed()))
def served(request: pytest.FixtureRequest, inn: Guests) -> Manager:
    return inn.manager(request.param)


@pytest.fixture
def settings(served: Manager) -> LayeredSettings:
    served.service.start()
    return served.settings


def good(rule: Rule) -> list[str]:
    """Return values the rule allows; bounds that a float cannot hold exactly are left out."""
    if rule.choices:
        return list(rule.choices)
    if rule.kind in ("integer", "size", "float"):
        return [f"{each:.0f}" for each in (rule.low, rule.high) if each is not None and abs(each) < 2**53]
    return []


def bad(rule: Rule) -> Iterator[str]:
    """Yield values the rule forbids."""
    yield "no such value \n"
    if rule.kind in ("integer", "size", "float"):
        yield "many"
        if rule.low is not None:
            yield f"{rule.low - 1:.0f}"
        if rule.high is not None and rule.high < 2**62:
            yield f"{rule.high + 1:.0f}"
    if rule.kind == "boolean":
        yield "maybe"
    if rule.kind == "integer":
        yield "1.5"


def neighbours(settings: LayeredSettings, dynamic: bool) -> Iterator[tuple[str, str, str]]:
    """Yield numbers of this kind with the value they have and one beside it that is accepted."""
    effective = settings.part.effective()
    for name, rule in sorted(settings.part.rules().items()):
        now = effective.get(name, "")
        if rule.dynamic is not dynamic or rule.kind != "integer" or not now.isdigit():
            continue
        for step in (1, -1, 2):
            try:
                yield name, now, settings.part.check({name: str(int(now) + step)})[name]
                break
            except BadInput:
                continue


def accepted(settings: LayeredSettings, name: str, value: str) -> bool:
    try:
        return name in settings.part.check({name: value})
    except BadInput:
        return False


def put(settings: LayeredSettings, changes: dict[str, str | None]) -> list[str]:
    """Do what the settings verbs do; return the names that wait."""
    checked = settings.check(changes)
    user = {**settings.user(), **{name: value for name, value in checked.items() if value is not None}}
    settings.switch(settings.write({name: each for name, each in user.items() if checked.get(name, "") is not None}))
    waiting = settings.apply(checked)
    settings.confirm(checked)
    return waiting


def row(settings: LayeredSettings, name: str) -> dict[str, object]:
    return next(dict(each) for each in settings.rows(every=True) if each["name"] == name)


def test_rules_have_a_kind_and_a_bound(settings: LayeredSettings) -> None:
    rules = settings.part.rules()
    assert len(rules) >= 5
    assert {each.dynamic for each in rules.values()} == {True, False}
    for name, rule in rules.items():
        assert rule.name == name
        assert rule.kind != "enum" or rule.choices
        assert rule.low is None or rule.high is None or rule.low <= rule.high
        assert rule.kind not in ("integer", "size") or (rule.low is not None and rule.high is not None), name


def test_good_values_are_accepted_and_stay_as_they_are_spelled(settings: LayeredSettings) -> None:
    for name, rule in settings.part.rules().items():
        for value in good(rule):
            spelled = settings.part.check({name: value})
            assert settings.part.check(spelled) == spelled, (name, value)
        if rule.kind == "boolean":
            pairs = (("yes", "no"), ("ON", "OFF"), ("1", "0"))
            assert any(accepted(settings, name, on) and accepted(settings, name, off) for on, off in pairs), name


def test_bad_values_are_refused_by_name(settings: LayeredSettings) -> None:
    before = settings.generations.current()
    for name, rule in settings.part.rules().items():
        for value in bad(rule):
            with pytest.raises(BadInput, match=name) as caught:
                settings.check({name: value})
            assert caught.value.field == name, (name, value)
    assert settings.generations.current() == before


def test_unknown_and_fixed_names_are_refused_by_name(served: Manager, settings: LayeredSettings) -> None:
    for name in ("no_such_setting", "", "a\nb", *served.datastore.fixed_settings):
        with pytest.raises(BadInput) as caught:
            settings.check({name: "1"})
        assert caught.value.field == name
    assert not set(served.datastore.fixed_settings) & set(settings.part.rules())


def test_the_server_reads_what_was_written(settings: LayeredSettings) -> None:
    written = settings.part.written()
    for name, value in settings.part.base().items():
        if name in written and name not in settings.part.rules():
            assert written[name].strip("'\"") == value.strip("'\""), name
    assert set(settings.part.base()) & set(written)


def test_a_dynamic_setting_applies_without_a_restart(served: Manager, settings: LayeredSettings) -> None:
    pid = served.service.pid()
    name, before, after = next(neighbours(settings, dynamic=True))
    assert put(settings, {name: after}) == []
    assert settings.part.effective()[name] == after
    assert row(settings, name) == {
        "name": name,
        "value": after,
        "source": "user",
        "dynamic": True,
        "pending_restart": False,
    }
    put(settings, {name: before})
    assert settings.part.effective()[name] == before
    assert served.service.pid() == pid


def test_every_dynamic_setting_can_be_set_to_what_it_is(settings: LayeredSettings) -> None:
    effective = settings.part.effective()
    tried = 0
    for name, rule in settings.part.rules().items():
        if rule.dynamic and name in effective:
            try:
                value = settings.part.check({name: effective[name]})
            except BadInput:
                continue
            settings.part.apply(value)
            tried += 1
    assert tried >= 3
    assert settings.part.effective() == effective


def test_a_static_setting_waits_for_a_restart(served: Manager, settings: LayeredSettings) -> None:
    for name, before, after in itertools.islice(neighbours(settings, dynamic=False), 2):
        pid = served.service.pid()
        assert put(settings, {name: after}) == [name]
        assert row(settings, name)["pending_restart"] is True
        assert settings.part.effective()[name] == before
        assert served.service.pid() == pid
        served.service.stop()
        served.service.start()
        assert settings.part.effective()[name] == after
        assert row(settings, name)["pending_restart"] is False
        put(settings, {name: None})
        assert name not in settings.user()
        assert row(settings, name)["pending_restart"] is True
        served.service.stop()
        served.service.start()
        assert settings.part.effective()[name] == before
        assert row(settings, name)["pending_restart"] is False


def test_a_dynamic_setting_that_is_dropped_has_its_old_value_or_waits_for_it(
    served: Manager, settings: LayeredSettings
) -> None:
    settings.switch(settings.write({}))
    served.service.stop()
    served.service.start()
    names = [name for name, rule in settings.part.rules().items() if rule.dynamic]
    effective, base = settings.part.effective(), settings.part.base()
    told = settings.part.defaults([name for name in names if name not in base])
    assert told == {name: effective[name] for name in told}, "what is told is what a fresh server uses"
    name, before, after = next(each for each in neighbours(settings, dynamic=True) if each[0] not in base)
    put(settings, {name: after})
    waiting = put(settings, {name: None})
    assert waiting == ([] if name in told else [name])
    assert row(settings, name) == {
        "name": name,
        "value": before if name in told else after,
        "source": "image",
        "dynamic": True,
        "pending_restart": name not in told,
    }
    served.service.stop()
    served.service.start()
    assert (row(settings, name)["value"], row(settings, name)["pending_restart"]) == (before, False)


def test_generations_can_be_taken_back(served: Manager, settings: LayeredSettings) -> None:
    name, _, after = next(neighbours(settings, dynamic=True))
    settings.switch(settings.write({}))
    first = settings.generations.current()
    second = settings.write({name: after})
    assert (settings.generations.current(), second) == (first, first + 1)
    assert name not in settings.user()
    settings.switch(second)
    assert settings.user() == {name: after}
    assert settings.rollback() == first == settings.generations.current()
    assert name not in settings.user()
    assert settings.write({}) == second
    served.service.stop()
    served.service.start()


def test_the_agents_own_layer_follows_the_agent(served: Manager, settings: LayeredSettings) -> None:
    before = settings.generations.current()
    assert settings.ensure() == before
    assert all(each["source"] in ("image", "agent", "user") for each in settings.rows(every=True))
    assert {str(each["name"]) for each in settings.rows()} >= set(settings.part.base())
