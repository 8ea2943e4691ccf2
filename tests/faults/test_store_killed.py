"""SIGKILL in the middle of puts: every object is there whole, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from objectstore.directory import Directory
from objectstore.drafts import PREFIX
from objectstore.realm import Realm, open_store
from objectstore.store import Store

COUNT = int(os.environ.get("OSTLER_COUNT", "1"))
SIZE = 8 * 8000 * 64  # large enough to be killed in the middle of

WRITER = """
import itertools, sys
from pathlib import Path
from objectstore.directory import Directory
from objectstore.realm import Realm, open_store
kind, path, first = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
store = Directory(path / "store") if kind == "directory" else open_store(Realm.read(path / "realm.toml"))
print("ready", flush=True)
for number in itertools.count(first):
    block = b"%08d" % number
    store.put(f"r-g-1/{number:08d}", [block * 8000] * 64, only_new=number % 2 == 0)
    store.put("r-backups/pointer", [block * 8000] * 64)
    print(number, flush=True)
"""
REALM = """
[realm]
name = "r"
[cluster.east]
url = "dir://{path}/east"
[cluster.west]
url = "dir://{path}/west"
[policy]
mirror = 2
write_quorum = 2
"""


def killed(kind: str, path: Path, first: int, after: int, delay: float) -> set[int]:
    """Start a writer; kill it ``delay`` seconds after its ``after``-th put; return what it said is durable."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(path), str(first)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(part or str(Path.cwd()) for part in sys.path)},
    )
    assert writer.stdout is not None
    with writer, writer.stdout as said:
        assert said.readline() == b"ready\n"
        heard = [said.readline() for _ in range(after)]
        try:
            writer.wait(delay)
        except subprocess.TimeoutExpired:
            writer.kill()
        assert writer.wait() == -9
        heard += said.read().split(b"\n")
        return {int(line) for line in heard if line}


def opened(kind: str, path: Path) -> Store:
    if kind == "directory":
        return Directory(path / "store")
    return open_store(Realm.read(path / "realm.toml"))


@pytest.mark.parametrize("kind", ["directory", "federation"])
def test_each_object_is_whole_or_absent(kind: str, tmp_path: Path) -> None:
    (tmp_path / "realm.toml").write_text(REALM.replace("{path}", str(tmp_path)))
    promised: set[int] = set()
    first = 0
    for turn in range(12 * COUNT):
        promised |= killed(kind, tmp_path, first, turn % 3, (turn * 37 % 11) / 500)
        store = opened(kind, tmp_path)
        found = {one.name: one.size for one in store.list("r-g-1")}
        for name, size in found.items():
            number = name.removeprefix("r-g-1/")
            assert size == SIZE
            if int(number) < first:  # read in its own turn
                continue
            copies = store.members().values() if int(number) in promised else [store]
            for copy in copies:
                assert copy.get(name) == number.encode() * (SIZE // 8)
        assert not [name for name in found if PREFIX in name]
        assert {f"r-g-1/{number:08d}" for number in promised} <= set(found)
        if promised:
            pointer = store.get("r-backups/pointer")
            assert pointer == pointer[:8] * (SIZE // 8)
            assert int(pointer[:8]) >= max(promised)
        first = max([first, *(int(name.removeprefix("r-g-1/")) for name in found)]) + 1
    assert promised
