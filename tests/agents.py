"""Real agents for tests: processes of their own, driven by the ``ostler`` command over ``unix://``.

Everything lies in one short folder under the temporary one.  The database servers that
an agent supervises outlive it, so ``end`` stops them by the agent or by recorded pid.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.ports import give

OSTLER = Path(sys.executable).with_name("ostler")
READY = 60.0


@dataclass
class Site:
    """A folder with a bus, a realm over two directories and a key; agents are started in it."""

    folder: Path
    mirror: int = 2
    quorum: int = 1
    agents: list["LiveAgent"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.chmod(0o755)
        self.key_file.write_bytes(secrets.token_bytes(32))
        self.key_file.chmod(0o600)
        clusters = "".join(
            f'[cluster.{name}]\nurl = "dir://{self.folder / name}"\nregion = "{name}"\n' for name in ("east", "west")
        )
        self.realm.write_text(
            f'[realm]\nname = "ostler"\n{clusters}[policy]\nmirror = {self.mirror}\nwrite_quorum = {self.quorum}\n'
        )

    @property
    def realm(self) -> Path:
        return self.folder / "realm.toml"

    @property
    def key_file(self) -> Path:
        return self.folder / "kek"

    @property
    def clusters(self) -> tuple[Path, Path]:
        return self.folder / "east", self.folder / "west"

    def agent(self, guest_id: str, datastore: str, version: str, **options: str) -> "LiveAgent":
        """Return an agent of this site, not started."""
        made = LiveAgent(self, guest_id, datastore, version, options)
        self.agents.append(made)
        return made

    def environment(self) -> dict[str, str]:
        return {**os.environ, "OSTLER_REALM": str(self.realm), "OSTLER_KEY_FILE": str(self.key_file)}

    def end(self) -> None:
        for each in self.agents:
            each.end()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Answer:
    """How one ``ostler`` command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> object:
        return json.loads(self.stdout)

    @property
    def error(self) -> Mapping[str, object]:
        """The error object on the last line of standard error."""
        found = json.loads(self.stderr.strip().splitlines()[-1])["error"]
        assert set(found) >= {"type", "message", "field", "hint", "retry", "operation"}
        return found


