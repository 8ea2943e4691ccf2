"""The rules of the house that no linter knows: sizes, names, imports, and what package code never does."""

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("guestagent", "datastores", "objectstore")
FILE_LINES, FUNCTION_LINES, PUBLIC_METHODS = 300, 40, 12
BAD_NAMES = re.compile(r"(^|_)(utils?|common|helpers?|base|misc)(_|$)")
BAD_MODULES = {"pickle", "marshal", "shelve"}
BAD_CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "subprocess.getoutput"}
BROAD_EXCEPT = {"guestagent/operations/run.py"}
"""Where ``except Exception`` may stand: the one place that logs a failure."""
THIRD_PARTY = {
    "objectstore": {"zstandard", "cryptography", "blake3", "isal"},
    "datastores": {"blake3", "isal", "ruamel"},
    "guestagent": {"cryptography", "psutil"},
    "guestagent/operations": {"psutil"},
    "guestagent/journal": {"cryptography"},
    "guestagent/cli": {"cliff", "rich"},
}
"""What a room may import beside the standard library and ours; oslo: see ``OSLO``."""
OSLO = {"guestagent": {"oslo_config", "oslo_log", "oslo_messaging", "oslo_service", "oslo_utils", "oslo_concurrency"}}
OSLO["guestagent/rpc"] = OSLO["guestagent"] | {"kombu", "amqp"}


def setup() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def datastores() -> dict[str, str]:
    """Return the folder of each datastore that setup.cfg registers, by name."""
    lines = setup()["entry_points"]["ostler.datastores"].split("\n")
    pairs = [line.split("=") for line in lines if line.strip()]
    return {name.strip(): target.split(":")[0].strip().replace(".", "/") for name, target in pairs}


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(path: Path) -> str:
    """Return the folder of the file, or its datastore's folder."""
    folder = name_of(path.parent)
    return next((each for each in datastores().values() if folder.startswith(each)), folder)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
            yield from (f"{node.module}.{each.name}" for each in node.names)


def named(call: ast.Call) -> str:
    return ast.unparse(call.func)


TREES = {path: ast.parse(path.read_text()) for path in sources()}
"""All parsed before any test runs: Python 3.11 may not do it beside another thread that shows a traceback."""
every_source = pytest.mark.parametrize("path", TREES, ids=name_of)


@every_source
def test_files_functions_and_classes_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{node.name} has {lines} lines"
        elif isinstance(node, ast.ClassDef):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name[0] != "_"]
            methods = [each for each in methods if not any("property" in ast.unparse(d) for d in each.decorator_list)]
            assert len(methods) <= PUBLIC_METHODS, f"{node.name} has {len(methods)} public methods"


@every_source
def test_a_file_says_what_it_is_and_has_a_name_of_its_own(path: Path) -> None:
    assert ast.get_docstring(TREES[path]), "no docstring"
    assert not BAD_NAMES.search(path.stem), "name it after what it holds"


@every_source
def test_package_code_has_no_shell_no_pickle_and_no_broad_except(path: Path) -> None:
    tree = TREES[path]
    found = {each.split(".")[0] for each in imported(tree)}
    assert not found & BAD_MODULES
    assert path.name == "sample.py" or "random" not in found, "keys and passwords come from secrets"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            assert named(node) not in BAD_CALLS, f"line {node.lineno}"
            shells = [each for each in node.keywords if each.arg == "shell"]
            assert not shells, f"line {node.lineno}: argument lists only"
        elif isinstance(node, ast.ExceptHandler) and name_of(path) not in BROAD_EXCEPT:
            kind = "" if node.type is None else ast.unparse(node.type)
            assert kind != "Exception", f"line {node.lineno}: which error is meant?"
            again = any(isinstance(each, ast.Raise) and each.exc is None for each in node.body)
            assert kind not in ("", "BaseException") or again, f"line {node.lineno}: it must be raised again"


@pytest.mark.parametrize("name", datastores())
def test_a_datastore_is_named_in_its_own_folder_only(name: str) -> None:
    folder = datastores()[name]
    spelled = [
        f"{name_of(path)}:{number}"
        for path in sources()
        if not name_of(path).startswith(f"{folder}/")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(rf"\b{name}", line, re.IGNORECASE)
    ]
    assert not spelled


@every_source
def test_imports_keep_to_the_table_of_the_rooms(path: Path) -> None:
    here, package = room(path), name_of(path).split("/")[0]
    allowed = set().union(
        sys.stdlib_module_names, PACKAGES, THIRD_PARTY.get(package, ()), THIRD_PARTY.get(here, ()), drivers(here)
    )
    if not here.startswith("guestagent/operations"):
        allowed |= OSLO.get(here, OSLO.get(package, set()))
    odd = {each for each in imported(TREES[path]) if each and each.split(".")[0] not in allowed}
    assert not odd, f"{here} may not import these"


def drivers(here: str) -> set[str]:
    """Return the modules of a datastore's own extra: its driver, in its own folder only."""
    known = {"pymysql": {"pymysql"}, "cassandra-driver": {"cassandra"}, "pymongo": {"pymongo", "bson"}}
    name = next((name for name, folder in datastores().items() if here.startswith(folder)), None)
    if name is None or not setup().has_option("extras", name):
        return set()
    wanted = [re.split(r"[<>=~!;\s]", each.strip())[0].lower() for each in setup()["extras"][name].split("\n") if each]
    return set().union(*(known.get(each, {each.replace("-", "_")}) for each in wanted))


@every_source
def test_nobody_imports_a_datastore_from_outside_its_folder(path: Path) -> None:
    modules = {folder.replace("/", "."): folder for folder in datastores().values()}
    for each in imported(TREES[path]):
        for module, folder in modules.items():
            inside = name_of(path).startswith(f"{folder}/")
            assert inside or not (each == module or each.startswith(f"{module}."))


@every_source
def test_the_libraries_know_no_file_of_configuration_and_no_word_of_rpc(path: Path) -> None:
    package = name_of(path).split("/")[0]
    found = {each.split(".")[0] for each in imported(TREES[path])}
    if package != "guestagent":
        assert not found & {"guestagent", "oslo_config", "oslo_messaging", "oslo_log"}
        assert {"datastores": "objectstore", "objectstore": "datastores"}[package] not in found


def test_only_the_configuration_room_reads_oslo_config() -> None:
    reads = [name_of(p) for p in sources() if any(i.startswith("oslo_config") for i in imported(TREES[p]))]
    assert reads == ["guestagent/config.py"]
