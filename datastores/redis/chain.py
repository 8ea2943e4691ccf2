"""The files of a backup, in the order of a restore, and the proof that they follow one another.

::

    table        private: the fingerprints of base.rdb, whole
    delta.N      private: what a full after a hole changed in them
    base.rdb     the dump of the first full
    changed.N    a dump of the records that a full after a hole found changed
    slice.N      bytes of the replication stream, from where the file before it stands
    users.acl    the tenants' users as lines of the server's ACL file

By hand: ``base.rdb`` alone is a dump as the server writes it, and the slices, one after the other in their
order, are an append-only file to play after it (only where there is no ``changed.N``).

``identity`` of a dump or a slice is ``replication id:offset`` of where it begins (a dump: where it stands).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from datastores.contract import File, Mismatch
from datastores.redis.moment import Position

BASE, TABLE, USERS = "base.rdb", "table", "users.acl"
CHANGED, DELTA, SLICE = "changed", "delta", "slice"


@dataclass(frozen=True)
class Chain:
    """An inventory, by kind."""

    table: File | None
    deltas: tuple[File, ...]
    dumps: tuple[File, ...]
    slices: tuple[File, ...]
    users: File

    @classmethod
    def of(cls, files: Iterable[File]) -> "Chain":
        """Sort an inventory; ``Mismatch`` where it is not one of ours."""
        kinds: dict[str, list[File]] = {}
        for each in files:
            stem = each.path if each.path in (BASE, TABLE, USERS) else each.path.split(".", 1)[0]
            if stem not in (BASE, TABLE, USERS) and not _numbered(each.path):
                raise Mismatch(f"the backup holds a file that no redis backup has: {each.path[:80]!r}")
            kinds.setdefault(stem, []).append(each)
        if len(kinds.get(BASE, [])) != 1 or len(kinds.get(USERS, [])) != 1 or len(kinds.get(TABLE, [])) > 1:
            raise Mismatch("the backup has no dump, or no users")
        return cls(
            table=next(iter(kinds.get(TABLE, [])), None),
            deltas=tuple(kinds.get(DELTA, ())),
            dumps=(*kinds[BASE], *kinds.get(CHANGED, ())),
            slices=tuple(kinds.get(SLICE, ())),
            users=kinds[USERS][0],
        )

    def private(self) -> tuple[File, ...]:
        """Return the table and its deltas, in their order."""
        return (*((self.table,) if self.table is not None else ()), *self.deltas)

    def files(self) -> tuple[File, ...]:
        """Return the inventory in the order of a restore."""
        return (*self.private(), *self.dumps, *self.slices, self.users)

    def number(self) -> int:
        """Return a number that no file has yet."""
        used = [each.path.split(".", 1)[1] for each in self.files() if _numbered(each.path)]
        return 1 + max(map(int, used), default=0)

    def prove(self, end: Position) -> None:
        """Raise ``Mismatch`` unless dump and slices lead without a gap to ``end``."""
        if len(self.dumps) > 1 and (self.table is None or len(self.deltas) != len(self.dumps) - 1):
            raise Mismatch("the backup lacks a table of fingerprints")
        name, at = _identity(self.dumps[-1])
        for each in self.slices:
            name, start = _identity(each)
            if start != at:
                raise Mismatch(f"{each.path} begins at {start}, but what comes before it ends at {at}")
            at += each.size
        if (name, at) != (end.replication_id, end.offset):
            raise Mismatch(f"the backup's files lead to {name}:{at}, not to {end.replication_id}:{end.offset}")


def numbered(kind: str, number: int) -> str:
    """Return the stored path of the ``number``-th file of a kind."""
    return f"{kind}.{number}"


def identity(replication_id: str, offset: int) -> bytes:
    """Return the mark of a dump or a slice."""
    return f"{replication_id}:{offset}".encode()


def kept(files: Sequence[File]) -> list[str]:
    """Return the stored paths of files that are the parent's."""
    return [each.stored for each in files]


def _numbered(path: str) -> bool:
    kind, _, number = path.partition(".")
    return kind in (CHANGED, DELTA, SLICE) and number.isdecimal() and len(number) < 10


def _identity(file: File) -> tuple[str, int]:
    name, _, offset = file.identity.decode("ascii", "replace").partition(":")
    if len(name) != 40 or not offset.isdecimal():
        raise Mismatch(f"{file.path} does not say where in the replication stream it stands")
    return name, int(offset)
