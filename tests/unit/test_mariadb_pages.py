"""Page sizes, fingerprints and positions of MariaDB's backups, without a server."""

import random  # noqa: TID251 - seeded content
import struct

import pytest

from datastores.contract import Blocks, Incomplete, Mismatch, Whole
from datastores.mariadb.pages import blocks, marks, page_size
from datastores.mariadb.position import Gtids, Told, goes_on


def first_page(flags: int, size: int = 16384, *, kind: int = 8, number: int = 0, space: int = 5) -> memoryview:
    page = bytearray(size)
    struct.pack_into(">I", page, 4, number)
    struct.pack_into(">H", page, 24, kind)
    struct.pack_into(">II", page, 34, space, 5)
    struct.pack_into(">I", page, 54, flags)
    return memoryview(page)


FULL = 1 << 4


@pytest.mark.parametrize(
    ("flags", "size", "plain"),
    [
        *((FULL | shift, 512 << shift, True) for shift in (3, 4, 5, 6, 7)),
        (FULL | 5 | 1 << 5, 16384, False),
        (0, 16384, True),
        (0x21, 16384, True),
        (3 << 6, 4096, True),
        (7 << 6, 65536, True),
        (1 << 16, 16384, False),
        (0x21 | 4 << 1, 8192, False),
        (0x21 | 3 << 1, 4096, False),
        (0x21 | 1 << 1, 4096, False),
        (0x21 | 5 << 1, 16384, False),
        (FULL | 1, 16384, False),
        (0x21 | 7 << 1, 16384, False),
    ],
)
def test_the_page_size_is_read_from_the_first_page(flags: int, size: int, plain: bool) -> None:
    assert page_size(first_page(flags)) == (size, plain)


@pytest.mark.parametrize(
    "head",
    [
        memoryview(b""),
        memoryview(bytes(57)),
        memoryview(bytes(16384)),
        first_page(FULL | 5, kind=17855),
        first_page(FULL | 5, number=3),
        first_page(FULL | 5, space=6),
    ],
)
def test_what_is_no_first_page_is_hashed(head: memoryview) -> None:
    assert page_size(head) == (16384, False)


@pytest.mark.parametrize("size", [4096, 16384, 65536])
def test_a_mark_is_the_page_s_own_checksum_number_and_log_position(size: int) -> None:
    content = random.Random(1).randbytes(size * 5)
    wanted = b"".join(
        content[at : at + 8] + content[at + 16 : at + 24] + content[at + size - 8 : at + size]
        for at in range(0, len(content), size)
    )
    assert marks(size)(memoryview(content)) == wanted
    assert marks(size)(memoryview(bytearray(content))[size : 3 * size]) == wanted[24:72]
    assert marks(size)(memoryview(b"")) == b""
    assert len(marks(size)(memoryview(content)[: size + 100])) == 48


@pytest.mark.parametrize("path", ["db/t.ibd", "db/t#P#p0.ibd", "db/t.new", "ibdata1", "undo001"])
def test_tablespaces_are_compared_by_pages_of_one_server(path: str) -> None:
    found, other = (blocks(path, first_page(FULL | 5), server) for server in ("one.0", "one.1"))
    assert isinstance(found, Blocks) and isinstance(other, Blocks)
    assert (found.size, found.width) == (16384, 24)
    assert found.lineage != other.lineage
    assert found.lineage != getattr(blocks(path, first_page(FULL | 3), "one.0"), "lineage", None)


def test_the_rest_is_hashed_or_kept_as_it_is() -> None:
    content = random.Random(2).randbytes(40_000)
    found = blocks("db/t.MYD", memoryview(content), "one.0")
    assert isinstance(found, Blocks) and (found.size, found.width) == (16384, 16)
    prints = found.fingerprints(memoryview(content))
    changed = bytearray(content)
    changed[20_000] ^= 1
    again = found.fingerprints(memoryview(changed))
    assert [prints[at : at + 16] == again[at : at + 16] for at in (0, 16, 32)] == [True, False, True]
    for path in ("ib_logfile0", "xtrabackup_info", "backup-my.cnf"):
        assert isinstance(blocks(path, memoryview(b"x"), "one.0"), Whole)


def told(**changes: bytes | None) -> Told:
    files: dict[str, bytes | None] = {
        "xtrabackup_checkpoints": b"backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 70\nlast_lsn = 75\n",
        "xtrabackup_binlog_info": b"binlog.000002\t345\t1-7-9\n",
        "xtrabackup_info": b"server_version = 10.11.19-MariaDB-log\nbinlog_pos = filename 'binlog.000002', "
        b"position '345', GTID of the last change '1-7-9'\n",
        **changes,
    }
    made = Told()
    for path, content in files.items():
        for at, each in enumerate([content[:5], content[5:]] if content is not None else []):
            made.listen(path, 5 * at, each)
    return made


def test_the_position_is_what_the_tool_wrote() -> None:
    assert told().position() == {
        "gtid": "1-7-9",
        "binlog_file": "binlog.000002",
        "binlog_position": 345,
        "lsn": 70,
        "end_lsn": 75,
        "server_version": "10.11.19-MariaDB-log",
    }


@pytest.mark.parametrize("path", ["xtrabackup_checkpoints", "xtrabackup_binlog_info", "xtrabackup_info"])
@pytest.mark.parametrize("content", [None, b"", b"\n", b"nonsense", b"\xff\xfe", b"a\tb\tc\n", b"to_lsn = \n"])
def test_a_position_that_is_not_whole_is_refused(path: str, content: bytes | None) -> None:
    with pytest.raises((Incomplete, Mismatch)):
        told(**{path: content}).position()


def test_positions_that_disagree_are_refused() -> None:
    with pytest.raises(Incomplete):
        told(xtrabackup_binlog_info=b"binlog.000002\t346\t1-7-9\n").position()
    with pytest.raises(Mismatch):
        told(xtrabackup_binlog_info=b"binlog.000002\t345\t1-7\n").position()


@pytest.mark.parametrize("text", ["1-2", "1-2-3-4", "a-b-c", "1-2-3,1-2-4", "1-2-3,", ",", " ", "-1-2-3", "None"])
def test_a_gtid_position_is_read_strictly(text: str) -> None:
    with pytest.raises(Mismatch):
        Gtids.parse(text)


def test_a_server_goes_on_by_its_own_transactions_alone() -> None:
    before = Gtids.parse("1-7-9,2-3-4")
    for text, wanted in {
        "1-7-9,2-3-4": True,
        "1-8-10,2-3-4": True,
        "1-8-10,2-3-4,5-8-1": True,
        "1-7-10,2-3-4": False,
        "1-8-9,2-3-4": False,
        "1-8-8,2-3-4": False,
        "1-8-10": False,
        "": False,
    }.items():
        assert goes_on(Gtids.parse(text), before, 8) is wanted, text
