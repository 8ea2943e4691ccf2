"""A store in a directory: what lies in it, what is left of killed writers, what the system refuses."""

import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from objectstore import drafts
from objectstore.directory import Directory
from objectstore.store import BadRequest, Denied, Exists, Missing, NoRoom, Unavailable


@pytest.fixture
def store(tmp_path: Path) -> Directory:
    return Directory(tmp_path / "store")


def files(path: Path) -> dict[str, bytes]:
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def test_the_layout(store: Directory, tmp_path: Path) -> None:
    store.put("r-backups/manifest.1", [b"\x00raw", b"\xffbytes\n"])
    found = files(tmp_path / "store")
    assert found.pop("r-backups/manifest.1") == b"\x00raw\xffbytes\n"
    assert list(found) == [".cluster"]


def test_a_file_that_was_put_there_by_hand_is_an_object(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a").write_bytes(b"copied")
    store = Directory(tmp_path)
    assert [(found.name, found.size) for found in store.list("c")] == [("c/a", 6)]
    assert store.get("c/a") == b"copied"
    store.put("c/b", [b"x"])
    assert Directory(tmp_path).get("c/a") == b"copied"


def test_what_is_no_object_is_not_listed(store: Directory, tmp_path: Path) -> None:
    store.put("c/a", [b"x"])
    root = tmp_path / "store"
    for name in (".dot", "with space", "é"):
        (root / "c" / name).touch()
        (root / name).mkdir()
    (root / "c" / "folder").mkdir()
    (root / "file").touch()
    assert [found.name for found in store.list("c")] == ["c/a"]
    assert list(store.containers()) == ["c"]
    assert list(store.list("file")) == []
    for name in ("c/folder", "file/a"):
        with pytest.raises(Missing):
            store.get(name)
        with pytest.raises(Denied):
            store.put(name, [b"x"])


def test_no_link_is_followed_out(store: Directory, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store.put("c/a", [b"x"])
    root = tmp_path / "store"
    (root / "c" / "link").symlink_to(outside / "secret")
    (root / "linked").symlink_to(outside)
    assert [found.name for found in store.list("c")] == ["c/a"]
    assert list(store.list("linked")) == []
    assert list(store.containers()) == ["c"]
    for name in ("c/link", "linked/secret"):
        for read in (store.get, store.stat):
            with pytest.raises(Missing):
                read(name)
    with pytest.raises(Denied):
        store.put("linked/new", [b"x"])
    with pytest.raises(Exists):
        store.put("c/link", [b"x"], only_new=True)
    store.put("c/link", [b"ours"])  # replaces the link, not what it points to
    store.delete("linked/secret")
    assert files(outside) == {"secret": b"secret"}
    assert store.get("c/link") == b"ours"


def test_a_path_that_is_a_link_itself_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    Directory(tmp_path / "store").put("c/a", [b"x"])
    assert files(tmp_path / "disk")["c/a"] == b"x"


def test_a_path_must_be_absolute() -> None:
    with pytest.raises(BadRequest):
        Directory(Path("store"))


def test_the_marker_is_seen_again(store: Directory, tmp_path: Path) -> None:
    root = tmp_path / "store"
    store.put("c/a", [b"x"])
    (root / ".cluster").rename(tmp_path / "marker")
    for move in (lambda: store.get("c/a"), lambda: store.put("c/b", [b"x"]), lambda: list(store.list("c"))):
        with pytest.raises(Unavailable):
            move()
    (tmp_path / "marker").rename(root / ".cluster")
    assert store.get("c/a") == b"x"


def test_a_cluster_that_somebody_began_anew_is_taken(store: Directory, tmp_path: Path) -> None:
    store.put("c/a", [b"x"])
    (tmp_path / "store").rename(tmp_path / "lost")
    with pytest.raises(Unavailable):
        store.put("c/a", [b"x"])
    Directory(tmp_path / "store").put("c/b", [b"y"])
    with pytest.raises(Missing):
        store.get("c/a")
    assert store.get("c/b") == b"y"


def test_who_is_remembered_does_not_begin_anew(tmp_path: Path) -> None:
    store = Directory(tmp_path / "store", lambda: True)
    for move in (
        lambda: store.put("c/a", [b"x"]),
        lambda: store.get("c/a"),
        lambda: store.list("c"),
        lambda: store.containers(),
        lambda: store.delete("c/a"),
    ):
        with pytest.raises(Unavailable) as caught:
            move()
        assert caught.value.hint
    assert not (tmp_path / "store").exists()


def test_no_parent_is_made(tmp_path: Path) -> None:
    store = Directory(tmp_path / "none" / "store")
    for move in (lambda: store.put("c/a", [b"x"]), lambda: list(store.containers())):
        with pytest.raises(Unavailable, match="none is not there"):
            move()
    assert list(tmp_path.iterdir()) == []


def test_many_initialise_one_cluster(tmp_path: Path) -> None:
    stores = [Directory(tmp_path / "store") for _ in range(8)]
    start = threading.Barrier(len(stores))

    def run(number: int) -> None:
        start.wait()
        stores[number].put(f"c/{number}", [b"x"])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    marker = (tmp_path / "store" / ".cluster").read_bytes()
    for store in stores:
        assert len(list(store.list("c"))) == len(stores)
    assert (tmp_path / "store" / ".cluster").read_bytes() == marker
    assert not [name for name in files(tmp_path / "store") if drafts.PREFIX in name]


# -- what killed writers leave


def test_a_dead_writers_draft_is_swept_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    Directory(tmp_path).put("c/a", [b"x"])
    old, young = tmp_path / "c" / ".put-1-old", tmp_path / "c" / ".put-1-young"
    marking = tmp_path / ".put-1-marker"
    living, other = tmp_path / "c" / ".put-2-living", tmp_path / "c" / ".other"
    for path in (old, young, living, other, marking):
        path.write_bytes(b"half")
    for path in (old, living, other, marking):
        os.utime(path, (0, time.time() - 3600))
    with drafts.closing(os.open(living, os.O_RDWR)) as fd:
        drafts.fcntl.flock(fd, drafts.fcntl.LOCK_EX)
        Directory(tmp_path).put("c/b", [b"x"])
    assert {one.name for one in (tmp_path / "c").iterdir()} == {"a", "b", young.name, living.name, other.name}
    assert not marking.exists()


def test_a_failed_put_leaves_nothing(store: Directory, tmp_path: Path) -> None:
    store.put("c/a", [b"x"])
    with pytest.raises(Exists):
        store.put("c/a", [b"y"], only_new=True)
    assert {one.name for one in (tmp_path / "store" / "c").iterdir()} == {"a"}


def test_a_container_goes_with_its_last_object(store: Directory, tmp_path: Path) -> None:
    store.put("c/a", [b"x"])
    store.put("c/b", [b"x"])
    store.delete("c/a")
    assert list(store.containers()) == ["c"]
    store.delete("c/b")
    assert list(store.containers()) == []
    assert not (tmp_path / "store" / "c").exists()


def test_puts_and_deletes_of_one_container_meet(store: Directory) -> None:
    """The container comes and goes under the writers; no put is lost."""
    raised: list[Exception] = []

    def run(number: int) -> None:
        try:
            for _ in range(100):
                store.put(f"c/{number}", [b"x"])
                assert store.get(f"c/{number}") == b"x"
                store.delete(f"c/{number}")
        except (AssertionError, Missing, Unavailable, Denied) as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []


# -- what the system refuses, asked by a process that is not allowed or has not the room

CHILD = """
import os, resource, signal, sys
from pathlib import Path
from objectstore.directory import Directory
if os.getuid() == 0 and "nobody" in sys.argv:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
if "small" in sys.argv:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    store = Directory(Path(sys.argv[1]))
    print(eval(sys.argv[2]))
except Exception as error:
    print(type(error).__name__, error)
"""


def child(path: Path, expression: str, *how: str) -> str:
    """Evaluate an expression on ``store`` in another process; return what it prints."""
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), expression, *how],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": ":".join(part or str(Path.cwd()) for part in sys.path)},
    )
    return run.stdout.strip()


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody can reach; pytest's own are private."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


