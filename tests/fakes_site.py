"""One sham guest with its engine, for tests of whole operations."""

import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datastores.contract import JSON
from guestagent.declarations import verbs
from guestagent.operations.engine import Operations, Request
from guestagent.operations.guest import Guest
from objectstore.archive import Archive
from tests.fakes_ops import sham_guest


class Site:
    """One guest with its engine and the archive it shares."""

    def __init__(self, folder: Path, guest_id: str, archive: Archive) -> None:
        folder.mkdir()
        self.guest: Guest = sham_guest(folder, guest_id, archive)
        self.engine = Operations(self.guest, verbs())
        self.places = self.guest.manager.node.places

    def order(self, verb: str, **args: JSON) -> Any:
        return self.engine.accept(Request(str(uuid.uuid4()), verb, args))

    def ended(self, operation: Any, timeout: float = 30.0) -> Any:
        assert self.engine.wait(operation["id"], timeout), "it does not end"
        return self.engine.read("operation.show", {"id": operation["id"]})

    def do(self, verb: str, **args: JSON) -> Any:
        return self.ended(self.order(verb, **args))

    def backup(self, **args: JSON) -> Any:
        ended = self.do("backup.create", **args)
        assert ended["state"] == "succeeded", ended["error"]
        return ended["result"]

    def put(self, name: str, content: bytes) -> None:
        (self.places.data / name).write_bytes(content)

    def content(self) -> dict[str, bytes]:
        found = sorted(each for each in self.places.data.rglob("*") if each.is_file() and each.name != ".ostler")
        return {str(each.relative_to(self.places.data)): each.read_bytes() for each in found}

    def status(self) -> str:
        found: Any = self.engine.read("agent.status", {})
        return str(found["status"])


def until(held: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not held():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.005)
