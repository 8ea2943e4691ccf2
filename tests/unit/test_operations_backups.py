"""Backup and restore as operations: over a real archive on two directories, and a datastore of plain files."""

import contextlib
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datastores.contract import JSON, Unsupported
from guestagent.errors import Busy, Refused
from guestagent.operations.marks import size_of
from objectstore.archive import Archive, Header, extract
from objectstore.store import BadRequest
from tests.fakes_ops import read_state, sham_archive, up
from tests.fakes_site import Site, until


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return sham_archive(tmp_path)


@pytest.fixture
def one(tmp_path: Path, archive: Archive) -> Iterator[Site]:
    site = Site(tmp_path / "g1", "g1", archive)
    assert site.do("agent.prepare", users=[{"name": "ann", "password": "first"}])["state"] == "succeeded"
    yield site
    site.guest.journal.close()


@pytest.fixture
def other(tmp_path: Path, archive: Archive) -> Iterator[Site]:
    site = Site(tmp_path / "g2", "g2", archive)
    yield site
    site.guest.journal.close()


def test_a_backup_is_told_and_restores(one: Site, tmp_path: Path) -> None:
    one.put("table", os.urandom(300_000))
    before = one.content()
    made = one.backup()
    assert (made["state"], made["kind"], made["parent"]) == ("COMPLETED", "full", None)
    assert made["copies"] == {"have": 2, "wanted": 2}
    assert (made["guest_id"], made["datastore"], made["version"], made["role"]) == ("g1", "sham", "1.0.7", "primary")
    assert made["logical_bytes"] == made["read_bytes"] == sum(map(len, before.values()))
    assert len(made["digest"]) == 64
    assert not (one.places.temp / "traces").exists()
    one.put("table", b"overwritten")
    one.put("another", b"created since")
    ended = one.do("backup.restore", backup=made["id"], digest=made["digest"])
    assert ended["state"] == "succeeded", ended["error"]
    assert one.content().keys() == before.keys()
    assert one.content()["table"] == before["table"]
    assert one.status() == "HEALTHY"
    assert not one.places.staging.exists()
    assert one.guest.journal.restore_epoch == 1


def test_a_backup_restores_into_another_guest_while_one_cluster_is_away(one: Site, other: Site, tmp_path: Path) -> None:
    one.put("table", os.urandom(100_000))
    made = one.backup()
    (tmp_path / "east").rename(tmp_path / "gone")
    (tmp_path / "east").write_text("not a directory")
    ended = other.do("agent.prepare", restore={"backup": made["id"], "digest": made["digest"]})
    assert ended["state"] == "succeeded", ended["error"]
    assert other.content()["table"] == one.content()["table"]
    assert read_state(other.guest.manager.node)["agent"] == {"guest": "g2"}
    assert other.guest.journal.restore_epoch == 1
    degraded = one.backup()
    assert (degraded["state"], degraded["copies"]["have"]) == ("DEGRADED", 1)


def test_the_parent_is_chosen_by_lineage(one: Site, other: Site, archive: Archive) -> None:
    full = one.backup()
    first = one.backup()
    assert (first["kind"], first["parent"], first["generation"]) == ("incremental", full["id"], full["generation"])
    second = one.backup(parent=full["id"])
    assert second["parent"] == full["id"]
    alone = one.backup(parent="none")
    assert (alone["parent"], alone["kind"]) == (None, "full")
    assert alone["generation"] != full["generation"]
    assert one.backup()["parent"] == alone["id"]
    other.do("agent.prepare")
    theirs = other.backup()
    assert theirs["parent"] is None
    refused = one.do("backup.create", parent=theirs["id"])
    assert (refused["state"], refused["error"]["type"]) == ("failed", "Mismatch")
    assert "guest g2" in refused["error"]["message"]
    missing = one.do("backup.create", parent=str(uuid.uuid4()))
    assert missing["error"]["type"] == "Mismatch"
    one.do("backup.restore", backup=full["id"])
    after = one.backup()
    assert after["parent"] is None, "what was taken before a restore is no parent after it"
    late = one.do("backup.create", parent=alone["id"])
    assert late["error"]["type"] == "Mismatch"


