"""The walker over dumps, tables of fingerprints, and the chain of a backup's files."""

import random  # noqa: TID251  (seeded dumps, no secrets)
import struct
from collections.abc import Callable, Iterator

import pytest

from datastores.contract import File, Mismatch
from datastores.redis.chain import Chain, identity
from datastores.redis.fingerprints import Table, delta
from datastores.redis.moment import Position
from datastores.redis.rdb import WIDTH, Unwalkable, Walker
from datastores.redis.sinks import END, Learn, Write, head

KEY = b"k" * 32
STREAM = "a" * 40


def size(number: int) -> bytes:
    if number < 0x40:
        return bytes([number])
    if number < 0x4000:
        return bytes([0x40 | number >> 8, number & 255])
    return b"\x80" + number.to_bytes(4, "big") if number < 1 << 32 else b"\x81" + number.to_bytes(8, "big")


def text(value: bytes) -> bytes:
    return size(len(value)) + value


def record(kind: int, key: bytes, value: bytes, before: bytes = b"") -> bytes:
    return before + bytes([kind]) + text(key) + value


def stream(second: bool, third: bool) -> bytes:
    body = size(2) + 2 * (text(b"i" * 16) + text(b"l" * 90)) + size(3) + size(70000) + size(1)
    body += (size(1) * 5) if second else b""
    group = text(b"group") + size(70000) + size(2) + (size(9) if second else b"")
    pending = size(2) + 2 * (b"p" * 24 + size(300))
    consumer = text(b"one") + b"t" * (16 if third else 8) + size(2) + b"p" * 32
    return body + size(1) + group + pending + size(1) + consumer


VALUES: dict[int, bytes] = {
    0: text(b"plain"),
    1: size(2) + text(b"a") + text(b"b" * 70),
    2: size(2) + text(b"m1") + text(b"m2"),
    3: size(4) + text(b"a") + b"\x031.5" + text(b"b") + b"\xfd" + text(b"c") + b"\xfe" + text(b"d") + b"\xff",
    4: size(2) + text(b"f1") + text(b"v1") + text(b"f2") + text(b"v2"),
    5: size(2) + text(b"a") + b"d" * 8 + text(b"b") + b"e" * 8,
    **{kind: text(b"blob" * 30) for kind in (9, 10, 11, 12, 13, 16, 17, 20)},
    14: size(2) + text(b"z" * 200) + text(b"y"),
    15: stream(second=False, third=False),
    18: size(2) + size(2) + text(b"z" * 200) + size(1) + text(b"y"),
    19: stream(second=True, third=False),
    21: stream(second=True, third=True),
}
STRINGS = (b"\xc0\x05", b"\xc1\x05\x06", b"\xc2\x05\x06\x07\x08", b"\xc3\x03\x07abc", text(b"x" * 20000), b"\x00")


def dump(databases: dict[int, list[bytes]], function: bytes = b"") -> bytes:
    out = b"REDIS0010" + b"\xfa" + text(b"redis-ver") + text(b"7.0.15") + b"\xfa" + text(b"used") + b"\xc2aaaa"
    out += b"\xf5" + text(function) if function else b""
    for number, records in databases.items():
        out += b"\xfe" + size(number) + b"\xfb" + size(len(records)) + size(0) + b"".join(records)
    return out + b"\xff" + b"checksum"


def everything() -> dict[int, list[bytes]]:
    expiry = b"\xfc" + struct.pack("<Q", 4102444800000)
    first = [record(kind, b"k%d" % kind, value) for kind, value in VALUES.items()]
    second = [record(0, b"s%d" % n, value) for n, value in enumerate(STRINGS)]
    third = [record(0, b"e1", text(b"x"), expiry), record(0, b"e2", text(b"x"), b"\xfd" + b"sec4")]
    third += [record(0, b"e3", text(b"x"), expiry + b"\xf8\x44\x01"), record(0, b"e4", text(b"x"), b"\xf9\x05")]
    return {0: first, 5: second, 300: third}


class Seen:
    """A sink that writes down what it is told."""

    def __init__(self) -> None:
        self.others: list[bytes] = []
        self.records: list[tuple[int, bytes, bytes]] = []
        self.giants: list[tuple[int, bytes, bytearray]] = []

    def other(self, raw: bytes) -> None:
        self.others.append(raw)

    def record(self, database: int, fingerprint: bytes, buffer: bytearray, start: int, end: int) -> None:
        self.records.append((database, fingerprint, bytes(buffer[start:end])))

    def giant(self, database: int, fingerprint: bytes) -> None:
        self.giants.append((database, fingerprint, bytearray()))

    def part(self, raw: bytes) -> None:
        self.giants[-1][2].extend(raw)


