"""One contract, three transports: the same calls mean the same over memory, a socket and a broker."""

import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest

from datastores.contract import JSON
from guestagent.config import without_file
from guestagent.declarations import installed, load, verbs
from guestagent.errors import DeadlinePassed, Told, Unreachable
from guestagent.operations.engine import Operations, Request
from guestagent.operations.guest import Guest
from guestagent.rpc import framing
from guestagent.rpc.client import Client, connect
from guestagent.rpc.reporter import Reporter
from guestagent.rpc.server import Door, check_version, serve, topic_of
from guestagent.rpc.transport import open_transport
from tests.fakes_ops import read_state, sham_guest
from tests.fixtures_rabbit import Broker, shared_broker

CANARY = "canary-4a1f"


class Orders:
    """The real operations, with three questions added that no datastore asks."""

    def __init__(self, guest: Guest) -> None:
        self.operations = Operations(guest, verbs())
        self.go_on = threading.Event()

    def read(self, verb: str, args: Mapping[str, JSON]) -> JSON:
        if args.get("id") == "wait":
            self.go_on.wait(20)
            return {"waited": True}
        if args.get("id") == "break":
            raise RuntimeError(f"a defect that knows {CANARY}")
        if args.get("id") == "fill":
            return ["x" * 1000] * 3000
        return self.operations.read(verb, args)

    def accept(self, request: Request) -> dict[str, JSON]:
        return self.operations.accept(request)

    def enqueue(self, request: Request) -> dict[str, JSON]:
        return self.operations.enqueue(request)


class Served:
    """An agent's door, served in this process."""

    def __init__(self, url: str, agent_url: str, guest: Guest) -> None:
        self.url, self.agent_url, self.guest = url, agent_url, guest
        self.orders = Orders(guest)
        self.door = Door(self.orders, verbs(), guest.manager.datastore)
        self.transport = open_transport(without_file(), url)
        self._end = serve(self.transport, guest.guest_id, self.door)
        self.client: Client = connect(agent_url)

    def end(self) -> None:
        self.client.close()
        self._end()
        self.transport.cleanup()

    def wait(self, found: JSON) -> dict[str, JSON]:
        assert isinstance(found, dict)
        return self.client.wait_for(str(found["id"]), deadline=20)


def _urls(scheme: str, folder: Path, guest_id: str) -> tuple[str, str]:
    if scheme == "unix":
        return f"unix://{folder}/bus", f"unix://{folder}/bus?id={guest_id}"
    if scheme == "kombu+memory":
        return "kombu+memory:///", f"kombu+memory:///?id={guest_id}"
    broker: Broker = shared_broker()
    return broker.url(), broker.agent_url(guest_id)