def test_an_id_is_used_once(one: Site) -> None:
    wanted = str(uuid.uuid4())
    assert one.backup(id=wanted)["id"] == wanted
    again = one.do("backup.create", id=wanted)
    assert (again["error"]["type"], again["error"]["field"]) == ("Refused", "id")
    (one.places.root / "fail-dump").touch()
    failed = str(uuid.uuid4())
    one.do("backup.create", id=failed)
    again = one.do("backup.create", id=failed)
    assert (again["error"]["type"], again["error"]["field"]) == ("Refused", "id")


def test_a_dump_that_fails_makes_no_backup_and_leaves_nothing(one: Site, archive: Archive, tmp_path: Path) -> None:
    (one.places.root / "fail-dump").touch()
    ended = one.do("backup.create")
    assert (ended["state"], ended["step"], ended["error"]["type"]) == ("failed", "stream", "ToolFailed")
    assert list(archive.manifests()) == []
    assert not (one.places.temp / "traces").exists()
    assert not list((tmp_path / "east").rglob("lease.*"))
    [told] = one.engine.read("backup.building", {})  # type: ignore[misc]
    assert (told["state"], told["guest_id"], told["digest"]) == ("FAILED", "g1", None)
    (one.places.root / "fail-dump").unlink()
    assert one.backup()["parent"] is None


def test_a_backup_is_cancelled_and_swept(one: Site, archive: Archive, tmp_path: Path) -> None:
    one.put("table", os.urandom(3_000_000))
    operation = one.order("backup.create", bandwidth=100_000)
    until(lambda: one.engine.read("operation.show", {"id": operation["id"]})["step"] == "stream")  # type: ignore
    [building] = one.engine.read("backup.building", {})  # type: ignore[misc]
    assert building["state"] == "BUILDING"
    with pytest.raises(Busy):
        one.order("backup.create")
    assert one.do("user.set_password", name="ann", password="second")["state"] == "succeeded", (
        "a backup blocks accounts"
    )
    one.engine.read("operation.cancel", {"id": operation["id"]})
    ended = one.ended(operation)
    assert (ended["state"], ended["error"]["type"]) == ("cancelled", "Cancelled")
    assert list(archive.manifests()) == []
    assert not (one.places.temp / "traces").exists()
    [told] = one.engine.read("backup.building", {})  # type: ignore[misc]
    assert told["state"] == "CANCELLED"


def test_a_backup_that_reads_its_parent_gets_its_bytes_and_is_cancelled(one: Site) -> None:
    """It may read for hours before it sends anything."""
    one.put("table", os.urandom(300_000))
    one.backup()
    (one.places.root / "reads-its-parent").touch()
    again = one.places.temp / "again" / "table"
    operation = one.order("backup.create")

    def read() -> bool:
        # It is removed and made again all the time.
        with contextlib.suppress(FileNotFoundError):
            return again.read_bytes() == one.content()["table"]
        return False

    until(read)
    one.engine.read("operation.cancel", {"id": operation["id"]})
    assert one.ended(operation)["state"] == "cancelled"
    assert not again.exists()


def test_the_end_of_the_agent_ends_a_backup_cleanly(one: Site) -> None:
    one.put("table", os.urandom(3_000_000))
    operation = one.order("backup.create", bandwidth=100_000)
    until(lambda: one.engine.read("operation.show", {"id": operation["id"]})["step"] == "stream")  # type: ignore
    one.engine.stop(5.0)
    row = one.guest.journal.ledger.find(operation["id"])
    assert row.state == "interrupted"
    assert not (one.places.temp / "traces").exists()
    [told] = one.engine.read("backup.building", {})  # type: ignore[misc]
    assert told["state"] == "FAILED"
    assert up(one.guest.manager.node)