class LiveAgent:
    """One agent process and the command that talks to it."""

    def __init__(self, site: Site, guest_id: str, datastore: str, version: str, options: Mapping[str, str]) -> None:
        self.site, self.guest_id, self.datastore, self.version = site, guest_id, datastore, version
        self.options = dict(options)
        self.state = site.folder / guest_id / "state"
        self.root = site.folder / guest_id / "data"
        self.bus = self.options.pop("transport_url", f"unix://{site.folder}/bus")
        self.url = self.options.pop("url", f"unix://{site.folder}/bus?id={guest_id}")
        self.process: subprocess.Popen[bytes] | None = None
        self.log = site.folder / f"{guest_id}.log"
        self.ready: dict[str, object] = {}

    def configuration(self) -> Path:
        """Write the configuration file and return its path."""
        give(self.state)
        ostler = {
            "image": "debian-12",
            "root": str(self.root),
            "realm": str(self.site.realm),
            "key_file": str(self.site.key_file),
            "prefix": os.environ.get("OSTLER_TEST_PREFIX", ""),
            "port": "0",
            **self.options,
        }
        default = {
            "guest_id": self.guest_id,
            "datastore_manager": self.datastore,
            "datastore_version": self.version,
            "transport_url": self.bus,
            "report_interval": "1",
            "state_dir": str(self.state),
            "debug": "true",
        }
        lines = ["[DEFAULT]", *(f"{k} = {v}" for k, v in default.items())]
        lines += ["[ostler]", *(f"{k} = {v}" for k, v in ostler.items())]
        path = self.site.folder / f"{self.guest_id}.conf"
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(
        self, kill_at: str | None = None, *, wait: bool = True, small: tuple[Path, int] | None = None
    ) -> "LiveAgent":
        """Start the agent; with ``kill_at`` it will kill itself there.

        ``small``: a folder that is, for this life of the agent only, a disk of its own of so many bytes.
        """
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OSTLER_")}
        environment["OSTLER_TEST"] = "1"
        if kill_at:
            environment["OSTLER_KILL_AT"] = kill_at
        command = [str(OSTLER), "agent", "start", "--config-file", str(self.configuration())]
        command = [*(on_a_small_disk(*small) if small else ()), *command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the agent ended with {self.process.wait()}: {self.log.read_text()[-3000:]}"
        self.ready = json.loads(line)
        assert self.ready["ready"] == self.guest_id

    def kill(self) -> None:
        """SIGKILL the agent, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.wait_gone()

    def terminate(self, timeout: float = 60.0) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.wait_gone(timeout)

    def wait_gone(self, timeout: float = 60.0) -> int:
        assert self.process is not None
        status = self.process.wait(timeout)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None
        return status

    def begin(self, *words: str, request: object = None) -> "subprocess.Popen[str]":
        """Start a command and do not wait for it."""
        command = [str(OSTLER), "--agent", self.url, *words]
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE if request is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.site.environment(),
        )

    def run(self, *words: str, request: object = None, timeout: float = 300.0) -> Answer:
        """Run one command to its end, with ``-f json``."""
        rest = ["--request", "-"] if request is not None else []
        process = self.begin(*words, *rest, "-f", "json", request=request)
        out, err = process.communicate(json.dumps(request) if request is not None else None, timeout=timeout)
        return Answer(process.returncode, out, err)

    def ostler(self, *words: str, request: object = None, timeout: float = 300.0) -> object:
        """Run one command that must succeed; return its JSON."""
        answer = self.run(*words, request=request, timeout=timeout)
        assert answer.status == 0, f"{words}: {answer.status}\n{answer.stderr}\n{self.tail()}"
        return answer.json

    def prepare(self, **request: object) -> object:
        return self.ostler("prepare", request=request)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""

    def status(self) -> dict[str, object]:
        found = self.ostler("status")
        assert isinstance(found, dict)
        return found

    def servers(self) -> list[psutil.Process]:
        """Return the processes that were started on this agent's data."""
        mark = str(self.root)
        found = []
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = [*each.cmdline(), each.cwd()]
                if any(mark in word for word in words) and "agent" not in words:
                    found.append(each)
        return found

    def end(self) -> None:
        """End the agent and its database server, whatever state they are in."""
        if self.process is not None:
            self.process.kill()
            self.wait_gone()
        for each in self.servers():
            with contextlib.suppress(psutil.Error):
                each.send_signal(signal.SIGKILL)
                each.wait(10)


@contextlib.contextmanager
def site(**options: int) -> Iterator[Site]:
    """Hold a site in a short folder of its own."""
    made = Site(Path(tempfile.mkdtemp(prefix="os", dir="/tmp")), **options)
    try:
        yield made
    finally:
        made.end()


def on_a_small_disk(folder: Path, size: int) -> list[str]:
    """Return the words before a command's that show it, and nobody else, a new disk of ``size`` bytes at ``folder``.

    Who is not root becomes root in a user namespace, mounts, and is himself again in a second one.
    """
    script = f'mount -t tmpfs -o size={size},mode=755 tmpfs "$0" && exec'
    if os.geteuid() == 0:
        return ["unshare", "--mount", "sh", "-c", f'{script} "$@"', str(folder)]
    again = f"unshare --user --map-user={os.geteuid()} --map-group={os.getegid()} --"
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{script} {again} "$@"', str(folder)]


def until(check: Callable[[], bool], timeout: float, what: str) -> None:
    """Wait until ``check`` holds."""
    end = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(0.05)


def texts(folder: Path, names: Sequence[str] = ()) -> Iterator[tuple[Path, bytes]]:
    """Yield every regular file below a folder with its bytes; a server may put some away meanwhile."""
    for at, _, found in os.walk(folder):
        for path in (Path(at) / each for each in found if not names or each in names):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    yield path, path.read_bytes()
