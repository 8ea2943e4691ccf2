"""Layers and generations, over a settings part that keeps the contract in memory."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from datastores.contract import BadInput, Datastore, Mismatch, Node, NotFound, NotReady, Rule, Settings
from datastores.settings import Generations, LayeredSettings, Layers
from guestagent.declarations import load
from tests.guests import Guests

RULES = {
    "pool": Rule("pool", "integer", dynamic=True, low=1, high=100),
    "pages": Rule("pages", "integer", dynamic=False, low=1, high=100),
}
AGENT = {"port": "7", "pages": "8"}


class Server:
    """A server that reads its file when it starts."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.uses: dict[str, str] = {}
        self.takes = True
        self.tells = False


class Lines:
    def dump(self, layers: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
        merged = {name: value for layer in layers for name, value in layer.items()}
        return {"server.conf": "\n".join(f"{name}={value}" for name, value in merged.items()).encode()}


def settings_for(node: Node, server: Server, agent: Mapping[str, str] = AGENT) -> LayeredSettings:
    """Return settings of a made-up datastore on a real node."""

    class Made(Settings):
        def rules(self) -> Mapping[str, Rule]:
            return RULES

        def base(self) -> Mapping[str, str]:
            return agent

        def check(self, values: Mapping[str, str]) -> dict[str, str]:
            for name, value in values.items():
                if not value.strip().isdigit() or not 1 <= int(value) <= 100:
                    raise BadInput(f"setting {name} must be 1 to 100", field=name)
            return {name: str(int(value)) for name, value in values.items()}

        def written(self) -> dict[str, str]:
            text = (self.node.places.config / "server.conf").read_text()
            return dict(line.split("=", 1) for line in text.splitlines())

        def effective(self) -> dict[str, str]:
            if server.pid is None:
                raise NotReady("it does not run")
            return {"pool": "1", "pages": "2", **server.uses}

        def apply(self, values: Mapping[str, str]) -> None:
            if server.takes:
                server.uses.update(values)

        def defaults(self, names: Collection[str]) -> dict[str, str]:
            return {"pool": "1"} if server.tells and "pool" in names else {}

    declared: Datastore = replace(load("toy"), codec=Lines(), settings=Made, fixed_settings={"engine": "steam"})
    return LayeredSettings(declared, node, pid=lambda: server.pid)


@pytest.fixture
def node(inn: Guests) -> Node:
    return inn.node("toy")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def settings(node: Node, server: Server) -> LayeredSettings:
    made = settings_for(node, server)
    made.ensure()
    return made


def start(server: Server, settings: LayeredSettings, pid: int) -> None:
    server.pid = pid
    server.uses = {name: value for name, value in settings.part.written().items() if name in RULES}


def row(settings: LayeredSettings, name: str) -> tuple[object, object, object]:
    found = next(each for each in settings.rows(every=True) if each["name"] == name)
    return found["value"], found["source"], found["pending_restart"]


def put(settings: LayeredSettings, changes: Mapping[str, str | None]) -> list[str]:
    checked = settings.check(changes)
    user: dict[str, str] = {**settings.user()}
    for name, value in checked.items():
        user.pop(name, None)
        if value is not None:
            user[name] = value
    settings.switch(settings.write(user))
    return settings.apply(checked)


def test_later_layers_win(settings: LayeredSettings) -> None:
    assert settings.part.written() == AGENT
    put(settings, {"pages": "9"})
    assert settings.part.written()["pages"] == "9"
    assert row(settings, "pages")[:2] == ("9", "user")
    put(settings, {"pages": None})
    assert settings.part.written()["pages"] == "8"
    assert row(settings, "pages")[:2] == ("8", "agent")


def test_changes_are_checked_by_name(settings: LayeredSettings) -> None:
    assert settings.check({"pool": " 7 ", "pages": None}) == {"pool": "7", "pages": None}
    for changes, text in (({"engine": "x"}, "fixed to 'steam'"), ({"nope": "1"}, "nope"), ({"pool": "0"}, "1 to 100")):
        with pytest.raises(BadInput, match=text) as caught:
            settings.check(changes)
        assert caught.value.field == next(iter(changes))


def test_nothing_is_in_force_before_the_pointer(settings: LayeredSettings, node: Node) -> None:
    before = settings.generations.current()
    number = settings.write({"pool": "5"})
    assert (settings.generations.current(), number) == (before, before + 1)
    assert "pool" not in settings.part.written()
    settings.switch(number)
    assert settings.part.written()["pool"] == "5"
    assert node.places.config.is_symlink()


def test_a_half_made_generation_cannot_be_put_in_force(settings: LayeredSettings, node: Node) -> None:
    before = settings.generations.current()
    number = settings.write({"pool": "5"})
    (settings.generations.path(number) / "layers.json").unlink()
    with pytest.raises(NotFound):
        settings.switch(number)
    assert settings.generations.current() == before
    settings.generations.path(number).joinpath("left").write_bytes(b"")
    assert settings.write({"pool": "6"}) == number
    assert not settings.generations.path(number).joinpath("left").exists()


def test_one_spare_is_kept_and_no_more(settings: LayeredSettings, node: Node) -> None:
    for value in "34567":
        put(settings, {"pool": value})
    folders = sorted(int(each.name) for each in (node.places.root / "config.d").iterdir())
    assert folders == [settings.generations.current() - 1, settings.generations.current()]
    ahead = settings.write({"pool": "9"})
    settings.generations.sweep(ahead)
    assert settings.generations.path(ahead).exists()
    settings.generations.sweep()
    assert not settings.generations.path(ahead).exists()


def test_rollback_goes_back_one(settings: LayeredSettings) -> None:
    put(settings, {"pool": "3"})
    put(settings, {"pool": "4"})
    settings.rollback()
    assert settings.user() == {"pool": "3"}
    assert put(settings, {"pool": "5"}) == []
    assert settings.user() == {"pool": "5"}


def test_the_generation_the_server_came_up_with_is_kept_and_gone_back_to(settings: LayeredSettings) -> None:
    proven = settings.generations.current()
    for value in "3456":
        settings.switch(settings.write({"pages": value}), keep=proven)
    assert settings.rollback(proven) == proven == settings.generations.current()
    assert settings.user() == {}
    settings.switch(settings.write({"pages": "7"}))
    assert settings.rollback(proven + 3) == proven


def test_the_user_layer_survives_a_new_agent(settings: LayeredSettings, node: Node, server: Server) -> None:
    put(settings, {"pool": "3"})
    again = settings_for(node, server, {"port": "8", "more": "1"})
    assert again.user() == {"pool": "3"}
    before = again.generations.current()
    assert again.ensure() == before + 1 == again.ensure()
    assert again.part.written() == {"port": "8", "more": "1", "pool": "3"}


def test_a_dynamic_one_applies_a_static_one_waits(settings: LayeredSettings, server: Server) -> None:
    start(server, settings, 41)
    assert put(settings, {"pool": "3", "pages": "9"}) == ["pages"]
    settings.confirm({"pool": "3", "pages": "9"})
    assert row(settings, "pool") == ("3", "user", False)
    assert row(settings, "pages") == ("9", "user", True)
    start(server, settings, 42)
    assert row(settings, "pages") == ("9", "user", False)


def test_a_dropped_one_waits_until_the_restart(settings: LayeredSettings, server: Server) -> None:
    start(server, settings, 41)
    put(settings, {"pool": "3"})
    assert put(settings, {"pool": None}) == ["pool"]
    assert row(settings, "pool") == ("3", "image", True)
    put(settings, {"pages": "9"})
    assert row(settings, "pool") == ("3", "image", True)
    start(server, settings, 42)
    assert row(settings, "pool") == ("1", "image", False)


def test_a_dropped_one_whose_default_the_server_tells_has_it_at_once(settings: LayeredSettings, server: Server) -> None:
    server.tells = True
    start(server, settings, 41)
    put(settings, {"pool": "3", "pages": "9"})
    assert put(settings, {"pool": None, "pages": None}) == ["pages"], "the agent's value of a static one waits"
    settings.confirm({"pool": None})
    assert server.uses["pool"] == "1"
    assert row(settings, "pool") == ("1", "image", False)
    server.takes = False
    put(settings, {"pool": "3"})
    server.uses["pool"] = "3"
    put(settings, {"pool": None})
    with pytest.raises(Mismatch, match="pool"):
        settings.confirm({"pool": None})


def test_what_is_put_back_waits_no_more(settings: LayeredSettings, server: Server) -> None:
    start(server, settings, 41)
    put(settings, {"pages": "9"})
    put(settings, {"pages": "8"})
    assert row(settings, "pages") == ("8", "user", False)


def test_a_setting_that_does_not_take_is_seen(settings: LayeredSettings, server: Server, node: Node) -> None:
    start(server, settings, 41)
    server.takes = False
    put(settings, {"pool": "3"})
    with pytest.raises(Mismatch, match="pool"):
        settings.confirm({"pool": "3"})
    assert row(settings, "pool") == ("3", "user", True)
    (node.places.config / "server.conf").write_bytes(b"pool=4")
    with pytest.raises(Mismatch, match="would read"):
        settings.confirm({"pool": "3"})


def test_rows_without_a_server_are_what_the_layers_say(settings: LayeredSettings) -> None:
    put(settings, {"pool": "3"})
    assert [each["name"] for each in settings.rows()] == ["pages", "pool", "port"]
    assert not any(each["pending_restart"] for each in settings.rows(every=True))


def test_reading_what_is_not_there_is_said(node: Node) -> None:
    empty = Generations(node, Lines())
    assert empty.current() == 0
    with pytest.raises(NotFound):
        empty.read(1)
    with pytest.raises(NotFound):
        empty.switch(1)


def test_layers_know_their_source() -> None:
    layers = Layers({"a": "1", "b": "1", "c": "1"}, {"b": "2", "c": "2"}, {"c": "3"})
    assert layers.merged() == {"a": "1", "b": "2", "c": "3"}
    assert [layers.source(each) for each in "abcd"] == ["image", "agent", "user", "image"]


def test_the_files_belong_to_the_server(settings: LayeredSettings, node: Node) -> None:
    path: Path = node.places.config / "server.conf"
    assert path.owner() == node.installation.owner
    assert path.stat().st_mode & 0o007 == 0
