"""One database beside one agent: its folders, its port, its secrets, its manager.

Below ``state_dir`` (the agent's): ``port`` and ``secrets/`` are private; ``run/`` and ``log/`` belong to the server's
account.  Below ``root`` (the data root, the agent's): ``data``, ``staging``, ``temp`` and ``config.d`` belong to
the server's account, ``config`` is the pointer to the generation in force.
"""

import contextlib
import hashlib
import os
import re
import secrets
import socket
import tempfile
from pathlib import Path

from datastores.contract import Admin, BadInput, Datastore, Endpoint, Installation, Node, Places, Secret, Service
from datastores.manager import Manager
from guestagent.files import durable, made, sync_folder
from guestagent.host import LocalHost
from guestagent.passage import admit
from guestagent.supervisor import ProcessService
from guestagent.systemd import UnitService, in_charge

SOCKET_LIMIT = 90
# Below the range the kernel gives to outgoing connections, so that nobody takes it while the server is down.
FREE_PORTS = range(15000, 32000)


class FileSecrets:
    """Keep ``contract.Secrets`` as 0600 files in one private folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, name: str) -> Secret | None:
        """Return what was kept under ``name``, or None."""
        try:
            return Secret(self._path(name).read_text())
        except FileNotFoundError:
            return None

    def keep(self, name: str, secret: Secret) -> None:
        """Keep ``secret`` under ``name``, durable when this returns."""
        path = self._path(name)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        durable(path, secret.reveal().encode())

    def drop(self, name: str) -> None:
        """Forget ``name``; no error where there is none."""
        with contextlib.suppress(FileNotFoundError):
            self._path(name).unlink()
            sync_folder(self._folder)

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
            raise BadInput(f"{name!r} is no name for a secret", field="name")
        return self._folder / name


def node_for(
    guest_id: str,
    datastore: Datastore,
    version: str,
    installation: Installation,
    root: Path,
    state_dir: Path,
    bind: str = "127.0.0.1",
    port: int | None = None,
) -> Node:
    """Make the folders of a guest and return its node.

    ``port``: None is the datastore's default, 0 a free one that is chosen once and kept in ``state_dir``.
    """
    datastore.major(version)
    root, state_dir = root.absolute(), state_dir.absolute()
    for folder, option in ((state_dir, "state_dir"), (root, "root")):
        made(folder, 0o711, option)
    places = _places(root, state_dir)
    host = LocalHost(
        installation.owner,
        installation.group,
        temp=places.temp,
        within=(root, state_dir, places.run.parent),
        libraries=installation.libraries,
        path=[installation.basedir / each for each in ("sbin", "bin")] if installation.libraries else [],
    )
    _make_folders(places, host)
    listening = _port(datastore, port, bind, state_dir)
    return Node(
        guest_id=guest_id,
        installation=installation,
        host=host,
        places=places,
        endpoint=Endpoint(bind, listening, places.run / "server.sock"),
        secrets=FileSecrets(state_dir / "secrets"),
        server_number=server_number(guest_id),
    )


def _make_folders(places: Places, host: LocalHost) -> None:
    """Make the server's folders, and let its account pass those above them."""
    if os.geteuid() == 0:
        for folder in (places.data, places.run, places.log):
            admit(folder, host.uid, host.gid)
    for folder in (places.run, places.log, places.temp, places.data):
        host.folder(folder)


def manager_for(datastore: Datastore, node: Node, state_dir: Path, supervisor: str = "auto") -> Manager:
    """Return the manager of a node; ``supervisor`` is ``auto`` (by PID 1), ``process`` or ``systemd``."""
    return Manager(datastore, node, service_for(node, datastore.admin(node), state_dir, supervisor))


def service_for(node: Node, admin: Admin, state_dir: Path, supervisor: str = "auto") -> Service:
    """Return what keeps the server running on this machine."""
    if supervisor not in ("auto", "process", "systemd"):
        raise BadInput(f"supervisor {supervisor!r} is not auto, process or systemd", field="supervisor")
    if supervisor == "systemd" or (supervisor == "auto" and in_charge()):
        return UnitService(node, admin, host=_plain(node))
    return ProcessService(node, admin, state_dir.absolute() / "server.json")


def server_number(guest_id: str) -> int:
    """Return a stable number of this guest, 1 to 2**31-1."""
    digest = hashlib.blake2b(guest_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (2**31 - 1) + 1


def free_port(bind: str) -> int:
    """Return a port nobody listens on now, from a range that outgoing connections do not use."""
    for _ in range(200):
        number = FREE_PORTS[secrets.randbelow(len(FREE_PORTS))]
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.bind((bind, number))
            return number
    raise BadInput(f"no free port was found on {bind}", field="port")


def _port(datastore: Datastore, wanted: int | None, bind: str, state_dir: Path) -> int:
    if wanted is None:
        return next(iter(datastore.ports.values()), 0)
    if wanted != 0:
        return wanted
    kept = state_dir / "port"
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int(kept.read_text())
    number = free_port(bind)
    durable(kept, str(number).encode())
    return number


def _places(root: Path, state_dir: Path) -> Places:
    run = state_dir / "run"
    if len(os.fsencode(run)) > SOCKET_LIMIT:
        # A socket's whole path has 107 bytes; a deep state directory gets a short one, always the same.
        name = hashlib.blake2b(os.fsencode(state_dir), digest_size=6).hexdigest()
        run = _private(Path(tempfile.gettempdir()) / f"ostler-{os.geteuid()}") / name
    return Places(
        root=root,
        data=root / "data",
        staging=root / "staging",
        config=root / "config",
        run=run,
        temp=root / "temp",
        log=state_dir / "log",
    )


def _private(folder: Path) -> Path:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o711)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or not folder.is_dir() or folder.is_symlink():
        raise BadInput(f"{folder} belongs to somebody else", field="state_dir")
    return folder


def _plain(node: Node) -> LocalHost:
    """Return a host whose files are the agent's own: units are not the server's."""
    return LocalHost("root", "root", temp=node.places.temp, within=())
