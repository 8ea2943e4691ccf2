"""CQL's quoting, rights and replication, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastores.cassandra.dialect import across, grants, identifier, literal, resources, rights
from datastores.cassandra.factors import factors
from datastores.contract import BadInput

TEXT = st.text(max_size=40) | st.text(alphabet="'\"\\$-/*; x\0\n", max_size=20)


def read(quoted: str, mark: str) -> str:
    """Read one quoted word as the server's lexer does: it ends at the first mark that is not doubled."""
    assert quoted[0] == mark
    found, at = "", 1
    while quoted[at] != mark or quoted[at + 1 : at + 2] == mark:
        found += quoted[at]
        at += 2 if quoted[at] == mark else 1
    assert at == len(quoted) - 1, "it ends before its end"
    return found


@given(TEXT)
def test_what_is_quoted_is_one_word_and_read_as_it_was(text: str) -> None:
    assert read(literal(text), "'") == text
    assert read(identifier(text), '"') == text


def test_nobody_is_given_the_right_to_grant() -> None:
    for database in ("shop", "shop.orders"):
        assert all("AUTHORIZE" not in each and "ALL PERMISSIONS" not in each for each in grants(database, "ann"))
    assert grants("shop.orders", 'a"b') == [
        'GRANT ALTER, DROP, SELECT, MODIFY, UNMASK, SELECT_MASKED ON TABLE "shop"."orders" TO "a""b"'
    ]


def test_what_is_given_is_what_is_looked_for() -> None:
    assert list(rights("shop")) == ['KEYSPACE "shop"', 'ALL FUNCTIONS IN KEYSPACE "shop"']
    assert list(resources("shop")) == ["data/shop", "functions/shop"]
    assert list(resources("shop.orders")) == ["data/shop/orders"]
    for database in ("shop", "shop.orders"):
        assert [set(each) for each in rights(database).values()] == [set(each) for each in resources(database).values()]


@pytest.mark.parametrize(
    ("asked", "there", "wanted"),
    [
        (None, {"dc1": 1}, {"dc1": 1}),
        (None, {"dc1": 2}, {"dc1": 2}),
        (None, {"west": 5, "east": 3}, {"east": 3, "west": 3}),
        ("1", {"dc1": 3}, {"dc1": 1}),
        ("2", {"west": 2, "east": 3}, {"east": 2, "west": 2}),
        ("dc1:3", {"dc1": 3, "dc2": 3}, {"dc1": 3}),
        ("dc1:3, dc2:1", {"dc1": 3, "dc2": 3}, {"dc1": 3, "dc2": 1}),
        ("a:b:2", {"a:b": 2}, {"a:b": 2}),
    ],
)
def test_copies_are_three_or_what_was_asked_for(
    asked: str | None, there: dict[str, int], wanted: dict[str, int]
) -> None:
    assert factors(asked, there) == wanted


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("4", "4 copies in dc1, which has 3"),
        ("2", "2 copies in dc2, which has 1"),
        ("dc1:4", "4 copies in dc1, which has 3"),
        ("nodc:1", "no data centre 'nodc'"),
        ("0", "from 1 on"),
        ("dc1:0", "from 1 on"),
        ("dc1:", "from 1 on"),
        ("dc1:-1", "from 1 on"),
        ("dc1:\u0663", "from 1 on"),
        ("\u0663", "from 1 on"),
        ("dc1:1,dc1:2", "wanted is"),
        ("dc1", "wanted is"),
        ("", "wanted is"),
        (" ", "wanted is"),
        ("dc1:1,", "wanted is"),
        ("{'class': 'SimpleStrategy'}", "from 1 on"),
    ],
)
def test_what_the_nodes_cannot_hold_is_refused(asked: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        factors(asked, {"dc1": 3, "dc2": 1})
    assert caught.value.field == "replication"


def test_a_replication_is_by_data_centre_and_quoted() -> None:
    assert across({"dc1": 3, "o'dc": 1}) == "{'class': 'NetworkTopologyStrategy', 'dc1': 3, 'o''dc': 1}"
