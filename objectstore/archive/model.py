"""What an archive is told: the header of a backup, its inventory, and how a file is compared.

Paths are relative, with ``/``, without empty, ``.`` or ``..`` parts; ids are UUIDs in
their lower-case text form.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Union

from objectstore.store import BadRequest, Corrupt

JSON = Union[None, bool, int, float, str, "list[JSON]", "dict[str, JSON]"]

GROUP = 1 << 20
"""Bytes of one file, at most, that become one frame."""
PACK = 16 << 20
"""Bytes of a pack, at most."""
LONGEST_PATH = 4096
WIDEST = 64
SMALLEST_BLOCK = 256


@dataclass(frozen=True)
class Header:
    """Who is backed up, by which attempt, and upon what.

    ``parent`` is the backup whose blocks may be referenced; it is of the same ``generation``,
    the closed set of backups that share packs.
    """

    backup: str
    attempt: str
    guest_id: str
    generation: str
    parent: str | None
    datastore: str
    version: str
    role: str
    server_id: str
    restore_epoch: int
    started_at: str


@dataclass(frozen=True)
class Entry:
    """One file of the inventory, which lists them in the order of a restore.

    ``stored`` is the path its bytes were added under, ``identity`` the source's own mark
    of at most 64 bytes.  A ``private`` file belongs to the backup, not to the database.
    """

    path: str
    stored: str
    size: int
    mode: int = 0o600
    identity: bytes = b""
    private: bool = False


class Cut(Protocol):
    """How a file is compared with its parent's: in blocks of ``size`` bytes.

    ``fingerprints`` returns ``width`` bytes for each block (the last of a file may be short); it is called from
    several threads.  They compare only where both were made under the same ``lineage``.
    """

    @property
    def size(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def lineage(self) -> str: ...

    @property
    def fingerprints(self) -> "Fingerprints": ...


class Fingerprints(Protocol):
    """Return the fingerprints of the blocks in a buffer, one after the other."""

    def __call__(self, buffer: memoryview, /) -> bytes: ...


@dataclass(frozen=True)
class Copies:
    """In how many clusters all of a backup is (``have``, the least of its objects) and should be."""

    have: int
    wanted: int

    @property
    def state(self) -> str:
        """Return the state of a sealed backup of which there are so many copies."""
        if self.have >= self.wanted:
            return "COMPLETED"
        return "DEGRADED" if self.have > 0 else "FAILED"

    def to_json(self) -> dict[str, JSON]:
        """Return the ``copies`` of INTERFACES, section 3."""
        return {"have": self.have, "wanted": self.wanted}


def check_id(text: str, field: str) -> str:
    """Return a UUID's text, or raise ``BadRequest`` naming the field."""
    try:
        good = str(uuid.UUID(text)) == text
    except (ValueError, AttributeError, TypeError):
        good = False
    if not good:
        raise BadRequest(f"{field} {text!r:.120} is not a UUID in its lower-case form", field=field)
    return text


def check_digest(text: str | None, field: str = "digest") -> None:
    """Raise ``BadRequest`` naming the field where a digest that was given is none."""
    if text is not None and (len(text) != 64 or set(text) - set("0123456789abcdef")):
        raise BadRequest(f"{field} must be 64 lower-case hexadecimal digits", field=field)


def check_header(header: Header) -> Header:
    """Return the header, or raise ``BadRequest`` naming the field that cannot be."""
    for field in ("backup", "attempt", "generation"):
        check_id(getattr(header, field), field)
    if header.parent is not None:
        check_id(header.parent, "parent")
    return header


def check_cut(cut: Cut, path: str) -> None:
    """Raise ``BadRequest`` where a file cannot be cut like this."""
    if not SMALLEST_BLOCK <= cut.size <= GROUP or not 8 <= cut.width <= WIDEST or len(cut.lineage) > 256:
        raise BadRequest(
            f"{path!r} cannot be compared in blocks of {cut.size} bytes with fingerprints of {cut.width}",
            field="blocks",
        )


def check_path(path: str) -> str:
    """Return a path that stays below where it is unpacked, or raise ``Corrupt``."""
    try:
        size = len(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        size = LONGEST_PATH + 1
    if size > LONGEST_PATH or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise Corrupt(f"path {path!r:.120} of an inventory is not a plain relative path")
    return path


def check_entry(entry: Entry) -> Entry:
    """Return an entry of an inventory, or raise ``Corrupt``."""
    check_path(entry.path)
    check_path(entry.stored)
    if not 0 <= entry.size < 1 << 62 or not 0 <= entry.mode <= 0o7777 or len(entry.identity) > 64:
        raise Corrupt(f"inventory entry {entry.path!r:.120} has an impossible size, mode or identity")
    return entry


def check_inventory(files: "list[Entry]") -> None:
    """Raise ``Corrupt`` where two entries would be one file, or one a folder of the other."""
    seen: Mapping[str, Entry] = {entry.path: entry for entry in files}
    if len(seen) != len(files):
        raise Corrupt("an inventory names a path twice")
    for path in seen:
        parts = path.split("/")
        if any("/".join(parts[:depth]) in seen for depth in range(1, len(parts))):
            raise Corrupt(f"an inventory has {path!r:.120} below a path that is a file")
