"""Settings that a dump needs for its time, and putting back what was there.

What was read before is written down, durable, before anything is set; ``settle`` puts it back, at the
end or (after a kill) at the next start.  A value that somebody changed meanwhile is theirs and stays.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from datastores.contract import BadInput, Node, NotReady
from datastores.redis.client import Connection, agent

_NOTE = "redis-borrowed.json"
_ROOM = 1 << 30
_WANTED = {"rdbcompression": "no", "repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
_BUFFERS, _TIMEOUT = "client-output-buffer-limit", "repl-timeout"
_PATIENCE = 900
_NAMES = (*_WANTED, _BUFFERS, _TIMEOUT)


@contextlib.contextmanager
def borrowed(node: Node, connection: Connection) -> Iterator[None]:
    """Have the settings of a dump: no compression, no disk, no delay, patience, and room for what is
    written meanwhile."""
    before = {name: _get(connection, name) for name in _NAMES}
    _note(node, {name: (value, _wanted(name, value)) for name, value in before.items()})
    try:
        for name, value in before.items():
            connection.call("CONFIG", "SET", name, _wanted(name, value))
        yield
    finally:
        settle(node)


def settle(node: Node) -> None:
    """Put back what a dump changed; no error where there is nothing, or where the server is gone.

    A server that was started meanwhile has read its own file again: the values are the same, or newer.
    """
    path = _path(node)
    if not path.exists():
        return
    try:
        note = json.loads(path.read_bytes())
        with agent(node) as connection:
            for name, (before, ours) in note.items():
                if name in _NAMES and _get(connection, name) == ours:
                    connection.call("CONFIG", "SET", name, before)
    except NotReady:
        if _answers(node):
            raise
    node.host.remove(path)


def _answers(node: Node) -> bool:
    """Say whether a server listens there at all."""
    with contextlib.suppress(NotReady), agent(node):
        return True
    return False


def _wanted(name: str, before: str) -> str:
    if name == _TIMEOUT:
        return str(max(int(before), _PATIENCE))
    if name != _BUFFERS:
        return _WANTED[name]
    words = before.split()
    at = next(n for n, each in enumerate(words) if each in ("slave", "replica"))
    hard = int(words[at + 1])
    room = "0" if hard == 0 else str(max(hard, _ROOM))
    return " ".join([*words[:at], words[at], room, "0", "0", *words[at + 4 :]])


def _note(node: Node, pairs: Mapping[str, tuple[str, str]]) -> None:
    node.host.folder(node.places.temp)
    node.host.write(_path(node), json.dumps(pairs).encode(), mode=0o600)


def _path(node: Node) -> Path:
    return node.places.temp / _NOTE


def _get(connection: Connection, name: str) -> str:
    found = connection.items("CONFIG", "GET", name)
    if len(found) != 2 or not isinstance(found[1], bytes):
        raise BadInput(f"this server has no setting {name}", field=name)
    return found[1].decode("utf-8", "surrogateescape")
