"""Get packages from the distribution: installed by root, or unpacked below a prefix by anyone.

No service of the system is ever started: while packages are installed, ``policy-rc.d`` says no, and whatever
stood there before is put back, also after a run that was killed.
"""

import fcntl
import grp
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from recipes import SYSTEM, Recipe, Wrong
from wheels import bring

POLICY = Path("/usr/sbin/policy-rc.d")
KEPT = Path("/usr/sbin/policy-rc.d.kept-by-ostler")
LOCK = Path("/run/ostler-servers.lock")
MARK = "# tools/servers of ostler: nothing is started while packages are installed"
INSTALL = ["install", "-y", "--no-upgrade", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600"]


def say(text: str) -> None:
    """Tell the person; standard output is kept for the prefix."""
    print(text, file=sys.stderr, flush=True)


def run(argv: Sequence[str], *, cwd: Path | None = None, check: bool = True) -> str:
    """Run a program; return its output, or raise ``Wrong`` with the end of what it said.

    Ctrl-C waits for it: a package manager that is cut short leaves a system that somebody has to mend.
    """
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(
        argv, cwd=cwd, env=env, stdin=null, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as child:
        try:
            out, said = child.communicate()
        except (KeyboardInterrupt, SystemExit):
            say(f"waiting for {argv[0]} to end")
            child.communicate()
            raise
    if check and child.returncode != 0:
        raise Wrong(f"{' '.join(argv[:6])} … ended with {child.returncode}:\n{(said or out)[-1500:]}")
    return out


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other run works at the same place."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def nothing_started() -> Iterator[None]:
    """Forbid the packages to start their services; put back what was there."""
    put_back()
    if POLICY.exists():
        POLICY.rename(KEPT)
    POLICY.write_text(f"#!/bin/sh\n{MARK}\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        put_back()


def put_back() -> None:
    """Remove our ``policy-rc.d`` and restore the one we found, if any."""
    if POLICY.exists() and MARK in POLICY.read_text(errors="replace"):
        POLICY.unlink()
    if KEPT.exists() and not POLICY.exists():
        KEPT.rename(POLICY)


def install(wanted: Sequence[Recipe]) -> None:
    """As root: install what is missing from the distribution, and make the owners."""
    packages = [package for each in wanted for package in each.packages]
    with alone(LOCK), nothing_started():
        try:
            run(["apt-get", *INSTALL, *packages])
        except Wrong:
            say("refreshing the package lists")
            run(["dpkg", "--configure", "-a"], check=False)
            run(["apt-get", "update"], check=False)
            run(["apt-get", *INSTALL, *packages])
        make_owners(wanted)
        for each in wanted:
            bring(each, SYSTEM, run)
    if Path("/run/systemd/system").is_dir():
        # Without this a machine with systemd would start them at its next boot.
        for unit in (unit for each in wanted for unit in each.units):
            run(["systemctl", "disable", unit], check=False)


def mend() -> None:
    """As root: put back what a run that was killed has left."""
    if KEPT.exists() or POLICY.exists():
        with alone(LOCK):
            put_back()


def make_owners(wanted: Sequence[Recipe]) -> None:
    """As root: make the system accounts that are missing; servers never run as root."""
    for name in sorted({each.owner for each in wanted if each.owner}):
        if not _known(grp.getgrnam, name):
            run(["groupadd", "--system", name])
        if not _known(pwd.getpwnam, name):
            run(["useradd", "--system", "--gid", name, "--no-create-home", "--shell", "/usr/sbin/nologin", name])
            say(f"made the account {name}")


def _known(find: object, name: str) -> bool:
    try:
        find(name)  # type: ignore[operator]
    except KeyError:
        return False
    return True


def unpack(recipe: Recipe, prefix: Path) -> None:
    """As anyone: fetch what ``recipe`` and its dependencies lack here, and unpack it below ``prefix``."""
    if not recipe.private:
        raise Wrong(f"{recipe.name} wants root or `sudo -n`: apt-get install {' '.join(recipe.packages)}")
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise Wrong(f"no apt here; install {recipe.name} by hand so that /usr/{recipe.programs[0]} is there")
    prefix.mkdir(parents=True, exist_ok=True)
    with alone(prefix / ".lock"):
        apt = _private_apt(prefix)
        debs = prefix / "debs" / recipe.name
        shutil.rmtree(debs, ignore_errors=True)
        debs.mkdir(parents=True)
        lacking = _lacking(apt, recipe)
        if lacking:
            run([*apt, "download", *lacking], cwd=debs)
        for deb in sorted(debs.glob("*.deb")):
            run(["dpkg", "-x", str(deb), str(prefix)])
        shutil.rmtree(debs)
        bring(recipe, prefix / "usr", run)
        recipe.stamp(prefix).write_text("unpacked whole\n")


def _private_apt(prefix: Path) -> list[str]:
    """Return ``apt-get`` with lists and cache of its own below ``prefix``, refreshed once."""
    apt = prefix / "apt"
    for part in ("state/lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    conf = apt / "apt.conf"
    conf.write_text(
        f'Dir::State "{apt}/state";\nDir::Cache "{apt}/cache";\nDir::State::status "/var/lib/dpkg/status";\n'
        'APT::Sandbox::User "";\nDebug::NoLocking "true";\n'
    )
    command = ["apt-get", "-c", str(conf)]
    fresh = apt / "fresh"
    if not fresh.exists():
        say("fetching package lists below the prefix")
        run([*command, "update"], check=False)
        fresh.write_text("")
    return command


def _lacking(apt: list[str], recipe: Recipe) -> list[str]:
    """Return the packages that an installation would add to this system.

    The recipe's own come in any case, since they are the server; those of a server from Maven only run it.
    """
    plan = run([*apt, "install", "--simulate", "--no-install-recommends", "-y", *recipe.private])
    added = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    return sorted({*added, *(() if recipe.maven else recipe.private)})
