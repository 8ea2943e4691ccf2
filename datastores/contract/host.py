"""The machine beside a database: moves (``Host``) and facts (``Node``).

A datastore never opens a process, changes an owner or guesses a path itself:
it asks its ``Host`` and reads its ``Node``.  A part is made with a node and
nothing else, ``Part(node)``, and keeps no other state.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol


class Secret:
    """A string that does not show itself; ``reveal`` is the one way to read it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret; call it where it is used, and keep nothing."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("Secret", self._value))


class Secrets(Protocol):
    """The agent's own secrets about this node; 0600 files that survive a kill."""

    def load(self, name: str) -> Secret | None:
        """Return what was kept under ``name``, or None."""

    def keep(self, name: str, secret: Secret) -> None:
        """Keep ``secret`` under ``name``, durable when this returns."""

    def drop(self, name: str) -> None:
        """Forget ``name``; no error where there is none."""


@dataclass(frozen=True)
class Installation:
    """What one datastore of one version is called on this image (one TOML table).

    ``unit`` is the systemd unit, ``owner``/``group`` the account the server runs
    as, ``config`` the file the packaged server reads, ``data``/``log``/``socket``
    the packaged paths, ``tools`` program names by role (``server``, ``client``,
    ``backup``, ...) resolved to absolute paths, ``libraries`` the folders for the
    loader where the tools lie below a private prefix, ``basedir`` the folder that
    holds ``bin``, ``sbin`` and ``share`` (``/usr``, or ``PREFIX/usr``), ``version_words``
    what makes the server's program print its version (a tool's ``{role}`` stands for its path).
    """

    datastore: str
    version: str
    packages: tuple[str, ...]
    unit: str
    owner: str
    group: str
    config: Path
    data: Path
    log: Path
    socket: Path
    tools: Mapping[str, Path]
    libraries: tuple[Path, ...] = ()
    basedir: Path = Path("/usr")
    version_words: tuple[str, ...] = ("--version",)


@dataclass(frozen=True)
class Command:
    """A program with its arguments and the environment it needs beside the host's."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Completed:
    """How a program ended: always with status 0, or ``ToolFailed`` was raised."""

    stdout: bytes
    stderr: bytes


class Stream(Protocol):
    """A running program's standard output (or input), read as it comes."""

    errors: bytes
    """The last of what it wrote to standard error (64 KiB at most), whole once ``finish`` has returned."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from standard output; return 0 only at its end."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data`` to standard input."""

    def finish(self) -> None:
        """Close standard input, wait; raise ``ToolFailed`` unless the status is 0."""


class Host(Protocol):
    """The moves.  Programs started here die with the agent; the server does not.

    ``secret`` (here and below): the bytes are offered to the program in a memory
    file owned by the user it runs as; the argument ``{secret}`` becomes its
    ``/dev/fd/N``.  They are never in an argument, the environment or a file.
    """

    def run(
        self,
        command: Command,
        *,
        as_owner: bool = False,
        secret: bytes | None = None,
        stdin: bytes | None = None,
        timeout: float = 60.0,
    ) -> Completed:
        """Run a program to its end; ``as_owner``: as the server's account, not the agent's."""

    def stream(
        self,
        command: Command,
        *,
        as_owner: bool = False,
        secret: bytes | None = None,
        nice: int = 0,
    ) -> AbstractContextManager[Stream]:
        """Run a program and read its output as it comes; leaving early kills it."""

    def write(self, path: Path, data: bytes, *, mode: int = 0o640) -> None:
        """Replace a file: whole or not at all, durable when this returns; owned by the server's account."""

    def folder(self, path: Path, *, mode: int = 0o750) -> None:
        """Make a folder (and what is missing above it), owned by the server's account."""

    def own(self, path: Path) -> None:
        """Give a file or a whole tree to the server's account."""

    def remove(self, path: Path) -> None:
        """Remove a file or a whole tree; no error where there is none."""

    def space(self, path: Path) -> int:
        """Return the bytes still free where ``path`` lies."""

    def exchange(self, one: Path, other: Path) -> None:
        """Exchange two folders of one file system in a single atomic move, durable on return."""


Fate = Literal["kept", "replaced", "discarded"]


class Service(Protocol):
    """The database server as a process: supervised by the agent's host or by systemd.

    A supervised server outlives the agent and is found again by process id and
    start time.  A second server is never started on the same data.
    """

    def start(self, *, timeout: float = 120.0) -> None:
        """Start and wait until ``Admin.ping`` answers; no error where it runs already."""

    def stop(self, *, timeout: float = 120.0, data: Fate = "kept") -> None:
        """Quiesce, end it and wait until it is gone; no error where it is down.

        ``data`` says what becomes of that which it works on.  Where other takes its place it may be abandoned; what is
        discarded was never this guest's, and nothing of it is remembered.
        """

    def pid(self) -> int | None:
        """Return the server's own process id, or None where it does not run."""


@dataclass(frozen=True)
class Endpoint:
    """Where the server listens: ``port`` 0 is none; ``socket`` is a short path."""

    host: str
    port: int
    socket: Path


@dataclass(frozen=True)
class Places:
    """Where things of this node lie; all absolute.

    ``root`` is the data root; ``data``, ``staging`` and ``config`` lie in it, so that two
    folders may be exchanged.  ``config`` is the generation in force (a pointer that
    is renamed); ``run`` (sockets, pid files), ``temp`` and ``log`` are the server's, and short.
    """

    root: Path
    data: Path
    staging: Path
    config: Path
    run: Path
    temp: Path
    log: Path


@dataclass(frozen=True)
class Node:
    """One database on one machine: all that a part may know.

    ``server_number`` is a stable number of this guest (1 to 2**31-1), for servers that
    want one (a replication id).  ``epoch`` counts the restores this data has seen.
    """

    guest_id: str
    installation: Installation
    host: Host
    places: Places
    endpoint: Endpoint
    secrets: Secrets
    server_number: int
    epoch: int = 0

    def at(self, **changes: object) -> "Node":
        """Return this node with other facts: a private server on the staging folder, say."""
        return replace(self, **changes)  # type: ignore[arg-type]
