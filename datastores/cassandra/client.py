"""Connections to the server: over its port, as the agent's role; and what its errors mean.

A connection is opened for one use and closed after it, and knows of one node: of its neighbours others take care.
"""

import contextlib
import logging
import secrets
from collections.abc import Iterator
from typing import Any

import bcrypt
from cassandra import (
    AuthenticationFailed,
    ConsistencyLevel,
    DriverException,
    OperationTimedOut,
    RequestExecutionException,
)
from cassandra import RequestValidationException as Refusal
from cassandra.auth import PlainTextAuthProvider
from cassandra.io.libevreactor import LibevConnection
from cassandra.policies import ConstantReconnectionPolicy, WhiteListRoundRobinPolicy
from cassandra.protocol import ErrorMessage

from datastores.cassandra import jolokia, listeners
from datastores.cassandra.driver import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
from datastores.contract import BadInput, DatastoreError, Endpoint, Node, NotReady, Secret, ToolFailed

# What goes wrong is raised, and said once; the driver would tell it with every stack it has.
logging.getLogger("cassandra").setLevel(logging.CRITICAL)

ACCOUNT = "ostler"
PASSWORD = "agent-password"
UNABLE = "Unable to perform authentication"
"""So the server refuses a login where it could not read the role, which may be the right one."""


class Shut(NotReady):
    """The server answers, and does not know the role or its password."""


class Session:
    """One connection as one role: ``execute`` as the driver has it; ``driver`` is the driver's own session."""

    def __init__(self, node: Node, driver: Any) -> None:
        self.node = node
        self.driver = driver

    def execute(self, statement: str, values: object = None, *, timeout: float | None = None) -> Any:
        """Run a statement; markers (``%s``) are for values of rows only, since the driver itself fills them in."""
        if timeout is None:
            return self.driver.execute(statement, values)
        return self.driver.execute(statement, values, timeout=timeout)


def agent_password(node: Node) -> Secret:
    """Return the agent's own password; it is made where there is none yet."""
    kept = node.secrets.load(PASSWORD)
    if kept is None:
        kept = Secret(secrets.token_hex(32))
        node.secrets.keep(PASSWORD, kept)
    return kept


def hashed(password: Secret) -> str:
    """Return a password of ours as the server keeps it, so that it never sees it in a statement.

    One that is long and random gains nothing by many rounds, which the server would pay at each login.
    """
    return bcrypt.hashpw(password.reveal().encode(), bcrypt.gensalt(4, prefix=b"2a")).decode()


@contextlib.contextmanager
def session(node: Node, *, timeout: float = 30.0) -> Iterator[Session]:
    """Log in as the agent, yield the connection, close it; ``NotReady`` where the server does not answer us."""
    password = node.secrets.load(PASSWORD)
    if password is None:
        raise Shut("the agent has no role at this server yet")
    with login(node, ACCOUNT, password, timeout=timeout) as made:
        yield made


@contextlib.contextmanager
def login(node: Node, name: str, password: Secret, *, timeout: float = 30.0) -> Iterator[Session]:
    """Log in as somebody, as a tenant would."""
    host, port = reached(node.endpoint)
    # It is seen at once that nobody listens: the driver would say so on its log, and with a delay.
    with listeners.reached(host, port) as line:
        listeners.prove(node, line)
    with told():
        cluster = Cluster(
            [host],
            port=port,
            auth_provider=PlainTextAuthProvider(name, password.reveal()),
            connection_class=_proven(node),
            protocol_version=5,
            execution_profiles={EXEC_PROFILE_DEFAULT: _profile(host, timeout)},
            reconnection_policy=ConstantReconnectionPolicy(1.0, max_attempts=1),
            schema_metadata_enabled=False,
            token_metadata_enabled=False,
            # What changes meanwhile is nothing to us; a look at it, put off, would hold up the end of the session.
            schema_event_refresh_window=-1,
            topology_event_refresh_window=-1,
            status_event_refresh_window=-1,
            connect_timeout=10.0,
            control_connection_timeout=10.0,
            executor_threads=2,
        )
        try:
            yield Session(node, cluster.connect())
        finally:
            cluster.shutdown()


def reached(endpoint: Endpoint) -> tuple[str, int]:
    """Return where the machine itself reaches the server's port."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(endpoint.host, endpoint.host), endpoint.port


@contextlib.contextmanager
def told(field: str | None = None) -> Iterator[None]:
    """Turn the driver's errors into ours; where the server refuses a name, ``field`` says whose."""
    try:
        yield
    except (DriverException, ErrorMessage, NoHostAvailable) as error:
        raise _translated(error, field) from None


def forget(known: Session) -> None:
    """Let the server forget what it remembers of roles, so that a change holds now and not in two seconds."""
    jolokia.forget_roles(known.node)


def _proven(node: Node) -> type[LibevConnection]:
    """Return the driver's connection, which tells nobody a password who is not the server, also where it comes back."""

    class Proven(LibevConnection):  # type: ignore[misc]
        def _connect_socket(self) -> None:
            super()._connect_socket()
            listeners.prove(node, self._socket)

    return Proven


def _profile(host: str, timeout: float) -> ExecutionProfile:
    return ExecutionProfile(
        load_balancing_policy=WhiteListRoundRobinPolicy([host]),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        request_timeout=timeout,
    )


def _translated(error: Exception, field: str | None) -> DatastoreError:
    said = str(error).replace("Error from server: ", "")[:300]
    if isinstance(error, NoHostAvailable):
        # Of a second connection that fails after the first the driver tells no reasons, but a list of hosts.
        reasons = list(error.errors.values()) if isinstance(error.errors, dict) else [error]
        if any(isinstance(each, AuthenticationFailed) and UNABLE not in str(each) for each in reasons):
            return Shut("the server refuses the login")
        shown = "; ".join(dict.fromkeys(str(each) for each in reasons))
        return NotReady(f"the server does not take the login: {shown[:300]}")
    if isinstance(error, OperationTimedOut | RequestExecutionException):
        return NotReady(f"the server could not do it now: {said}")
    if field is not None and isinstance(error, Refusal | ErrorMessage):
        return BadInput(f"the server refuses this {field}: {said}", field=field)
    return ToolFailed(f"the server refused: {said}")
