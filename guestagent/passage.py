"""A way through private folders for the server's account, and for nobody else.

A guest's folders may lie below one that only the agent's user may pass (a temporary folder of
root's is 0700).  The server could then reach nothing.  Instead of opening that folder to all,
its access list gets one entry: this account may pass, and neither list nor read.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from datastores.contract import BadInput

ATTRIBUTE = "system.posix_acl_access"
_VERSION = struct.pack("<I", 2)
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32
_NOBODY = 0xFFFFFFFF
_PASS = 1


@dataclass(frozen=True, order=True)
class Entry:
    """One entry of an access list, in the kernel's numbers; they are sorted by tag and id."""

    tag: int
    number: int
    rights: int


def admit(path: Path, uid: int, gid: int) -> list[Path]:
    """Let an account pass all folders above ``path``; return those that were changed.

    ``BadInput`` names a folder that is not ours, or whose file system knows no access lists.
    """
    changed = []
    for folder in reversed(path.absolute().parents):
        entries = _read(folder)
        if not _passable(folder, entries, uid, gid):
            _grant(folder, entries, uid)
            changed.append(folder)
    return changed


def _read(folder: Path) -> list[Entry]:
    """Return the access list of a folder, made from its mode where it has none of its own."""
    try:
        raw = os.getxattr(folder, ATTRIBUTE)
    except OSError:
        mode = folder.stat().st_mode
        named = ((_USER_OBJ, mode >> 6), (_GROUP_OBJ, mode >> 3), (_OTHER, mode))
        return [Entry(tag, _NOBODY, rights & 7) for tag, rights in named]
    return [Entry(tag, number, rights) for tag, rights, number in struct.iter_unpack("<HHI", raw[len(_VERSION) :])]


def _passable(folder: Path, entries: list[Entry], uid: int, gid: int) -> bool:
    found = folder.stat()
    mask = next((each.rights for each in entries if each.tag == _MASK), 7)
    groups = [each for each in entries if each.tag in (_GROUP_OBJ, _GROUP)]
    mine = {each.tag: each.rights for each in entries if each.number == _NOBODY}
    if found.st_uid == uid:
        return bool(mine[_USER_OBJ] & _PASS)
    for each in entries:
        if each.tag == _USER and each.number == uid:
            return bool(each.rights & mask & _PASS)
    ours = [each for each in groups if (found.st_gid if each.number == _NOBODY else each.number) == gid]
    if ours:
        return any(each.rights & mask & _PASS for each in ours)
    return bool(mine[_OTHER] & _PASS)


def _grant(folder: Path, entries: list[Entry], uid: int) -> None:
    rest = [each for each in entries if each.tag != _MASK and (each.tag, each.number) != (_USER, uid)]
    group_class = [each.rights for each in rest if each.tag in (_USER, _GROUP_OBJ, _GROUP)]
    mask = _PASS
    for rights in group_class:
        mask |= rights
    made = sorted([*rest, Entry(_USER, uid, _PASS), Entry(_MASK, _NOBODY, mask)])
    raw = _VERSION + b"".join(struct.pack("<HHI", each.tag, each.rights, each.number) for each in made)
    try:
        if folder.stat().st_uid != os.geteuid():
            raise PermissionError
        os.setxattr(folder, ATTRIBUTE, raw)
    except OSError as error:
        raise BadInput(
            f"the server's account cannot pass {folder}",
            field="root",
            hint=f"chmod o+x {folder}, or use another folder",
        ) from error
