"""The listening end of ``unix://``: one thread that collects requests from all callers at once.

A lock file beside the socket says whether its owner lives, so that a dead one's socket is replaced and a live
one's never.  Only root and the agent's own user are heard; each has ``PATIENCE`` seconds for its request.
"""

import fcntl
import logging
import os
import selectors
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from oslo_messaging._drivers import base
from oslo_messaging._drivers import common as driver_common

from guestagent.errors import Refused, SecondAgent
from guestagent.files import made
from guestagent.rpc import framing
from guestagent.rpc.envelope import fault

LOG = logging.getLogger(__name__)

CALLERS = 128
"""How many callers are served, or may be saying what they want, at a time."""

PATIENCE = 10.0


class UnixIncoming(base.RpcIncomingMessage):  # type: ignore[misc]
    """One request and the caller who waits for its answer."""

    def __init__(self, caller: "_Caller", frame: framing.Frame, done: Callable[["_Caller"], None]) -> None:
        super().__init__(frame.get("context"), frame.get("message"))
        self._caller = caller
        self._done = done
        self.expects_reply = bool(frame.get("reply"))
        self.client_timeout = frame.get("beats")
        self._lock = threading.Lock()

    def reply(self, reply: object = None, failure: Any = None) -> None:
        """Answer and hang up; a cast is answered, too."""
        try:
            self._send({"failure": driver_common.serialize_remote_exception(failure)} if failure else {"result": reply})
        except Refused:
            self._send({"result": {"error": {"type": "Failed", "message": "the answer does not fit into a message"}}})
        finally:
            self._done(self._caller)

    def heartbeat(self) -> None:
        """Tell the caller that its answer is being worked on."""
        self._send({"beat": True})

    def requeue(self) -> None:
        """Do nothing: nobody keeps a message here but its sender."""

    def _send(self, frame: Mapping[str, object]) -> None:
        data = framing.encode(frame, framing.ANSWER_CAP)
        with self._lock:
            try:
                self._caller.connection.settimeout(PATIENCE)
                self._caller.connection.sendall(data)
            except OSError as error:
                LOG.info("A caller went away before its answer: %s", error.strerror or error)


class _Caller:
    """A connection whose request is not complete yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.until = time.monotonic() + PATIENCE
        self._received = bytearray()

    def read(self) -> framing.Frame | None:
        """Take what is there; return the request when it is complete, ``Refused`` where it cannot be one."""
        wanted = self._missing()
        part = self.connection.recv(min(wanted, 1 << 16))
        if not part:
            raise ConnectionResetError("hung up")
        self._received += part
        if self._missing():
            return None
        return framing.decode(bytes(self._received[framing.HEADER.size :]))

    def _missing(self) -> int:
        have, head = len(self._received), framing.HEADER.size
        if have < head:
            return head - have
        (size,) = framing.HEADER.unpack_from(self._received)
        if size > framing.REQUEST_CAP:
            raise Refused(f"the request has {size} bytes, more than {framing.REQUEST_CAP}", field="request")
        return int(size) + head - have


class UnixListener(base.Listener):  # type: ignore[misc]
    """The listening end of one socket."""

    def __init__(self, folder: Path, topic: str, server: str) -> None:
        super().__init__(batch_size=1, batch_timeout=None)
        self._path = framing.socket_path(folder, topic, server)
        _own_folder(folder)
        self._lock = _claim(self._path)
        self._listening = _bind(self._path)
        self._waker, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._busy: set[_Caller] = set()
        self._thread = threading.Thread(target=self._collect, name="unix-listener", daemon=True)

    def start(self, on_incoming_callback: Callable[[list[UnixIncoming]], None]) -> None:
        """Hand every request to the callback, as a list of one."""
        super().start(on_incoming_callback)
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests; those that were taken are still answered."""
        self._path.unlink(missing_ok=True)
        self._waker.send(b"x")
        self._thread.join()
        super().stop()

    def cleanup(self) -> None:
        """Give up the name."""
        for each in (self._listening, self._waker, self._woken):
            each.close()
        self._selector.close()
        os.close(self._lock)

    def _collect(self) -> None:
        while True:
            for key, _ in self._selector.select(timeout=1.0):
                if key.fileobj is self._woken:
                    return self._hang_up_all()
                if key.fileobj is self._listening:
                    self._welcome()
                else:
                    self._hear(key.data)
            self._hang_up_late()

    def _welcome(self) -> None:
        try:
            connection, _ = self._listening.accept()
        except OSError as error:
            LOG.warning("Cannot take a connection: %s", error.strerror)
            time.sleep(0.05)
            return
        connection.setblocking(False)
        if not framing.trusted(framing.peer(connection)):
            LOG.warning("User %d may not give orders here", framing.peer(connection))
            connection.close()
        elif len(self._busy) + len(self._waiting()) >= CALLERS:
            connection.close()
        else:
            self._selector.register(connection, selectors.EVENT_READ, _Caller(connection))

    def _hear(self, caller: _Caller) -> None:
        try:
            frame = caller.read()
        except BlockingIOError:
            return
        except OSError:
            self._forget(caller)
            caller.connection.close()
            return
        except Refused as error:
            self._forget(caller)
            self._refuse(caller, error)
            return
        if frame is not None:
            self._forget(caller)
            self._hand_over(caller, frame)

    def _hand_over(self, caller: _Caller, frame: framing.Frame) -> None:
        if not isinstance(frame.get("message"), dict) or not isinstance(frame.get("context"), dict):
            self._refuse(caller, Refused("a request has a message and a context", field="request"))
            return
        self._busy.add(caller)
        self.on_incoming_callback([UnixIncoming(caller, frame, self._finished)])

    def _refuse(self, caller: _Caller, error: Refused) -> None:
        caller.connection.setblocking(False)
        try:
            caller.connection.send(framing.encode({"result": fault(error)}))
        except OSError:
            LOG.info("A caller went away before it was refused")
        caller.connection.close()

    def _finished(self, caller: _Caller) -> None:
        self._busy.discard(caller)
        caller.connection.close()

    def _forget(self, caller: _Caller) -> None:
        self._selector.unregister(caller.connection)

    def _waiting(self) -> list[_Caller]:
        return [key.data for key in self._selector.get_map().values() if key.data is not None]

    def _hang_up_late(self) -> None:
        now = time.monotonic()
        for caller in [each for each in self._waiting() if each.until < now]:
            self._forget(caller)
            caller.connection.close()

    def _hang_up_all(self) -> None:
        for caller in self._waiting():
            self._forget(caller)
            caller.connection.close()


def _own_folder(folder: Path) -> None:
    """Make the folder, 0700; refuse one in which others could put a socket of theirs in our place."""
    made(folder, 0o700, "transport_url")
    found = folder.stat()
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if shared or not framing.trusted(found.st_uid):
        raise Refused(f"others may write into {folder}", field="transport_url", hint="use a folder of mode 0700")


def _claim(path: Path) -> int:
    """Return the lock that says this name is ours, until its descriptor is closed or we die."""
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SecondAgent(f"another agent serves {path.name} already") from None
    return lock


def _bind(path: Path) -> socket.socket:
    """Listen at ``path``; what a dead agent left there is replaced.  Holds the name's lock."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    listening.bind(os.fspath(path))
    path.chmod(0o600)
    listening.listen(CALLERS)
    return listening
