"""The mark in a data folder: which operation made it, so that after a kill one looks instead of guessing."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from guestagent.operations.guest import Guest

NAME = ".ostler"


@dataclass(frozen=True)
class Marked:
    """Who filled a data folder, and from what: ``new`` or a backup's id."""

    guest_id: str
    operation: str
    source: str


def mark(guest: Guest, folder: Path, made: Marked) -> None:
    """Mark a folder, durable on return."""
    guest.manager.node.host.write(folder / NAME, json.dumps(asdict(made)).encode(), mode=0o640)


def marked(folder: Path) -> Marked | None:
    """Return a folder's mark; None where there is none."""
    try:
        return Marked(**json.loads((folder / NAME).read_bytes()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def empty(folder: Path) -> bool:
    """Say whether a folder is empty or not there."""
    return not folder.is_dir() or next(folder.iterdir(), None) is None


def size_of(folder: Path) -> int:
    """Return the bytes that a folder's files take."""
    found = 0
    for path, _, files in os.walk(folder):
        for name in files:
            found += (Path(path) / name).lstat().st_blocks * 512
    return found


def settle(folder: Path) -> None:
    """Make every file below a folder durable."""
    for path, _, files, number in os.fwalk(folder):
        for name in files:
            _sync(Path(path) / name)
        os.fsync(number)


def _sync(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