def test_a_bandwidth_is_kept(one: Site) -> None:
    """2 MB at 1 MB/s: what has passed at any moment is within the limit, and it takes its time."""
    one.put("table", os.urandom(2_000_000))
    begun = time.monotonic()
    operation = one.order("backup.create", bandwidth=1_000_000)
    ended = one.ended(operation)
    took = time.monotonic() - begun
    assert ended["state"] == "succeeded"
    assert 2_000_000 / took < 1_000_000 * 1.2


def test_how_far_it_is_is_told_before_a_long_pause(one: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guestagent.operations.run._TOLD", 60.0)
    one.put("table", os.urandom(3_000_000))
    operation = one.order("backup.create", bandwidth=100)
    until(lambda: one.engine.read("operation.show", {"id": operation["id"]})["progress"]["done"] > 0)  # type: ignore
    one.engine.read("operation.cancel", {"id": operation["id"]})
    assert one.ended(operation)["state"] == "cancelled"


def test_niceness_is_seen_by_the_kernel(one: Site) -> None:
    one.put("table", os.urandom(8_000_000))
    before = {each.native_id for each in threading.enumerate()}
    operation = one.order("backup.create", bandwidth=300_000, nice=7, workers=1)

    def nices() -> dict[str, int]:
        """Return the niceness of the operation's threads; one that has just begun has not lowered it yet."""
        found = {each.name: each.native_id for each in threading.enumerate() if each.native_id not in before}
        ours = {name: number for name, number in found.items() if number and name.startswith(("operation", "archive"))}
        return {name: os.getpriority(os.PRIO_PROCESS, number) for name, number in ours.items()}

    def nice() -> bool:
        try:
            found = nices()
        except ProcessLookupError:
            return False
        at_work = any(name.startswith("archive-work") for name in found)
        return at_work and f"operation {operation['id']}" in found and set(found.values()) == {7}

    until(nice)
    limits = (one.places.temp / "traces").read_text()
    assert limits == "[300000, 1, 7]"
    one.engine.read("operation.cancel", {"id": operation["id"]})
    one.ended(operation)


def refused_untouched(site: Site, kind: str, **args: JSON) -> Any:
    ended = refused_untouched_since(site, kind, **args)
    assert site.guest.journal.restore_epoch == 0
    return ended


def refused_untouched_since(site: Site, kind: str, **args: JSON) -> Any:
    before, pid = site.content(), site.guest.manager.service.pid()
    ended = site.do("backup.restore", **args)
    assert (ended["state"], ended["error"]["type"]) == ("failed", kind), ended["error"]
    assert (site.content(), site.guest.manager.service.pid()) == (before, pid)
    assert not site.places.staging.exists()
    assert site.status() == "HEALTHY"
    return ended


def test_what_cannot_be_restored_is_refused_before_a_byte(one: Site) -> None:
    made = one.backup()
    refused_untouched(one, "Missing", backup=str(uuid.uuid4()))
    refused_untouched(one, "Corrupt", backup=made["id"], digest="0" * 64)
    refused_untouched(one, "Unsupported", backup=made["id"], identity="new")


@pytest.mark.parametrize(
    ("kind", "field", "changes"),
    [
        (Refused, "backup", {"backup": "../../etc"}),
        (BadRequest, "digest", {"digest": "nonsense"}),
        (Unsupported, "until", {"until": "2026-01-01T00:00:00Z"}),
    ],
)
def test_a_restore_that_can_never_be_is_no_operation(
    one: Site, kind: type[Refused | BadRequest | Unsupported], field: str, changes: dict[str, JSON]
) -> None:
    backup = one.backup()["id"]
    before = one.guest.journal.ledger.all()
    with pytest.raises(kind) as refused:
        one.do("backup.restore", **{"backup": backup, **changes})
    assert refused.value.field == field
    assert one.guest.journal.ledger.all() == before


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"datastore": "other"}, "other"), ({"version": "2.0.1"}, "2.0.1"), ({"role": "arbiter"}, "arbiter")],
)
def test_another_datastore_version_or_role_is_a_mismatch(
    one: Site, archive: Archive, changes: dict[str, str], what: str
) -> None:
    ids = [str(uuid.uuid4()) for _ in range(3)]
    header = Header(*ids[:2], "g9", ids[2], None, "sham", "1.0.7", "primary", "x", 0, "2026-01-01T00:00:00Z")
    with archive.draft(replace(header, **changes)) as draft:
        draft.lease()
        draft.key()
        draft.open(None, lambda path, head: None)
        draft.close([])
        draft.seal("full", "x", {})
    ended = refused_untouched(one, "Mismatch", backup=ids[0])
    assert what in ended["error"]["message"]


