"""The demultiplexer of xbstream: right with what the tool sends, an error with anything else."""

import random  # noqa: TID251 - seeded damage
import struct
import zlib
from collections.abc import Callable, Iterable

import pytest

from datastores.contract import DatastoreError, File, Incomplete
from datastores.mariadb.xbstream import PIECE, Demultiplexer


def head(kind: str, path: str, flags: int = 0) -> bytes:
    name = path.encode()
    return b"XBSTCK01" + bytes([flags]) + kind.encode() + struct.pack("<I", len(name)) + name


def payload(path: str, offset: int, content: bytes, *, flags: int = 0, crc: int | None = None) -> bytes:
    wanted = zlib.crc32(content) if crc is None else crc
    return head("P", path, flags) + struct.pack("<QQI", len(content), offset, wanted) + content


def end(path: str) -> bytes:
    return head("E", path)


def renamed(path: str, fresh: str) -> bytes:
    return head("R", path) + struct.pack("<I", len(fresh.encode())) + fresh.encode()


def removed(path: str) -> bytes:
    return head("D", path)


def source(stream: bytes, step: int) -> Callable[[memoryview], int]:
    position = 0

    def readinto(buffer: memoryview) -> int:
        nonlocal position
        piece = stream[position : position + min(step, len(buffer))]
        buffer[: len(piece)] = piece
        position += len(piece)
        return len(piece)

    return readinto


def read(*chunks: bytes, step: int = 1 << 20) -> tuple[dict[str, bytes], list[File]]:
    """Take a stream apart; return bytes by stored path, and the inventory."""
    found: dict[str, bytearray] = {}
    taken = Demultiplexer(source(b"".join(chunks), step))
    for path, offset, piece in taken.extents():
        assert len(piece) <= PIECE
        assert offset == len(found.setdefault(path, bytearray()))
        found[path] += piece
    return {path: bytes(each) for path, each in found.items()}, taken.files()


def there(content: dict[str, bytes], files: Iterable[File]) -> dict[str, bytes]:
    """Return what a restore would write."""
    assert all(len(content[each.stored]) == each.size for each in files)
    return {each.path: content[each.stored] for each in files}


@pytest.mark.parametrize("step", [1, 7, 65536])
def test_interleaved_files_come_out_whole(step: int) -> None:
    one, two = random.Random(1).randbytes(5000), random.Random(2).randbytes(3000)
    content, files = read(
        payload("./a/x.ibd", 0, one[:2000]),
        payload("b.frm", 0, two),
        payload("./a/x.ibd", 2000, one[2000:]),
        end("b.frm"),
        end("./a/x.ibd"),
        end("empty"),
        step=step,
    )
    assert there(content, files) == {"a/x.ibd": one, "b.frm": two, "empty": b""}


def test_a_large_chunk_comes_in_pieces_of_a_mebibyte() -> None:
    large = random.Random(3).randbytes(3 * PIECE + 17)
    taken = Demultiplexer(source(payload("x", 0, large) + end("x"), 65536))
    sizes = [(offset, len(piece)) for _, offset, piece in taken.extents()]
    assert sizes == [(0, PIECE), (PIECE, PIECE), (2 * PIECE, PIECE), (3 * PIECE, 17)]


def test_the_inventory_follows_renames_removals_and_rewrites() -> None:
    content, files = read(
        *(each for name in "abcd" for each in (payload(name, 0, name.encode() * 9), end(name))),
        renamed("a", "e"),
        payload("a", 0, b"a new a"),
        end("a"),
        removed("b"),
        payload("c", 0, b"c once more", flags=2),
        end("c"),
        removed("never sent"),
        renamed("never sent", "nor this"),
        renamed("d", "e"),
    )
    assert there(content, files) == {"e": b"d" * 9, "a": b"a new a", "c": b"c once more"}
    assert len({each.stored for each in files}) == 3


def test_an_emptied_file_is_empty() -> None:
    content, files = read(payload("t.MYD", 0, b"rows"), end("t.MYD"), removed("t.MYD"), end("t.MYD"))
    assert there(content, files) == {"t.MYD": b""}


@pytest.mark.parametrize(
    "stream",
    [
        head("S", "x") + bytes(8),
        head("Z", "x", flags=1),
        payload("x", 0, b"abc", flags=1) + end("x"),
        payload("x", 0, b"abc", flags=4) + end("x"),
        head("E", "x", flags=2),
        payload("x", 0, b"abc", crc=7) + end("x"),
        payload("x", 1, b"abc") + end("x"),
        payload("x", 0, b"abc") + payload("x", 4, b"abc") + end("x"),
        payload("x", 0, b"abc") + payload("x", 2, b"abc") + end("x"),
        payload("x", 0, b"abc"),
        payload("x", 0, b"abc") + end("x") + payload("x", 0, b"abc") + end("x"),
        payload("x", 0, b"abc") + renamed("x", "y") + end("x"),
        payload("x", 0, b"abc") + end("x") + payload("y", 0, b"abc") + renamed("x", "y") + end("y"),
        payload("x", 0, b"abc") + removed("x") + end("x"),
        payload("x", 0, b"abc") + end("x") + b"XBSTCK02" + bytes(20),
        payload("../x", 0, b"abc") + end("../x"),
        payload("/etc/x", 0, b"abc") + end("/etc/x"),
        payload("a/../../x", 0, b"abc") + end("a/../../x"),
        payload("a\0b", 0, b"abc") + end("a\0b"),
        payload(".again/1/x", 0, b"abc") + end(".again/1/x"),
        payload("", 0, b"abc") + end(""),
        end("x" * 5000),
        end("x") + renamed("x", "../y"),
    ],
)
def test_anything_else_is_an_error(stream: bytes) -> None:
    with pytest.raises(Incomplete):
        read(stream)


def test_a_stream_cut_anywhere_is_an_error() -> None:
    whole = payload("x", 0, b"abc" * 10) + end("x") + end("y") + renamed("y", "z") + removed("x")
    boundaries = {0, len(payload("x", 0, b"abc" * 10) + end("x")), len(whole)}
    boundaries |= {len(whole) - len(removed("x")), len(whole) - len(removed("x")) - len(renamed("y", "z"))}
    for length in range(len(whole)):
        if length not in boundaries:
            with pytest.raises(Incomplete):
                read(whole[:length])


def test_the_inventory_is_not_told_early() -> None:
    taken = Demultiplexer(source(end("x"), 100))
    with pytest.raises(Incomplete):
        taken.files()


def test_random_damage_is_seen_or_changes_nothing_sent() -> None:
    content = random.Random(4).randbytes(400)
    whole = payload("db/t.ibd", 0, content) + end("db/t.ibd")
    stream = random.Random(5)
    for _ in range(2000):
        broken = bytearray(whole)
        broken[stream.randrange(len(broken))] ^= 1 << stream.randrange(8)
        try:
            found, files = read(bytes(broken))
        except DatastoreError:
            continue
        assert there(found, files) == {"db/t.ibd": content}
