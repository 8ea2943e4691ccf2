"""What an operation stands on gives way while it runs: the server, a cluster, a disk; and what is refused before.

With ``OSTLER_COUNT`` of 10 and more: every installed datastore, either cluster, and one full cluster of two.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import psutil
import pytest

from datastores.contract import JSON
from guestagent import declarations
from objectstore.archive import Archive, Header
from objectstore.keys import LocalKeys
from objectstore.realm import Realm, open_store
from tests.aftermath import (
    PASSWORD,
    Aftermath,
    alone,
    begin,
    ends,
    listed,
    no_drafts,
    objects,
    shown,
    streaming,
    waste,
    whole,
)
from tests.agents import LiveAgent, Site, site, until
from tests.cases import COUNT, Case, cases, frugal, sample_of

LONG = COUNT >= 10
SIZE = 3_000_000
STREAM = 10.0
"""Seconds that a backup is made to stream."""
MEBIBYTE = 1 << 20


@pytest.fixture
def place() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture(scope="module", params=frugal(), ids=lambda case: case[0])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def agent(case: Case) -> Iterator[LiveAgent]:
    """One guest for the tests of a datastore that leave it whole."""
    with site() as made:
        yield prepared(made, "g1", case)


def prepared(place: Site, guest: str, case: Case, size: int = SIZE) -> LiveAgent:
    """Return an agent beside a database with data and a tenant."""
    name, version, options = case
    agent = place.agent(guest, name, version, **options).start()
    databases = {"databases": [{"name": "shop"}]} if declarations.load(name).parts()["databases"] else {}
    agent.prepare(**databases, users=[{"name": "ann", "password": PASSWORD}])
    sample_of(agent).fill(size)
    return agent


def backup(agent: LiveAgent, *words: str) -> dict[str, object]:
    made = agent.ostler("backup", "create", *words)
    assert isinstance(made, dict)
    return made


def failed(agent: LiveAgent) -> list[dict[str, object]]:
    """Return the backups that came to nothing."""
    rows = agent.ostler("backup", "list", "--filter", "state=FAILED")
    assert isinstance(rows, list)
    return rows


def slow_backup(agent: LiveAgent) -> str:
    """Begin a full backup that streams for a while; return its operation when bytes have gone by."""
    first = backup(agent)
    pace = int(int(str(first["read_bytes"])) / STREAM)
    operation = begin(agent, "backup", "create", parent="none", bandwidth=pace)
    streaming(agent, operation, 1)
    return operation


def begun(operation: dict[str, JSON]) -> set[object]:
    """Return the names of the steps that an operation has begun, or is past."""
    steps = cast("list[dict[str, object]]", operation["steps"])
    return {each["name"] for each in steps if each["state"] != "pending"}


def kill(pid: object) -> None:
    """SIGKILL the database server and see it gone."""
    server = psutil.Process(int(str(pid)))
    server.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        until(lambda: server.status() == psutil.STATUS_ZOMBIE, 30, "the server is gone")


def test_the_server_dies_while_it_is_backed_up(agent: LiveAgent) -> None:
    sample_of(agent).settle()
    fell = failed(agent)
    digest, pid = sample_of(agent).digest(), agent.status()["server_pid"]
    operation = slow_backup(agent)
    there = objects(agent)
    kill(pid)
    ended = ends(agent, operation)
    assert ended["state"] == "failed", ended
    [told] = [each for each in failed(agent) if each not in fell]
    assert told["digest"] is None
    assert not [each for each in objects(agent) - there if "/manifest." in each]
    agent.ostler("status", "--wait", "CRASHED", "--timeout", "60")
    agent.ostler("service", "start")
    whole(agent, digest)
    alone(agent)
    wasted = waste(agent)
    made = backup(agent, "--on-hole", "full")
    assert made["state"] == "COMPLETED"
    assert wasted == waste(agent)
    no_drafts(agent)
    agent.ostler("backup", "restore", str(made["id"]))
    whole(agent, digest)


def restored(agent: LiveAgent, made: str, digest: dict[str, str], cluster: Path) -> bool:
    """Restore, and lose a cluster meanwhile; say whether it was still reading then."""
    sample_of(agent).change(0.3, 4)
    away = cluster.with_name("away")
    operation = begin(agent, "backup", "restore", backup=made)
    while "stream" not in begun(seen := shown(agent, operation)) and seen["state"] == "running":
        time.sleep(0.01)
    cluster.rename(away)
    ended = ends(agent, operation)
    away.rename(cluster)
    assert ended["state"] == "succeeded", ended["error"]
    whole(agent, digest)
    return seen["step"] == "stream"


@pytest.mark.parametrize("lost", [0, 1] if LONG else [0])
def test_a_cluster_goes_away_in_the_middle(agent: LiveAgent, lost: int) -> None:
    """Of a backup, which is then DEGRADED; and of a restore from the other cluster, which is equal."""
    sample = sample_of(agent)
    digest, wasted = sample.digest(), waste(agent)
    cluster = agent.site.clusters[lost]
    away = cluster.with_name("away")
    operation = slow_backup(agent)
    cluster.rename(away)
    ended = ends(agent, operation)
    assert ended["state"] == "succeeded", ended["error"]
    made = ended["result"]
    assert isinstance(made, dict)
    assert (made["state"], made["copies"]) == ("DEGRADED", {"have": 1, "wanted": 2})
    assert listed(agent, made["id"])["state"] == "DEGRADED"
    refused = agent.run("purge", "--dry-run")
    assert (refused.status, refused.error["retry"]) == (3, True), "half a listing says nothing of what is free"
    sample.change(0.3, 3)
    agent.ostler("backup", "restore", str(made["id"]))
    whole(agent, digest)
    away.rename(cluster)
    repaired = agent.ostler("backup", "repair", str(made["id"]))
    assert isinstance(repaired, dict)
    assert (repaired["state"], repaired["copies"]) == ("COMPLETED", {"have": 2, "wanted": 2})
    assert any(restored(agent, str(made["id"]), digest, cluster) for _ in range(5)), "each time it had all before"
    assert waste(agent) == wasted
    known = {each.name.partition(".")[0] for each in (agent.state / "clusters").iterdir()}
    assert known == {"east", "west"}, "what an agent remembers after its restart"


@pytest.mark.parametrize(("full", "state"), [(2, "FAILED"), *([(1, "DEGRADED")] if LONG else [])])
def test_a_cluster_runs_full(place: Site, case: Case, full: int, state: str) -> None:
    """One of two: a copy is missing.  Both: there is no backup, the reason is told, and the next one works."""
    agent = prepared(place, "g1", case)
    digest, before = sample_of(agent).digest(), Aftermath.of(agent)
    agent.terminate()
    disks = place.folder / "disks"
    disks.mkdir()
    realm = place.realm.read_text()
    lines = realm.replace(f"dir://{place.clusters[0]}", f"dir://{disks}/east")
    if full == 2:
        lines = lines.replace(f"dir://{place.clusters[1]}", f"dir://{disks}/west")
    place.realm.write_text(lines)
    agent.start(small=(disks, 768 * 1024))
    answer = agent.run("backup", "create")
    if full == 1:
        made = answer.json
        assert isinstance(made, dict)
        assert (answer.status, made["state"], made["copies"]) == (0, state, {"have": 1, "wanted": 2})
    else:
        assert (answer.status, answer.error["type"]) == (1, "NoRoom"), answer
    assert Aftermath.of(agent) == before
    alone(agent)
    whole(agent, digest)
    agent.terminate()
    place.realm.write_text(realm)
    agent.start()
    found = agent.ostler("backup", "list")
    assert isinstance(found, list)
    assert [each["state"] for each in found] == [state]
    if full == 1:
        repaired = agent.ostler("backup", "repair", str(found[0]["id"]))
        assert isinstance(repaired, dict)
        assert repaired["state"] == "COMPLETED"
    made = backup(agent)
    assert made["state"] == "COMPLETED"
    sample_of(agent).change(0.2, 5)
    agent.ostler("backup", "restore", str(made["id"]))
    whole(agent, digest)


def test_too_little_space_is_refused_and_the_old_data_is_served(agent: LiveAgent) -> None:
    """The guest's root is a disk of its own, with room for the backup only where the current data goes first."""
    made, digest = backup(agent), sample_of(agent).digest()
    other = agent.site.agent("g2", agent.datastore, agent.version, **agent.options)
    other.root.mkdir(parents=True)
    kind = declarations.load(agent.datastore).backup
    assert kind is not None
    other.start(small=(other.root, used(agent.root) + 48 * MEBIBYTE + kind.reserve))
    databases = {"databases": [{"name": "shop"}]} if declarations.load(agent.datastore).parts()["databases"] else {}
    other.prepare(**databases, users=[{"name": "ann", "password": PASSWORD}])
    sample_of(other).fill(600_000)
    sample_of(other).settle()
    mine, pid = sample_of(other).digest(), other.status()["server_pid"]
    root = inside(other)
    need = int(str(made["logical_bytes"])) * 11 // 10 + kind.reserve
    leave(root, need - min(used(root / "data"), 8 * MEBIBYTE) // 2)
    seen = {path.name for path in root.iterdir()}
    refused = other.run("backup", "restore", str(made["id"]))
    assert (refused.status, refused.error["type"]) == (1, "NoSpace"), refused
    assert "--discard-current" in str(refused.error["hint"])
    assert other.status()["server_pid"] == pid
    assert {path.name for path in root.iterdir()} == seen
    whole(other, mine)
    other.ostler("backup", "restore", str(made["id"]), "--discard-current")
    whole(other, digest)
    other.end()


def used(folder: Path) -> int:
    """Return the bytes that the files below a folder take."""
    found = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a running server puts files away
                found += (Path(at) / name).lstat().st_blocks * 512
    return found


def inside(agent: LiveAgent) -> Path:
    """Return a guest's root as its agent sees it."""
    assert agent.process is not None
    return Path(f"/proc/{agent.process.pid}/root{agent.root}")


def leave(folder: Path, size: int) -> None:
    """Fill the disk of a folder until so many bytes are left."""
    found = os.statvfs(folder)
    with (folder / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, found.f_bavail * found.f_frsize - size)


def test_what_does_not_fit_is_refused_before_a_byte(place: Site) -> None:
    """A backup of every other datastore and version, and one of a role that there is not."""
    agents = [prepared(place, f"g{number}", case, 50_000) for number, case in enumerate(cases())]
    made = {agent.guest_id: backup(agent) for agent in agents}
    odd = [agent for agent in agents if agent.datastore == "toy"][0]
    strange = forged(place, odd, made[odd.guest_id])
    for agent in agents:
        digest, before, pid = sample_of(agent).digest(), Aftermath.of(agent), agent.status()["server_pid"]
        wrong = [each["id"] for guest, each in made.items() if guest != agent.guest_id]
        for each in [*wrong, *([strange] if agent is odd else [])]:
            refused = agent.run("backup", "restore", str(each))
            assert (refused.status, refused.error["type"]) == (7, "Mismatch"), refused
            steps = shown(agent, refused.error["operation"])["steps"]
            assert {step["name"] for step in steps if step["state"] == "pending"} >= {"space", "stream", "swap"}  # type: ignore
        assert agent.status()["server_pid"] == pid
        assert Aftermath.of(agent) == before
        whole(agent, digest)


def forged(place: Site, agent: LiveAgent, like: dict[str, object]) -> str:
    """Seal a backup that says of itself that it is of another role."""
    realm = Realm.read(place.realm)
    archive = Archive(open_store(realm), realm.name, LocalKeys.from_file(place.key_file), wanted=2)
    names = ("attempt", "backup", "generation")
    header = Header(
        **{name: str(uuid.uuid4()) for name in names},
        guest_id=agent.guest_id,
        parent=None,
        datastore=agent.datastore,
        version=str(like["version"]),
        role="arbiter",
        server_id=str(like["server_id"]),
        restore_epoch=0,
        started_at=str(like["started_at"]),
    )
    with archive.draft(header) as draft:
        draft.lease()
        draft.key()
        draft.open(None, lambda path, head: None)
        draft.close([])
        draft.seal("full", header.server_id, {})
    return header.backup
