"""Killed before and after every step: it goes on, or ends and says so, and leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guestagent.journal import open_journal
from guestagent.operations import killing
from guestagent.operations.queries import steps_of
from tests.fakes_ops import read_state, sham_archive, sham_node, up

KILLED = -signal.SIGKILL
PREPARE = {
    "databases": [{"name": "shop"}],
    "users": [{"name": "ann", "password": "s3cret", "databases": ["shop"]}],
    "settings": {"color": "red"},
}


class Lives:
    """The lives of one agent, one after the other."""

    def __init__(self, driver: subprocess.Popen[str], folder: Path) -> None:
        self._driver = driver
        self.folder = folder / "g1"
        self.folder.mkdir(parents=True)
        self.archive = sham_archive(folder)
        self.node = sham_node(self.folder)
        self.data = self.node.places.data

    def live(self, verb: str = "", kill: str = "", request_id: str = "", **args: object) -> Any:
        """Return what was told in one life; None where it was killed."""
        order = {
            "folder": str(self.folder),
            "verb": verb,
            "kill": kill,
            "args": args,
            "request_id": request_id or str(uuid.uuid4()),
        }
        assert self._driver.stdin and self._driver.stdout
        self._driver.stdin.write(json.dumps(order) + "\n")
        self._driver.stdin.flush()
        answer = json.loads(self._driver.stdout.readline())
        assert answer["status"] == (KILLED if kill else 0), answer
        return answer["told"]

    def prepared(self) -> "Lives":
        assert self.live("agent.prepare", **PREPARE)["operations"][-1]["state"] == "succeeded"
        return self

    def content(self) -> dict[str, bytes]:
        found = [each for each in self.data.rglob("*") if each.is_file() and each.name != ".ostler"]
        return {each.name: each.read_bytes() for each in found}

    def clean(self) -> None:
        """Nothing of a dead attempt is left in root, temp, or in the store's leases."""
        root = self.node.places.root
        assert {each.name for each in root.iterdir()} <= {"data", "config", "config.d", "temp"}
        assert list(self.node.places.temp.rglob("*")) == []
        assert not list(self.folder.parent.glob("*/ostler-backups/lease.*"))


@pytest.fixture(scope="module")
def driver() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.driver"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def lives(driver: subprocess.Popen[str], tmp_path: Path) -> Lives:
    return Lives(driver, tmp_path)


