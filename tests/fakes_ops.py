"""A small datastore that keeps the contract with plain files, so that operations can be tried without a server.

Its "server" is a file that says it is up; its data are files below ``places.data``: ``state.json`` and whatever
a test puts there.  Everything is on disk, so that it survives the killing of the process that drives it.
"""

import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from datastores.contract import (
    JSON,
    Admin,
    Backup,
    BadInput,
    Blocks,
    Checkpoint,
    Command,
    Databases,
    Datastore,
    Endpoint,
    Extent,
    Fate,
    File,
    Identity,
    Import,
    Installation,
    Kept,
    Limits,
    Mismatch,
    NameRule,
    Node,
    NotFound,
    NotReady,
    Places,
    Root,
    Rule,
    Secret,
    Settings,
    Since,
    Snapshot,
    ToolFailed,
    Users,
    Whole,
    verb,
)
from datastores.manager import Manager
from guestagent.errors import Unreachable
from guestagent.host import LocalHost
from guestagent.journal import open_journal
from guestagent.node import FileSecrets
from guestagent.operations.guest import Guest
from guestagent.operations.marks import size_of
from objectstore.archive import Archive
from objectstore.keys import LocalKeys
from objectstore.realm import Realm, open_store

PIECE = 64 * 1024


class SmallHost(LocalHost):
    """A host whose disk has ``room`` bytes, of which what lies below its folders takes its share."""

    room: int | None = None

    def space(self, path: Path) -> int:
        if self.room is None:
            return super().space(path)
        return max(0, self.room - sum(size_of(each) for each in self._within))


def read_state(node: Node) -> dict[str, dict[str, JSON]]:
    found: dict[str, dict[str, JSON]] = json.loads((node.places.data / "state.json").read_text())
    return found


def write_state(node: Node, state: Mapping[str, object]) -> None:
    node.host.write(node.places.data / "state.json", json.dumps(state).encode())


def up(node: Node) -> bool:
    return (node.places.run / "up").exists()


def kill_at(node: Node, move: str) -> None:
    """Kill this process at the n-th of these moves, where a test has asked for it."""
    countdown = node.places.root / f"kill-at-{move}"
    if countdown.exists():
        left = int(countdown.read_text()) - 1
        countdown.write_text(str(left))
        if left == 0:
            countdown.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def write_extents(node: Node, extents: Iterator[Extent], into: Path) -> None:
    for path, offset, buffer in extents:
        target = into / path
        node.host.folder(target.parent)
        with target.open("wb" if offset == 0 else "ab") as file:
            file.write(buffer)


def read_config(node: Node) -> dict[str, str]:
    lines = (node.places.config / "sham.conf").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


class ShamAdmin(Admin):
    def initialise(self) -> None:
        self.node.host.folder(self.node.places.data)
        write_state(self.node, {"server_id": secrets.token_hex(4), "databases": {}, "users": {}})

    def command(self) -> Command:
        return Command(("/bin/false",))

    def ping(self) -> None:
        if not up(self.node):
            raise NotReady("the server does not answer")

    def version(self) -> str:
        return "1.0.7"

    def secure(self) -> None:
        self.ping()
        state = read_state(self.node)
        state["agent"] = {"guest": self.node.guest_id}
        write_state(self.node, state)

    def quiesce(self) -> None:
        self.ping()

    def stop_signal(self) -> int:
        return 15

    def probe(self) -> None:
        self.ping()
        if (self.node.places.root / "unhealthy").exists():
            raise NotReady("what was written was not read back")