def walk(data: bytes, cut: Callable[[], int] = lambda: 1 << 20, giant: int = 1 << 24) -> Seen:
    seen = Seen()
    walker = Walker(KEY, "base.rdb", seen, giant=giant)
    at = 0
    while at < len(data):
        step = max(1, cut())
        walker.feed(data[at : at + step])
        at += step
    walker.finish()
    return seen


def prints(data: bytes) -> list[bytes]:
    return [each[1] for each in walk(data).records]


def test_every_type_is_found_as_it_is() -> None:
    databases = everything()
    seen = walk(dump(databases, b"#!lua"))
    assert [(db, raw) for db, _, raw in seen.records] == [(db, raw) for db, all_ in databases.items() for raw in all_]
    assert len({each[1] for each in seen.records}) == len(seen.records)
    assert all(len(each[1]) == WIDTH for each in seen.records)
    assert len(seen.others) == 3


@pytest.mark.parametrize("giant", [1 << 24, 60, 20])
def test_the_pieces_it_comes_in_do_not_matter(giant: int) -> None:
    data = dump(everything(), b"#!lua")
    whole, lots = walk(data, giant=giant), random.Random(7)
    assert bool(whole.giants) == (giant < 1000)
    cuts: list[Callable[[], int]] = [lambda: 1, lambda: lots.randint(1, 90), lambda: lots.randint(1, 5000)]
    for cut in cuts:
        again = walk(data, cut, giant=giant)
        assert (again.records, again.giants, again.others) == (whole.records, whole.giants, whole.others)


def test_a_giant_is_given_whole_and_known_by_its_place() -> None:
    databases = everything()
    data = dump(databases)
    seen = walk(data, lambda: 11, giant=50)
    every = sorted([raw for _, _, raw in seen.records] + [bytes(raw) for _, _, raw in seen.giants])
    assert every == sorted(raw for all_ in databases.values() for raw in all_)
    other = Seen()
    walker = Walker(KEY, "changed.1", other, giant=50)
    walker.feed(data)
    walker.finish()
    assert not {each[1] for each in other.giants} & {each[1] for each in seen.giants}
    assert {each[1] for each in other.records} == {each[1] for each in seen.records}


def test_order_and_idle_time_do_not_change_a_fingerprint_and_all_else_does() -> None:
    one = prints(dump({0: [record(2, b"s", size(2) + text(b"a") + text(b"b")), record(4, b"h", VALUES[4])]}))
    turned = size(2) + text(b"f2") + text(b"v2") + text(b"f1") + text(b"v1")
    two = prints(dump({0: [record(2, b"s", size(2) + text(b"b") + text(b"a")), record(4, b"h", turned)]}))
    assert one == two
    base = prints(dump({0: [record(0, b"k", text(b"v"))]}))
    for before in (b"\xf9\x07", b"\xf8\x05"):
        assert prints(dump({0: [record(0, b"k", text(b"v"), before)]})) == base
    swapped = size(2) + text(b"f1") + text(b"v2") + text(b"f2") + text(b"v1")
    assert prints(dump({0: [record(4, b"h", swapped)]}))[0] not in one
    for databases in (
        {1: [record(0, b"k", text(b"v"))]},
        {0: [record(0, b"l", text(b"v"))]},
        {0: [record(0, b"k", text(b"w"))]},
        {0: [record(9, b"k", text(b"v"))]},
        {0: [record(0, b"k", text(b"v"), b"\xfd1234")]},
    ):
        assert prints(dump(databases)) != base
    keyed = Seen()
    walker = Walker(b"x" * 32, "base.rdb", keyed)
    walker.feed(dump({0: [record(0, b"k", text(b"v"))]}))
    assert [each[1] for each in keyed.records] != base


@pytest.mark.parametrize(
    "data",
    [
        b"no dump at all",
        b"REDIS00x0\xff",
        dump({0: [record(6, b"module", b"x")]}),
        dump({0: [record(7, b"module", b"x")]}),
        dump({0: [record(22, b"newer", b"x")]}),
        dump({0: [record(0, b"k", b"\xc4")]}),
        dump({0: [record(0, b"k", text(b"v"))]})[:-12],
        dump({0: [record(0, b"k", text(b"v"))]})[:-9],
        b"REDIS0010\xf7aux of a module\xff12345678",
        b"REDIS0010\xfe\x00\xfb\x02\x00" + record(0, b"one", text(b"of two")) + END,
    ],
)
def test_what_cannot_be_walked_is_said_so(data: bytes) -> None:
    with pytest.raises(Unwalkable):
        walk(data)


