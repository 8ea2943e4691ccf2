"""The engine: what is accepted, what excludes what, and how it ends."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from datastores.contract import JSON
from guestagent.declarations import verbs
from guestagent.operations.engine import Operations, Request
from guestagent.operations.guest import Guest
from tests.fakes_ops import read_state, sham_guest, up


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = sham_guest(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def engine(guest: Guest) -> Operations:
    return Operations(guest, verbs())


def request(verb: str, request_id: str | None = None, deadline: float | None = None, **args: JSON) -> Request:
    return Request(request_id or str(uuid.uuid4()), verb, args, deadline)


def done(engine: Operations, operation: dict[str, JSON], timeout: float = 20.0) -> dict[str, JSON]:
    assert engine.wait(str(operation["id"]), timeout), "it does not end"
    shown = engine.read("operation.show", {"id": operation["id"]})
    assert isinstance(shown, dict)
    return shown


def prepared(engine: Operations, **args: JSON) -> dict[str, JSON]:
    return done(engine, engine.accept(request("agent.prepare", **args)))


def test_prepare_makes_what_was_asked_for(guest: Guest, engine: Operations) -> None:
    ended = prepared(
        engine,
        databases=[{"name": "shop"}],
        users=[{"name": "ann", "password": "s3cret", "databases": ["shop"]}],
        settings={"color": "red", "size": 5},
    )
    assert ended["state"] == "succeeded", ended["error"]
    assert up(guest.manager.node)
    state = read_state(guest.manager.node)
    assert state["users"]["ann"] == {"password": "s3cret", "databases": ["shop"]}
    assert [each["state"] for each in ended["steps"]] == ["done"] * 9
    status = engine.read("agent.status", {})
    assert status["status"] == "HEALTHY"
