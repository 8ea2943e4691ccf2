"""Whatever stands in an agent's queue, the next request behind it is answered."""

import json
import uuid
import zlib
from collections.abc import Iterator
from typing import Any

import kombu
import pytest

from guestagent.rpc.client import Client, connect
from guestagent.rpc.framing import REQUEST_CAP
from tests.agents import LiveAgent, site, until
from tests.fixtures_rabbit import shared_broker


@pytest.fixture(scope="module")
def agent() -> Iterator[LiveAgent]:
    broker, guest = shared_broker(), f"g{uuid.uuid4().hex[:8]}"
    with site() as made:
        one = made.agent(guest, "toy", "1.0", transport_url=broker.url(), url=broker.agent_url(guest))
        one.start()
        yield one


@pytest.fixture(scope="module")
def client(agent: LiveAgent) -> Iterator[Client]:
    made = connect(agent.url)
    # The first one finds oslo.messaging and the broker.
    assert made.call("agent", "status", {}, deadline=60)
    yield made
    made.close()


def _wrapped(message: object) -> bytes:
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


@pytest.mark.parametrize(
    ("body", "kind", "headers"),
    [
        (b"", "application/json", {}),
        (b"\xff\xfe", "application/json", {}),
        (b"[1, 2]", "application/json", {}),
        (b"null", "application/json", {}),
        (b"5", "application/json", {}),
        (b"x" * (REQUEST_CAP + 1), "application/json", {}),
        (b"[" * 100_000, "application/json", {}),
        (b'{"oslo.version": "9.0", "oslo.message": "{}"}', "application/json", {}),
        (b'{"oslo.version": "2.0", "oslo.message": "["}', "application/json", {}),
        (b'{"oslo.version": "2.0", "oslo.message": "[1]"}', "application/json", {}),
        (b"cos\nsystem\n(S'true'\ntR.", "application/x-python-serialize", {}),
        (b"a: 1", "application/x-yaml", {}),
        (b"?", "text/nonsense", {}),
        (zlib.compress(b"x" * 5_000_000), "application/json", {"compression": "application/x-gzip"}),
        (_wrapped({}), "application/json", {}),
        (_wrapped({"method": 5, "namespace": [], "args": "x"}), "application/json", {}),
        (_wrapped({"method": "status", "namespace": "agent", "args": [1]}), "application/json", {}),
        (_wrapped({"method": "status", "namespace": "agent", "version": {}}), "application/json", {}),
        (_wrapped({"method": "create", "namespace": "user", "args": {}}), "application/json", {}),
        (_wrapped({"method": "create", "namespace": "user", "_unique_id": 7, "args": {}}), "application/json", {}),
    ],
)
def test_garbage_in_the_queue(
    agent: LiveAgent, client: Client, body: bytes, kind: str, headers: dict[str, str]
) -> None:
    broker = shared_broker()
    with kombu.Connection(f"amqp://guest:guest@127.0.0.1:{broker.port}//") as connection:
        producer = connection.channel()
        message = producer.prepare_message(
            body, content_type=kind, content_encoding="binary", headers=headers, properties={"delivery_mode": 2}
        )
        producer.basic_publish(message, exchange="", routing_key=f"ostler.{agent.guest_id}")
        assert client.call("agent", "status", {}, deadline=30)
        until(lambda: _waiting(producer, agent) == 0, 30, "what cannot be read is gone")
    assert agent.process is not None
    assert agent.process.poll() is None


def _waiting(channel: Any, agent: LiveAgent) -> int:
    return int(channel.queue_declare(f"ostler.{agent.guest_id}", passive=True).message_count)
