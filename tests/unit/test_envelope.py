"""The envelope of a request: what stands in it is checked before anything is done with it."""

import math
import time

import pytest

from guestagent.errors import Refused
from guestagent.rpc.envelope import unpack


@pytest.mark.parametrize("deadline", [math.nan, math.inf, -math.inf, 1e300, 10**400, True, "soon", [], {}])
def test_a_deadline_that_no_clock_reaches_is_refused(deadline: object) -> None:
    with pytest.raises(Refused) as caught:
        unpack({"deadline": deadline}, {}, "r1")
    assert caught.value.field == "deadline"


@pytest.mark.parametrize("name", ["request_id", "caller", "tenant"])
@pytest.mark.parametrize("value", ["x" * 201, "a\nb", "\ud800", 5, ["a"]])
def test_a_name_that_is_no_printable_text_is_refused(name: str, value: object) -> None:
    with pytest.raises(Refused) as caught:
        unpack({name: value}, {}, "r1")
    assert caught.value.field == name


def test_the_envelope_and_the_arguments_are_taken_apart() -> None:
    soon = time.time() + 5
    envelope, rest = unpack({"deadline": soon, "caller": "me", "name": "shop"}, {"tenant": "t", "caller": "you"}, "r1")
    assert (envelope.request_id, envelope.deadline, envelope.caller, envelope.tenant) == ("r1", soon, "me", "t")
    assert rest == {"name": "shop"}
