"""The realm: which clusters there are, and the policy that joins them to one store.

The file is INTERFACES, section 5::

    [realm]
    name = "ostler"                  # the first part of every container
    [cluster.east]
    url = "dir:///var/backups/east"
    region = "east"                  # optional: the cluster's name
    level = "hot"                    # optional
    weight = 1                       # optional: its share of the generations
    [policy]                         # optional
    mirror = 2                       # copies wanted; as many as there are clusters, up to two
    write_quorum = 1                 # copies needed

It is read strictly: whatever is unknown, of another type or cannot be together is a
``BadRequest`` that names the file and the field.  ``SCHEMES`` is the one table of what
a url may be: a further kind of store is one row.
"""

import hashlib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from urllib.parse import unquote, urlsplit

from objectstore.clusters import Member
from objectstore.directory import Directory
from objectstore.federation import Federation
from objectstore.placement import Mirror
from objectstore.retrying import Retrying
from objectstore.store import BadRequest, Store

Witness = Callable[[], bool]

_REALM_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Cluster:
    """One cluster as declared."""

    name: str
    url: str
    region: str
    level: str
    weight: float


@dataclass(frozen=True)
class Realm:
    """A realm as declared; ``mirror`` copies are wanted, ``write_quorum`` needed."""

    name: str
    clusters: tuple[Cluster, ...]
    mirror: int
    write_quorum: int

    @classmethod
    def read(cls, path: Path) -> "Realm":
        """Read a realm file, or raise ``BadRequest`` naming it and the field."""
        top = _Table(path, "", _parsed(path))
        realm, clusters = top.table("realm"), top.table("cluster")
        policy = top.table("policy", optional=True)
        top.end()
        name = realm.text("name", pattern=_REALM_NAME)
        realm.end()
        found = tuple(_cluster(clusters.table(key), key) for key in clusters.names())
        if not found:
            raise clusters.refused(
                "", "there must be a cluster", hint='write a table [cluster.NAME] with url = "dir:///…"'
            )
        _check_apart(path, found)
        mirror = policy.count("mirror", min(2, len(found)), len(found), "there are not so many clusters")
        quorum = policy.count("write_quorum", 1, mirror, "more than the copies wanted")
        policy.end()
        return cls(name, found, mirror, quorum)


def open_store(realm: Realm, *, renew: bool = False, memory: Path | None = None) -> Federation:
    """Return the realm's clusters as one store; nothing is touched yet.

    A directory that is missing or empty though the other clusters remember it, or the
    folder ``memory`` does, is ``Unavailable``; with ``renew`` it is begun anew.  That is
    for a repair alone, which somebody asked for knowing that it is lost.
    """

    def witness(name: str) -> Witness:
        return (lambda: False) if renew else (lambda: federation.placements.remembers(name))

    def kept(one: Cluster) -> Path | None:
        mark = hashlib.blake2b(one.url.encode(), digest_size=8).hexdigest()
        return None if memory is None or renew else memory / f"{one.name}.{mark}"

    members = [Member(one.name, _store(one, witness(one.name), kept(one)), one.weight) for one in realm.clusters]
    federation = Federation(realm.name, members, Mirror(realm.mirror, realm.write_quorum))
    return federation


def _directory(url: str, remembered: Witness, memory: Path | None) -> Store:
    return Retrying(Directory(_path(url), remembered, memory))


SCHEMES: Mapping[str, Callable[[str, Witness, Path | None], Store]] = {"dir": _directory}
"""What a cluster's url may begin with, and the store it then is."""


def _store(cluster: Cluster, remembered: Witness, memory: Path | None) -> Store:
    return SCHEMES[urlsplit(cluster.url).scheme](cluster.url, remembered, memory)


def _path(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _cluster(table: "_Table", name: str) -> Cluster:
    if not _NAME.fullmatch(name):
        raise table.refused("", "a cluster's name is of letters, digits, _ and -")
    url = table.text("url")
    _check_url(table, url)
    cluster = Cluster(
        name, url, table.text("region", default=name), table.text("level", default="hot"), table.number("weight", 1.0)
    )
    table.end()
    return cluster


def _check_url(table: "_Table", url: str) -> None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise table.refused("url", f"{url!r} is no url: {error}") from None
    known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
    if parts.scheme not in SCHEMES:
        raise table.refused("url", f"{url!r} is of no kind that this build can use", hint=f"it can use {known}")
    if parts.scheme == "dir" and (parts.netloc or parts.query or parts.fragment or not _plain(_path(url))):
        raise table.refused(
            "url",
            f"{url!r} must hold an absolute path without . or .. and nothing else",
            hint="write dir:///var/backups/east; % ? # in a path as %25 %3F %23",
        )


def _plain(path: Path) -> bool:
    return path.is_absolute() and len(path.parts) > 1 and ".." not in path.parts and "\0" not in str(path)


def _check_apart(path: Path, clusters: tuple[Cluster, ...]) -> None:
    """Refuse directories that are one another, or lie in one another: two copies would be one."""
    places = [(one.name, _path(one.url).resolve()) for one in clusters if urlsplit(one.url).scheme == "dir"]
    for (first, one), (name, other) in combinations(places, 2):
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise BadRequest(
                f"{path}: cluster.{name}.url: {other} and the {one} of cluster {first} are, or lie in, one another",
                field=f"cluster.{name}.url",
                hint="give each cluster a directory of its own",
            )


def _parsed(path: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise BadRequest(
            f"realm file {path}: {error.strerror}", field="realm", hint="name the realm file in OSTLER_REALM or realm ="
        ) from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise BadRequest(f"realm file {path}: {error}", field="realm") from None


class _Table:
    """A table of the file that must be used up: what nobody asked for is refused."""

    def __init__(self, path: Path, name: str, rows: Mapping[str, object]) -> None:
        self._path, self._name, self._rows = path, name, dict(rows)

    def refused(self, key: str, why: str, hint: str | None = None) -> BadRequest:
        field = ".".join(part for part in (self._name, key) if part)
        return BadRequest(f"{self._path}: {field}: {why}", field=field, hint=hint)

    def names(self) -> tuple[str, ...]:
        return tuple(self._rows)

    def end(self) -> None:
        for key in self._rows:
            raise self.refused(key, "there is no such setting")

    def table(self, key: str, *, optional: bool = False) -> "_Table":
        found = self._rows.pop(key, {} if optional else None)
        if not isinstance(found, dict):
            raise self.refused(key, f"the table [{key}] is wanted")
        return _Table(self._path, f"{self._name}.{key}".lstrip("."), found)

    def text(self, key: str, *, default: str | None = None, pattern: re.Pattern[str] | None = None) -> str:
        found = self._rows.pop(key, default)
        if not isinstance(found, str) or not found or (pattern and not pattern.fullmatch(found)):
            raise self.refused(key, f"{found!r} is not the text wanted" if found is not None else "it is missing")
        return found

    def number(self, key: str, default: float) -> float:
        found = self._rows.pop(key, default)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 1e6:
            raise self.refused(key, f"{found!r} is not a number above 0, up to a million")
        return float(found)

    def count(self, key: str, default: int, most: int, why: str) -> int:
        found = self._rows.pop(key, default)
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise self.refused(key, f"{found!r} is not a number from 1")
        if found > most:
            raise self.refused(key, f"{found} is too many, at most {most}: {why}")
        return found
