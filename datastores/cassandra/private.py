"""A server of our own on a data folder that nobody is served from yet, to make in it what is this guest's.

It asks nobody for a password, since what it would ask for stands in the data it is to change.  So it listens at an
address of the machine's own that is made up each time, and lets in nobody but who shows the key of its ``door``.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blake3 import blake3
from cassandra import ConsistencyLevel, DriverException
from cassandra.connection import ConnectionException, DefaultEndPoint
from cassandra.io.libevreactor import LibevConnection
from cassandra.protocol import QueryMessage

from datastores.cassandra import conf, door, jolokia, jvm
from datastores.cassandra.client import ACCOUNT, agent_password, hashed
from datastores.cassandra.dialect import across, identifier
from datastores.cassandra.layout import folders
from datastores.cassandra.position import AUTH, Position
from datastores.cassandra.schema import Table, tenants
from datastores.cassandra.settings import SMALL, addresses
from datastores.contract import Command, Endpoint, Identity, Mismatch, Node, NotReady, Stream, ToolFailed

MARK = "account"
FOLDER = "private"
LOG = "server.log"
PATIENCE = 180.0
OURS = ("system", "system_schema", AUTH)
"""Where what we change, and what the server itself does, is written."""
OPEN = {
    "authenticator": "AllowAllAuthenticator",
    "authorizer": "AllowAllAuthorizer",
    "auto_snapshot": "false",
    "auto_bootstrap": "false",
    # The role that a server without any makes for itself would come with a password that everybody knows.
    "property.cassandra.superuser_setup_delay_ms": "86400000",
    conf.HEAP: SMALL,
}
_LOGBACK = """<configuration>
  <appender name="FILE" class="ch.qos.logback.core.FileAppender">
    <file>{file}</file><encoder><pattern>%-5level %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="FILE"/></root>
</configuration>
"""
_WRITE = "INSERT INTO system_auth.roles (role, salted_hash, can_login, is_superuser) VALUES (?, ?, true, true)"
_READ = "SELECT salted_hash FROM system_auth.roles WHERE role = ?"
BUILT = "SELECT keyspace_name, view_name FROM system.built_views"
Line = Callable[..., list[tuple[Any, ...]]]


def mark(node: Node) -> bytes:
    """Return what tells the agent's password from any other and is none: it is long and random."""
    return blake3(agent_password(node).reveal().encode(), derive_key_context="ostler cassandra account").digest(16)


def adopt(node: Node, folder: Path, position: Position, identity: Identity, views: Sequence[Table]) -> None:
    """Have our account with our password in a data folder; a ``new`` node gets its tokens, and is alone in its ring.

    The server makes ``views`` that it has nothing of, of their tables; they are whole when this returns.
    """
    written = {each.keyspace for each in views}
    with private(node, folder, position.tokens if identity == "new" else (), *written) as line:
        if identity == "new":
            _alone(line)
        _write_account(node, line)
        wanted = {(each.keyspace, each.name) for each in views}
        while wanted - set(line(BUILT)):
            time.sleep(0.1)


def make_account(node: Node, folder: Path) -> None:
    """Have our account with our password in a new data folder, in which there then is no other."""
    with private(node, folder, ()) as line:
        _write_account(node, line)


@contextlib.contextmanager
def private(node: Node, folder: Path, tokens: tuple[str, ...], *written: str) -> Iterator[Line]:
    """Serve ``folder`` and yield what runs a statement; on leaving well the server is gone.

    By then what it and we write anyway is on disk, and the keyspaces ``written``.
    """
    sweep(node)
    served, home = _elsewhere(node, folder), node.places.temp / FOLDER
    _configure(node, served, home, tokens)
    try:
        with node.host.stream(_command(served, home), as_owner=True) as running, _line(served, running, home) as line:
            yield line
            management = jolokia.Management(served, timeout=PATIENCE)
            for each in (*OURS, *written):
                management.call(jolokia.STORAGE, jolokia.FLUSH, each, [])
    finally:
        sweep(node)


def sweep(node: Node) -> None:
    """Remove what a private server leaves beside the data folder."""
    node.host.remove(node.places.temp / FOLDER)


def _elsewhere(node: Node, folder: Path) -> Node:
    """Return the node as another one of this machine, on other data."""
    other = node.at(server_number=1 + secrets.randbelow(2**31 - 1))
    endpoint = Endpoint(jolokia.address(other), node.endpoint.port, node.endpoint.socket)
    return other.at(endpoint=endpoint, places=replace(node.places, data=folder))