def test_a_full_store_has_no_room(tmp_path: Path) -> None:
    Directory(tmp_path / "store").put("c/old", [b"old"])
    for only_new in (True, False):
        said = child(tmp_path / "store", f"store.put('c/a', [b'x' * 4000] * 3, only_new={only_new})", "small")
        assert said.startswith(NoRoom.__name__)
    assert {one.name for one in (tmp_path / "store" / "c").iterdir()} == {"old"}
    assert "size=3" in child(tmp_path / "store", "store.put('c/b', [b'new'])", "small")


def test_what_is_not_allowed_is_denied(shared: Path) -> None:
    root = shared / "store"
    Directory(root).put("c/a", [b"x"])
    (root / "c" / "a").chmod(0o600)
    for path, mode in ((root, 0o555), (root / "c", 0o555)):
        path.chmod(mode)
    for expression in ("store.put('c/b', [b'x'])", "store.put('d/b', [b'x'])", "store.delete('c/a')"):
        assert child(root, expression, "nobody").startswith(Denied.__name__)
    if os.getuid() == 0:  # else the child is the owner, who may read
        assert child(root, "store.get('c/a')", "nobody").startswith(Denied.__name__)
    for path in (root, root / "c"):
        path.chmod(0o755)


def test_a_grant_that_only_adds_is_enough_for_put(shared: Path) -> None:
    """Neither listing nor reading is allowed; in a directory with the sticky bit only one's own goes away."""
    root = shared / "store"
    store = Directory(root)
    store.put("c/a", [b"x"])
    (root / ".cluster").chmod(0o600)
    for path in (root, root / "c"):
        path.chmod(0o1333)
    for only_new in (True, False):
        said = child(root, f"store.put('c/b{only_new}', [b'new'], only_new={only_new})", "nobody")
        assert f"crc={zlib.crc32(b'new')}" in said
    assert "size=1" in child(root, "store.put('d/a', [b'y'])", "nobody")
    assert child(root, "store.list('c')", "nobody").startswith(Denied.__name__)
    for path in (root, root / "c"):
        path.chmod(0o755)
    assert [found.name for found in store.list("c")] == ["c/a", "c/bFalse", "c/bTrue"]
