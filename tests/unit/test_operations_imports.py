"""A part of a backup into a running server, as an operation: what changes, what does not, and when."""

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datastores.contract import JSON, Backup
from guestagent.errors import Busy
from guestagent.operations.marks import size_of
from objectstore.archive import Archive
from tests.fakes_ops import SHAM, sham_archive
from tests.fakes_site import Site, until

OLD = os.urandom(300_000)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return sham_archive(tmp_path)


@pytest.fixture
def one(tmp_path: Path, archive: Archive) -> Iterator[Site]:
    site = Site(tmp_path / "g1", "g1", archive)
    assert site.do("agent.prepare", users=[{"name": "ann", "password": "first"}])["state"] == "succeeded"
    site.put("table", OLD)
    site.put("other", b"as it was")
    yield site
    site.guest.journal.close()


@pytest.fixture
def made(one: Site) -> Any:
    """A backup, after which everything has changed."""
    found = one.backup()
    one.put("table", b"today's")
    one.put("other", b"today's")
    one.put("another", b"created since")
    return found


def refused(site: Site, kind: str, field: str | None, **args: JSON) -> Any:
    """Order a restore that is refused; nothing has changed after it."""
    before, epoch = site.content(), site.guest.journal.restore_epoch
    ended = site.do("backup.restore", **args)
    assert ended["state"] == "failed"
    assert (ended["error"]["type"], ended["error"]["field"]) == (kind, field), ended["error"]
    assert (site.content(), site.guest.journal.restore_epoch) == (before, epoch)
    assert not site.places.staging.exists()
    assert site.status() == "HEALTHY"
    return ended


def test_only_the_part_is_the_backups(one: Site, made: Any) -> None:
    before, up = one.content(), (one.places.run / "up").stat().st_mtime_ns
    ended = one.do("backup.restore", backup=made["id"], digest=made["digest"], only="table")
    assert ended["state"] == "succeeded", ended["error"]
    assert one.content() == {**before, "table": OLD}
    assert (one.places.run / "up").stat().st_mtime_ns == up, "the server was started anew"
    assert ended["result"] == {
        "server_pid": 1, "backup": made["id"], "digest": made["digest"], "only": "table", "bytes": len(OLD),
    }  # fmt: skip
    assert ended["progress"] == {"done": len(OLD), "total": len(OLD), "unit": "bytes"}
    states = {each["name"]: each["state"] for each in ended["steps"]}
    assert [name for name, state in states.items() if state != "done"] == ["swap", "start"]
    assert one.guest.journal.restore_epoch == 0
    assert not one.places.staging.exists()
    assert one.backup()["parent"] == made["id"]


def test_a_part_that_is_not_there_any_more_comes_back(one: Site, made: Any) -> None:
    (one.places.data / "table").unlink()
    assert one.do("backup.restore", backup=made["id"], only="table")["state"] == "succeeded"
    assert one.content()["table"] == OLD


def test_what_cannot_be_taken_in_is_refused_before_a_byte(one: Site, made: Any) -> None:
    told = refused(one, "NotFound", "only", backup=made["id"], only="nothing")
    assert "other, table" in told["error"]["message"]
    refused(one, "BadInput", "only", backup=made["id"], only="a/b")
    refused(one, "Missing", None, backup=str(uuid.uuid4()), only="table")
    refused(one, "Corrupt", None, backup=made["id"], digest="0" * 64, only="table")
    refused(one, "Refused", "identity", backup=made["id"], only="table", identity="same")
    refused(one, "Refused", "discard_current", backup=made["id"], only="table", discard_current=True)


def test_a_datastore_without_imports_says_so(one: Site, made: Any) -> None:
    one.guest.manager.datastore = replace(SHAM, imports=None)
    refused(one, "Unsupported", "only", backup=made["id"], only="table")


def test_a_server_that_is_down_takes_nothing_in(one: Site, made: Any) -> None:
    one.do("service.stop")
    ended = one.do("backup.restore", backup=made["id"], only="table")
    assert (ended["step"], ended["error"]["type"], ended["error"]["retry"]) == ("accept", "NotReady", True)
    assert one.status() == "SHUTDOWN"


def test_too_little_space_is_refused(one: Site, made: Any) -> None:
    host: Any = one.guest.manager.node.host
    host.room = size_of(one.places.root) + size_of(one.guest.state_dir) + (16 << 20) + 250_000
    assert refused(one, "NoSpace", None, backup=made["id"], only="table")["error"]["hint"] is None
    assert one.do("backup.restore", backup=made["id"], only="other")["state"] == "succeeded"


def test_bytes_that_are_not_the_backups_reach_no_server(one: Site, made: Any, tmp_path: Path) -> None:
    for pack in tmp_path.glob("*/ostler-g-*/*"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
    refused(one, "Corrupt", None, backup=made["id"], only="table")


def test_it_is_cancelled_while_bytes_come(one: Site, made: Any) -> None:
    before, gate = one.content(), one.places.root / "gate"
    gate.touch()
    operation = one.order("backup.restore", backup=made["id"], only="table")
    until(lambda: (one.places.staging / "table").exists())
    with pytest.raises(Busy):
        one.order("backup.create")
    one.engine.read("operation.cancel", {"id": operation["id"]})
    gate.unlink()
    ended = one.ended(operation)
    assert (ended["state"], ended["error"]["type"]) == ("cancelled", "Cancelled")
    assert one.content() == before
    assert not one.places.staging.exists()


def test_a_load_that_fails_says_what_may_be_broken_and_can_be_repeated(one: Site, made: Any) -> None:
    before = one.content()
    (one.places.root / "fail-load").touch()
    ended = one.do("backup.restore", backup=made["id"], only="table")
    assert (ended["state"], ended["step"], ended["error"]["type"]) == ("failed", "replay", "Failed")
    assert "'table' was not taken in whole, all else is as it was" in ended["error"]["message"]
    assert "once more" in ended["error"]["hint"]
    assert one.content() == {name: content for name, content in before.items() if name != "table"}
    assert not one.places.staging.exists()
    (one.places.root / "fail-load").unlink()
    assert one.do("backup.restore", backup=made["id"], only="table")["state"] == "succeeded"
    assert one.content() == {**before, "table": OLD}


@pytest.mark.parametrize(("guest_id", "default"), [("g1", "same"), ("g2", "new")])
def test_the_identity_is_the_datastores_choice(
    one: Site, made: Any, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guest_id: str, default: str
) -> None:
    site, given = one, []
    if guest_id != "g1":
        site = Site(tmp_path / guest_id, guest_id, archive)
        site.do("agent.prepare")
    restore = SHAM.backup.restore  # type: ignore[union-attr]
    monkeypatch.setattr(SHAM.backup, "restore", lambda *words: given.append(words[-1]) or restore(*words))
    other = "new" if default == "same" else "same"
    ended = site.do("backup.restore", backup=made["id"], identity=other)
    assert (ended["error"]["type"], ended["error"]["field"]) == ("Unsupported", "identity")
    assert given == []
    monkeypatch.setattr(SHAM.backup, "identities", ("same", "new"))
    for words in ({}, {"identity": other}, {"identity": default}):
        ended = site.do("backup.restore", backup=made["id"], **words)
        assert ended["state"] == "succeeded", ended["error"]
    assert given == [default, other, default]
    assert Backup.identities == ()
