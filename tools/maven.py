"""Get libraries of Maven Central with all they depend on: what a server in Java consists of.

The first artifact is the server itself; what it depends on lies in ``lib`` beside it.  One with a classifier is whole
in itself.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

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
    run([_maven(usr), "-q", "-B", "-f", str(folder / "pom.xml"), *goal])
    for coordinates, program in zip(recipe.maven, recipe.programs, strict=True):
        _place(fetched / _file(coordinates), usr / program)
    beside = (usr / recipe.programs[0]).parent / "lib"
    fresh = beside.with_name(".lib.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(fetched, fresh)
    shutil.rmtree(beside, ignore_errors=True)
    fresh.rename(beside)


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


def _maven(usr: Path) -> str:
    found = shutil.which("mvn", path=os.pathsep.join([os.environ.get("PATH", ""), str(usr / "share/maven/bin")]))
    if found is None:
        raise Wrong("there is no mvn here: install maven")
    return found
