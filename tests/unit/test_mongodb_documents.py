"""BSON as bytes and the pieces around it, without a server: held against the driver's own reading."""

from collections.abc import Iterable
from itertools import compress
from pathlib import Path
from struct import pack

import bson
import pytest
from bson.raw_bson import RawBSONDocument
from hypothesis import given, settings
from hypothesis import strategies as st

from datastores.contract import Incomplete, Mismatch
from datastores.mongodb.conf import CONFIG, MongodConf, read
from datastores.mongodb.documents import Stored, documents, elements, field, identity
from datastores.mongodb.fingerprints import Prints
from datastores.mongodb.known import Gone, Known
from datastores.mongodb.position import Position

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
    | st.builds(bson.ObjectId, st.binary(min_size=12, max_size=12))
    | st.builds(bson.Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    | st.builds(bson.Binary, st.binary(max_size=20), st.sampled_from([0, 4, 128]))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=6)


@given(DOCUMENTS, NAMES, VALUES)
def test_a_field_is_found_as_the_driver_finds_it(document: dict[str, object], name: str, value: object) -> None:
    raw = memoryview(bson.encode({**document, name: value}))
    found = bytes(field(raw, name.encode()))
    alone = bson.encode({name: value})
    assert found == alone[4 + 1 + len(name.encode()) + 1 : -1]


@given(DOCUMENTS)
def test_a_field_that_is_not_there_is_missed(document: dict[str, object]) -> None:
    document.pop("cursor", None)
    with pytest.raises(Incomplete):
        field(memoryview(bson.encode(document)), b"cursor")


@given(st.lists(DOCUMENTS, max_size=130))
def test_the_documents_of_an_array_are_found_whole(rows: list[dict[str, object]]) -> None:
    array = field(memoryview(bson.encode({"firstBatch": rows})), b"firstBatch")
    assert [bytes(each) for each in elements(array)] == [bson.encode(each) for each in rows]


@given(st.lists(DOCUMENTS, max_size=30), st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_documents_cut_anywhere_are_put_together(rows: list[dict[str, object]], cuts: list[int]) -> None:
    whole, pieces, at = b"".join(map(bson.encode, rows)), list[bytes](), 0
    while at < len(whole):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(whole[at : at + size])
        at += size
    assert [bson.decode(each) for each in documents(pieces)] == [bson.decode(bson.encode(each)) for each in rows]
    if whole:
        with pytest.raises(Incomplete):
            list(documents([*pieces[:-1], pieces[-1][:-1]]))


@given(VALUES, DOCUMENTS)
def test_the_identity_of_a_document_is_its_first_field(value: object, document: dict[str, object]) -> None:
    document.pop("_id", None)
    found = bytes(identity(memoryview(bson.encode({"_id": value, **document}))))
    assert found == bson.encode({"_id": value})[4:-1]
    assert bytes(identity(memoryview(bson.encode(document)))) == b""


@given(st.lists(DOCUMENTS, min_size=1, max_size=5))
def test_the_driver_sends_stored_documents_as_they_are(rows: list[dict[str, object]]) -> None:
    raw = [bson.encode(each) for each in rows]
    sent = bson.encode({"documents": [Stored(each) for each in raw]})  # type: ignore[list-item]
    assert sent == bson.encode({"documents": [RawBSONDocument(each) for each in raw]})


def test_a_document_with_a_field_twice_is_sent_as_it_is() -> None:
    twice = b"\x10a\x00\x01\x00\x00\x00\x10a\x00\x02\x00\x00\x00"
    raw = pack("<i", len(twice) + 5) + twice + b"\x00"
    assert raw in bson.encode({"documents": [Stored(raw)]})  # type: ignore[list-item]
    assert list(documents([raw])) == [raw]


SETTINGS = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}\.[a-z]{1,8}", fullmatch=True),
    st.one_of(
        st.booleans().map(lambda each: "true" if each else "false"),
        st.integers(-(10**9), 10**9).map(str),
        st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=20).map(lambda each: f"x{each}"),
        st.sampled_from(
            ["", "a: b", "- x", "# no", "'", '"', "*a", "&a b", "!!int 3", "null", "~", "yes", "1e3", "0x1f"]
        ),
    ),
    max_size=8,
)