def test_a_prepare_from_what_is_no_backup_changes_nothing(one: Site, other: Site) -> None:
    ended = other.do("agent.prepare", restore={"backup": str(uuid.uuid4())})
    assert (ended["state"], ended["step"], ended["error"]["type"]) == ("failed", "guard", "Missing")
    assert other.status() == "NEW"
    assert not other.places.config.exists()


def test_a_corrupt_backup_leaves_the_old_data_served(one: Site, tmp_path: Path) -> None:
    one.put("table", os.urandom(400_000))
    made = one.backup()
    for pack in (tmp_path).glob("*/ostler-g-*/*"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
    refused_untouched(one, "Corrupt", backup=made["id"])


def test_data_the_server_does_not_start_on_is_exchanged_back(one: Site) -> None:
    one.put("broken", b"")
    made = one.backup()
    (one.places.data / "broken").unlink()
    one.put("table", b"today's")
    before = one.content()
    ended = one.do("backup.restore", backup=made["id"])
    assert (ended["state"], ended["step"]) == ("failed", "start")
    assert "the old data is served again" in ended["error"]["message"]
    assert one.content() == before
    assert one.status() == "HEALTHY"
    assert not one.places.staging.exists()
    assert one.guest.journal.restore_epoch == 0


def test_a_position_that_is_not_the_backups_is_exchanged_back(one: Site) -> None:
    made = one.backup()
    one.put("table", b"today's")
    before = one.content()
    (one.places.root / "unconfirmed").touch()
    ended = one.do("backup.restore", backup=made["id"])
    assert (ended["state"], ended["step"]) == ("failed", "start")
    assert "does not stand at the backup's position" in ended["error"]["message"]
    assert one.content() == before
    assert one.status() == "HEALTHY"


def test_too_little_space_is_refused_unless_the_current_data_may_go(one: Site) -> None:
    one.put("table", os.urandom(200_000))
    made = one.backup()
    host: Any = one.guest.manager.node.host
    host.room = 0
    used = size_of(one.places.root) + size_of(one.guest.state_dir)
    host.room = used + (16 << 20) + 150_000
    ended = refused_untouched(one, "NoSpace", backup=made["id"])
    assert "--discard-current" in ended["error"]["hint"]
    one.put("table", b"")
    one.put("another", os.urandom(200_000))
    ended = one.do("backup.restore", backup=made["id"], discard_current=True)
    assert ended["state"] == "succeeded", ended["error"]
    assert len(one.content()["table"]) == 200_000
    host.room = used
    ended = refused_untouched_since(one, "NoSpace", backup=made["id"], discard_current=True)
    assert ended["error"]["hint"] is None


def test_a_restore_needs_a_guest_that_was_prepared(one: Site, other: Site) -> None:
    made = one.backup()
    ended = other.do("backup.restore", backup=made["id"])
    assert (ended["error"]["type"], ended["error"]["hint"] is not None) == ("Refused", True)


def test_extract_needs_nobody(one: Site, archive: Archive, tmp_path: Path) -> None:
    one.put("table", os.urandom(100_000))
    before = one.content()
    made = one.backup()
    into = tmp_path / "out"
    into.mkdir()
    extract(archive.contents(archive.find(made["id"])), into)
    assert {each.name: each.read_bytes() for each in into.rglob("*") if each.is_file()} == before
    shutil.rmtree(into)