@pytest.fixture(scope="module")
def past(driver: subprocess.Popen[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guest that was prepared and has a backup; copied for each test, so that it is made once."""
    folder = tmp_path_factory.mktemp("past")
    made = Lives(driver, folder).prepared()
    (made.data / "table").write_bytes(os.urandom(200_000))
    made.live("backup.create", id=str(uuid.UUID(int=1)))
    return folder


@pytest.fixture
def later(driver: subprocess.Popen[str], past: Path, tmp_path: Path) -> Lives:
    """A copy of that guest.  Its realm file names the copy's clusters."""
    folder = tmp_path / "later"
    shutil.copytree(past, folder, symlinks=True)
    realm = folder / "realm.toml"
    realm.write_text(realm.read_text().replace(str(past), str(folder)))
    found = Lives.__new__(Lives)
    found._driver, found.folder = driver, folder / "g1"
    found.archive, found.node = sham_archive(folder), sham_node(folder / "g1")
    found.data = found.node.places.data
    return found


def points(name: str) -> list[str]:
    return [f"{step}:{side}" for step in steps_of(name) for side in ("before", "after")]


@pytest.mark.parametrize("point", points("prepare"))
def test_prepare(lives: Lives, point: str) -> None:
    lives.live("agent.prepare", f"prepare:{point}", **PREPARE)
    if point == "start:before":
        lives.live(kill=f"prepare:{point}")
    told = lives.live()
    [operation] = told["operations"]
    assert operation["state"] == "succeeded", operation["error"]
    assert told["status"]["status"] == "HEALTHY"
    state = read_state(lives.node)
    assert (list(state["databases"]), list(state["users"])) == (["shop"], ["ann"])
    lives.clean()


@pytest.mark.parametrize("point", points("backup"))
def test_backup(later: Lives, point: str) -> None:
    backup = str(uuid.uuid4())
    later.live("backup.create", f"backup:{point}", id=backup)
    step = point.split(":")[0]
    began, sealed = step != "accept", point == "manifest:after" or step in ("check", "finish")
    told = later.live()
    operation = told["operations"][-1]
    found = {each.header.backup for each in later.archive.manifests()}
    if began and not sealed:
        assert operation["state"] == "interrupted"
        assert repr(step) in operation["error"]["message"]
        assert backup not in found
        assert [(each["id"], each["state"]) for each in told["building"]] == [(backup, "FAILED")]
    else:
        assert operation["state"] == "succeeded", operation["error"]
        assert backup in found
        assert operation["result"]["state"] == "COMPLETED"
    assert up(later.node)
    later.clean()
    again = later.live("backup.create")
    assert again["operations"][-1]["state"] == "succeeded"


@pytest.mark.parametrize("point", points("restore"))
def test_restore(later: Lives, point: str) -> None:
    new = later.content()
    (later.data / "table").write_bytes(b"today's")
    (later.data / "another").write_bytes(b"today's")
    old = later.content()
    later.live("backup.restore", f"restore:{point}", backup=str(uuid.UUID(int=1)))
    assert later.content()["table"] in (old["table"], new["table"]), "neither the old data nor the new"
    told = later.live()
    operation = told["operations"][-1]
    assert operation["state"] == "succeeded", operation["error"]
    assert later.content().keys() == new.keys()
    assert later.content()["table"] == new["table"]
    assert (told["status"]["status"], told["epoch"]) == ("HEALTHY", 1)
    later.clean()


@pytest.mark.parametrize(("move", "count"), [("stop", 2), ("stop", 3), ("start", 2)])
def test_a_restore_that_goes_back_is_killed_on_its_way(later: Lives, move: str, count: int) -> None:
    root = later.node.places.root
    (later.data / "table").write_bytes(b"today's")
    old = later.content()
    (root / "unconfirmed").touch()
    (root / f"kill-at-{move}").write_text(str(count))
    later.live("backup.restore", kill="-", backup=str(uuid.UUID(int=1)))
    if (move, count) == ("start", 2):
        # What was exchanged back stays so, whatever would hold now.
        (root / "unconfirmed").unlink()
    told = later.live()
    assert told["operations"][-1]["state"] == "failed"
    assert "old data is served again" in told["operations"][-1]["error"]["message"]
    assert later.content() == old
    assert (told["status"]["status"], told["epoch"]) == ("HEALTHY", 0)


@pytest.mark.parametrize("point", [each for each in points("restore") if each.split(":")[0] not in ("swap", "start")])
def test_restore_of_a_part(later: Lives, point: str) -> None:
    taken_in_after(later, f"restore:{point}")


@pytest.mark.parametrize("move", ["load", "loaded"])
def test_a_restore_of_a_part_is_killed_while_the_server_takes_it_in(later: Lives, move: str) -> None:
    """At ``loaded`` the server has the files, which are not in staging any more."""
    (later.node.places.root / f"kill-at-{move}").write_text("1")
    taken_in_after(later, "-")


def taken_in_after(later: Lives, kill: str) -> None:
    wanted = {**later.content(), "another": b"today's"}
    (later.data / "another").write_bytes(b"today's")
    (later.data / "table").write_bytes(b"today's")
    later.live("backup.restore", kill, backup=str(uuid.UUID(int=1)), only="table")
    told = later.live()
    operation = told["operations"][-1]
    assert operation["state"] == "succeeded", operation["error"]
    assert operation["result"]["only"] == "table"
    assert later.content() == wanted
    assert (told["status"]["status"], told["epoch"]) == ("HEALTHY", 0)
    later.clean()


@pytest.mark.parametrize("point", points("settings"))
def test_settings(later: Lives, point: str) -> None:
    later.live("settings.set", f"settings:{point}", values={"color": "green", "size": "7"})
    told = later.live()
    assert told["operations"][-1]["state"] == "succeeded", told["operations"][-1]["error"]
    rows = {each["name"]: each for each in told["settings"]}
    assert (rows["color"]["value"], rows["color"]["pending_restart"]) == ("green", False)
    assert (rows["size"]["value"], rows["size"]["pending_restart"]) == ("7", True)
    later.clean()


@pytest.mark.parametrize("killed_at", ["switch", "going back"])
def test_settings_that_do_not_hold_are_rolled_back_though_it_was_killed(later: Lives, killed_at: str) -> None:
    values = {"shade": "dark", "color": "grey"}
    if killed_at == "switch":
        later.live("settings.set", "settings:switch:after", values=values)
    else:
        (later.node.places.root / "kill-at-apply").write_text("2")
        later.live("settings.set", kill="-", values=values)
    told = later.live()
    assert told["operations"][-1]["state"] == "failed"
    assert "rolled back" in told["operations"][-1]["error"]["message"]
    rows = {each["name"]: each["value"] for each in told["settings"]}
    assert (rows["color"], rows["shade"]) == ("red", "light"), "on the running server, too"


@pytest.mark.parametrize("verb", ["user.create", "user.delete", "database.create", "service.restart", "service.stop"])
def test_every_other_verb(later: Lives, verb: str) -> None:
    args: dict[str, dict[str, object]] = {
        "user.create": {"name": "bob", "password": "pw"},
        "user.delete": {"name": "ann"},
        "database.create": {"name": "new"},
    }
    for number, point in enumerate(points(verb)):
        if verb == "user.delete":
            later.live("user.create", name="ann", password="pw")
        later.live(verb, f"{verb}:{point}", f"request {number}", **args.get(verb, {}))
        told = later.live()
        operation = told["operations"][-1]
        assert (operation["verb"], operation["state"]) == (verb, "succeeded"), (point, operation["error"])
        assert told["status"]["status"] == ("SHUTDOWN" if verb == "service.stop" else "HEALTHY")
    assert ("ann" in read_state(later.node)["users"]) == (verb != "user.delete")


def test_a_cast_that_waited_is_done_once_after_a_kill(later: Lives) -> None:
    """What is asked again with the same request is not done again, whenever the agent was killed."""
    later.live("user.create", "user.create:create:after", "r1", name="bob", password="pw")
    first = later.live("user.create", request_id="r1", name="bob", password="pw")
    second = later.live("user.create", request_id="r1", name="bob", password="pw")
    assert len(first["operations"]) == len(second["operations"])
    assert [each["state"] for each in second["operations"]] == ["succeeded"] * len(second["operations"])


def test_code_that_was_changed_meanwhile_does_not_go_on(later: Lives) -> None:
    later.live("backup.restore", "restore:stream:before", backup=str(uuid.UUID(int=1)))
    journal = open_journal(later.folder / "state")
    [row] = journal.ledger.all(live=True)
    journal.ledger.save(replace(row, version="an older one"))
    journal.close()
    told = later.live()
    assert told["operations"][-1]["state"] == "interrupted"
    assert "the agent was changed meanwhile" in told["operations"][-1]["error"]["message"]
    assert told["status"]["status"] == "HEALTHY"


def test_a_kill_point_needs_the_test_mark(later: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSTLER_KILL_AT", "service.stop:stop:before")
    monkeypatch.delenv("OSTLER_TEST", raising=False)
    killing.point("service.stop", "stop", "before")
