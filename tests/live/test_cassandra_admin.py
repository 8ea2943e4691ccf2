"""Who gets into a Cassandra server, by which doors, and what the agent's own door costs."""

import base64
import contextlib
import http.client
import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from datastores.cassandra import jolokia, jvm, listeners
from datastores.cassandra.admin import FIRST, INSECURE, OPEN
from datastores.cassandra.client import ACCOUNT, Shut, login, session, told
from datastores.cassandra.conf import HEAP
from datastores.cassandra.jolokia import Management
from datastores.cassandra.layout import TABLES
from datastores.cassandra.settings import SMALL
from datastores.cassandra.units import parse
from datastores.contract import Mismatch, NotReady, ToolFailed
from datastores.manager import Manager
from datastores.settings import LayeredSettings
from tests.guests import Guests

LIMIT = 0.005
"""Seconds of processor time that one call of the management may cost, ours and the server's."""


@pytest.fixture(scope="module")
def server(inn: Guests) -> Manager:
    return inn.manager("cassandra")


@pytest.fixture
def management(server: Manager) -> Management:
    return Management(server.node)


def roles(server: Manager) -> set[str]:
    with session(server.node) as cql:
        return {each.role for each in cql.execute("SELECT role FROM system_auth.roles")}


def asked(server: Manager, method: str, path: str, body: object = None, password: str | None = None) -> tuple[int, str]:
    """Ask the management by hand; return its status and what it says."""
    headers = {"Content-Type": "application/json"}
    if password is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{jolokia.USER}:{password}".encode()).decode()
    connection = http.client.HTTPConnection(jolokia.address(server.node), jolokia.PORT, timeout=10)
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def password_of(server: Manager) -> str:
    kept = server.node.secrets.load(jolokia.PASSWORD)
    assert kept is not None
    return kept.reveal()


def test_the_first_role_is_shut_at_once_although_the_server_remembers_it(server: Manager) -> None:
    with session(server.node) as cql:
        cql.execute("CREATE ROLE cassandra WITH PASSWORD = 'cassandra' AND SUPERUSER = true AND LOGIN = true")
        cql.execute(f"GRANT ALTER ON ROLE {ACCOUNT} TO cassandra")
        jolokia.forget_roles(server.node)
    with login(server.node, FIRST, OPEN) as cql:
        assert cql.execute("SELECT role FROM system_auth.roles").one() is not None
        server.admin.secure()
        with pytest.raises(ToolFailed), told():
            cql.execute(f"ALTER ROLE {ACCOUNT} WITH PASSWORD = 'mine'")
    with pytest.raises(Shut), login(server.node, FIRST, OPEN):
        pass
    assert roles(server) == {ACCOUNT}


def test_a_server_that_others_reach_never_has_the_first_role(inn: Guests) -> None:
    node = inn.node("cassandra")
    # An address of this machine, written so that nobody can tell.
    node = node.at(endpoint=replace(node.endpoint, host="::ffff:127.0.0.1"))
    manager = inn.manager("cassandra", node=node, start=False)
    assert parse("storage", manager.settings.part.base()[HEAP]) > parse("storage", SMALL)
    manager.settings.switch(manager.settings.write({HEAP: SMALL}))
    manager.admin.initialise()
    manager.service.start(timeout=120)
    with pytest.raises(Shut), login(node, FIRST, OPEN):
        pass
    assert roles(manager) == {ACCOUNT}
    manager.admin.secure()
    manager.admin.probe()
    assert roles(manager) == {ACCOUNT}
    manager.service.stop()


def test_what_listens_is_the_endpoint_the_ring_and_the_management(server: Manager) -> None:
    process = psutil.Process(server.service.pid())
    found = {each.laddr for each in process.net_connections() if each.status == psutil.CONN_LISTEN}
    own = jolokia.address(server.node)
    plain = {(each.ip.removeprefix("::ffff:"), each.port) for each in found}
    assert plain == {("127.0.0.1", server.node.endpoint.port), (own, 7000), (own, jolokia.PORT)}


