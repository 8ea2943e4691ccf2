"""Who gets into the server that makes our account in somebody's data: nobody but us, by any of its doors."""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cassandra import DriverException
from cassandra.connection import ConnectionException, DefaultEndPoint
from cassandra.io.libevreactor import LibevConnection

from datastores.cassandra import door, jolokia
from datastores.cassandra.private import FOLDER, Line, private
from datastores.contract import Node, ToolFailed
from tests.guests import Guests

PATIENCE = 10.0


def private_server(node: Node) -> psutil.Process:
    """Return the process of the one private server that a node has."""
    mark, found = f"file://{node.places.temp / FOLDER}/", list[psutil.Process]()
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(mark in word for word in each.cmdline()):
                found.append(each)
    [server] = found
    return server


@pytest.fixture(scope="module")
def node(inn: Guests) -> Node:
    manager = inn.manager("cassandra", start=False)
    manager.settings.ensure()
    manager.node.host.folder(manager.node.places.data)
    return manager.node


@pytest.fixture(scope="module")
def line(node: Node) -> Iterator[Line]:
    with private(node, node.places.data, ()) as held:
        yield held


@pytest.fixture(scope="module")
def process(node: Node, line: Line) -> psutil.Process:
    return private_server(node)


@pytest.fixture(scope="module")
def doors(process: psutil.Process) -> dict[int, tuple[str, int]]:
    """Return everything that the server listens at, by port."""
    found = [each.laddr for each in process.net_connections() if each.status == psutil.CONN_LISTEN]
    return {each.port: (each.ip.removeprefix("::ffff:"), each.port) for each in found}


def keys(node: Node, folder: Path) -> dict[str, ssl.SSLContext | None]:
    """Return ways in that are none: without TLS, without a key, and with a key of one's own."""
    (folder / door.KEY).write_bytes(door.made())
    none, stranger = ssl.create_default_context(), ssl.create_default_context()
    for each in (none, stranger):
        each.check_hostname, each.verify_mode = False, ssl.CERT_NONE
    stranger.load_cert_chain(folder / door.KEY)
    return {"plain": None, "no key": none, "another key": stranger}


def heard(place: tuple[str, int], key: ssl.SSLContext | None, patience: float = PATIENCE) -> str:
    """Say how a connection ends that says nothing: ``shut``, or ``held`` where the server waits for more."""
    try:
        with socket.create_connection(place, timeout=PATIENCE) as plain, contextlib.ExitStack() as stack:
            line = stack.enter_context(key.wrap_socket(plain)) if key else plain
            line.settimeout(patience)
            return "shut" if line.recv(1) == b"" else "answered"
    except TimeoutError:
        return "held"
    except OSError:
        return "shut"


def test_it_listens_for_us_its_neighbours_and_the_management_alone(
    node: Node, doors: dict[int, tuple[str, int]]
) -> None:
    assert set(doors) == {node.endpoint.port, 7000, jolokia.PORT}
    assert len({host for host, _ in doors.values()}) == 1
    assert doors[7000][0] not in (node.endpoint.host, jolokia.address(node))


def test_nobody_without_the_key_runs_a_statement(
    node: Node, line: Line, doors: dict[int, tuple[str, int]], tmp_path: Path
) -> None:
    place = DefaultEndPoint(*doors[node.endpoint.port])
    for name, key in keys(node, tmp_path).items():
        with pytest.raises((OSError, DriverException, ConnectionException)):
            LibevConnection.factory(place, PATIENCE, protocol_version=5, ssl_context=key)
            pytest.fail(f"let in: {name}")
    ours = door.opened(node.places.temp / FOLDER)
    with contextlib.closing(LibevConnection.factory(place, PATIENCE, protocol_version=5, ssl_context=ours)):
        assert line("SELECT cluster_name FROM system.local")


def test_nobody_without_the_key_is_its_neighbour(node: Node, doors: dict[int, tuple[str, int]], tmp_path: Path) -> None:
    for name, key in keys(node, tmp_path).items():
        if key is not None:
            assert heard(doors[7000], key) == "shut", name
    assert heard(doors[7000], door.opened(node.places.temp / FOLDER), patience=1.0) == "held"


def test_nobody_without_the_password_has_its_management(doors: dict[int, tuple[str, int]]) -> None:
    connection = http.client.HTTPConnection(*doors[jolokia.PORT], timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("POST", "/jolokia/", "{}", {"Content-Type": "application/json"})
        assert connection.getresponse().status == 401


def test_the_key_is_the_servers_alone_and_no_two_are_equal(node: Node, line: Line) -> None:
    path = node.places.temp / FOLDER / door.KEY
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert path.read_bytes() != door.made()


def test_we_speak_to_nobody_else_who_listens_there(tmp_path: Path) -> None:
    """One that has come first at the port, and lets everybody in, has no certificate of ours."""
    own, other = tmp_path / "own", tmp_path / "other"
    for each in (own, other):
        each.mkdir()
        (each / door.KEY).write_bytes(door.made())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = DefaultEndPoint(*listening.getsockname())
        false = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        false.load_cert_chain(other / door.KEY)
        listening.settimeout(PATIENCE)

        def serve() -> None:
            with contextlib.suppress(OSError):
                line, _ = listening.accept()
                false.wrap_socket(line, server_side=True).recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises((OSError, DriverException, ConnectionException), match="(?i)certificate"):
            LibevConnection.factory(place, PATIENCE, protocol_version=5, ssl_context=door.opened(own))
        thread.join()


def test_a_server_that_is_killed_is_an_error_that_says_so_and_leaves_nothing(node: Node, inn: Guests) -> None:
    manager = inn.manager("cassandra", start=False)
    manager.settings.ensure()
    mine = manager.node
    mine.host.folder(mine.places.data)
    with pytest.raises(ToolFailed, match="private server"), private(mine, mine.places.data, ()) as held:
        private_server(mine).kill()
        held("SELECT cluster_name FROM system.local")
    assert not (mine.places.temp / FOLDER).exists()