def _configure(node: Node, served: Node, home: Path, tokens: tuple[str, ...]) -> None:
    """Write the real server's configuration with another address, another door, and the tokens of a new node."""
    host, folder = node.host, served.places.data
    real = conf.read(node.places.config)
    if tokens and real.get("num_tokens") != str(len(tokens)):
        raise Mismatch(f"the backup is of a node of {len(tokens)} tokens, this one has {real.get('num_tokens')}")
    kept = {name: value for name, value in real.items() if name.partition(".")[0] not in (*OPEN, *door.SIDES)}
    told = {"initial_token": ",".join(tokens)} if tokens else {}
    files = conf.CassandraConf().dump([kept, folders(folder), addresses(served), OPEN, door.settings(home), told])
    host.folder(home, mode=0o700)
    host.write(home / door.KEY, door.made(), mode=0o600)
    for name, content in (files | {conf.LOG: _LOGBACK.format(file=home / LOG).encode()}).items():
        host.write(home / name, content)
    jolokia.write_access(served, home)


def _command(served: Node, home: Path) -> Command:
    # It is killed in the end, and would leave the libraries that it unpacks.
    own = (f"-D{each}={home}" for each in ("java.io.tmpdir", "jna.tmpdir", "user.home"))
    return jvm.command(served, home, served.places.data, *jolokia.agent_options(served, home), *own)


@contextlib.contextmanager
def _line(served: Node, running: Stream, home: Path) -> Iterator[Line]:
    """Yield what runs a statement over the one connection; a server that ended instead tells why."""
    gone = threading.Event()
    threading.Thread(target=_follow, args=(running, gone), daemon=True).start()
    LibevConnection.initialize_reactor()
    with contextlib.closing(_connected(served.endpoint, gone, home)) as connection, _quoting(home):
        yield lambda statement, *texts: _rows(connection, statement, texts)


def _connected(endpoint: Endpoint, gone: threading.Event, home: Path) -> Any:
    end, place, key = time.monotonic() + PATIENCE, DefaultEndPoint(endpoint.host, endpoint.port), door.opened(home)
    while True:
        try:
            return LibevConnection.factory(place, PATIENCE, protocol_version=5, ssl_context=key)
        except (OSError, DriverException, ConnectionException) as error:
            if gone.is_set() or time.monotonic() > end:
                raise ToolFailed(f"the private server did not come up: {_last_words(home)}") from error
            time.sleep(0.05)


def _rows(connection: Any, statement: str, texts: tuple[str, ...]) -> list[tuple[Any, ...]]:
    asked = QueryMessage(statement, ConsistencyLevel.ONE)
    asked.query_params = [each.encode() for each in texts] or None
    answer = connection.wait_for_response(asked, timeout=PATIENCE)
    return [tuple(each) for each in getattr(answer, "parsed_rows", None) or ()]


def _write_account(node: Node, line: Line) -> None:
    kept = hashed(agent_password(node))
    line(_WRITE, ACCOUNT, kept)
    if line(_READ, ACCOUNT) != [(kept,)]:
        raise ToolFailed("the backup's own account is from a time that this machine's clock has not reached")


def _alone(line: Line) -> None:
    """Have one copy of every keyspace here: a new node knows of no other, and roles are read where copies are."""
    ((center,),) = line("SELECT data_center FROM system.local")
    wanted = {"class": "org.apache.cassandra.locator.NetworkTopologyStrategy", center: "1"}
    for keyspace, told in line("SELECT keyspace_name, replication FROM system_schema.keyspaces"):
        if (keyspace == AUTH or tenants(keyspace)) and dict(told) != wanted:
            line(f"ALTER KEYSPACE {identifier(keyspace)} WITH replication = {across({center: 1})}")


def _follow(running: Stream, gone: threading.Event) -> None:
    """Read what the server says, so that it never waits for us, until it has ended."""
    scrap = memoryview(bytearray(4096))
    with contextlib.suppress(OSError, ValueError):
        while running.readinto(scrap):
            pass
    gone.set()


@contextlib.contextmanager
def _quoting(home: Path) -> Iterator[None]:
    """A private server that is gone will not come back: nobody may try that again."""
    try:
        yield
    except (OSError, DriverException, ConnectionException, NotReady) as error:
        raise ToolFailed(f"the private server did not do it: {error}; {_last_words(home)}") from error


def _last_words(home: Path) -> str:
    path = home / LOG
    lines = path.read_bytes()[-8192:].decode("utf-8", "replace").splitlines() if path.is_file() else []
    wrong = [each for each in lines if each.startswith(("ERROR", "Caused by", "Exception"))]
    return (wrong or lines or ["it left no log"])[-1][-600:]
