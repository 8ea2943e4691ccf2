"""The server's management: its beans over HTTP, on an address of the machine's own, with a password of ours.

No other door to them is opened: without a port for RMI there is none that asks for no password.  Only what
``POLICY`` lists is answered, whoever asks; what is not listed cannot be called even with the password.
"""

import base64
import contextlib
import http.client
import json
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from blake3 import blake3

from datastores.cassandra import listeners
from datastores.contract import Node, NotReady, Secret, ToolFailed

PASSWORD = "management-password"
USER = "ostler"
FILE = "jolokia.properties"
POLICY = "jolokia-policy.xml"
PORT = 8778

STORAGE = "org.apache.cassandra.db:type=StorageService"
PROXY = "org.apache.cassandra.db:type=StorageProxy"
COMPACTION = "org.apache.cassandra.db:type=CompactionManager"
HINTS = "org.apache.cassandra.hints:type=HintsService"
GUARDRAILS = "org.apache.cassandra.db:type=Guardrails"
FLUSH = "forceKeyspaceFlush(java.lang.String,[Ljava.lang.String;)"
LOGGING = "setLoggingLevel(java.lang.String,java.lang.String)"
AUTH = "org.apache.cassandra.auth:type="
AUTH_CACHES = ("CredentialsCache", "RolesCache", "PermissionsCache")
TABLES = "org.apache.cassandra.db:type=Tables,*"

ALLOWED: dict[str, tuple[str, ...]] = {
    STORAGE: (
        "takeSnapshot(java.lang.String,java.util.Map,[Ljava.lang.String;)",
        "clearSnapshot*",
        "drain",
        "stopNativeTransport*",
        "stopGossiping",
        FLUSH,
        "forceKeyspaceCleanup*",
        "repairAsync(java.lang.String,java.util.Map)",
        "getParentRepairStatus(int)",
        "decommission(boolean)",
        LOGGING,
    ),
    TABLES: ("importNewSSTables*",),
    **{f"{AUTH}{each}": ("invalidate",) for each in AUTH_CACHES},
}
"""Operations by bean; an overloaded one with its arguments or with ``*``, since its bare name matches none."""


def policy(writable: dict[str, tuple[str, ...]]) -> bytes:
    """Return the allow-list: reading anything, ``ALLOWED`` operations, and writing these attributes."""
    beans = []
    for bean in sorted({*ALLOWED, *writable}):
        operations = "".join(f"<operation>{escape(each)}</operation>" for each in ALLOWED.get(bean, ()))
        attributes = "".join(f"<attribute>{each}</attribute>" for each in sorted(writable.get(bean, ())))
        beans.append(f"<mbean><name>{escape(bean)}</name>{operations}{attributes}</mbean>\n")
    text = (
        '<?xml version="1.0" encoding="utf-8"?>\n<restrict>\n<http><method>post</method></http>\n'
        f"<commands><command>read</command></commands>\n<allow>\n{''.join(beans)}</allow>\n</restrict>\n"
    )
    return text.encode()


def address(node: Node) -> str:
    """Return the guest's own address of this machine: nobody outside reaches it, and no two guests share it.

    Two guests of one name may be there in different places: beside the demo, a test.
    """
    return address_of(int.from_bytes(blake3(f"{node.server_number} {node.places.root}".encode()).digest(4), "big"))


def address_of(number: int) -> str:
    """Return one address in sixteen million."""
    return f"127.{1 + number % 254}.{number // 254 % 256}.{1 + number // 65024 % 254}"


def write_access(node: Node, data: Path) -> None:
    """Put into a data folder what the server needs to know us by."""
    kept = node.secrets.load(PASSWORD)
    if kept is None:
        kept = Secret(secrets.token_hex(32))
        node.secrets.keep(PASSWORD, kept)
    lines = {
        "host": address(node),
        "port": str(PORT),
        "user": USER,
        "password": kept.reveal(),
        "authMode": "basic",
        "discoveryEnabled": "false",
        "policyLocation": (node.places.config / POLICY).as_uri(),
    }
    node.host.write(data / FILE, "".join(f"{name}={value}\n" for name, value in lines.items()).encode(), mode=0o600)


def agent_options(node: Node, data: Path) -> tuple[str, ...]:
    """Return the options that let the server answer here; the password stands in the file alone."""
    # Without the second each answer waits for 40 ms.
    return (
        f"-javaagent:{node.installation.tools['management']}=config={data / FILE}",
        "-Dsun.net.httpserver.nodelay=true",
    )


class Management:
    """Requests to one server, each over a connection of its own: it closes those that wait."""

    def __init__(self, node: Node, timeout: float = 30.0) -> None:
        self._node = node
        self._timeout = timeout

    def read(self, bean: str, attribute: str) -> Any:
        """Return an attribute's value."""
        return self._asked({"type": "read", "mbean": bean, "attribute": attribute})

    def attributes(self, bean: str, names: tuple[str, ...]) -> dict[str, Any]:
        """Return the values of several attributes by name."""
        found: dict[str, Any] = self._asked({"type": "read", "mbean": bean, "attribute": list(names)})
        return found

    def write(self, bean: str, attribute: str, value: object) -> None:
        """Change an attribute; ``ToolFailed`` where the server refuses it."""
        self._asked({"type": "write", "mbean": bean, "attribute": attribute, "value": value})

    def call(self, bean: str, operation: str, *arguments: object) -> Any:
        """Call an operation, once: an answer that is lost is an error, never a second call."""
        asked = {"type": "exec", "mbean": bean, "operation": operation, "arguments": list(arguments)}
        return self._asked(asked)

    def _asked(self, request: Mapping[str, object]) -> Any:
        status, body = self._posted(json.dumps({**request, "config": {"includeStackTrace": "false"}}))
        if status in (401, 403):
            raise NotReady("the server's management does not know the agent's password")
        try:
            told = json.loads(body)
        except ValueError:
            raise ToolFailed(f"the server's management answered {status}: {body[:200]!r}") from None
        if told.get("status") != 200:
            raise ToolFailed(f"the server refused {request.get('operation') or request.get('attribute')}: {_why(told)}")
        return told.get("value")

    def _posted(self, body: str) -> tuple[int, bytes]:
        password = self._node.secrets.load(PASSWORD)
        if password is None:
            raise NotReady("the agent has no password for this server's management yet")
        known = base64.b64encode(f"{USER}:{password.reveal()}".encode()).decode()
        headers = {"Authorization": f"Basic {known}", "Content-Type": "application/json"}
        with self._connected() as connection:
            try:
                connection.connect()
                listeners.prove(self._node, connection.sock)
                connection.request("POST", "/jolokia/", body, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                raise NotReady(f"the server's management does not answer: {error or type(error).__name__}") from None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(address(self._node), PORT, timeout=self._timeout)
        with contextlib.closing(connection):
            yield connection


def forget_roles(node: Node) -> None:
    """Let the server forget what it remembers of roles: who was shut out could still log in for seconds."""
    management = Management(node)
    for each in AUTH_CACHES:
        management.call(f"{AUTH}{each}", "invalidate")


def _why(told: dict[str, Any]) -> str:
    text = str(told.get("error", "")).strip()
    return text.splitlines()[0][:300] if text else f"status {told.get('status')}"