def test_what_is_written_can_be_walked_again() -> None:
    data, table = dump(everything(), b"#!lua"), Table(KEY, 10)
    walker = Walker(KEY, "base.rdb", Learn(table))
    walker.feed(data)
    walker.finish()
    assert sorted(table) == sorted(prints(data))
    wanted = set(prints(data)[::2])
    sink = Write(lambda each: each in wanted, others=True)
    walker = Walker(KEY, "base.rdb", sink)
    walker.feed(data)
    walker.finish()
    written = head(10) + sink.taken() + END
    assert set(prints(written)) == wanted
    assert walk(written).others == walk(data).others


def drawn(count: int, seed: int) -> list[bytes]:
    stream = random.Random(seed)
    return [stream.randbytes(WIDTH) for _ in range(count)]


def test_a_table_comes_back_from_its_file() -> None:
    table, added = Table(version=10), drawn(20000, 1)
    for each in added:
        table.add(each)
    again = Table.load(b"".join(table.dump()))
    assert (again.key, again.version, len(again)) == (table.key, 10, 20000)
    assert sorted(again) == sorted(added)
    assert not any(again.take(each) for each in drawn(5000, 2))
    assert all(again.take(each) for each in added)
    assert not any(again.take(each) for each in added)
    assert len(again) == 0


def test_what_looks_alike_across_two_entries_is_not_found() -> None:
    table = Table(KEY)
    for each in (b"\x01\x02abcdefgh", b"\x01\x02ijklmnop"):
        table.add(each)
    assert not table.take(b"\x01\x02efghijkl")
    assert not table.take(b"\x01\x03abcdefgh")
    assert table.take(b"\x01\x02abcdefgh")
    assert table.take(b"\x01\x02ijklmnop")


def test_a_delta_makes_one_table_of_another() -> None:
    old, new = drawn(3000, 1), drawn(100, 2)
    first, rest = Table(KEY, 10), Table(KEY, 10)
    for each in old:
        first.add(each)
    for each in old[:50]:
        rest.add(each)
    first.change(delta(11, rest, b"".join(new)))
    assert sorted(first) == sorted([*old[50:], *new])
    assert first.version == 11
    with pytest.raises(Mismatch, match="another table"):
        first.change(delta(11, rest, b""))


def spoilt(data: bytes) -> Iterator[bytes]:
    yield b""
    yield data[:-1]
    yield data + b"x"
    yield b"X" + data[1:]


def test_a_spoilt_table_or_delta_is_refused() -> None:
    table = Table(KEY, 10)
    for each in drawn(10, 1):
        table.add(each)
    for data in spoilt(b"".join(table.dump())):
        with pytest.raises(Mismatch):
            Table.load(data)
    for data in spoilt(delta(10, Table(KEY), drawn(1, 2)[0])):
        with pytest.raises(Mismatch):
            table.change(data)


def files(*slices: tuple[int, int, int], extra: tuple[File, ...] = ()) -> list[File]:
    made = [File(f"slice.{n}", f"slice.{n}", length, identity=identity(STREAM, at)) for n, at, length in slices]
    return [
        File("base.rdb", "base.rdb", 9, identity=identity(STREAM, 100)),
        *extra,
        *made,
        File("users.acl", "users.acl", 0),
    ]


def test_a_chain_is_proven_to_its_end() -> None:
    chain = Chain.of(files((1, 100, 50), (2, 150, 7)))
    chain.prove(Position(STREAM, 157))
    assert chain.number() == 3
    for wrong in (Position(STREAM, 158), Position("b" * 40, 157)):
        with pytest.raises(Mismatch, match="lead to"):
            chain.prove(wrong)
    for gap in (files((1, 100, 50), (2, 151, 6)), files((2, 150, 7))):
        with pytest.raises(Mismatch, match="begins at"):
            Chain.of(gap).prove(Position(STREAM, 157))


@pytest.mark.parametrize(
    "name", ["../x", "slice", "slice.", "slice.1/../../x", "slice.x", "dump.rdb", "base.rdb.1", ""]
)
def test_a_file_that_is_none_of_ours_is_refused(name: str) -> None:
    with pytest.raises(Mismatch, match="no redis backup has"):
        Chain.of(files(extra=(File(name, name, 1),)))


def test_a_chain_without_its_tables_is_refused() -> None:
    changed = File("changed.1", "changed.1", 5, identity=identity(STREAM, 100))
    with pytest.raises(Mismatch, match="lacks a table"):
        Chain.of(files(extra=(changed,))).prove(Position(STREAM, 100))
    with pytest.raises(Mismatch, match="no dump"):
        Chain.of([File("users.acl", "users.acl", 0)])
