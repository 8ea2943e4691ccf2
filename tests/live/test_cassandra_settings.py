"""The table of Cassandra's settings, held against the real server."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from datastores.cassandra.client import session
from datastores.cassandra.conf import CONFIG
from datastores.cassandra.rules import Way, table
from datastores.cassandra.units import spell
from datastores.contract import BadInput, NotReady
from datastores.manager import Manager
from datastores.settings import LayeredSettings
from tests.guests import Guests

OURS = {"jvm.heap", "log.level"}
T = TypeVar("T")


@pytest.fixture(scope="module")
def server(inn: Guests) -> Manager:
    return inn.manager("cassandra")


def bounds(way: Way) -> list[str]:
    if way.rule.kind == "boolean":
        return ["true", "false"]
    if way.rule.choices:
        return list(way.rule.choices)
    limits = [each for each in (way.rule.low, way.rule.high) if each is not None]
    return [spell(way.rule.kind, int(each), way.unit) if way.unit else str(int(each)) for each in limits]


def beside(way: Way, now: str) -> str:
    """Return another value of a static setting, with which a small server starts."""
    if way.rule.kind == "boolean":
        return "false" if now == "true" else "true"
    if way.rule.choices:
        return next(each for each in way.rule.choices if each not in (now, "die"))
    if way.rule.name == "jvm.heap":
        return "320MiB"
    tried = ("20ms", "7s") if way.rule.kind == "duration" else ("33MiB", "1065MiB") if way.unit else ("7", "9")
    return next(each for each in tried if accepted(way, each) not in (None, now))


def patiently(ask: Callable[[], T]) -> T:
    """Ask until there is an answer: a server whose limits of time are at their lowest does not take every login."""
    end = time.monotonic() + 60
    while True:
        try:
            return ask()
        except NotReady:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def accepted(way: Way, value: str) -> str | None:
    try:
        return way.canonical(value)
    except BadInput:
        return None


def test_every_name_is_one_of_the_servers(server: Manager) -> None:
    with session(server.node) as cql:
        known = {each.name for each in cql.execute("SELECT name FROM system_views.settings")}
    assert set(table()) - known == OURS
    effective = server.settings.part.effective()
    assert effective.keys() == table().keys()
    for name, value in effective.items():
        assert server.settings.part.check({name: value}) == {name: value}, "the default is out of bounds"


@pytest.mark.parametrize("name", [name for name, way in table().items() if way.rule.dynamic])
def test_the_running_server_takes_every_bound(server: Manager, name: str) -> None:
    part = server.settings.part
    before = part.effective()[name]
    try:
        for value in bounds(table()[name]):
            patiently(lambda value=value: part.apply({name: value}))  # type: ignore[misc]
            assert patiently(part.effective)[name] == value
    finally:
        patiently(lambda: part.apply({name: before}))
    assert part.effective()[name] == before


def test_every_static_setting_is_the_servers_after_a_start(server: Manager) -> None:
    settings: LayeredSettings = server.settings
    before = settings.part.effective()
    static = {name: way for name, way in table().items() if not way.rule.dynamic}
    wanted = {name: beside(way, before[name]) for name, way in static.items()}
    checked = settings.part.check(wanted)
    settings.switch(settings.write(checked))
    assert settings.apply(checked) == sorted(checked)
    settings.confirm(checked)
    assert settings.part.effective() == before
    server.service.stop()
    server.service.start()
    after = settings.part.effective()
    assert {name: after[name] for name in checked} == checked
    settings.switch(settings.write({}))


def test_the_images_own_file_lies_below_and_keeps_its_comments(inn: Guests, tmp_path: Path) -> None:
    packaged = tmp_path / "cassandra.yaml"
    packaged.write_text(
        "# The site's.\nconcurrent_counter_writes: 48  # many counters\nauthenticator: AllowAllAuthenticator\n"
    )
    node = inn.node("cassandra")
    node = node.at(installation=replace(node.installation, config=packaged))
    manager = inn.manager("cassandra", node=node, start=False)
    manager.settings.ensure()
    text = (node.places.config / CONFIG).read_text()
    assert text.startswith("# The site's.\nconcurrent_counter_writes: 48  # many counters\n")
    written = manager.settings.part.written()
    assert (written["concurrent_counter_writes"], written["authenticator"]) == ("48", "PasswordAuthenticator")


def test_a_bad_unit_never_reaches_the_file(server: Manager) -> None:
    before = server.settings.generations.current()
    for value in ("5000", "5 s", "5S", "1500us", "5s # comment", "5s\nauthenticator: AllowAllAuthenticator"):
        with pytest.raises(BadInput, match="read_request_timeout") as caught:
            server.settings.check({"read_request_timeout": value})
        assert caught.value.field == "read_request_timeout"
    assert server.settings.generations.current() == before
