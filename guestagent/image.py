"""Facts: what a datastore of a version is called on this image, read from TOML and proved.

An image file has one table for each datastore and version, ``[name."1.2"]``, with the same keys in
each.  A name (``debian-12``) is a file in ``guestagent/images``; a path is taken as it is.  A
datastore that comes as a package of its own brings its table along: ``images/<name>.toml`` in the
package its entry point names is read beside ours, without importing it.

Tool names are looked up below the prefix first, then in the system's folders; with a folder in the name, below
``usr`` and ``usr/local``.  ``version`` are the words that make the server's program print its version, where that is
not ``--version``; ``{role}`` in them is a tool's path.  In a tool's path ``{site}`` is
where Python packages of this interpreter lie, ``{here}`` the package that brings the table.
"""

import os
import pwd
import re
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from datastores.contract import Command, Host, Installation, ToolFailed
from guestagent.declarations import installed
from guestagent.errors import ImageMismatch, Refused

TEXTS = ("unit", "owner", "group", "config", "data", "log", "socket")
KEYS = frozenset({"packages", "tools", *TEXTS})
OPTIONAL = frozenset({"version"})
FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin", "usr/local/bin")
LOCAL = ("usr", "usr/local")
SYSTEM = Path("/")
_LONGEST = 128


@dataclass(frozen=True)
class Image:
    """The tables of one image: facts by datastore and version, checked for form, not yet for truth."""

    name: str
    tables: Mapping[str, Mapping[str, Mapping[str, object]]]

    def facts(self, datastore: str, version: str) -> Mapping[str, object]:
        """Return one table; ``Refused`` says which there are."""
        versions = self.tables.get(datastore)
        if versions is None:
            raise Refused(f"image {self.name} has no {datastore}", field="image")
        if version not in versions:
            raise Refused(f"image {self.name} has {datastore} {', '.join(versions)}, not {version}", field="image")
        return versions[version]

    def versions(self, datastore: str) -> tuple[str, ...]:
        """Return the versions of a datastore on this image, in the order of the file."""
        return tuple(self.tables.get(datastore, {}))


@dataclass(frozen=True)
class Check:
    """One line of ``ostler image check``."""

    name: str
    ok: bool
    message: str = ""


def read_image(name: str) -> Image:
    """Read an image by name or path; ``Refused`` where there is none.

    ``ImageMismatch`` names the file, the table and the key that is wrong.
    """
    path = Path(name) if "/" in name else Path(__file__).parent / "images" / f"{name}.toml"
    if len(path.name) > _LONGEST or not path.is_file():
        raise Refused(f"there is no image file {name[:80]}", field="image")
    tables = dict(_read(path))
    for beside in _brought(path.name):
        for datastore, versions in _read(beside, beside.parent.parent).items():
            tables.setdefault(datastore, versions)
    return Image(path.stem, MappingProxyType(tables))


def packages(image: str, datastore: str, version: str | None = None) -> tuple[str, ...]:
    """Return the package names a build installs, without repetition; all versions' where none is named."""
    read = read_image(image)
    wanted = read.versions(datastore) if version is None else (version,)
    if not wanted:
        read.facts(datastore, "")
    return tuple(dict.fromkeys(each for one in wanted for each in _strings(read.facts(datastore, one), "packages")))


def checks(
    image: str, *, datastore: str | None = None, version: str | None = None, prefix: str | None = None
) -> list[tuple[str, str]]:
    """Hold an image's tables against this machine: names of things, each with its fault or the empty string."""
    read = read_image(image)
    rows: list[tuple[str, str]] = []
    for kind in [datastore] if datastore else read.tables:
        for each in [version] if version else read.versions(kind):
            facts = installation(read, kind, each, Path(prefix) if prefix else None)
            rows += [(f"{kind} {each} {row.name}", "" if row.ok else row.message) for row in held(facts)]
        if not read.versions(kind):
            read.facts(kind, version or "")
    return rows


def installation(image: Image, datastore: str, version: str, prefix: Path | None = None) -> Installation:
    """Return the facts with tools resolved to absolute paths; ``ImageMismatch`` names a tool that is missing."""
    facts = image.facts(datastore, version)
    text = {key: str(facts[key]) for key in TEXTS}
    declared = {role: _placed(str(each)) for role, each in _table(facts, "tools").items()}
    tools = {role: _found(each, prefix) for role, each in declared.items()}
    private = prefix is not None and any(each is not None and each.is_relative_to(prefix) for each in tools.values())
    owner, group = (text["owner"], text["group"]) if os.geteuid() == 0 else _ourselves()
    return Installation(
        datastore=datastore,
        version=version,
        packages=_strings(facts, "packages"),
        unit=text["unit"],
        owner=owner,
        group=group,
        config=Path(text["config"]),
        data=Path(text["data"]),
        log=Path(text["log"]),
        socket=Path(text["socket"]),
        version_words=_strings(facts, "version") if "version" in facts else ("--version",),
        tools={role: each if each is not None else Path(declared[role]) for role, each in tools.items()},
        libraries=_libraries(prefix) if private and prefix is not None else (),
        basedir=prefix / "usr" if private and prefix is not None else Path("/usr"),
    )


