"""The table of scopes: what excludes what, the same from both sides."""

import itertools

import pytest

from guestagent.declarations import verbs
from guestagent.operations.scopes import EXCLUDES, exclude


def test_two_exclude_each_other_or_neither() -> None:
    for one, other in itertools.product(EXCLUDES, EXCLUDES):
        assert exclude(one, other) == exclude(other, one), (one, other)


def test_two_of_one_scope_exclude_each_other() -> None:
    assert all(exclude(each, each) for each in EXCLUDES if each != "none")


def test_lifecycle_excludes_everything() -> None:
    assert EXCLUDES["lifecycle"] == EXCLUDES.keys()


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [
        ("data", "accounts", False),
        ("data", "settings", True),
        ("accounts", "settings", False),
        ("topology", "data", True),
        ("topology", "settings", True),
        ("none", "data", False),
    ],
)
def test_the_table(one: str, other: str, excluded: bool) -> None:
    assert exclude(one, other) == excluded


def test_every_verb_has_a_scope_of_the_table() -> None:
    assert {each.mark.scope for each in verbs().values()} <= EXCLUDES.keys()
    assert all(each.mark.scope != "none" for each in verbs().values() if each.mark.changes)
