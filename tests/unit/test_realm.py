"""The realm file: what it may say, and what is said about it when it may not."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from objectstore.realm import Realm, open_store
from objectstore.store import BadRequest, Missing, Unavailable

GOOD = """
[realm]
name = "ostler"
[cluster.east]
url = "dir://{path}/east"
region = "eu-1"
level = "cold"
weight = 3
[cluster.west]
url = "dir://{path}/we%20st"
[policy]
mirror = 2
write_quorum = 1
"""


def written(path: Path, text: str) -> Path:
    file = path / "realm.toml"
    file.write_text(text.replace("{path}", str(path)))
    return file


def test_a_good_file(tmp_path: Path) -> None:
    realm = Realm.read(written(tmp_path, GOOD))
    assert (realm.name, realm.mirror, realm.write_quorum) == ("ostler", 2, 1)
    east, west = realm.clusters
    assert (east.name, east.url, east.region, east.level) == ("east", f"dir://{tmp_path}/east", "eu-1", "cold")
    assert east.weight == 3.0
    assert (west.region, west.level, west.weight) == ("west", "hot", 1.0)


def test_the_policy_that_is_not_written(tmp_path: Path) -> None:
    bare = GOOD[: GOOD.index("[policy]")]
    two = Realm.read(written(tmp_path, bare))
    one = Realm.read(written(tmp_path, bare[: bare.index("[cluster.west]")]))
    three = Realm.read(written(tmp_path, bare + '[cluster.north]\nurl = "dir://{path}/north"\n'))
    assert [(r.mirror, r.write_quorum) for r in (one, two, three)] == [(1, 1), (2, 1), (2, 1)]


BAD = {
    "realm": [("[realm]", "[ream]"), ('[realm]\nname = "ostler"', 'realm = "ostler"')],
    "realm.name": [
        ('"ostler"', '""'),
        ('"ostler"', '"a/b"'),
        ('"ostler"', '".a"'),
        ('"ostler"', "7"),
        ('"ostler"', '"é"'),
        ('"ostler"', '"' + "a" * 101 + '"'),
        ('"ostler"', '"a\\n"'),
        ('name = "ostler"', ""),
    ],
    "realm.nam": [('name = "ostler"', 'name = "ostler"\nnam = 1')],
    "relm": [("[realm]", "[relm]\n[realm]")],
    "cluster.east": [("[cluster.east]", "[cluster]\neast = 1\n[cluster.x]")],
    "cluster.e/st": [("[cluster.east]", '[cluster."e/st"]')],
    "cluster.": [("[cluster.east]", '[cluster.""]')],
    "cluster.east.url": [
        ("dir://{path}/east", scheme)
        for scheme in (
            "",
            "/var/x",
            "dir:x",
            "dir://x",
            "dir://host/x",
            "dir://",
            "dir:///",
            "file:///x",
            "swift+https://k/v1",
            "https://x/y",
            "dir:///x?y=1",
            "dir:///x#y",
            "dir:///x/../y",
            "dir:///x/%2e%2e/y",
            "dir:///x%00",
            "DIRS:///x",
            "dir://[x/y",
        )
    ]
    + [('url = "dir://{path}/east"', "url = 7"), ('url = "dir://{path}/east"', "")],
    "cluster.west.url": [
        ("{path}/we%20st", "{path}/east"),
        ("{path}/we%20st", "{path}//east/"),
        ("{path}/we%20st", "{path}/e%61st"),
        ("{path}/we%20st", "{path}/east/below"),
    ],
    "cluster.east.weight": [("weight = 3", f"weight = {value}") for value in ("0", "-1", "true", '"3"', "nan", "inf")],
    "cluster.east.wait": [("weight = 3", "wait = 3")],
    "cluster.east.region": [('region = "eu-1"', "region = 1")],
    "cluster.east.level": [('level = "cold"', "level = []")],
    "policy": [("[policy]\nmirror = 2\nwrite_quorum = 1", ""), ("[policy]", "[[policy]]")],
    "policy.mirror": [("mirror = 2", f"mirror = {value}") for value in ("0", "-1", "3", "true", "1.0", '"2"')],
    "policy.write_quorum": [
        ("write_quorum = 1", f"write_quorum = {value}") for value in ("0", "3", "false", '"1"', "1.5")
    ],
    "policy.quorum": [("write_quorum = 1", "quorum = 1")],
}
CASES = [(field, *change) for field, changes in BAD.items() for change in changes]


@pytest.mark.parametrize(("field", "old", "new"), CASES)
def test_a_bad_file_is_refused_by_file_and_field(tmp_path: Path, field: str, old: str, new: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    if field == "policy" and "policy" not in text:
        text = "policy = 7\n" + text
    path = written(tmp_path, text)
    with pytest.raises(BadRequest) as caught:
        Realm.read(path)
    assert str(path) in str(caught.value)
    assert caught.value.field == field
    assert sorted(tmp_path.iterdir()) == [path]


def test_what_this_build_can_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadRequest) as caught:
        Realm.read(written(tmp_path, GOOD.replace("dir://{path}/east", "swift+https://keystone/v3")))
    assert "swift+https" in str(caught.value)
    assert "dir://" in (caught.value.hint or "")


def test_there_must_be_a_cluster(tmp_path: Path) -> None:
    for text in ('[realm]\nname = "x"\n', '[realm]\nname = "x"\n[cluster]\n'):
        with pytest.raises(BadRequest) as caught:
            Realm.read(written(tmp_path, text))
        assert caught.value.field == "cluster"


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[realm", b"a = 1\na = 2", GOOD.encode() + b"[cluster.east]\n"])
def test_what_is_no_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "realm.toml").write_bytes(data)
    with pytest.raises(BadRequest, match="realm.toml"):
        Realm.read(tmp_path / "realm.toml")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(BadRequest) as caught:
            Realm.read(path)
        assert str(path) in str(caught.value)
        assert caught.value.hint


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "realm.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BadRequest):
        Realm.read(tmp_path / "realm.toml")


# -- the store that it opens


def test_opening_touches_nothing_and_reading_makes_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    store = open_store(Realm.read(path))
    assert list(store.containers()) == []
    assert store.listing("ostler-backups").complete
    with pytest.raises(Missing):
        store.get("ostler-backups/x")
    store.delete("ostler-backups/x")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_put_initialises_the_directories(tmp_path: Path) -> None:
    (tmp_path / "east").mkdir()  # one is empty, the other missing
    store = open_store(Realm.read(written(tmp_path, GOOD)))
    assert store.put("ostler-g-1/a", [b"x"]).copies == store.where("ostler-g-1")
    for name in ("east", "we st"):
        assert (tmp_path / name / "ostler-g-1" / "a").read_bytes() == b"x"
        files = [one.relative_to(tmp_path / name) for one in (tmp_path / name).rglob("*") if one.is_file()]
        objects = {str(one) for one in files if not one.name.startswith(".")}
        assert objects == {"ostler-g-1/a", "ostler-backups/placement.1"}


@pytest.mark.parametrize("left", ["missing", "empty", "file", "no parent"])
def test_a_directory_that_was_taken_away_is_not_made_anew(tmp_path: Path, left: str) -> None:
    """Neither by who knew it nor by a fresh process; and when it comes back it is used at once."""
    (tmp_path / "disk").mkdir()
    realm = Realm.read(written(tmp_path, GOOD.replace("{path}/east", "{path}/disk/east")))
    known = open_store(realm)
    known.put("ostler-g-1/a", [b"x"])
    east, away = (
        (tmp_path / "disk", tmp_path / "away") if left == "no parent" else (tmp_path / "disk/east", tmp_path / "away")
    )
    east.rename(away)
    if left == "empty":
        east.mkdir()
    elif left == "file":
        east.touch()
    for number, store in enumerate((known, open_store(realm))):
        assert store.put(f"ostler-g-1/b{number}", [b"y"]).copies == ("west",)
        assert store.put(f"ostler-g-{number}2/b", [b"y"]).copies == ("west",)
        assert store.get("ostler-g-1/a") == b"x"
        assert store.listing("ostler-g-1").silent == ("east",)
        assert [found.copies for found in store.list("ostler-g-1", "a")] == [("west",)]
        with pytest.raises(Unavailable, match="east"):
            store.delete("ostler-g-1/a")
        with pytest.raises(Unavailable):
            store.get("ostler-g-1/none")
        store.put("ostler-g-1/a", [b"x"])
    if left == "empty":
        assert list(east.iterdir()) == []
        east.rmdir()
    elif left == "file":
        east.unlink()
    assert not east.exists()
    away.rename(east)
    for number, store in enumerate((known, open_store(realm))):
        assert set(store.put(f"ostler-g-1/c{number}", [b"z"]).copies) == {"east", "west"}
        assert store.listing("ostler-g-1").complete


def test_a_directory_that_was_lost_is_begun_anew_by_a_repair(tmp_path: Path) -> None:
    realm = Realm.read(written(tmp_path, GOOD))
    known = open_store(realm)
    known.put("ostler-g-1/a", [b"x"])
    (tmp_path / "east").rename(tmp_path / "lost")
    assert set(open_store(realm, renew=True).put("ostler-g-1/a", [b"x"]).copies) == {"east", "west"}
    for store in (known, open_store(realm)):
        assert set(store.put("ostler-g-1/b", [b"y"]).copies) == {"east", "west"}


@pytest.mark.parametrize("left", ["missing", "empty"])
def test_a_directory_that_nobody_else_knows_is_remembered_where_a_memory_is_kept(tmp_path: Path, left: str) -> None:
    """One cluster, or all of them at once: a disk that is not mounted is no new cluster."""
    text = '[realm]\nname = "ostler"\n[cluster.east]\nurl = "dir://{path}/east"\n'
    realm, memory = Realm.read(written(tmp_path, text)), tmp_path / "state" / "clusters"
    open_store(realm, memory=memory).put("ostler-g-1/a", [b"x"])
    (tmp_path / "east").rename(tmp_path / "away")
    if left == "empty":
        (tmp_path / "east").mkdir()
    store = open_store(realm, memory=memory)
    with pytest.raises(Unavailable, match="a cluster was there") as refused:
        store.put("ostler-g-1/b", [b"y"])
    with pytest.raises(Unavailable):
        store.get("ostler-g-1/a")
    assert list((tmp_path / "east").glob("**/*")) == []
    if left == "empty":
        (tmp_path / "east").rmdir()
    (tmp_path / "away").rename(tmp_path / "east")
    assert store.get("ostler-g-1/a") == b"x"
    (tmp_path / "east").rename(tmp_path / "lost")
    [kept] = memory.iterdir()
    assert str(kept) in str(refused.value.hint), "the way out"
    kept.unlink()
    assert open_store(realm, memory=memory).put("ostler-g-1/b", [b"y"]).copies == ("east",)
    elsewhere = Realm.read(written(tmp_path, text.replace("/east", "/moved")))
    assert open_store(elsewhere, memory=memory).put("ostler-g-1/b", [b"y"]).copies == ("east",)