def test_no_password_is_in_an_argument_or_the_environment(server: Manager) -> None:
    folder = Path("/proc") / str(server.service.pid())
    shown = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
    for name in (jolokia.PASSWORD, "agent-password"):
        kept = server.node.secrets.load(name)
        assert kept is not None
        assert kept.reveal().encode() not in shown
    path = server.node.places.data / jolokia.FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.owner() == server.node.installation.owner


@pytest.mark.parametrize(
    ("bound", "asked"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.9.9.9"), ("::ffff:127.0.0.1", "127.0.0.1"), ("::", "127.0.0.1")],  # noqa: S104
)
def test_it_is_seen_whose_account_listens(bound: str, asked: str) -> None:
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.create_server((bound, 0), family=family, dualstack_ipv6=":" in bound) as listening:
        port = listening.getsockname()[1]
        assert listeners.accounts(asked, port) == {os.geteuid()}
    assert listeners.accounts(asked, port) == set()


LISTEN = """
import socket, sys
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listening:
    print("listens", flush=True)
    while True:
        line, _ = listening.accept()
        line.settimeout(60)
        print(line.recv(1000), flush=True)
"""


@contextlib.contextmanager
def somebody(host: str, port: int, heard: list[bytes]) -> Iterator[None]:
    """Have another account listen; keep what it hears.  An ordinary user has only one account to do it with."""
    argv = [str(Path(sys.executable).resolve()), "-I", "-c", LISTEN, host, str(port)]
    user = "nobody" if os.geteuid() == 0 else None
    with subprocess.Popen(argv, stdout=subprocess.PIPE, user=user, cwd="/") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"listens\n"
        yield
        child.kill()
        heard += [each for each in child.stdout if each != b"b''\n"]


def test_nobody_else_who_listens_is_told_a_password(server: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    node, heard = server.node, list[bytes]()
    server.service.stop()
    if os.geteuid():
        monkeypatch.setattr(listeners, "account", lambda _: os.geteuid() + 1)
    try:
        with somebody(node.endpoint.host, node.endpoint.port, heard):
            with pytest.raises(ToolFailed, match="another account"), session(node):
                pass
            with pytest.raises(ToolFailed, match="another account"):
                server.admin.ping()
        with somebody(jolokia.address(node), jolokia.PORT, heard), pytest.raises(ToolFailed, match="another account"):
            Management(node).read(jolokia.STORAGE, "OperationMode")
    finally:
        monkeypatch.undo()
        server.service.start()
    assert heard == []


@pytest.mark.parametrize("password", [None, "", "no"])
def test_the_management_wants_its_password(server: Manager, password: str | None) -> None:
    body = {"type": "read", "mbean": jolokia.STORAGE, "attribute": "OperationMode"}
    assert asked(server, "POST", "/jolokia/", body, password)[0] == 401
    status, text = asked(server, "POST", "/jolokia/", body, password_of(server))
    assert (status, json.loads(text)["value"]) == (200, "NORMAL")


def test_the_management_answers_nothing_that_is_not_listed(server: Manager) -> None:
    refused: list[dict[str, object]] = [
        {"type": "exec", "mbean": jolokia.STORAGE, "operation": "stopDaemon"},
        {"type": "exec", "mbean": jolokia.STORAGE, "operation": "takeSnapshot", "arguments": ["a", "b", "c"]},
        {"type": "exec", "mbean": "com.sun.management:type=DiagnosticCommand", "operation": "help", "arguments": [""]},
        {"type": "exec", "mbean": "java.lang:type=Memory", "operation": "gc"},
        {"type": "write", "mbean": jolokia.STORAGE, "attribute": "IncrementalBackupsEnabled", "value": True},
        {"type": "write", "mbean": "java.lang:type=Memory", "attribute": "Verbose", "value": True},
        {"type": "list"},
        {"type": "search", "mbean": "*:*"},
    ]
    for each in refused:
        status, text = asked(server, "POST", "/jolokia/", each, password_of(server))
        assert status != 200 or json.loads(text)["status"] in (403, 404), each
    path = f"/jolokia/read/{jolokia.STORAGE}/OperationMode"
    status, text = asked(server, "GET", path, password=password_of(server))
    assert status != 200 or json.loads(text)["status"] == 403


def test_what_the_server_refuses_is_said_in_one_line(server: Manager, management: Management) -> None:
    with pytest.raises(ToolFailed, match="stopDaemon") as caught:
        management.call(jolokia.STORAGE, "stopDaemon")
    assert "\n" not in str(caught.value)
    assert management.read(jolokia.STORAGE, "OperationMode") == "NORMAL"


def test_a_call_costs_next_to_nothing(server: Manager, management: Management) -> None:
    """One round of some: Java compiles, and cleans up, in between."""

    def spent() -> float:
        ours, theirs = os.times(), psutil.Process(server.service.pid()).cpu_times()
        return ours.user + ours.system + theirs.user + theirs.system

    def cost(calls: int) -> float:
        before = spent()
        for _ in range(calls):
            management.read(jolokia.STORAGE, "OperationMode")
        return (spent() - before) / calls

    assert any(cost(100) < LIMIT for _ in range(20))


@pytest.fixture
def insecure(server: Manager, request: pytest.FixtureRequest) -> Iterator[str]:
    """Have a configuration with one of the switches, as an image might bring it."""
    name, value = request.param
    image = {name: value}
    LayeredSettings(server.datastore, server.node, pid=lambda: None, image=image).ensure()
    yield name
    server.settings.ensure()


@pytest.mark.parametrize(
    "insecure",
    [*INSECURE.items(), ("allow_insecure_udfs", "Yes"), ("user_defined_functions_threads_enabled", "off")],
    indirect=True,
    ids=" ".join,
)
def test_a_file_that_gives_tenants_the_servers_rights_is_not_secure(server: Manager, insecure: str) -> None:
    with pytest.raises(Mismatch, match=insecure):
        server.admin.secure()


def test_what_a_row_costs_is_measured_on_few_rows_and_is_the_same(server: Manager) -> None:
    [wanted] = [each for each in server.admin.command().argv if each.startswith("@")]
    assert "memtable_row_overhead_computation_step=1000" in Path(wanted[1:]).read_text()
    found = re.findall(r"row overhead: (\d+)", (server.node.places.log / "server.log").read_text())
    assert all(170 <= int(each) <= 190 for each in found) and found, found


def test_java_maps_the_classes_that_were_kept_of_a_start(server: Manager) -> None:
    kept = server.node.installation.tools["library"].with_name(jvm.CLASSES)
    assert kept.is_file(), "tools/servers has made none"
    assert str(kept) in (Path("/proc") / str(server.service.pid()) / "maps").read_text(), "Java has refused it"


def test_a_stop_leaves_nothing_in_the_log_to_be_done_again(server: Manager) -> None:
    server.admin.probe()
    server.service.stop()
    with pytest.raises(NotReady):
        Management(server.node).read(jolokia.STORAGE, "OperationMode")
    server.service.start()
    text = (server.node.places.log / "server.log").read_text()
    assert "DRAINED" in text
    assert " 0 replayed mutations" in text.rpartition("DRAINED")[2]
    server.admin.probe()


def test_a_server_that_was_abandoned_has_lost_nothing_and_left_no_library(server: Manager) -> None:
    with session(server.node) as cql:
        cql.execute("CREATE KEYSPACE kept WITH replication = {'class': 'NetworkTopologyStrategy', 'dc1': 1}")
        cql.execute("CREATE TABLE kept.rows (id int PRIMARY KEY)")
        for each in range(100):
            cql.execute("INSERT INTO kept.rows (id) VALUES (%s)", (each,))
    log = server.node.places.log / "server.log"
    before = log.stat().st_size
    server.service.stop(data="replaced")
    said = log.read_text()[before:]
    assert "Stop listening for CQL clients" in said
    assert "Announcing shutdown" in said
    assert "DRAIN" not in said
    left = list(server.node.places.run.glob("*.so*"))
    assert left, "it was not killed"
    assert list((server.node.places.data / TABLES / "kept").glob("rows-*/nb-*-Data.db")), (
        "it was not written to its table"
    )
    for each in left:
        os.utime(each, (0, 0))
    server.service.start(timeout=120)
    with session(server.node) as cql:
        assert cql.execute("SELECT count(*) FROM kept.rows").one().count == 100
        cql.execute("DROP KEYSPACE kept")
    assert server.backup is not None
    server.backup.sweep()
    assert not set(left) & set(server.node.places.run.iterdir())
