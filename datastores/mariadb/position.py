"""Where a backup stands: parsed strictly, for a position that was guessed is worse than none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from datastores.contract import JSON, Buffer, Incomplete, Mismatch

CHECKPOINTS, BINLOG, INFO = "xtrabackup_checkpoints", "xtrabackup_binlog_info", "xtrabackup_info"
KEPT = 64 * 1024
_GTID = re.compile(r"([0-9]{1,10})-([0-9]{1,10})-([0-9]{1,20})")
_BINLOG = re.compile(r"([^\t\n]+)\t([0-9]+)\t([0-9,-]*)\n?")


@dataclass(frozen=True)
class Gtids:
    """One GTID for each domain: ``(domain, server, sequence)``, by domain."""

    parts: tuple[tuple[int, int, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Gtids":
        """Read ``0-1-7,1-2-9``; the empty text is a server that has logged nothing; else ``Mismatch``."""
        found = [_GTID.fullmatch(each.strip()) for each in text.split(",")] if text else []
        if any(each is None for each in found):
            raise Mismatch(f"{text[:80]!r} is not a GTID position")
        parts = sorted((int(each[1]), int(each[2]), int(each[3])) for each in found if each)
        if len({domain for domain, _, _ in parts}) != len(parts):
            raise Mismatch(f"GTID position {text[:80]!r} names a domain twice")
        return cls(tuple(parts))

    def __str__(self) -> str:
        return ",".join("-".join(map(str, each)) for each in self.parts)


def goes_on(running: Gtids, before: Gtids, server: int) -> bool:
    """Say whether ``running`` is past ``before`` by transactions of ``server`` alone."""
    known = {domain: (number, sequence) for domain, number, sequence in before.parts}
    found = {domain: (number, sequence) for domain, number, sequence in running.parts}
    return known.keys() <= found.keys() and all(
        each == known.get(domain) or (each[0] == server and each[1] > known.get(domain, (0, 0))[1])
        for domain, each in found.items()
    )


@dataclass
class Told:
    """What the tool's own small files say, caught as they pass."""

    kept: dict[str, bytearray] = field(default_factory=dict)

    def listen(self, path: str, offset: int, piece: Buffer) -> None:
        """Keep the bytes of the files that tell the position."""
        if path in (CHECKPOINTS, BINLOG, INFO):
            if offset + len(piece) > KEPT:
                raise Incomplete(f"{path} is longer than {KEPT} bytes")
            self.kept.setdefault(path, bytearray()).extend(piece)

    def position(self) -> dict[str, JSON]:
        """Return GTID, place in the binary log, and log positions; ``Incomplete`` where one is missing."""
        marks, info = self._pairs(CHECKPOINTS), self._pairs(INFO)
        if marks.get("backup_type") != "full-backuped":
            raise Incomplete(f"{CHECKPOINTS} does not speak of a full backup")
        found = _BINLOG.fullmatch(self._text(BINLOG))
        if found is None:
            raise Incomplete(f"{BINLOG} does not hold a position in the binary log")
        gtids = str(Gtids.parse(found[3]))
        repeated = f"filename '{found[1]}', position '{found[2]}', GTID of the last change '{found[3]}'"
        if info.get("binlog_pos") != repeated:
            raise Incomplete(f"{INFO} and {BINLOG} disagree about the position")
        return {
            "gtid": gtids,
            "binlog_file": found[1],
            "binlog_position": int(found[2]),
            "lsn": _whole(marks, "to_lsn"),
            "end_lsn": _whole(marks, "last_lsn"),
            "server_version": info.get("server_version", ""),
        }

    def _pairs(self, path: str) -> Mapping[str, str]:
        pairs = (line.partition(" = ") for line in self._text(path).splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}

    def _text(self, path: str) -> str:
        if path not in self.kept:
            raise Incomplete(f"the backup has no {path}")
        try:
            return self.kept[path].decode("utf-8")
        except UnicodeDecodeError:
            raise Incomplete(f"{path} is not text") from None


def _whole(pairs: Mapping[str, str], name: str) -> int:
    value = pairs.get(name, "")
    if not value.isascii() or not value.isdigit():
        raise Incomplete(f"{CHECKPOINTS} has no {name}")
    return int(value)
