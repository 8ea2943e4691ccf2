"""``LocalHost``: the moves on the machine the agent runs on.

It keeps ``datastores.contract.Host``.  Programs see a minimal environment, run as the
server's account where asked (when the agent is root; else everything is the agent's own
user) and die with the agent.  Files are replaced whole and durable, and nothing outside
the folders it was given is ever removed.
"""

import contextlib
import ctypes
import errno
import grp
import os
import pwd
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from datastores.contract import BadInput, Command, Completed, DatastoreError, ToolFailed
from guestagent.files import memory_file, no_room, sync_folder
from guestagent.programs import STARTER, Program

OUTPUT_KEPT = 64 * 1024 * 1024
SYSTEM_PATH = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_LIBC = ctypes.CDLL(None, use_errno=True)


class LocalHost:
    """The moves, for one node.

    ``owner`` and ``group`` name the server's account, ``temp`` is HOME and TMPDIR of every program,
    ``within`` the folders below which things may be removed or given away, ``libraries`` and ``path``
    the folders of a private prefix, ``output`` the most bytes that ``run`` takes from a program.
    """

    def __init__(
        self,
        owner: str,
        group: str,
        *,
        temp: Path,
        within: Sequence[Path],
        libraries: Sequence[Path] = (),
        path: Sequence[Path] = (),
        output: int = OUTPUT_KEPT,
    ) -> None:
        self.uid, self.gid = account(owner, group)
        self._within = tuple(each.resolve() for each in within)
        self._output = output
        self._programs: dict[Program, int] = {}
        self._guard = threading.Lock()
        self.environment: Mapping[str, str] = {
            "PATH": ":".join([*map(str, path), *SYSTEM_PATH]),
            "LC_ALL": "C",
            "HOME": str(temp),
            "TMPDIR": str(temp),
            **({"LD_LIBRARY_PATH": ":".join(map(str, libraries))} if libraries else {}),
        }

    def run(
        self,
        command: Command,
        *,
        as_owner: bool = False,
        secret: bytes | None = None,
        stdin: bytes | None = None,
        timeout: float = 60.0,
    ) -> Completed:
        """Run a program to its end; its output is bounded, and so is its time."""
        with self._started(command, as_owner, secret, 0) as program:
            alarm = threading.Timer(timeout, program.expire, [timeout])
            alarm.daemon = True
            alarm.start()
            feeder = threading.Thread(target=_feed, args=(program, stdin or b""), daemon=True)
            feeder.start()
            try:
                output = _drain(program, command.argv[0], self._output)
                feeder.join()
                program.finish()
            finally:
                alarm.cancel()
            return Completed(output, program.errors)

    @contextlib.contextmanager
    def stream(
        self,
        command: Command,
        *,
        as_owner: bool = False,
        secret: bytes | None = None,
        nice: int = 0,
    ) -> Iterator[Program]:
        """Run a program and read its output as it comes; leaving early kills its whole group."""
        with self._started(command, as_owner, secret, nice) as program:
            yield program

    def interrupt(self, thread: int | None = None) -> None:
        """Kill the programs a thread (by its ``ident``; None: any) has running; their callers see ``ToolFailed``."""
        with self._guard:
            found = [each for each, ident in self._programs.items() if thread in (None, ident)]
        for each in found:
            each.kill()

    def write(self, path: Path, data: bytes, *, mode: int = 0o640) -> None:
        """Replace a file: whole or not at all, durable when this returns; owned by the server's account."""
        fresh = path.with_name(f".{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        with no_room(path):
            number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(number, "wb", buffering=0) as file:
                _give(number, self.uid, self.gid)
                os.fchmod(number, mode)
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(number)
            fresh.rename(path)
            sync_folder(path.parent)

    def folder(self, path: Path, *, mode: int = 0o750) -> None:
        """Make a folder (and what is missing above it), owned by the server's account."""
        missing = []
        above = path
        while not above.exists():
            missing.append(above)
            above = above.parent
        with no_room(path):
            for each in reversed(missing):
                with contextlib.suppress(FileExistsError):
                    each.mkdir(mode=0o700)
                    os.chown(each, *_ids(self.uid, self.gid))
                    each.chmod(mode)
                sync_folder(each.parent)
        number = os.open(path, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _give(number, self.uid, self.gid)
            os.fchmod(number, mode)
        finally:
            os.close(number)

    def own(self, path: Path) -> None:
        """Give a file or a whole tree to the server's account; links are given, never followed."""
        self._confine(path)
        ids = _ids(self.uid, self.gid)
        os.chown(path, *ids, follow_symlinks=False)
        if path.is_dir() and not path.is_symlink():
            for _, folders, files, number in os.fwalk(path, follow_symlinks=False):
                for name in (*folders, *files):
                    os.chown(name, *ids, dir_fd=number, follow_symlinks=False)

    def remove(self, path: Path) -> None:
        """Remove a file or a whole tree; no error where there is none; links are removed, never followed."""
        self._confine(path)
        try:
            kind = path.lstat().st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(kind):
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        sync_folder(path.parent)

    def space(self, path: Path) -> int:
        """Return the bytes still free where ``path`` lies, or will lie."""
        while not path.exists():
            path = path.parent
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def exchange(self, one: Path, other: Path) -> None:
        """Exchange two folders of one file system in a single atomic move, durable on return."""
        done = _LIBC.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        if done != 0:
            code = ctypes.get_errno()
            hint = _EXCHANGE_HINTS.get(code)
            raise DatastoreError(f"{one} and {other} could not be exchanged: {os.strerror(code)}", hint=hint)
        for parent in {one.parent, other.parent}:
            sync_folder(parent)

    def _confine(self, path: Path) -> None:
        real = path.parent.resolve() / path.name
        inside = any(real != root and real.is_relative_to(root) for root in self._within)
        if not path.is_absolute() or path.name in ("", "..") or not inside:
            raise BadInput(f"{path} is not one of this guest's own files", field="path")

    @contextlib.contextmanager
    def _started(self, command: Command, as_owner: bool, secret: bytes | None, nice: int) -> Iterator[Program]:
        argv = [*lowered(nice), *switched(self.uid, self.gid, as_owner, dies=True), *command.argv]
        with memory_file(secret, self.uid if as_owner else os.geteuid()) as number:
            process = STARTER.start(
                [each.replace("{secret}", f"/dev/fd/{number}") for each in argv],
                env={**self.environment, **command.env},
                stdin=subprocess.PIPE,
                pass_fds=[] if number is None else [number],
            )
        program = Program(process, Path(command.argv[0]).name, secret or b"")
        with self._guard:
            self._programs[program] = threading.get_ident()
        try:
            yield program
        finally:
            program.end()
            with self._guard:
                del self._programs[program]


_EXCHANGE_HINTS = {
    errno.EXDEV: "both must lie on one file system",
    errno.EINVAL: "this file system cannot exchange two names (renameat2 with RENAME_EXCHANGE)",
    errno.ENOSYS: "this kernel has no renameat2",
}


def account(owner: str, group: str) -> tuple[int, int]:
    """Return the ids the server runs under: those of the image for root, else the agent's own."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid


def switched(uid: int, gid: int, as_owner: bool, *, dies: bool) -> list[str]:
    """Return the words before a program's that change its account and let it die with us."""
    change = ["--reuid", str(uid), "--regid", str(gid), "--clear-groups"] if as_owner and os.geteuid() == 0 else []
    death = ["--pdeathsig", "KILL"] if dies else []
    return ["setpriv", *death, *change, "--"] if change or death else []


def lowered(nice: int) -> list[str]:
    """Return the words before a program's that lower its priority."""
    return ["nice", "-n", str(nice)] if nice else []


def _feed(program: Program, data: bytes) -> None:
    # A program that ends without reading its input tells why by its status, not here.
    with contextlib.suppress(BrokenPipeError):
        program.send(data)
    program.close_input()


def _drain(program: Program, name: str, limit: int) -> bytes:
    output, window = bytearray(), memoryview(bytearray(65536))
    while count := program.readinto(window):
        output += window[:count]
        if len(output) > limit:
            raise ToolFailed(f"{name} wrote more than {limit} bytes")
    return bytes(output)


def _ids(uid: int, gid: int) -> tuple[int, int]:
    return (uid, gid) if os.geteuid() == 0 else (-1, -1)


def _give(number: int, uid: int, gid: int) -> None:
    if os.geteuid() == 0:
        os.fchown(number, uid, gid)
