"""What Cassandra's files and statements say by themselves: names, identities, sums, and where statements end."""

import os
import re
import zlib
from pathlib import Path

import pytest

from datastores.cassandra.schema import Made, Schema, Table, statements
from datastores.cassandra.sstables import PIECE, Component, Piece, contents, linked, placed
from datastores.contract import Mismatch

UNIQUE = "nb-3h5p_0n56_0ofmy20os54hqnddc7-big"
TRIE = "da-3h5p_0n56_0ofmy20os54hqnddc7-bti"
ID = "418f7340e58411f184c61f10d8e9b3c7"
TAG = "ostler-0123"


def link(data: Path, name: str, content: bytes, inner: str = "") -> Path:
    """Put a file into a snapshot."""
    path = data / "shop" / f"t-{ID}" / "snapshots" / TAG / inner / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def sstable(data: Path, content: bytes, name: str = UNIQUE, inner: str = "") -> None:
    link(data, f"{name}-Data.db", content, inner)
    link(data, f"{name}-Statistics.db", b"told", inner)
    link(data, f"{name}-Digest.crc32", str(zlib.crc32(content)).encode(), inner)


def pieces(data: Path) -> dict[str, Piece]:
    return {each.path: each for each in linked(data, TAG)}


def joined(piece: Piece) -> bytes:
    whole = bytearray()
    for path, offset, buffer in piece.extents():
        assert (path, offset) == (piece.path, len(whole))
        whole += buffer
    return bytes(whole)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (f"{UNIQUE}-Data.db", Component(UNIQUE, "Data.db", True)),
        (f"{UNIQUE}-SAI+aa+t_sai+Meta.db", Component(UNIQUE, "SAI+aa+t_sai+Meta.db", True)),
        (
            "da-3h5p_0n56_0ofmy20os54hqnddc7-bti-Rows.db",
            Component("da-3h5p_0n56_0ofmy20os54hqnddc7-bti", "Rows.db", True),
        ),
        ("nb-17-big-Data.db", Component("nb-17-big", "Data.db", False)),
        ("manifest.json", None),
        ("nb_txn_flush_0.log", None),
    ],
)
def test_a_name_says_which_component_of_which_sstable_it_is(name: str, wanted: Component | None) -> None:
    assert Component.of(name) == wanted


def test_only_what_is_written_once_under_a_name_of_its_own_has_an_identity(tmp_path: Path) -> None:
    sstable(tmp_path, b"rows")
    sstable(tmp_path, b"others", "nb-1-big")
    link(tmp_path, f"{UNIQUE}-Index.db", b"where")
    link(tmp_path, "manifest.json", b"{}")
    link(tmp_path, "schema.cql", b"CREATE")
    found = pieces(tmp_path)
    place = f"shop/t-{ID}"
    assert found[f"{place}/{UNIQUE}-Data.db"].identity == b"%d:4" % zlib.crc32(b"rows")
    assert found[f"{place}/{UNIQUE}-Index.db"].identity == b"%d:5" % zlib.crc32(b"rows")
    assert [each.path for each in found.values() if each.identity] == sorted(
        f"{place}/{UNIQUE}-{kind}" for kind in ("Data.db", "Index.db")
    )
    assert not any(each.endswith(("manifest.json", "schema.cql")) for each in found)


def test_the_files_of_an_index_of_its_own_lie_below_its_table(tmp_path: Path) -> None:
    sstable(tmp_path, b"rows")
    sstable(tmp_path, b"index", inner=".t_c")
    assert f"shop/t-{ID}/.t_c/{UNIQUE}-Data.db" in pieces(tmp_path)
    assert all(placed(each) for each in pieces(tmp_path))


@pytest.mark.parametrize(
    "path",
    ["restored.json", f"shop/t-{ID}/../x", f"../shop/t-{ID}/x", "shop/t/x", f"shop/t-{ID}/a/b/c", f"/shop/t-{ID}/x"],
)
def test_a_path_that_is_no_tables_file_is_seen(path: str) -> None:
    assert not placed(path)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 4097])
def test_a_file_comes_whole_whatever_its_size(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(content)
    found = [bytes(each) for each in contents(path)]
    assert b"".join(found) == content
    assert len(found) == max(1, -(-size // PIECE))


@pytest.mark.parametrize("at", [0, PIECE + 5, 2 * PIECE - 1])
def test_data_that_has_changed_since_it_was_written_is_no_backup(tmp_path: Path, at: int) -> None:
    content = bytearray(os.urandom(2 * PIECE))
    sstable(tmp_path, bytes(content))
    [data] = [each for each in pieces(tmp_path).values() if each.path.endswith("Data.db")]
    assert joined(data) == content
    content[at] ^= 1
    data.source.write_bytes(content)
    with pytest.raises(Mismatch, match=re.escape(data.path)):
        joined(data)


def test_a_checksum_that_is_none_is_no_backup(tmp_path: Path) -> None:
    link(tmp_path, f"{UNIQUE}-Digest.crc32", b"what")
    with pytest.raises(Mismatch):
        pieces(tmp_path)


def test_statements_end_where_no_name_and_no_string_is() -> None:
    first = """CREATE TABLE a."Odd" ("we;\n""ird" int PRIMARY KEY) WITH comment='it''s; $$ this;'"""
    second = 'ALTER TABLE a."Odd" DROP "y;" USING TIMESTAMP 1'
    body = "CREATE FUNCTION a.f() CALLED ON NULL INPUT RETURNS int LANGUAGE java AS $$return 1; // '\n$$"
    assert statements(f"{first};\n{second};\n{body};") == [first, second, body]
    assert statements("") == []


def test_a_schema_is_told_by_what_it_is_and_not_by_where_copies_lie() -> None:
    def schema(factor: int = 1, number: str = ID, column: str = "a") -> Schema:
        made = (
            Made("shop", "keyspace", "shop", f"CREATE KEYSPACE shop WITH replication = {{'dc1': '{factor}'}}"),
            Made("shop", "table", "t", "CREATE TABLE shop.t"),
        )
        return Schema(made, (Table("shop", "t", number, "", ((column, "regular", "int"),), ("t_c",)),))

    assert Schema.load(schema().dump()) == schema()
    assert schema(1).digest() == schema(3).digest()
    assert schema(number=ID[::-1]).digest() != schema().digest() != schema(column="b").digest()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"made": [1], "tables": []}', b"\xff"])
def test_a_schema_that_is_damaged_is_refused(content: bytes) -> None:
    with pytest.raises(Mismatch):
        Schema.load(content)
