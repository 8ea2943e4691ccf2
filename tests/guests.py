"""Guests for tests: real servers of any installed datastore, in short folders, ended by their own pid."""

import contextlib
import importlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from datastores.contract import Node, Sample
from datastores.manager import Manager
from guestagent.declarations import installed, load
from guestagent.image import installation, prove, read_image
from guestagent.node import node_for, service_for
from tests.ports import give

IMAGE = "debian-12"
PREFIX = "OSTLER_TEST_PREFIX"


def prefix() -> Path | None:
    """Return where tools are looked up first: what ``tools/servers`` printed, handed on by the environment."""
    return Path(os.environ[PREFIX]) if os.environ.get(PREFIX) else None


def stage(into: Path) -> bool:
    """Copy below ``into`` the programs that the servers' accounts cannot reach; return whether there were any.

    Only root has other accounts; they cannot pass a checkout, or an interpreter, that lies in a private folder.
    """
    image, found = read_image(IMAGE), False
    for datastore, versions in image.tables.items() if os.geteuid() == 0 else ():
        for version in versions:
            for path in installation(image, datastore, version).tools.values():
                if path.is_file() and not _reachable(path):
                    copy = into / str(path).lstrip("/")
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(path, copy)
                    found = True
    return found


def _reachable(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (path, *path.resolve().parents))


@dataclass
class Guests:
    """Make nodes and managers below one folder; ``close`` stops every server and removes all."""

    folder: Path
    managers: list[Manager] = field(default_factory=list)

    def node(self, datastore: str, version: str | None = None, guest_id: str | None = None) -> Node:
        """Return a node with folders and a port of its own; nothing runs."""
        declared, image = load(datastore), read_image(IMAGE)
        wanted = version or image.versions(datastore)[0]
        facts = installation(image, datastore, wanted, prefix())
        guest = guest_id or f"g{secrets.token_hex(3)}"
        home = self.folder / guest
        give(home / "state")
        made = node_for(guest, declared, wanted, facts, home / "root", home / "state", port=0)
        prove(facts, made.host)
        return made

    def manager(
        self,
        datastore: str,
        version: str | None = None,
        guest_id: str | None = None,
        *,
        start: bool = True,
        node: Node | None = None,
        quick: bool = False,
    ) -> Manager:
        """Return a manager of a new node; ``start``: initialised, configured, running and secured.

        ``quick``: on an image whose settings make the server quick and not safe.
        """
        node, declared = node or self.node(datastore, version, guest_id), load(datastore)
        service = service_for(node, declared.admin(node), self.state(node), "process")
        manager = Manager(declared, node, service, sample_class(datastore).quick if quick else None)
        self.managers.append(manager)
        if start:
            manager.settings.ensure()
            manager.admin.initialise()
            manager.service.start()
            manager.admin.secure()
        return manager

    def state(self, node: Node) -> Path:
        """Return a node's state folder."""
        return self.folder / node.guest_id / "state"

    def close(self) -> None:
        """Stop what runs; nothing is left."""
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder)
            for each in self.managers:
                stack.callback(shutil.rmtree, each.node.places.run, ignore_errors=True)
            for each in self.managers:
                stack.callback(each.service.stop, timeout=60)


def node_in(home: Path, datastore: str, version: str | None = None) -> Node:
    """Return the node of a guest that was made before, in another process: ``home`` is its folder."""
    image = read_image(IMAGE)
    facts = installation(image, datastore, version or image.versions(datastore)[0], prefix())
    return node_for(home.name, load(datastore), facts.version, facts, home / "root", home / "state", port=0)


def sample(manager: Manager) -> Sample:
    """Return the sample data of a manager's datastore."""
    return sample_class(manager.datastore.name)(manager.node)


def sample_class(datastore: str) -> type[Sample]:
    """Return the class of a datastore's sample data."""
    found: object = importlib.import_module(f"{installed()[datastore].module}.sample").SAMPLE
    assert isinstance(found, type)
    assert issubclass(found, Sample)
    return found


def having(*parts: str) -> list[str]:
    """Return the names of the installed datastores that have all these parts; suites are parametrised with it."""
    return [each for each in installed() if all(getattr(load(each), part) is not None for part in parts)]


@contextlib.contextmanager
def guests() -> Iterator[Guests]:
    """Yield guests in a folder that the servers' accounts may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="og-", dir="/tmp"))
    folder.chmod(0o755)
    made = Guests(folder)
    try:
        yield made
    finally:
        made.close()
