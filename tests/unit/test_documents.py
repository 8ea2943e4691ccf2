"""What the documents say is what the code says."""

import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "tools/servers.d").glob("*.toml"))
sys.path.insert(0, str(ROOT / "tools"))

import table  # noqa: E402
from recipes import Recipe, Wrong, recipes  # noqa: E402


def test_the_table_of_capabilities_is_that_of_the_declarations() -> None:
    text = (ROOT / "README.md").read_text()
    assert table.filled(text) == text, "run `make table`"


def test_readme_names_the_two_commands_first() -> None:
    commands = re.findall(r"^make \w+", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands[:2] == ["make demo", "make test"]


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_file_that_a_document_names_is_there(name: str) -> None:
    named = re.findall(
        r"`((?:guestagent|datastores|objectstore|tests|tools|bench|etc|elements)/[\w./-]*)`", _text(name)
    )
    assert [each for each in named if not (ROOT / each).exists()] == []


def test_the_sample_configuration_is_up_to_date(tmp_path: Path) -> None:
    made = tmp_path / "sample"
    generator = [str(Path(sys.executable).with_name("oslo-config-generator"))]
    config = ["--config-file", str(ROOT / "etc/config-generator.conf"), "--output-file", str(made)]
    subprocess.run([*generator, *config], check=True, cwd=ROOT)
    assert made.read_text() == (ROOT / "etc/ostler.conf.sample").read_text(), "run `make config`"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_can_be_read(path: Path) -> None:
    assert Recipe.read(path).programs


@pytest.mark.parametrize("table", tomllib.loads((ROOT / "guestagent/images/debian-12.toml").read_text()).items())
def test_recipe_and_image_name_the_same_packages_and_owner(table: tuple[str, dict[str, dict[str, object]]]) -> None:
    name, versions = table
    recipe = Recipe.read(ROOT / f"tools/servers.d/{name}.toml")
    for facts in versions.values():
        # What the distribution has not comes from the vendor on an image, and from a registry here.
        assert recipe.wheel or recipe.maven or set(facts["packages"]) <= set(recipe.packages)
        assert facts["owner"] == recipe.owner


def test_bindep_lists_the_servers_packages_of_the_recipes() -> None:
    listed = {line.split()[0] for line in _text("bindep.txt").splitlines() if "servers]" in line}
    assert listed <= {package for each in recipes() for package in each.packages}
    assert listed


def test_an_odd_recipe_is_refused_by_its_key(tmp_path: Path) -> None:
    odd = tmp_path / "odd.toml"
    odd.write_text('for = "demo"\npackages = []\nprograms = []\nversion = []\nservice = "x"\n')
    with pytest.raises(Wrong, match="'service'"):
        Recipe.read(odd)


def test_a_server_below_a_prefix_counts_only_when_it_was_unpacked_whole(tmp_path: Path) -> None:
    made = Recipe("none", "demo", (), ("none",), ("bin/no-such-program",), (), "", ())
    program = tmp_path / "usr/bin/no-such-program"
    program.parent.mkdir(parents=True)
    program.touch()
    assert made.home(tmp_path) is None
    made.stamp(tmp_path).touch()
    assert made.home(tmp_path) == tmp_path / "usr"


def test_tox_has_the_extras_of_setup_cfg() -> None:
    tox, setup = configparser.ConfigParser(), configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    setup.read(ROOT / "setup.cfg")
    assert set(tox["testenv"]["extras"].split()) == set(setup["extras"])


def _text(name: str) -> str:
    return (ROOT / name).read_text()
