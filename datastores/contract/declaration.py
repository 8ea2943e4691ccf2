"""``Datastore``: what a database *is* and which parts it has; pure data."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from datastores.contract.backup import Backup
from datastores.contract.errors import BadInput
from datastores.contract.host import Node, Secret
from datastores.contract.imports import Import
from datastores.contract.parts import Admin, Codec, Databases, Functions, Grants, Root, Settings, Users


@dataclass(frozen=True)
class NameRule:
    """Which names of one kind of object are accepted.

    ``length`` counts what ``unit`` says: ``characters`` or ``bytes`` of UTF-8.  ``forbidden`` are characters
    that may not occur (NUL never may), ``reserved`` names that are refused in any case of letters,
    ``prefixes`` reserved beginnings.  ``bmp``: nothing beyond the basic multilingual plane.
    ``trailing`` are characters a name may not end with.
    """

    length: int
    unit: str = "characters"
    least: int = 1
    forbidden: str = ""
    trailing: str = ""
    reserved: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    bmp: bool = False
    pattern: str = ""

    def check(self, value: str, kind: str) -> str:
        """Return ``value``, or raise ``BadInput`` that names ``kind`` and the rule."""
        reason = self._broken(value)
        if reason:
            shown = kind if kind == "password" else f"{kind} {value[:80]!r}"
            raise BadInput(f"{shown} is refused: {reason}", field=kind)
        return value

    def _broken(self, value: str) -> str:
        try:
            encoded = value.encode()
        except UnicodeEncodeError:
            return "it is not valid Unicode"
        size = len(encoded) if self.unit == "bytes" else len(value)
        if not self.least <= size <= self.length:
            return f"it must be {self.least} to {self.length} {self.unit} long"
        bad = next((c for c in value if c == "\0" or c in self.forbidden), None)
        if bad is not None:
            return f"the character {bad!r} is not allowed"
        if self.bmp and any(ord(c) > 0xFFFF for c in value):
            return "characters beyond the basic multilingual plane are not allowed"
        if self.trailing and value[-1:] in self.trailing:
            return f"it may not end with {value[-1]!r}"
        if self.pattern and not re.fullmatch(self.pattern, value):
            return f"it must match {self.pattern}"
        folded = value.casefold()
        if folded in (name.casefold() for name in self.reserved):
            return "the name is reserved"
        if any(folded.startswith(prefix.casefold()) for prefix in self.prefixes):
            return "names that begin so are reserved"
        return ""


class Sample(ABC):
    """Data for demonstrations, measurements and every test suite: ``datastores/<name>/sample.py``.

    ``SAMPLE`` in that module is the class; suites ask for it and never name a datastore.  ``quick`` are settings of an
    image on which a server is quick and not safe, for suites of thousands of small changes that kill nothing.
    """

    quick: ClassVar[Mapping[str, str]] = {}

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    def fill(self, size: int) -> None:
        """Put about ``size`` bytes of varied data in, deterministic, beside what is there."""

    @abstractmethod
    def change(self, share: float, seed: int = 0) -> int:
        """Change this share of the rows in hot spots; return how many."""

    @abstractmethod
    def digest(self) -> dict[str, str]:
        """Return a digest of every table (or of every key space) by name: equal when the data is."""

    @abstractmethod
    def login(self, name: str, password: Secret) -> bool:
        """Try a real login from outside as a tenant would; return whether it held."""

    @abstractmethod
    def settle(self) -> None:
        """Return when the server has nothing left to do of its own (purge, flush)."""


@dataclass(frozen=True)
class Datastore:
    """A database, declared once; found through the entry-point group ``ostler.datastores``.

    ``ports`` the default port by name (the first is the endpoint's), ``fixed_settings`` what the design fixes whatever
    a tenant asks, ``names`` rules by kind (``database``, ``user``, ``password``, ``host``), ``level``
    ``experimental`` or ``stable``.  A part that is None is not there.
    """

    name: str
    versions: tuple[str, ...]
    ports: Mapping[str, int]
    codec: Codec
    admin: type[Admin]
    settings: type[Settings]
    names: Mapping[str, NameRule]
    fixed_settings: Mapping[str, str] = field(default_factory=dict)
    roles: tuple[str, ...] = ("primary",)
    level: str = "experimental"
    databases: type[Databases] | None = None
    users: type[Users] | None = None
    grants: type[Grants] | None = None
    functions: type[Functions] | None = None
    root: type[Root] | None = None
    backup: type[Backup] | None = None
    imports: type[Import] | None = None

    PARTS: ClassVar[tuple[str, ...]] = (
        "admin",
        "settings",
        "databases",
        "users",
        "grants",
        "functions",
        "root",
        "backup",
        "imports",
    )

    def parts(self) -> dict[str, bool]:
        """Return which parts are there, by name, in the contract's order."""
        return {name: getattr(self, name) is not None for name in self.PARTS}

    def major(self, version: str) -> str:
        """Return the declared version that a full server version belongs to."""
        for known in self.versions:
            if version == known or version.startswith(known + "."):
                return known
        raise BadInput(f"{self.name} {version} is not one of {', '.join(self.versions)}", field="datastore_version")