def held(facts: Installation, host: Host | None = None) -> tuple[Check, ...]:
    """Hold one installation's facts against the machine; the version only where a host can run the server's program."""
    rows = [_owner(facts), *(_tool(role, path) for role, path in facts.tools.items())]
    if host is not None and all(each.ok for each in rows):
        rows.append(_version(facts, host))
    return tuple(rows)


def prove(facts: Installation, host: Host | None = None) -> None:
    """Raise ``ImageMismatch``, naming the first thing that is missing or different."""
    for each in held(facts, host):
        if not each.ok:
            hint = f"packages: {' '.join(facts.packages)}" if facts.packages else None
            raise ImageMismatch(f"{facts.datastore} {facts.version}: {each.message}", field="image", hint=hint)


def _read(path: Path, here: Path | None = None) -> dict[str, dict[str, dict[str, object]]]:
    try:
        content = tomllib.loads(path.read_text().replace("{here}", str(here) if here is not None else "{here}"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ImageMismatch(f"{path.name} is not TOML: {error}", field="image") from error
    for datastore, versions in content.items():
        if not isinstance(versions, dict):
            raise ImageMismatch(f"{path.name}: {datastore} is not a table of versions", field=datastore)
        for version, facts in versions.items():
            _form(f'{path.name}: [{datastore}."{version}"]', facts)
    return content


def _form(where: str, facts: object) -> None:
    if not isinstance(facts, dict):
        raise ImageMismatch(f"{where} is not a table", field="image")
    for key in sorted(facts.keys() - KEYS - OPTIONAL):
        raise ImageMismatch(f"{where} has an unknown key {key!r}", field=key)
    for key in sorted(KEYS - facts.keys()):
        raise ImageMismatch(f"{where} lacks the key {key!r}", field=key)
    for key in TEXTS:
        if not isinstance(facts[key], str) or not facts[key]:
            raise ImageMismatch(f"{where}: {key} must be a string", field=key)
    if facts["owner"] == "root":
        raise ImageMismatch(f"{where}: owner may not be root", field="owner")
    _strings(facts, "packages", where)
    _strings({"version": [], **facts}, "version", where)
    if "server" not in _table(facts, "tools", where):
        raise ImageMismatch(f"{where}: tools lacks 'server'", field="tools")


def _strings(facts: Mapping[str, object], key: str, where: str = "image") -> tuple[str, ...]:
    value = facts[key]
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ImageMismatch(f"{where}: {key} must be a list of strings", field=key)
    return tuple(value)


def _table(facts: Mapping[str, object], key: str, where: str = "image") -> dict[str, str]:
    value = facts[key]
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ImageMismatch(f"{where}: {key} must be a table of strings", field=key)
    return value


def _brought(file: str) -> Iterator[Path]:
    """Yield the image files of this name that installed datastores bring in their own packages."""
    for each in installed().values():
        try:
            spec = find_spec(each.module)
        except ModuleNotFoundError:
            continue
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(folder) / "images" / file
            if path.is_file():
                yield path


def _placed(text: str) -> str:
    folders = [sysconfig.get_path("purelib"), *(each for each in sys.path if each.endswith("-packages"))]
    made = [text.replace("{site}", each) for each in folders]
    return next((each for each in made if Path(each).is_file()), made[0])


def _found(name: str, prefix: Path | None) -> Path | None:
    if Path(name).is_absolute():
        below = prefix / name.lstrip("/") if prefix is not None else None
        return next((each for each in (below, Path(name)) if each is not None and each.is_file()), None)
    roots = (prefix, SYSTEM) if prefix is not None else (SYSTEM,)
    folders = LOCAL if "/" in name else FOLDERS
    places = (root / folder / name for root in roots for folder in folders)
    return next((each for each in places if each.is_file()), None)


def _libraries(prefix: Path) -> tuple[Path, ...]:
    machine = sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu"
    places = (f"usr/lib/{machine}", f"lib/{machine}", "usr/lib", "lib")
    return tuple(prefix / each for each in places if (prefix / each).is_dir())


def _ourselves() -> tuple[str, str]:
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return name, name


def _owner(facts: Installation) -> Check:
    if os.geteuid() != 0:
        return Check("owner", True, "the agent's own user")
    try:
        known = pwd.getpwnam(facts.owner).pw_uid != 0
    except KeyError:
        known = False
    return Check("owner", known, facts.owner if known else f"there is no account {facts.owner} that is not root")


def _tool(role: str, path: Path) -> Check:
    if not path.is_absolute() or not path.is_file():
        return Check(f"tool {role}", False, f"the program {path} ({role}) is missing")
    if not os.access(path, os.X_OK):
        return Check(f"tool {role}", False, f"{path} ({role}) is not executable")
    return Check(f"tool {role}", True, str(path))


def _version(facts: Installation, host: Host) -> Check:
    server = facts.tools["server"]
    try:
        words = [each.format(**facts.tools) for each in facts.version_words]
        done = host.run(Command((str(server), *words)), as_owner=True, timeout=20)
    except ToolFailed as error:
        return Check("version", False, str(error))
    said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
    right = re.search(rf"(?<![\d.]){re.escape(facts.version)}(?![\d])", said) is not None
    return Check("version", right, said[:200] if right else f"{server} is not {facts.version}: {said[:200]!r}")
