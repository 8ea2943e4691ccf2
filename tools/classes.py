"""Keep what a server in Java has loaded when it is up in a file, which Java maps at each later start.

A start takes two thirds of its time then, and of its processor time.  The server is started once for it, under its own
account, at an address of the machine's own, on data that is thrown away.
"""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, TextIO

from recipes import Recipe, Wrong

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 180.0


def keep(recipe: Recipe, usr: Path) -> None:
    """Start the server with the options that the recipe names, end it, and have the file where it is said to be."""
    target = usr / recipe.programs[-1]
    with tempfile.TemporaryDirectory(prefix="ostler-") as text:
        folder = Path(text)
        address = "127.{}.{}.{}".format(*(1 + secrets.randbelow(254) for _ in range(3)))
        facts = {"folder": folder, "address": address, "home": target.parent}
        for each in recipe.classes["copies"]:  # the clone may be closed to the server's account
            (folder / Path(each).name).write_bytes((ROOT / each).read_bytes())
        for name, content in recipe.classes["files"].items():
            (folder / name).write_text(content.format(**facts))
        as_owner: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam(recipe.owner)
            as_owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(folder, account.pw_uid, account.pw_gid)
        made = folder / target.name
        words = [each.format(**facts) for each in recipe.classes["words"]]
        with (folder / "said").open("w+") as said:
            _run([_java(usr), f"-XX:ArchiveClassesAtExit={made}", *words], recipe, said, as_owner)
        _place(made, target)


def _run(argv: list[str], recipe: Recipe, said: TextIO, as_owner: dict[str, Any]) -> None:
    """Run the server until it says that it is up, then end it; ``Wrong`` quotes what it said instead."""
    path, end = Path(said.name), time.monotonic() + PATIENCE
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=path.parent, **as_owner)
    try:
        while recipe.classes["ready"] not in path.read_text(errors="replace"):
            if server.poll() is not None or time.monotonic() > end:
                raise Wrong(f"{recipe.name} does not start:\n{path.read_text(errors='replace')[-1500:]}")
            time.sleep(0.1)
        server.terminate()
        server.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        raise Wrong(f"{recipe.name} does not end") from None
    finally:
        server.kill()
        server.wait()


def _java(usr: Path) -> str:
    """Return the Java that an agent finds: the one below the prefix, else the machine's."""
    below = usr / "bin/java"
    found = str(below) if below.exists() else shutil.which("java")
    if found is None:
        raise Wrong("there is no java")
    return found


def _place(made: Path, target: Path) -> None:
    """Put the file in its place whole: Java maps it unseen."""
    fresh = target.with_name(f".{target.name}.new")
    try:
        number = os.open(made, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise Wrong(f"java has kept no {made.name}: {error.strerror}") from None
    with os.fdopen(number, "rb") as source, fresh.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
        out.flush()
        os.fsync(out.fileno())
    fresh.chmod(0o644)
    fresh.rename(target)