@given(SETTINGS)
def test_a_configuration_is_read_as_it_was_written(values: dict[str, str]) -> None:
    written = MongodConf().dump([{"net.port": "1"}, values])[CONFIG]
    assert read(written) == {"net.port": "1", **values}
    assert b"&" not in written or any("&" in each for each in values.values())


@pytest.mark.parametrize("text", [b"a: &x 1\nb: *x\n", b"a: &x {b: 1}\n", b"a: [", b"a: !!python/object:os.x {}\n"])
def test_an_odd_configuration_is_refused(text: bytes) -> None:
    with pytest.raises(Mismatch):
        read(text)


NUMBERS = st.integers(0, 2**31 - 1)


@given(st.builds(Position, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.sampled_from(["5.0", "6.0"])))
def test_a_position_is_read_as_it_was_told(position: Position) -> None:
    assert Position.of(position.to_json()) == position
    for each in ("seconds", "increment", "term", "rollback_id"):
        with pytest.raises(Mismatch):
            Position.of({key: value for key, value in position.to_json().items() if key != each})


def row(number: int, value: int) -> memoryview:
    return memoryview(bson.encode({"_id": number, "value": value}))


CHAIN = st.lists(st.dictionaries(st.integers(0, 60), st.integers(0, 3), max_size=40), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40)
@given(CHAIN)
def test_after_each_hole_what_is_known_is_what_there_is(
    tmp_path_factory: pytest.TempPathFactory, chain: object
) -> None:
    """A chain of fulls after holes, each against all before it; a restore takes what is not gone."""
    assert isinstance(chain, list)
    folder, prints = tmp_path_factory.getbasetemp(), Prints()
    data, told = list[list[bytes]](), list[bytes]()
    for source, state in enumerate(chain):
        sent = [bytes(row(*each)) for each in state.items()]
        if source:
            known = Known(folder, gone_of(told), (prints.of_file(cut(b"".join(rows))) for rows in data))
            sent = [each for each, entry in zip(sent, prints.of(sent), strict=True) if not known.find(entry)]
            told.append(b"".join(known.left()))
            known.close()
        data.append(sent)
        assert current(data, told) == dict(state)


def cut(content: bytes) -> list[bytes]:
    """Return a file's bytes as they may come: in pieces that end anywhere."""
    return [content[at : at + 37] for at in range(0, len(content), 37)]


def gone_of(told: Iterable[bytes]) -> Gone:
    gone = Gone()
    for each in told:
        gone.read(each)
    return gone


def current(data: list[list[bytes]], told: Iterable[bytes]) -> dict[int, int]:
    """Return the rows that a restore would take."""
    gone = gone_of(told)
    taken = [bson.decode(each) for source, rows in enumerate(data) for each in compress(rows, gone.current(source))]
    assert len({each["_id"] for each in taken}) == len(taken)
    return {each["_id"]: each["value"] for each in taken}


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mismatch):
        Gone().read(b"1234567")
    with pytest.raises(Incomplete):
        Known(tmp_path, Gone(), [Prints().of_file([bytes(row(1, 1))[:-1]])])


def test_a_changed_document_is_not_known_whatever_its_identity(tmp_path: Path) -> None:
    """Two rows that swapped their values, one that lost a byte, and one whose ``_id`` has another type."""
    prints, rows = Prints(), [row(1, 5), row(2, 6), row(3, 7)]
    known = Known(tmp_path, Gone(), [prints.of_file([b"".join(rows)])])
    other = [row(1, 6), row(2, 5), memoryview(bson.encode({"_id": bson.Int64(3), "value": 7}))]
    assert not any(known.find(each) for each in prints.of(other))
    assert all(known.find(each) for each in prints.of(rows))
    assert list(known.left()) == [b""]


def test_a_known_entry_is_found_among_those_of_the_same_head(tmp_path: Path) -> None:
    """Also where the bytes of two entries, one after the other, look like a third."""
    entries = [b"\x00\x00" + bytes([n]) * 10 for n in range(1, 200)]
    known = Known(tmp_path, Gone(), [[b"".join(entries[:70]), b"".join(entries[70:])]])
    assert not known.find(b"\x00\x00" + b"\x01" * 5 + b"\x02" * 5)
    assert all(known.find(each) for each in entries[::2])
    left = [int.from_bytes(part[at : at + 8], "little") for part in known.left() for at in range(0, len(part), 8)]
    assert left == list(range(1, len(entries), 2))
