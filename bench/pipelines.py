"""Other people's pipelines over the same server: argument lists joined by pipes, every process metered."""

import os
import pwd
import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from meter import Cost, metered, waited

from datastores.contract import Node

SPOOL = str(Path(__file__).with_name("spool.py"))
Argv = list[str]


class Failed(Exception):
    """A pipeline ended badly; the message has the end of what it said."""


@dataclass
class Pipeline:
    """One way to keep a backup: what stands between the tool and the disk, and how it is brought back."""

    name: str
    node: Node
    folder: Path
    parallel: int
    pack: list[Argv]
    unpack: list[Argv]
    running: list[int] = field(default_factory=list)

    def backup(self, label: str, since: str | None = None) -> Cost:
        """Make a backup; ``since`` is the label of the one it goes on from (an LSN increment)."""
        into, state = self.folder / label, self.folder / f"{label}.lsn"
        lsn = [f"--incremental-lsn={self._lsn(since)}"] if since else []
        source = [
            *(self.tool("backup"), "--no-defaults", "--backup", "--stream=xbstream", f"--parallel={self.parallel}"),
            *(f"--user={pwd.getpwuid(os.geteuid()).pw_name}", f"--socket={self.node.endpoint.socket}"),
            *(f"--datadir={self.node.places.data}", f"--extra-lsndir={state}", f"--target-dir={self.folder}"),
            *lsn,
        ]
        cost = self.run([source, *self._filled(self.pack, into)], into if self.pack[-1][-1] != "{into}" else None)
        cost.stored_bytes = stored(into)
        return cost

    def restore(self, label: str) -> Cost:
        """Bring a full backup back and prepare it, in a folder that is removed afterwards."""
        source, into = self.folder / label, self.folder / "restored"
        into.mkdir()
        try:
            chain = [*self._filled(self.unpack, source), [self.tool("stream"), "-x", "-C", str(into)]]
            cost = self.run(chain, None)
            prepared = self.run([[self.tool("backup"), "--prepare", "--use-memory=32M", f"--target-dir={into}"]], None)
        finally:
            shutil.rmtree(into)
        tools, wall = cost.tools + prepared.cpu, cost.wall + prepared.wall
        return Cost(cost.cpu + prepared.cpu, tools, wall, max(cost.pss_bytes, prepared.pss_bytes))

    def tools(self) -> set[str]:
        """Return the paths of all of the database's tools."""
        return {str(each) for each in self.node.installation.tools.values()}

    def tool(self, role: str) -> str:
        """Return the path of a tool of the database's."""
        return str(self.node.installation.tools[role])

    def run(self, chain: list[Argv], out: Path | None) -> Cost:
        """Run programs joined by pipes to their end; add up what they cost."""
        cost = Cost()
        log = self.folder / f"{self.name}.log"
        libraries = os.pathsep.join(str(each) for each in self.node.installation.libraries)
        env = {**os.environ, **({"LD_LIBRARY_PATH": libraries} if libraries else {})}
        with metered(lambda: self.running, set, cost), log.open("ab") as said:
            source: int | None = subprocess.DEVNULL
            for n, argv in enumerate(chain):
                last = n == len(chain) - 1
                target = out.open("wb") if last and out else (subprocess.DEVNULL if last else subprocess.PIPE)
                child = subprocess.Popen(argv, stdin=source, stdout=target, stderr=said, env=env)
                self.running.append(child.pid)
                if source not in (None, subprocess.DEVNULL):
                    os.close(source)
                source = os.dup(child.stdout.fileno()) if child.stdout else None
                for each in (child.stdout, target):
                    if hasattr(each, "close"):
                        each.close()
                child.returncode = 0  # waited for below, by id
            ended = [waited(pid) for pid in self.running]
        self.running.clear()
        cost.cpu = sum(cpu for _, cpu in ended)
        cost.tools = sum(cpu for argv, (_, cpu) in zip(chain, ended, strict=True) if argv[0] in self.tools())
        if any(status for status, _ in ended):
            raise Failed(f"{self.name}: {[status for status, _ in ended]}\n{log.read_text(errors='replace')[-1500:]}")
        return cost

    def _lsn(self, label: str) -> str:
        text = (self.folder / f"{label}.lsn" / "xtrabackup_checkpoints").read_text()
        return re.findall(r"^to_lsn = (\d+)$", text, re.MULTILINE)[0]

    @staticmethod
    def _filled(chain: list[Argv], into: Path) -> list[Argv]:
        return [[word.replace("{into}", str(into)) for word in argv] for argv in chain]


def peers(node: Node, folder: Path) -> list[Pipeline]:
    """Return the pipelines ours is measured beside; they keep their bytes below ``folder``."""
    key = folder / "pass"
    key.touch(mode=0o600)
    key.write_text(secrets.token_hex(32))
    cipher = ["openssl", "enc", "-aes-256-ctr", "-pbkdf2", "-pass", f"file:{key}"]
    return [
        Pipeline(
            *("zstd|openssl", node, folder / "peer", 2),
            pack=[["zstd", "-q", "-1", "-T2"], cipher],
            unpack=[[*cipher, "-d", "-in", "{into}"], ["zstd", "-q", "-d"]],
        ),
        Pipeline(
            *("gzip, spool, md5", node, folder / "trove", 1),
            pack=[["gzip"], [sys.executable, "-I", SPOOL, "save", "{into}"]],
            unpack=[[sys.executable, "-I", SPOOL, "load", "{into}"], ["gzip", "-d", "-c"]],
        ),
    ]


def stored(path: Path) -> int:
    """Return the bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
