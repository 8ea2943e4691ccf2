"""Files and folders that are whole and durable, and files that are memory only."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from datastores.contract import NoSpace
from guestagent.errors import Refused


def made(folder: Path, mode: int, field: str) -> None:
    """Have a folder, of this mode where it was not there; ``Refused`` names the option that it comes from."""
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise Refused(f"{folder} cannot be made: {error.strerror}", field=field) from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def durable(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file of the agent's own: whole or not at all, durable when this returns."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(number, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(number)
    fresh.rename(path)
    sync_folder(path.parent)


@contextlib.contextmanager
def memory_file(content: bytes | None, uid: int) -> Iterator[int | None]:
    """Offer bytes in a memory file that only ``uid`` may open again; yield its number."""
    if content is None:
        yield None
        return
    number = os.memfd_create("secret", os.MFD_CLOEXEC)
    try:
        os.fchmod(number, 0o600)
        if uid != os.geteuid():
            os.fchown(number, uid, -1)
        os.write(number, content)
        os.lseek(number, 0, os.SEEK_SET)
        yield number
    finally:
        os.close(number)


@contextlib.contextmanager
def no_room(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"there is no room left for {path}") from error
        raise
