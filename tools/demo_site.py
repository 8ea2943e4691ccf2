"""The demo's place: one short folder below the temporary one, agents as processes of their own, and an end to both.

Whatever happens, ``close`` leaves nothing: agents are ended, then every process that works in the folder (a database
server outlives its agent on purpose), then the folder goes.
"""

import contextlib
import importlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from datastores.contract import Sample
from guestagent import declarations
from guestagent.image import installation, read_image
from guestagent.node import node_for

OSTLER = Path(sys.executable).with_name("ostler")
IMAGE = "debian-12"
CLUSTER = '[cluster.{name}]\nurl = "dir://{folder}/{name}"\nregion = "{name}"\n'
REALM = '[realm]\nname = "demo"\n{clusters}[policy]\nmirror = {copies}\nwrite_quorum = 1\n'
CONFIGURATION = """\
[DEFAULT]
guest_id = {guest}
datastore_manager = {datastore}
datastore_version = {version}
transport_url = unix://{folder}/bus
report_interval = 10
state_dir = {home}/state
[ostler]
image = {image}
root = {home}/data
prefix = {prefix}
port = 0
supervisor = process
realm = {folder}/realm.toml
key_file = {folder}/kek
"""


class Broken(Exception):
    """A step of the demo did not hold; the message says what was seen."""


class Patience:
    """Turn signals into KeyboardInterrupt, but never between a process's start and its being known."""

    def __init__(self) -> None:
        self._held = 0
        self._wanted = False

    def install(self) -> None:
        """Listen to what a person, a terminal or a job runner sends."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked)

    def ignore(self) -> None:
        """From now on nothing interrupts: the clean-up runs to its end."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep a signal back until the end of the block."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if self._wanted and not self._held:
                raise KeyboardInterrupt

    def _asked(self, number: int, frame: object) -> None:
        self._wanted = True
        if not self._held:
            raise KeyboardInterrupt


@dataclass
class Guest:
    """One agent of the demo, and the ``ostler`` command that talks to it."""

    site: "Site"
    name: str
    datastore: str
    version: str
    process: "subprocess.Popen[str] | None" = None

    @property
    def home(self) -> Path:
        return self.site.folder / self.name

    def start(self) -> None:
        """Start the agent and wait for the line that says it serves; ``Broken`` quotes its log."""
        text = CONFIGURATION.format(
            guest=self.name,
            datastore=self.datastore,
            version=self.version,
            folder=self.site.folder,
            home=self.home,
            image=IMAGE,
            prefix=self.site.prefix,
        )
        path = self.site.folder / f"{self.name}.conf"
        path.write_text(text)
        log = (self.site.folder / f"{self.name}.log").open("ab")
        # A session of its own: Ctrl-C is for us, and we end the agent in our own order.
        command = [str(OSTLER), "agent", "start", "--config-file", str(path)]
        self.process = self.site.spawn(command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True)
        log.close()
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line or json.loads(line).get("ready") != self.name:
            raise Broken(f"agent {self.name} did not come up:\n{self.tail()}")

    def kill(self) -> None:
        """End the agent as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ostler(self, *words: str, request: object = None) -> dict[str, object]:
        """Run one command that must succeed; return its JSON."""
        begun = ["--agent", f"unix://{self.site.folder}/bus?id={self.name}", *words]
        return self.site.ostler(*begun, request=request)

    def sample(self) -> Sample:
        """Return the datastore's sample data, at this guest's server; nothing here knows which datastore that is."""
        declared = declarations.load(self.datastore)
        prefix = Path(self.site.prefix) if self.site.prefix else None
        facts = installation(read_image(IMAGE), self.datastore, self.version, prefix)
        node = node_for(self.name, declared, self.version, facts, self.home / "data", self.home / "state", port=0)
        module = declarations.installed()[self.datastore].module
        made: Sample = importlib.import_module(f"{module}.sample").SAMPLE(node)
        return made

    def tail(self) -> str:
        """Return the end of the agent's log."""
        path = self.site.folder / f"{self.name}.log"
        return path.read_text(errors="replace")[-1500:] if path.exists() else ""


@dataclass
class Site:
    """The folder with a bus, a key and a realm over directories, one copy in each."""

    prefix: str
    patience: Patience
    clusters: tuple[str, ...] = ("east", "west")
    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / f"ostler-demo-{secrets.token_hex(3)}")
    guests: list[Guest] = field(default_factory=list)
    spawned: "list[subprocess.Popen[str]]" = field(default_factory=list)
    born: int = 0

    def open(self) -> None:
        """Make the folder; the servers' accounts may pass through it."""
        self.folder.mkdir(mode=0o755)
        clusters = "".join(CLUSTER.format(name=name, folder=self.folder) for name in self.clusters)
        (self.folder / "realm.toml").write_text(REALM.format(clusters=clusters, copies=len(self.clusters)))
        key = self.folder / "kek"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(32))

    def guest(self, datastore: str, version: str) -> Guest:
        """Return the next agent of this site, g1, g2 and so on, started."""
        self.born += 1
        made = Guest(self, f"g{self.born}", datastore, version)
        self.guests.append(made)
        made.start()
        return made

    def spawn(self, command: list[str], **options: object) -> "subprocess.Popen[str]":
        """Start a process; no signal comes between its start and our knowing it."""
        with self.patience.hold():
            child: subprocess.Popen[str] = subprocess.Popen(command, **options)  # type: ignore[call-overload]
            self.spawned.append(child)
        return child

    def ostler(self, *words: str, request: object = None) -> dict[str, object]:
        """Run the command; on a terminal its progress bars are seen; ``Broken`` quotes what it said."""
        terminal = sys.stderr.isatty()
        rest = ["--request", "-"] if request is not None else []
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OSTLER_")}
        environment["OSTLER_REALM"] = str(self.folder / "realm.toml")
        environment["OSTLER_KEY_FILE"] = str(self.folder / "kek")
        child = self.spawn(
            [str(OSTLER), *words, *rest, "-f", "json"],
            stdin=subprocess.PIPE if rest else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=None if terminal else subprocess.PIPE,
            text=True,
            env=environment,
        )
        out, said = child.communicate(json.dumps(request) if rest else None)
        self.spawned.remove(child)
        if child.returncode != 0:
            shown = " ".join(each for each in words if "://" not in each and each != "--agent")
            raise Broken(f"`ostler {shown}` ended with {child.returncode}\n{said or ''}")
        found = json.loads(out)
        return found if isinstance(found, dict) else {"rows": found}

    def close(self) -> None:
        """End every process of this site and remove its folder; run to the end whatever happened before."""
        self.patience.ignore()
        for child in self.spawned:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        end = time.monotonic() + 5
        for child in self.spawned:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.1, end - time.monotonic()))
        while left := list(working_in(self.folder)):
            for each in left:
                with contextlib.suppress(psutil.Error):
                    each.kill()
            psutil.wait_procs(left, timeout=5)
        shutil.rmtree(self.folder, ignore_errors=True)


def working_in(folder: Path) -> Iterator[psutil.Process]:
    """Yield the processes that name this folder in their arguments, stand in it or have a file of it open."""
    mark = f"{folder}/"
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if each.pid == os.getpid() or each.status() == psutil.STATUS_ZOMBIE:
                continue
            known = [*each.cmdline(), f"{each.cwd()}/"]
            if any(mark in word for word in known) or any(mark in file.path for file in each.open_files()):
                yield each
