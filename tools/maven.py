"""Get libraries of Maven Central with all they depend on: what a server in Java consists of.

Java and Maven are the machine's; where it has none they lie below the private prefix, where they have to be told that
they are not in the system's own folders.

The first artifact is the server itself; what it depends on lies in ``lib`` beside it.  One with a classifier is whole
in itself.  ``programs`` are where they belong, in the same order, and last the file of classes where one is kept.
"""

import hashlib
import os
import pwd
import re
import shutil
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import classes
from recipes import Recipe, Wrong

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion>
<groupId>local</groupId><artifactId>wanted</artifactId><version>1</version><packaging>pom</packaging>
<dependencies>
{dependencies}
</dependencies>
</project>
"""
WHOLE = "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"


def bring(recipe: Recipe, folder: Path, usr: Path, run: Callable[..., str]) -> None:
    """Put a recipe's artifacts where its programs are said to be, below ``usr``."""
    (folder / "pom.xml").write_text(POM.format(dependencies="\n".join(map(_dependency, recipe.maven))))
    fetched = folder / "jars"
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fetched}"]
    run([*_maven(usr, folder), *_kept(folder), "-q", "-B", "-f", str(folder / "pom.xml"), *goal])
    for coordinates, program in zip(recipe.maven, recipe.programs, strict=False):
        _place(fetched / _file(coordinates), usr / program)
    beside = (usr / recipe.programs[0]).parent / "lib"
    fresh = beside.with_name(".lib.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(fetched, fresh)
    shutil.rmtree(beside, ignore_errors=True)
    fresh.rename(beside)
    if recipe.classes:
        classes.keep(recipe, usr)


def _dependency(coordinates: str) -> str:
    group, artifact, version, *classifier = coordinates.split(":")
    named = f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
    whole = f"<classifier>{classifier[0]}</classifier>{WHOLE}" if classifier else ""
    return f"<dependency>{named}{whole}</dependency>"


def _file(coordinates: str) -> str:
    _, *parts = coordinates.split(":")
    return "-".join(parts) + ".jar"


def _place(jar: Path, target: Path) -> None:
    if not jar.is_file():
        raise Wrong(f"Maven Central gave no {jar.name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    jar.chmod(0o755)  # a jar is a program: agents look for what they can run
    shutil.move(jar, target)


def _kept(folder: Path) -> list[str]:
    """Return where Maven keeps what it fetches, where it cannot be the account's own home."""
    home = pwd.getpwuid(os.geteuid()).pw_dir
    return [] if os.access(home, os.W_OK) else [f"-Dmaven.repo.local={folder / 'kept'}"]


def _maven(usr: Path, folder: Path) -> list[str]:
    """Return Maven's command: the machine's, else the one below the prefix on the Java below it."""
    found = shutil.which("mvn")
    if found and shutil.which("java"):
        return [found]
    home = usr / "share/maven"
    own, machines = next((usr / "lib/jvm").glob("java-17-openjdk-*/bin/java"), None), shutil.which("java")
    java = own or (Path(machines) if machines else None)
    boot = next((home / "boot").glob("plexus-classworlds*.jar"), None)
    if java is None or boot is None:
        raise Wrong("there is neither a Java 17 nor a Maven here: install openjdk-17-jre-headless and maven")
    _at_home(own, usr, home)
    trusted = folder / "trusted.jks"
    trusted.write_bytes(_trust(Path(ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt")))
    defined = {
        "javax.net.ssl.trustStore": trusted,
        "classworlds.conf": usr.parent / "etc/maven/m2.conf",
        "maven.home": home,
        "maven.multiModuleProjectDirectory": folder,
    }
    options = [f"-D{name}={value}" for name, value in defined.items()]
    return [str(java), *options, "-cp", str(boot), "org.codehaus.plexus.classworlds.launcher.Launcher"]


def _at_home(java: Path | None, usr: Path, home: Path) -> None:
    """Let the links of both lead to what lies below the prefix, and ``bin/java`` be there where Java does."""
    for folder in (home, *((java.parent.parent,) if java else ())):
        for link in [each for each in folder.rglob("*") if each.is_symlink()]:
            below = usr.parent / str(link.readlink()).lstrip("/")
            if link.readlink().is_absolute() and below.exists():
                link.unlink()
                link.symlink_to(below)
    if java is None:
        return
    program = usr / "bin/java"
    program.parent.mkdir(exist_ok=True)
    program.unlink(missing_ok=True)
    program.symlink_to(java)


def _trust(bundle: Path) -> bytes:
    """Return the certificates of a bundle as Java's own store of them (JKS, version 2)."""
    pattern = "-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----"
    found = [ssl.PEM_cert_to_DER_cert(each) for each in re.findall(pattern, bundle.read_text(), re.DOTALL)]
    store = struct.pack(">III", 0xFEEDFEED, 2, len(found))
    for number, each in enumerate(found):
        alias, kind = str(number).encode(), b"X.509"
        store += struct.pack(">IH", 2, len(alias)) + alias + struct.pack(">QH", 0, len(kind)) + kind
        store += struct.pack(">I", len(each)) + each
    return store + hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + store).digest()
