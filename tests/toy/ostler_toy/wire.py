"""The one way we speak to a toy server."""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

from datastores.contract import BadInput, Node, NotFound, NotReady, Secret

Ask = Callable[..., Any]


@contextlib.contextmanager
def connection(node: Node, name: str | None = None, password: Secret | None = None) -> Iterator[Ask]:
    """Yield a function that asks the server: as the agent by the socket, or over TCP as ``name``."""
    where: Any = str(node.endpoint.socket) if name is None else (node.endpoint.host, node.endpoint.port)
    with socket.socket(socket.AF_UNIX if name is None else socket.AF_INET) as link, contextlib.ExitStack() as ended:
        link.settimeout(20)
        try:
            link.connect(where)
        except OSError as error:
            raise NotReady(f"the toy server does not answer: {error.strerror}") from error
        # The connection ends when both are closed, even while a traceback still knows them.
        stream = ended.enter_context(link.makefile("rwb"))

        def ask(do: str, **values: object) -> Any:
            try:
                stream.write(json.dumps({"do": do, **values}).encode() + b"\n")
                stream.flush()
                answer = json.loads(stream.readline() or b'{"error": "gone"}')
            except OSError as error:
                raise NotReady(f"the toy server went away: {error.strerror}") from error
            if answer.get("error") == "missing":
                raise NotFound(f"there is no {answer['what']!r}")
            if "error" in answer:
                raise NotReady(f"{do}: {answer['error']}")
            return answer["ok"]

        if name is not None and not ask("login", name=name, password=password.reveal() if password else ""):
            raise BadInput("the login was refused", field="password")
        yield ask