class ShamService:
    """The server: up while a file says so; it does not come up on data or settings that say ``broken``."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def start(self, *, timeout: float = 120.0) -> None:
        kill_at(self.node, "start")
        config = read_config(self.node)
        if config.get("size") == "13" or (self.node.places.data / "broken").exists():
            raise ToolFailed("the server ended before it answered")
        read_state(self.node)
        if (self.node.places.root / "slow-start").exists():
            time.sleep(min(timeout, 0.2))
            raise NotReady("it is starting")
        self.node.host.write(self.node.places.run / "up", json.dumps({"shade": "light", **config}).encode())

    def stop(self, *, timeout: float = 120.0, data: Fate = "kept") -> None:
        kill_at(self.node, "stop")
        (self.node.places.run / "up").unlink(missing_ok=True)

    def pid(self) -> int | None:
        return 1 if up(self.node) else None


class ShamSettings(Settings):
    RULES: ClassVar[dict[str, Rule]] = {
        "shade": Rule("shade", "enum", True, choices=("light", "dark")),
        "color": Rule("color", "enum", True, choices=("red", "green", "grey")),
        "size": Rule("size", "integer", False, low=1, high=99),
    }

    def rules(self) -> Mapping[str, Rule]:
        return self.RULES

    def base(self) -> Mapping[str, str]:
        return {"port": str(self.node.endpoint.port)}

    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        for name, value in values.items():
            rule = self.RULES[name]
            if (rule.choices and value not in rule.choices) or (not rule.choices and not value.isdigit()):
                raise BadInput(f"setting {name} must be otherwise", field=name)
        if (values.get("shade"), values.get("color")) == ("dark", "green"):
            raise BadInput("dark green is no color here", field="color")
        return dict(values)

    def written(self) -> dict[str, str]:
        return read_config(self.node)

    def effective(self) -> dict[str, str]:
        running: dict[str, str] = json.loads((self.node.places.run / "up").read_text())
        return running

    def apply(self, values: Mapping[str, str]) -> None:
        """Apply one after the other, as servers do that cannot do otherwise."""
        kill_at(self.node, "apply")
        for name, value in sorted(values.items(), reverse=True):
            if value == "grey":
                raise ToolFailed("the server does not like grey")
            self.node.host.write(self.node.places.run / "up", json.dumps({**self.effective(), name: value}).encode())


class ShamCodec:
    def dump(self, layers: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
        merged: dict[str, str] = {}
        for layer in layers:
            merged.update(layer)
        return {"sham.conf": "".join(f"{name}={value}\n" for name, value in sorted(merged.items())).encode()}


class ShamDatabases(Databases):
    @verb(scope="accounts", changes=True)
    def create(
        self, name: str, *, charset: str | None = None, collate: str | None = None, replication: str | None = None
    ) -> None:
        state = read_state(self.node)
        if (self.node.places.root / "run-tool").exists():
            self.node.host.write(self.node.places.temp / "tool-runs", b"")
            self.node.host.run(Command(("sleep", "600")), timeout=600.0)
        state["databases"].setdefault(name, {"charset": charset})
        write_state(self.node, state)

    @verb(scope="accounts", changes=True)
    def delete(self, name: str) -> None:
        state = read_state(self.node)
        if name not in state["databases"]:
            raise NotFound(f"there is no database {name}", field="database")
        del state["databases"][name]
        write_state(self.node, state)

    @verb()
    def list(self, *, after: str | None = None, limit: int = 1000) -> "list[dict[str, JSON]]":
        return [{"name": name} for name in sorted(read_state(self.node)["databases"])]


class ShamUsers(Users):
    @verb(scope="accounts", changes=True)
    def create(self, name: str, password: Secret, *, host: str = "%", databases: tuple[str, ...] = ()) -> None:
        state = read_state(self.node)
        gate = self.node.places.root / "gate"
        while gate.exists():
            time.sleep(0.01)
        if (self.node.places.root / "leak").exists():
            raise ValueError(f"a driver that quotes what it was given: {password.reveal()}")
        state["users"][name] = {"password": password.reveal(), "databases": [*databases]}
        write_state(self.node, state)

    @verb(scope="accounts", changes=True)
    def delete(self, name: str, *, host: str = "%") -> None:
        state = read_state(self.node)
        if state["users"].pop(name, None) is None:
            raise NotFound(f"there is no user {name}", field="user")
        write_state(self.node, state)

    @verb()
    def list(self, *, after: str | None = None, limit: int = 1000) -> "list[dict[str, JSON]]":
        return [{"name": name} for name in sorted(read_state(self.node)["users"])]

    @verb(scope="accounts", changes=True)
    def set_password(self, name: str, password: Secret, *, host: str = "%") -> None:
        self.create(name, password, host=host)


class ShamRoot(Root):
    @verb(scope="accounts", changes=True, once=True)
    def enable(self) -> "dict[str, JSON]":
        return {"name": "root", "password": "canary-" + secrets.token_hex(8)}

    @verb(scope="accounts", changes=True)
    def disable(self) -> None:
        self.node.host.remove(self.node.places.data / "root")

    @verb()
    def show(self) -> "dict[str, JSON]":
        return {"enabled": False}


class ShamSnapshot(Snapshot):
    def __init__(self, node: Node, since: Since | None) -> None:
        self._node = node
        self._since = since
        self.kind = "incremental" if since else "full"
        self._files = [
            each for each in sorted(node.places.data.rglob("*")) if each.is_file() and each.name != ".ostler"
        ]
        self.estimate = sum(each.stat().st_size for each in self._files)
        self._sent: list[File] = []

    def extents(self) -> Iterator[Extent | Kept]:
        while self._since is not None and (self._node.places.root / "reads-its-parent").exists():
            write_extents(self._node, self._since.extents([each.path for each in self._since.files]), self._again())
        for each in self._files:
            name, size = str(each.relative_to(self._node.places.data)), 0
            with each.open("rb") as file:
                while piece := file.read(PIECE):
                    yield name, size, piece
                    size += len(piece)
                if size == 0:
                    yield name, 0, b""
            self._sent.append(File(name, name, size))
        if (self._node.places.root / "fail-dump").exists():
            raise ToolFailed("the dump ended badly")

    def _again(self) -> Path:
        """Return an empty folder for what the parent has."""
        folder = self._node.places.temp / "again"
        self._node.host.remove(folder)
        folder.mkdir()
        return folder

    def blocks(self, path: str, head: memoryview) -> Blocks | Whole:
        return Whole()

    def files(self) -> Iterable[File]:
        return tuple(self._sent)

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(str(read_state(self._node)["server_id"]), {"size": self.estimate})


class ShamBackup(Backup):
    """Leaves ``traces`` on the server while a snapshot is held."""

    def server_id(self) -> str:
        return str(read_state(self.node)["server_id"])

    @contextmanager
    def snapshot(self, since: Since | None, limits: Limits) -> Iterator[Snapshot]:
        traces = self.node.places.temp / "traces"
        self.node.host.write(traces, json.dumps([limits.bandwidth, limits.workers, limits.nice]).encode())
        try:
            yield ShamSnapshot(self.node, since)
        finally:
            self.sweep()

    def restore(
        self, files: Sequence[File], extents: Iterator[Extent], checkpoint: Checkpoint, into: Path, identity: Identity
    ) -> None:
        write_extents(self.node, extents, into)

    def confirm(self, checkpoint: Checkpoint) -> None:
        if self.server_id() != checkpoint.server_id or (self.node.places.root / "unconfirmed").exists():
            raise Mismatch("the server does not stand at the backup's position")

    def sweep(self) -> None:
        for each in ("traces", "again"):
            self.node.host.remove(self.node.places.temp / each)


class ShamImport(Import):
    """A part is one file beside the state; the server takes it in by two moves, between which there is none."""

    def choose(self, files: Sequence[File], name: str, private: Callable[[str], bytes]) -> Sequence[File]:
        if "/" in name:
            raise BadInput("a part is one file", field="only")
        there = [each.path for each in files if each.path != "state.json"]
        if name not in there:
            raise NotFound(f"the backup has no {name}, but {', '.join(there)}", field="only")
        return [each for each in files if each.path == name]

    def receive(self, files: Sequence[File], extents: Iterator[Extent], into: Path) -> None:
        write_extents(self.node, extents, into)
        while (self.node.places.root / "gate").exists():
            time.sleep(0.01)

    def load(self, files: Sequence[File], checkpoint: Checkpoint, into: Path, name: str) -> None:
        target = self.node.places.data / name
        target.unlink(missing_ok=True)
        kill_at(self.node, "load")
        if (self.node.places.root / "fail-load").exists():
            raise ToolFailed("the server does not take it")
        (into / name).rename(target)
        kill_at(self.node, "loaded")


SHAM = Datastore(
    name="sham",
    versions=("1.0", "2.0"),
    ports={"sham": 7777},
    codec=ShamCodec(),
    admin=ShamAdmin,
    settings=ShamSettings,
    names={"database": NameRule(8), "user": NameRule(8), "password": NameRule(64)},
    databases=ShamDatabases,
    users=ShamUsers,
    root=ShamRoot,
    backup=ShamBackup,
    imports=ShamImport,
)


def sham_node(folder: Path, guest_id: str = "g1") -> Node:
    """Return a node below ``folder``, its folders made."""
    root, state = folder / "data", folder / "state"
    installation = Installation(
        "sham", "1.0", (), "sham.service", "root", "root", Path("/etc/sham"), Path("/var/sham"), Path("/var/log"),
        Path("/run/sham.sock"), {"server": Path("/bin/false")},
    )  # fmt: skip
    places = Places(root, root / "data", root / "staging", root / "config", state / "run", root / "temp", state / "log")
    host = SmallHost("root", "root", temp=places.temp, within=(root, state))
    for each in (root, state, places.run, places.temp, places.log, places.data):
        each.mkdir(parents=True, exist_ok=True)
    return Node(
        guest_id, installation, host, places, Endpoint("127.0.0.1", 7777, places.run / "sock"),
        FileSecrets(state / "secrets"), 7,
    )  # fmt: skip


def sham_archive(folder: Path, *, mirror: int = 2, quorum: int = 1) -> Archive:
    """Return an archive over two directories below ``folder``."""
    key_file, realm_file = folder / "kek", folder / "realm.toml"
    if not key_file.exists():
        key_file.write_bytes(secrets.token_bytes(32))
        key_file.chmod(0o600)
        clusters = "".join(f'[cluster.{name}]\nurl = "dir://{folder / name}"\n' for name in ("east", "west"))
        policy = f"[policy]\nmirror = {mirror}\nwrite_quorum = {quorum}\n"
        realm_file.write_text(f'[realm]\nname = "ostler"\n{clusters}{policy}')
    realm = Realm.read(realm_file)
    keys = LocalKeys.from_file(key_file)
    return Archive(open_store(realm), realm.name, keys, wanted=realm.mirror, quorum=realm.write_quorum)


def sham_guest(folder: Path, guest_id: str = "g1", archive: Archive | None = None) -> Guest:
    """Return a guest whose journal is open."""
    node = sham_node(folder, guest_id)
    journal = open_journal(folder / "state")
    manager = Manager(SHAM, node, ShamService(node))
    return Guest(guest_id, journal.boot_epoch, manager, archive, journal, folder / "state")


class FakeReporter:
    """Keeps what was reported; unreachable while ``away``; hears all but is not heard while it ``loses_answers``."""

    def __init__(self) -> None:
        self.away = False
        self.loses_answers = False
        self.reports: list[tuple[str, Mapping[str, JSON], float]] = []

    def report(self, kind: str, body: Mapping[str, JSON], sent: float) -> None:
        if self.away:
            raise Unreachable("nobody answers")
        self.reports.append((kind, body, sent))
        if self.loses_answers:
            raise Unreachable("no answer came")
