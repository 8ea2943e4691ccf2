"""The command by itself: what it refuses before it asks anybody, and how its errors look."""

import json
import subprocess
from pathlib import Path

import pytest

from objectstore.archive import Archive
from objectstore.keys import LocalKeys
from objectstore.realm import Realm, open_store
from tests.agents import OSTLER, Site, site
from tests.fakes_archive import take

NOBODY = ("--agent", "unix:///tmp/no-such-bus?id=g1")
DEEP = '{"databases": ' + "[" * 3000 + "]" * 3000 + "}"


def ostler(*words: str, request: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(OSTLER), *words], input=request, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "request_", "field"),
    [
        ((), DEEP, "request"),
        ((), '{"name": "a", "name": "b", "password": "x"}', "name"),
        ((), '{"name": "a", "password": "x", "request_id": "mine"}', "request_id"),
        ((), '{"name": "a", "password": "x", "bogus": 1}', "bogus"),
        ((), '{"password": "x"}', "name"),
        ((), '["name"]', "request"),
        (("carl",), '{"name": "dora", "password": "x"}', "name"),
    ],
)
def test_a_request_that_cannot_be_meant_is_sent_to_nobody(words: tuple[str, ...], request_: str, field: str) -> None:
    done = ostler(*NOBODY, "user", "create", *words, "--request", "-", "-f", "json", request=request_)
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["error"]["field"] == field


def test_a_traceback_changes_neither_status_nor_last_line() -> None:
    done = ostler("--debug", *NOBODY, "status", "-f", "json")
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["error"]["type"] == "Unreachable"


def test_without_a_word_it_helps_and_ends_with_two() -> None:
    done = ostler()
    assert done.returncode == 2
    assert "usage: ostler" in done.stderr


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_configuration_that_is_no_text_ends_with_two(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ostler.conf"
    path.mkdir() if content is None else path.write_bytes(content)
    done = ostler("agent", "start", "--config-file", str(path))
    assert done.returncode == 2
    assert "config_file" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_image_that_cannot_be_ends_with_two() -> None:
    done = ostler("image", "check", "--image", "x" * 400, "-f", "json")
    assert done.returncode == 2
    assert json.loads(done.stderr.splitlines()[-1])["error"]["field"] == "image"


def kit(place: Site, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with the realm and the key alone."""
    return subprocess.run([str(OSTLER), *words], env=place.environment(), capture_output=True, text=True, timeout=60)


def backup(place: Site) -> str:
    """Put a small backup into the realm; return its id."""
    realm = Realm.read(place.realm)
    kept = Archive(open_store(realm), realm.name, LocalKeys.from_file(place.key_file), wanted=2)
    return take(kept, {"a": b"1"}).header.backup


def test_an_empty_list_of_backups_says_why_it_may_be_empty() -> None:
    """A key that opens none of them, or directories that are not there, look like no backups at all."""
    with site() as place:
        listed = kit(place, "backup", "list", "-f", "value")
        assert (listed.returncode, listed.stdout.strip()) == (0, "")
        assert all(str(each) in listed.stderr for each in place.clusters)
        made = backup(place)
        listed = kit(place, "backup", "list", "-f", "value")
        assert (listed.returncode, listed.stdout.split()[0], listed.stderr) == (0, made, "")
        place.key_file.write_bytes(bytes(32))
        listed = kit(place, "backup", "list", "-f", "value")
        assert (listed.returncode, listed.stdout.strip()) == (0, "")
        assert "warning: 1 backup cannot be read" in listed.stderr
        assert "use the key file it was made with" in listed.stderr


def test_a_deletion_that_came_half_way_can_be_ended() -> None:
    with site() as place:
        made, east = backup(place), place.clusters[0]
        away = east.rename(east.with_name("away"))
        assert kit(place, "backup", "delete", made).returncode == 3, "one that is away still has it"
        away.rename(east)
        assert [kit(place, "backup", "delete", made).returncode for _ in range(2)] == [0, 6]
        assert [each.name.partition(".")[0] for one in place.clusters for each in one.glob(f"*/*{made}*")] == [
            "tomb"
        ] * 2


def test_a_backup_that_cannot_be_read_can_be_deleted() -> None:
    with site() as place:
        made = backup(place)
        for each in place.clusters:
            [manifest] = each.glob(f"*/manifest.{made}.*")
            manifest.write_bytes(manifest.read_bytes()[:-1])
        assert [kit(place, "purge", "--dry-run").returncode, kit(place, "backup", "show", made).returncode] == [7, 7]
        assert kit(place, "backup", "delete", made, "-f", "json").returncode == 0
        assert kit(place, "purge", "--dry-run").returncode == 0


@pytest.mark.parametrize(
    ("option", "folder", "status"),
    [
        ("root", "kek/data", 2),
        ("state_dir", "kek/state", 2),
        ("transport_url", "kek/bus", 2),
        ("root", "shared", 4),
        ("root", "open", 0),
    ],
)
def test_an_agent_touches_no_folder_that_is_not_its_own(option: str, folder: str, status: int) -> None:
    """Nor one below a file, nor one that another agent has; and what was there keeps its mode."""
    with site() as place:
        agent = place.agent("g1", "toy", "1.0")
        (place.folder / "open").mkdir(mode=0o755)
        if option == "state_dir":
            agent.state = place.folder / folder
        elif option == "transport_url":
            agent.bus = f"unix://{place.folder / folder}"
        elif folder == "shared":
            agent.root = place.agent("g2", "toy", "1.0").start().root
        else:
            agent.root = place.folder / folder
        if status == 0:
            agent.start()
            assert (place.folder / folder).stat().st_mode & 0o777 == 0o755
            return
        agent.start(wait=False)
        assert agent.wait_gone() == status
        assert "Traceback" not in agent.tail()
        assert f"ostler: {'Refused' if status == 2 else 'SecondAgent'}: " in agent.tail()
        assert option in agent.tail()
