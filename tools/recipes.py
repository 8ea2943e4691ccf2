"""What a server is called by the distribution: one file of ``tools/servers.d`` each."""

import os
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "servers.d"
SYSTEM = Path("/usr")
WANTED = {"demo": {"demo"}, "test": {"demo", "test"}, "bench": {"demo", "bench"}}
"""Which recipes each door wants, by what they are ``for``."""


class Wrong(Exception):
    """Something is missing or failed; the message tells a person what to do."""


@dataclass(frozen=True)
class Recipe:
    """One server.

    ``packages`` are installed where we may, else ``private`` ones are unpacked below a prefix (none: it cannot be had
    without root).  It is there when all ``programs`` are, relative to ``/usr`` or ``PREFIX/usr``.  ``wanted`` is
    ``demo``, ``test`` or ``bench``; ``version`` a program that prints it; ``owner`` the server's account; ``classes``
    says how a server in Java is started once, so that it starts sooner from then on.
    """

    name: str
    wanted: str
    packages: tuple[str, ...]
    private: tuple[str, ...]
    programs: tuple[str, ...]
    version: tuple[str, ...]
    owner: str
    units: tuple[str, ...]
    wheel: tuple[str, ...] = ()
    older: tuple[str, ...] = ()
    maven: tuple[str, ...] = ()
    classes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read one file; ``Wrong`` names the key that is missing or unknown."""
        table = tomllib.loads(path.read_text())
        optional = {"private", "owner", "units", "wheel", "older", "maven", "classes"}
        known = {"for", "packages", "programs", "version", *optional}
        odd = sorted(set(table) - known) or sorted(known - optional - set(table))
        if odd:
            raise Wrong(f"{path.name}: the key {odd[0]!r} is unknown or missing")
        keys = ("packages", "private", "programs", "version", "units", "wheel", "older", "maven")
        lists = {key: tuple(table.get(key, ())) for key in keys}
        return cls(path.stem, table["for"], owner=table.get("owner", ""), classes=table.get("classes", {}), **lists)

    def home(self, prefix: Path, *, private: bool = False) -> Path | None:
        """Return the folder its programs lie under: ``/usr`` (not if ``private``), ``PREFIX/usr``, or None: missing."""
        if not private and all((SYSTEM / each).exists() for each in self.programs):
            return SYSTEM
        private = prefix / "usr"
        ready = self.stamp(prefix).exists() and all((private / each).exists() for each in self.programs)
        return private if ready else None

    def stamp(self, prefix: Path) -> Path:
        """Return the file that says it was unpacked whole."""
        return prefix / f"{self.name}.ready"

    def tells(self, home: Path) -> str:
        """Run the version command; return its first line, or raise ``Wrong``."""
        if not self.version:
            return ""
        argv = [str(home / self.version[0]), *self.version[1:]]
        libraries = os.pathsep.join(str(each) for each in sorted((home / "lib").glob("*-linux-gnu")))
        env = {**os.environ, **({"LD_LIBRARY_PATH": libraries} if home != SYSTEM else {})}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Wrong(f"{self.name}: {argv[0]} does not run: {done.stderr.strip()[-300:]}")
        return (done.stdout or done.stderr).strip().splitlines()[0]


def recipes(names: list[str] | None = None, wanted: str = "test") -> list[Recipe]:
    """Return the recipes that were named, or all that ``wanted`` asks for; ``Wrong`` for an unknown name."""
    found = {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}
    for name in names or ():
        if name not in found:
            raise Wrong(f"there is no recipe {name!r}; there are: {', '.join(found)}")
    every = [Recipe.read(found[name]) for name in (names or found)]
    return [each for each in every if names or each.wanted in WANTED[wanted]]
