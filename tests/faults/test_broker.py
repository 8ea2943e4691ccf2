"""A broker that flaps, that takes nothing for a while, or that gives everything at once."""

import os
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from datastores.contract import JSON
from guestagent.errors import AgentError, DeadlinePassed, Unreachable
from guestagent.operations.engine import QUEUE
from guestagent.rpc.client import Client, connect
from tests.agents import LiveAgent, site, until
from tests.fixtures_rabbit import Broker

TIMES = int(os.environ.get("OSTLER_COUNT", "1"))
"""``make soak`` multiplies the counts."""

LATE, TIMELY = 100, QUEUE + 60
FLAPS = 2
PATIENT = 8
"""Questions at one time: as many as an agent answers side by side."""
GROWTH = 40 << 20
"""Bytes; hundreds of requests of some hundred bytes each are not seen below it."""

THREADS = 48
"""The agent's pools when all are full, and a dozen of its own."""


@contextmanager
def prepared(broker: Broker) -> Iterator[LiveAgent]:
    guest = f"g{uuid.uuid4().hex[:8]}"
    with site() as made:
        agent = made.agent(guest, "toy", "1.0", transport_url=broker.url(), url=broker.agent_url(guest))
        agent.start().prepare()
        yield agent


def process(agent: LiveAgent) -> psutil.Process:
    assert agent.process is not None
    return psutil.Process(agent.process.pid)


def cast(client: Client, name: str, expires: float | None = None) -> None:
    """Cast until it was taken, always under one request id."""
    args: dict[str, JSON] = {"name": name, "password": "secret"}
    end = time.monotonic() + 60
    while True:
        try:
            client.cast("user", "create", args, request_id=f"cast-{name}", deadline=10, expires=expires)
            return
        except AgentError as error:
            assert time.monotonic() < end, error
            time.sleep(0.05)


def creations(client: Client) -> list[dict[str, JSON]]:
    found = client.call("operation", "list", {}, deadline=20)
    assert isinstance(found, list)
    return [each for each in found if isinstance(each, dict) and each["verb"] == "user.create"]


def reached(client: Client) -> bool:
    try:
        return client.call("agent", "status", {}, deadline=3.0) is not None
    except AgentError:
        return False


def test_what_waited_too_long_is_told_so_and_the_rest_is_done_in_bounded_memory(own_broker: Broker) -> None:
    with prepared(own_broker) as agent:
        before = process(agent).memory_info().rss
        agent.kill()
        client = connect(agent.url)
        late = [f"late{number:05d}" for number in range(LATE * TIMES)]
        timely = [f"user{number:05d}" for number in range(TIMELY * TIMES)]
        for name in late:
            cast(client, name, expires=1.0)
        for name in timely:
            cast(client, name, expires=3600.0)
        time.sleep(1.1)
        agent.start()
        most = 0

        def over() -> bool:
            nonlocal most
            try:
                seen = creations(client)
            except AgentError:  # the question waits behind all of them, too
                return False
            most = max(most, sum(each["state"] == "queued" for each in seen))
            return sum(bool(each["ended_at"]) for each in seen) == len(late) + len(timely)

        until(over, 400 * TIMES, "every one has ended")
        ended = {str(each["request_id"]).removeprefix("cast-"): each for each in creations(client)}
        assert {_outcome(ended[name]) for name in late} == {"DeadlinePassed"}
        assert Counter(_outcome(ended[name]) for name in timely) == {"succeeded": len(timely)}
        assert most <= QUEUE
        assert process(agent).memory_info().rss - before < GROWTH
        assert agent.terminate() == 0


def _outcome(operation: dict[str, JSON]) -> str:
    error = operation["error"]
    return str(error["type"]) if isinstance(error, dict) else str(operation["state"])


def test_a_broker_that_takes_nothing_stops_nobody(own_broker: Broker) -> None:
    """Over its memory limit it reads no more from who publishes, and never says so to who is blocked already."""
    with prepared(own_broker) as agent:
        client = connect(agent.url)
        begun = str(agent.status()["heartbeat_at"])
        own_broker.control("set_vm_memory_high_watermark", "absolute", "1MB")
        asked = time.monotonic()
        with pytest.raises((DeadlinePassed, Unreachable)):
            client.call("agent", "status", {}, deadline=3.0)
        assert time.monotonic() - asked < 10
        time.sleep(3.0)  # some heartbeats that nobody takes
        own_broker.control("set_vm_memory_high_watermark", "0.4")
        until(lambda: reached(client), 60, "the agent is reached again")
        cast(client, "after")
        until(lambda: [_outcome(each) for each in creations(client)] == ["succeeded"], 60, "it works again")
        until(lambda: str(agent.status()["heartbeat_at"]) > begun, 60, "its heart beats")
        assert process(agent).num_threads() <= THREADS
        own_broker.control("set_vm_memory_high_watermark", "absolute", "1MB")
        time.sleep(2.0)
        assert agent.terminate() == 0


def test_a_broker_that_flaps_costs_neither_threads_nor_connections(own_broker: Broker) -> None:
    with prepared(own_broker) as agent:
        client = connect(agent.url)
        us = process(agent)
        cast(client, "before")
        until(lambda: len(creations(client)) == 1, 30, "the first is done")
        with ThreadPoolExecutor(PATIENT) as crew:
            # Answers that are given at one time take a connection each, which is kept for the next ones.
            assert all(crew.map(lambda _: reached(client), range(PATIENT)))
        files = us.num_fds()
        names = [f"u{number}" for number in range(FLAPS * TIMES)]
        for name in names:
            cast(client, name)
            own_broker.kill()
            own_broker.start()
        until(lambda: reached(client), 60, "the agent is reached again")
        until(lambda: len(creations(client)) == len(names) + 1, 60, "all were taken")
        until(lambda: {_outcome(each) for each in creations(client)} == {"succeeded"}, 60, "all were done")
        assert len({each["request_id"] for each in creations(client)}) == len(names) + 1
        assert us.num_threads() <= THREADS
        until(lambda: us.num_fds() <= files + 4, 60, "no connection is left over")
        assert agent.terminate() == 0
