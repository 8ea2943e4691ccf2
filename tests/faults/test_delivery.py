"""What was accepted is done, once, however often the agent is killed: over RabbitMQ and over a socket."""

import os
import random  # noqa: TID251
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable

import pytest

from datastores.contract import JSON
from guestagent.errors import AgentError, DeadlinePassed, Told, Unreachable
from guestagent.rpc.client import Client, connect
from tests.agents import LiveAgent, site, until
from tests.fixtures_rabbit import Broker, shared_broker

CASTS = 200
KILLS = 10
TIMES = int(os.environ.get("OSTLER_COUNT", "1"))
"""``make soak`` multiplies the counts."""


@pytest.mark.parametrize("scheme", ["rabbit", "unix"])
def test_casts_survive_the_killing_of_the_agent(scheme: str) -> None:
    with site() as made:
        agent = _agent(made.agent, scheme)
        agent.start().prepare()
        client = connect(agent.url)
        names = [f"u{number:04d}" for number in range(CASTS * TIMES)]
        share = CASTS // KILLS
        for number in range(KILLS * TIMES):
            burst = threading.Thread(target=_cast_all, args=(client, names[number * share : (number + 1) * share]))
            burst.start()
            time.sleep(random.uniform(0.0, 0.25))  # noqa: S311
            agent.kill()
            time.sleep(random.uniform(0.0, 0.1))  # noqa: S311
            agent.start()
            burst.join()
        until(lambda: len(_ended(client)) >= len(names) + 1, 400, "all operations have ended")

        operations = [each for each in _operations(client) if each["verb"] == "user.create"]
        assert Counter(str(each["request_id"]) for each in operations) == Counter(f"cast-{name}" for name in names)
        assert {str(each["state"]) for each in operations} == {"succeeded"}
        assert _users(client) == names
        assert agent.terminate() == 0


def test_control_without_a_kill(own_broker: Broker) -> None:
    """The same without the fault: a broken client must not look like a lost request."""
    with site() as made:
        agent = made.agent("ctl", "toy", "1.0", transport_url=own_broker.url(), url=own_broker.agent_url("ctl"))
        agent.start().prepare()
        client = connect(agent.url)
        for number in range(20):
            _cast(client, f"u{number:04d}")
        until(lambda: len(_ended(client)) == 21, 60, "all operations have ended")
        assert len(_list(client, "user")) == 20

        own_broker.kill()
        begun = time.monotonic()
        with pytest.raises(Unreachable):
            connect(agent.url).call("agent", "status", {}, deadline=3.0)
        with pytest.raises((Unreachable, DeadlinePassed)):
            client.call("agent", "status", {}, deadline=3.0)
        assert time.monotonic() - begun < 10
        own_broker.start()
        until(lambda: _asked(client), 60, "the agent is reached again")
        _cast(client, "after")
        until(lambda: len(_list(client, "user")) == 21, 60, "the agent consumes again")


def test_casts_wait_in_the_broker_while_the_agent_is_dead_and_the_broker_is_killed(own_broker: Broker) -> None:
    with site() as made:
        agent = made.agent("late", "toy", "1.0", transport_url=own_broker.url(), url=own_broker.agent_url("late"))
        agent.start().prepare()
        agent.kill()
        client = connect(agent.url)
        for number in range(10):
            _cast(client, f"u{number}")
        client.close()
        own_broker.kill()
        own_broker.start()
        agent.start()
        client = connect(agent.url)
        until(lambda: len(_list(client, "user")) == 10, 60, "all ten were done")


def test_a_second_agent_at_the_same_broker_ends_with_4_and_has_consumed_nothing() -> None:
    broker, guest = shared_broker(), f"g{uuid.uuid4().hex[:8]}"
    with site() as one, site() as two:
        first = one.agent(guest, "toy", "1.0", transport_url=broker.url(), url=broker.agent_url(guest))
        first.start().prepare()
        second = two.agent(guest, "toy", "1.0", transport_url=broker.url(), url=broker.agent_url(guest))
        second.start(wait=False)
        client = connect(first.url)
        for number in range(50):
            _cast(client, f"u{number:02d}")
            time.sleep(0.05)
        assert second.wait_gone(90) == 4
        assert "SecondAgent" in second.tail()
        until(lambda: len(_list(client, "user")) == 50, 60, "the first has done them all")
        assert {str(each["epoch"]) for each in _operations(client)} == {str(first.ready["epoch"])}


def test_a_request_that_cannot_be_committed_is_not_acknowledged() -> None:
    """A journal that takes nothing: the cast stays with the broker and is done by the agent that can."""
    broker, guest = shared_broker(), f"g{uuid.uuid4().hex[:8]}"
    with site() as made:
        agent = made.agent(guest, "toy", "1.0", transport_url=broker.url(), url=broker.agent_url(guest))
        agent.start().prepare()
        agent.kill()
        journal = agent.state / "journal.db"
        whole = {each: each.read_bytes() for each in agent.state.glob("journal.db*")}
        spoiled = bytearray(journal.read_bytes())
        spoiled[100:4096] = bytes(len(spoiled[100:4096]))
        for each in whole:
            each.unlink()
        journal.write_bytes(spoiled)
        agent.start()
        client = connect(agent.url)
        found = client.call("agent", "status", {})
        assert isinstance(found, dict)
        assert found["trouble"]
        with pytest.raises(Told) as told:
            client.call("user", "create", {"name": "no", "password": "secret"})
        assert told.value.fault.type == "JournalCorrupt"
        _cast(client, "kept")
        time.sleep(1.0)
        assert client.call("agent", "status", {})
        agent.kill()
        for each, data in whole.items():
            each.write_bytes(data)
        agent.start()
        until(lambda: [each["name"] for each in _list(client, "user")] == ["kept"], 60, "the kept cast was done")


def _agent(make: Callable[..., LiveAgent], scheme: str) -> LiveAgent:
    guest = f"g{uuid.uuid4().hex[:8]}"
    if scheme == "unix":
        return make(guest, "toy", "1.0")
    broker = shared_broker()
    return make(guest, "toy", "1.0", transport_url=broker.url(), url=broker.agent_url(guest))


def _cast_all(client: Client, names: list[str]) -> None:
    for name in names:
        _cast(client, name)


def _cast(client: Client, name: str) -> None:
    """Cast until it was taken, always under one request id; it may wait long for its turn."""
    user: dict[str, JSON] = {"name": name, "password": "secret"}
    end = time.monotonic() + 60
    while True:
        try:
            client.cast("user", "create", user, request_id=f"cast-{name}", deadline=10, expires=900)
            return
        except AgentError as error:
            assert time.monotonic() < end, error
            time.sleep(0.05)


def _asked(client: Client) -> bool:
    try:
        return client.call("agent", "status", {}, deadline=3.0) is not None
    except AgentError:
        return False


def _operations(client: Client) -> list[dict[str, JSON]]:
    return _list(client, "operation")


def _ended(client: Client) -> list[dict[str, JSON]]:
    return [each for each in _operations(client) if each["ended_at"]]


def _users(client: Client) -> list[str]:
    """Return the names of all users, page by page."""
    found: list[str] = []
    while page := client.call("user", "list", {"after": found[-1]} if found else {}, deadline=60):
        assert isinstance(page, list)
        found += [str(each["name"]) for each in page if isinstance(each, dict)]
    return found


def _list(client: Client, noun: str) -> list[dict[str, JSON]]:
    found = client.call(noun, "list", {}, deadline=60)
    assert isinstance(found, list)
    return [each for each in found if isinstance(each, dict)]
