"""A server of our own on a data folder: closed to all but us, for as long as a ``with`` lasts.

It listens at a socket with mode 0700 and nowhere else, and has neither accounts nor an oplog; it ends with the agent.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from pymongo.errors import ConnectionFailure

from datastores.contract import Command, DatastoreError, Node, NotReady, Stream, ToolFailed
from datastores.mongodb.client import Client, session

SOCKET = "private.sock"
LOG = "private.log"
CACHE = "0.25"
PATIENCE = 120.0
LONG = 24 * 3600.0


@contextlib.contextmanager
def private(node: Node, folder: Path) -> Iterator[Client]:
    """Serve ``folder`` and yield a connection; on leaving well the server has shut down cleanly."""
    sweep(node)
    node.host.folder(node.places.temp)
    try:
        with node.host.stream(_command(node, folder), as_owner=True) as running:
            _answered(node, running)
            with _quoting(node), session(node.places.run / SOCKET, timeout=LONG) as client:
                yield client
                with contextlib.suppress(ConnectionFailure):
                    client.admin.command("shutdown")
            running.finish()
    finally:
        sweep(node)


def sweep(node: Node) -> None:
    """Remove what a private server leaves beside the data folder."""
    for each in (node.places.run / SOCKET, node.places.temp / LOG):
        node.host.remove(each)


def _command(node: Node, folder: Path) -> Command:
    options = {
        "dbpath": str(folder),
        "bind_ip": str(node.places.run / SOCKET),
        # Never listened at: the only address is the socket's.
        "port": str(node.endpoint.port),
        "filePermissions": "0700",
        "logpath": str(node.places.temp / LOG),
        "wiredTigerCacheSizeGB": CACHE,
    }
    parameters = ("diagnosticDataCollectionEnabled=false", "ttlMonitorEnabled=false")
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    words += [word for each in parameters for word in ("--setParameter", each)]
    # What is killed here is thrown away whole, so a journal would protect nothing.
    return Command((str(node.installation.tools["server"]), *words, "--nounixsocket", "--nojournal"))


def _answered(node: Node, running: Stream) -> None:
    """Wait until it listens; a server that ended instead tells why."""
    path, end = node.places.run / SOCKET, time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(NotReady), session(path, timeout=10) as client:
            client.admin.command("ping")
            return
        if ended(node) or time.monotonic() > end:
            raise ToolFailed(f"the private server did not come up: {_last_words(node)}")
        time.sleep(0.05)


def ended(node: Node) -> bool:
    """Say whether the private server's log ends with its end."""
    return '"Now exiting"' in _last_words(node) or '"Shutting down"' in _last_words(node)


@contextlib.contextmanager
def _quoting(node: Node) -> Iterator[None]:
    """A private server that is gone will not come back: nobody may try that again."""
    try:
        yield
    except NotReady as error:
        raise ToolFailed(f"the private server has gone: {error}; {_last_words(node)}") from error
    except DatastoreError:
        raise


def _last_words(node: Node) -> str:
    path = node.places.temp / LOG
    if not path.is_file():
        return "it left no log"
    lines = path.read_bytes()[-4096:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1][-600:] if lines else "its log is empty"