@pytest.fixture(scope="module", params=["unix", "kombu+memory", "rabbit"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """One agent for the whole module."""
    with tempfile.TemporaryDirectory(prefix="rpc", dir="/tmp") as name:
        folder = Path(name)
        guest = sham_guest(folder, f"g{uuid.uuid4().hex[:8]}")
        made = Served(*_urls(request.param, folder, guest.guest_id), guest)
        assert made.wait(made.client.call("agent", "prepare", {}))["state"] == "succeeded"
        yield made
        made.end()


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave no operation to the next test."""
    yield
    if "served" in request.fixturenames:
        served: Served = request.getfixturevalue("served")
        assert _eventually(lambda: not served.client.call("agent", "status", {})["operations"])  # type: ignore[call-overload, index]


def refused(call: Callable[[], object]) -> Told:
    with pytest.raises(Told) as told:
        call()
    return told.value


def test_describe_says_what_can_be_called(served: Served) -> None:
    found = served.client.call("agent", "describe", {})
    assert isinstance(found, dict)
    assert found["datastore"] == "sham"
    names = {each["name"] for each in found["verbs"]}
    assert {"agent.describe", "user.create", "operation.show"} <= names
    assert not any(name.startswith("grants.") for name in names)


def test_status_is_the_agents_own(served: Served) -> None:
    found = served.client.call("agent", "status", {})
    assert isinstance(found, dict)
    assert (found["guest_id"], found["epoch"]) == (served.guest.guest_id, served.guest.boot_epoch)


def test_a_changing_verb_becomes_an_operation_that_is_waited_for(served: Served) -> None:
    seen: list[object] = []
    begun = served.client.call("database", "create", {"name": "shop ☃"}, request_id="once")
    assert isinstance(begun, dict)
    assert begun["request_id"] == "once"
    ended = served.client.wait_for(str(begun["id"]), deadline=20, progress=lambda each: seen.append(each["state"]))
    assert ended["state"] == "succeeded"
    assert seen[-1] == "succeeded"
    assert {"name": "shop ☃"} in served.client.call("database", "list", {})  # type: ignore[operator]


def test_the_same_request_id_is_the_same_operation(served: Served) -> None:
    one = served.client.call("database", "create", {"name": "twice"}, request_id="r-twice")
    two = served.client.call("database", "create", {"name": "twice"}, request_id="r-twice")
    assert one["id"] == two["id"]  # type: ignore[index, call-overload]
    told = refused(lambda: served.client.call("database", "create", {"name": "other"}, request_id="r-twice"))
    assert (told.fault.type, told.fault.field, told.fault.exit_status) == ("Refused", "request_id", 2)
    assert served.wait(one)["state"] == "succeeded"


def test_a_failed_operation_says_why(served: Served) -> None:
    ended = served.wait(served.client.call("user", "delete", {"name": "nobody"}))
    assert ended["state"] == "failed"
    assert ended["error"]["type"] == "NotFound"  # type: ignore[index, call-overload]


def test_a_cast_is_committed_and_done(served: Served) -> None:
    request_id = served.client.cast("database", "create", {"name": "cast"})
    assert _eventually(lambda: _states(served, request_id) == ["succeeded"])
    assert "cast" in read_state(served.guest.manager.node)["databases"]


def test_busy_names_the_operation_and_a_cast_waits_its_turn(served: Served) -> None:
    gate = served.guest.manager.node.places.root / "gate"
    gate.touch()
    try:
        first = served.client.call("user", "create", {"name": "ann", "password": "pw"})
        told = refused(lambda: served.client.call("user", "create", {"name": "bob", "password": "pw"}))
        assert (told.fault.type, told.fault.exit_status) == ("Busy", 4)
        assert told.fault.operation == first["id"]  # type: ignore[index, call-overload]
        waiting = served.client.cast("user", "create", {"name": "cid", "password": "pw"})
        assert _eventually(lambda: _states(served, waiting) == ["queued"])
    finally:
        gate.unlink()
    assert _eventually(lambda: _states(served, waiting) == ["succeeded"])


@pytest.mark.parametrize(
    ("noun", "verb"),
    [
        ("agent", "__init__"),
        ("agent", "commit"),
        ("agent", "dispatch"),
        ("admin", "ping"),
        ("admin", "secure"),
        ("settings", "check"),
        ("user", "_create"),
        ("user", ""),
        ("", "status"),
        ("operation", "list_"),
        ("nothing", "at_all"),
    ],
)
def test_what_is_not_marked_cannot_be_called(served: Served, noun: str, verb: str) -> None:
    told = refused(lambda: served.client.call(noun, verb, {}))
    assert (told.fault.type, told.fault.exit_status) == ("UnknownVerb", 2)


def test_a_part_that_is_not_there_is_unsupported(served: Served) -> None:
    told = refused(lambda: served.client.call("user", "grant", {"name": "a", "database": "b"}))
    assert (told.fault.type, told.fault.message, told.fault.exit_status) == ("Unsupported", "sham has no grants", 5)


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({}, "name"),
        ({"name": 5}, "name"),
        ({"name": True}, "name"),
        ({"name": None}, "name"),
        ({"name": "a", "colour": "red"}, "colour"),
        ({"name": "a", "deadline": "soon"}, "deadline"),
        ({"name": "a", "deadline": True}, "deadline"),
        ({"name": "a", "tenant": "\n"}, "tenant"),
        ({"name": "a", "caller": "x" * 300}, "caller"),
        ({"name": "a", "charset": ["utf8"]}, "charset"),
    ],
)
def test_arguments_are_checked_by_name(served: Served, args: dict[str, JSON], field: str) -> None:
    answer = raw(served, "database", "create", args)
    assert isinstance(answer, dict)
    assert (answer["error"]["type"], answer["error"]["field"]) == ("Refused", field)


@pytest.mark.parametrize("version", ["0.9", "1.1", "2.0", "x", "1"])
def test_another_version_is_refused(served: Served, version: str) -> None:
    answer = raw(served, "agent", "status", {}, version=version)
    assert isinstance(answer, dict)
    assert answer["error"]["type"] == "BadVersion"


def test_the_envelope_may_come_as_the_context(served: Served) -> None:
    one = raw(served, "database", "create", {"name": "ctx"}, context={"request_id": "from-context", "tenant": "t"})
    two = raw(served, "database", "create", {"name": "ctx", "request_id": "from-context"})
    assert one["id"] == two["id"]
    assert one["request_id"] == "from-context"


def test_a_request_that_is_late_is_not_answered(served: Served) -> None:
    told = refused(lambda: served.client.call("agent", "status", {"deadline": time.time() - 1}))
    assert (told.fault.type, told.fault.exit_status) == ("DeadlinePassed", 8)
    told = refused(lambda: served.client.call("database", "create", {"name": "late"}, expires=-1.0))
    assert told.fault.type == "DeadlinePassed"
    assert "late" not in read_state(served.guest.manager.node)["databases"]


def test_a_deadline_holds_while_the_agent_thinks(served: Served) -> None:
    served.orders.go_on.clear()
    begun = time.monotonic()
    with pytest.raises(DeadlinePassed):
        served.client.call("operation", "show", {"id": "wait"}, deadline=1.0)
    assert time.monotonic() - begun < 10
    served.orders.go_on.set()


def test_long_questions_keep_nobody_waiting(served: Served) -> None:
    served.orders.go_on.clear()
    answers: list[JSON] = []
    ask = lambda: answers.append(served.client.call("operation", "show", {"id": "wait"}, deadline=30))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(6)]
    for each in threads:
        each.start()
    try:
        assert served.client.call("agent", "status", {}, deadline=10)
        assert served.wait(served.client.call("database", "create", {"name": "mean"}))["state"] == "succeeded"
        assert not answers
    finally:
        served.orders.go_on.set()
    for each in threads:
        each.join()
    assert answers == [{"waited": True}] * 6


def test_a_defect_shows_its_kind_and_never_its_text(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        told = refused(lambda: served.client.call("operation", "show", {"id": "break"}))
    assert told.fault.type == "Failed"
    assert "RuntimeError" in told.fault.message
    assert CANARY not in told.fault.message + caplog.text
    assert "RuntimeError" in caplog.text


def test_no_secret_is_logged_at_debug(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        begun = served.client.call("user", "create", {"name": "eve", "password": f"{CANARY}-pw"})
        assert served.wait(begun)["state"] == "succeeded"
        served.client.cast("user", "set_password", {"name": "eve", "password": f"{CANARY}-new"}, request_id="pw")
        assert _eventually(lambda: _states(served, "pw") == ["succeeded"])
    assert CANARY not in caplog.text
    assert read_state(served.guest.manager.node)["users"]["eve"]["password"] == f"{CANARY}-new"  # type: ignore[index, call-overload]


def test_a_request_over_the_cap_is_refused_and_the_next_is_answered(served: Served) -> None:
    big = "x" * (framing.REQUEST_CAP + 1)
    with pytest.raises((Told, DeadlinePassed, framing.Refused)):
        served.client.call("database", "create", {"name": big}, deadline=3)
    assert served.client.call("agent", "status", {})


def test_a_large_answer_arrives(served: Served) -> None:
    found = served.client.call("operation", "show", {"id": "fill"})
    assert isinstance(found, list)
    assert len(found) == 3000


def test_nobody_there_is_unreachable(served: Served) -> None:
    begun = time.monotonic()
    with pytest.raises((Unreachable, DeadlinePassed)):
        connect(served.agent_url + "0").call("agent", "status", {}, deadline=2.0)
    assert time.monotonic() - begun < 10


def test_reports_arrive_in_order_and_only_where_somebody_listens(served: Served) -> None:
    reporter = Reporter(served.transport, served.guest.guest_id, 7)
    if served.url != "kombu+memory:///":
        with pytest.raises(Unreachable):
            reporter.report("heartbeat", {"n": 0}, 1.0)
    heard: list[dict[str, Any]] = []
    end = _conductor(served, heard)
    try:
        for number in range(5):
            reporter.report("heartbeat", {"n": number}, float(number))
        assert _eventually(lambda: len(heard) == 5)
    finally:
        end()
    assert [each["sent"] for each in heard] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert heard[0] == {
        "guest_id": served.guest.guest_id,
        "epoch": 7,
        "sent": 0.0,
        "kind": "heartbeat",
        "body": {"n": 0},
    }


def test_a_door_that_is_closed_takes_no_orders(served: Served) -> None:
    served.door._open = False
    try:
        assert served.client.call("agent", "status", {})
        if "rabbit" not in served.agent_url:
            told = refused(lambda: served.client.call("database", "create", {"name": "too late"}))
            assert (told.fault.retry, told.fault.exit_status) == (True, 3)
    finally:
        served.door._open = True


@pytest.mark.parametrize(
    ("wanted", "ours", "good"),
    [
        ("1.0", "1.0", True),
        ("1.2", "1.4", True),
        ("1.4", "1.4", True),
        ("1.1", "1.4", False),
        ("1.5", "1.4", False),
        ("2.0", "1.0", False),
    ],
)
def test_this_version_and_the_two_before_are_served(wanted: str, ours: str, good: bool) -> None:
    if good:
        check_version(wanted, ours)
    else:
        with pytest.raises(framing.Refused):
            check_version(wanted, ours)


def test_every_absent_part_is_named_the_same_way(tmp_path: Path) -> None:
    """``Unsupported: redis has no databases``, for every datastore that is installed."""
    guest = sham_guest(tmp_path)
    seen = 0
    for name in installed():
        datastore = load(name)
        door = Door(Orders(guest), verbs(), datastore)
        for verb in verbs().values():
            if verb.part is not None and getattr(datastore, verb.part) is None:
                seen += 1
                told = door.dispatch(_Incoming(verb.noun, verb.name))
                assert told["error"]["type"] == "Unsupported"  # type: ignore[index, call-overload]
                assert told["error"]["message"] == f"{name} has no {verb.part}"  # type: ignore[index, call-overload]
    assert seen


class _Incoming:
    def __init__(self, noun: str, verb: str) -> None:
        self.message = {"namespace": noun, "method": verb, "args": {}}
        self.ctxt: dict[str, object] = {}
        self.msg_id = "x"


def raw(
    served: Served,
    noun: str,
    verb: str,
    args: Mapping[str, JSON],
    *,
    version: str = "1.0",
    context: Mapping[str, JSON] | None = None,
) -> Any:
    """Call as any program with oslo.messaging would."""
    target = oslo_messaging.Target(
        topic=topic_of(served.guest.guest_id), server=served.guest.guest_id, namespace=noun, version=version
    )
    client = oslo_messaging.get_rpc_client(served.transport, target, timeout=10)
    return client.call(dict(context or {}), verb, **args)


def _conductor(served: Served, heard: list[dict[str, Any]]) -> Callable[[], None]:
    class Conductor:
        def report(self, context: object, **values: Any) -> None:
            if values["guest_id"] == served.guest.guest_id:
                heard.append(values)

    target = oslo_messaging.Target(topic="ostler-conductor", server="c1", version="1.0")
    transport = open_transport(without_file(), served.url)
    server = oslo_messaging.get_rpc_server(transport, target, [Conductor()])
    server.start()

    def end() -> None:
        server.stop()
        server.wait()

    return end


def _states(served: Served, request_id: str) -> list[str]:
    found = served.client.call("operation", "list", {})
    assert isinstance(found, list)
    return [str(each["state"]) for each in found if each["request_id"] == request_id]  # type: ignore[index, call-overload]


def _eventually(check: Callable[[], bool], timeout: float = 20.0) -> bool:
    end = time.monotonic() + timeout
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
