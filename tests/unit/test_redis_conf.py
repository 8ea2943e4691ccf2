"""The configuration file and its values, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastores.contract import BadInput, Mismatch, Rule
from datastores.redis.conf import RedisConf, quote, read, split
from datastores.redis.values import canonical
from datastores.redis.versions import VERSIONS, traits

WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@given(WORDS)
def test_a_quoted_word_is_read_as_it_was(value: str) -> None:
    assert split(f"name {quote(value)}") == ["name", value]
    made = RedisConf().dump([{"masterauth": value, "appendonly": "yes"}])["redis.conf"]
    assert made.count(b"\n") == 2
    assert read(made) == {"masterauth": value, "appendonly": "yes"}


def test_lines_are_split_as_the_server_does() -> None:
    assert split("a b  c\td") == ["a", "b", "c", "d"]
    assert split(r'a "x\x41\n\q" ' + r"'it\'s \n'") == ["a", "xA\nq", "it's \\n"]
    assert read(b"# c\n\n  Save 900 1\nsave 60 5\nbind 127.0.0.1 ::1\nslave-priority 5\n") == {
        "save": "900 1 60 5",
        "bind": "127.0.0.1 ::1",
        "replica-priority": "5",
    }
    for wrong in ('a "b', "a 'b", 'a "b"c'):
        with pytest.raises(Mismatch, match="line 1 "):
            split(wrong)


def test_later_layers_win_and_groups_have_lines_of_their_own() -> None:
    made = RedisConf().dump(
        [
            {"save": "900 1 60 5", "hz": "10"},
            {"hz": "20", "bind": "127.0.0.1 ::1"},
            {"client-output-buffer-limit": "a 1 2 3 b 4 5 6"},
        ]
    )["redis.conf"]
    assert made.decode().splitlines() == [
        'bind "127.0.0.1" "::1"',
        'client-output-buffer-limit "a" "1" "2" "3"',
        'client-output-buffer-limit "b" "4" "5" "6"',
        'hz "20"',
        'save "900" "1"',
        'save "60" "5"',
    ]
    assert RedisConf().dump([{"save": ""}]) == {"redis.conf": b'save ""\n'}


def test_nul_is_refused() -> None:
    with pytest.raises(BadInput, match="NUL"):
        quote("a\0b")


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ("size", "1mb", "1048576"),
        ("size", "1M", "1000000"),
        ("size", "1048576", "1048576"),
        ("size", "2Kb", "2048"),
        ("boolean", "YES", "yes"),
        ("integer", "007", "7"),
        ("events", "KEg$lshzxetd", "AKE"),
        ("events", "EKA", "AKE"),
        ("events", "", ""),
        ("buffers", "slave 1mb 1kb 5", "normal 0 0 0 replica 1048576 1024 5 pubsub 33554432 8388608 60"),
    ],
)
def test_values_have_one_spelling(kind: str, value: str, wanted: str) -> None:
    rule = Rule("x", kind, True, 0, 1 << 62)
    assert canonical(rule, value) == wanted
    assert canonical(rule, wanted) == wanted


@pytest.mark.parametrize(
    ("kind", "value"),
    [("size", "1tb"), ("size", "-1"), ("size", "mb"), ("size", "9" * 30), ("boolean", "1"), ("integer", "1.5")]
    + [
        ("events", "KQ"),
        ("buffers", ""),
        ("buffers", "slave 1 1"),
        ("buffers", "master 1 1 1"),
        ("buffers", "normal 1 1 x"),
    ],
)
def test_bad_values_are_refused_by_name(kind: str, value: str) -> None:
    with pytest.raises(BadInput, match="setting x is refused") as caught:
        canonical(Rule("x", kind, True, 0, 100), value)
    assert caught.value.field == "x"


def test_versions_are_known_or_refused() -> None:
    assert {traits(each).rdb for each in VERSIONS} == {9, 10}
    with pytest.raises(BadInput):
        traits("5.0")
