"""``make test`` itself: what it calls success."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SUITE = Path(__file__).resolve().parents[2] / "tools" / "suite.py"
PASSES = "def test_it() -> None:\n    assert True\n"
FAILS = "def test_it() -> None:\n    assert not True\n"
SKIPS = 'import pytest\n\n\ndef test_it() -> None:\n    pytest.skip("no server")\n'
MEETS = """
import time
from pathlib import Path

import pytest


@pytest.fixture
def here():
    yield
    Path(__file__).with_name("left").touch()


def test_it(here):
    Path(__file__).with_name("here").touch()
    end = time.monotonic() + 60
    while not all((Path(__file__).parents[1] / each / WANTED).exists() for each in ("unit", "live")):
        assert time.monotonic() < end, "the other one does not run"
        time.sleep(0.02)
    raise AssertionError("they met")
"""
NOTHING = "def not_a_test() -> None:\n    pass\n"


def suite(folder: Path, text: str, *words: str) -> subprocess.Popen[str]:
    """Start the suites of a project that has one test, the same in two of them."""
    (folder / "tools").mkdir()
    shutil.copy(SUITE, folder / "tools")
    for name in ("unit", "live"):
        (folder / "tests" / name).mkdir(parents=True)
        (folder / "tests" / name / "test_it.py").write_text(text)
    command = [sys.executable, str(folder / "tools/suite.py"), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)


def wait_for(*paths: Path) -> None:
    end = time.monotonic() + 60
    while not all(each.exists() for each in paths):
        assert time.monotonic() < end, f"one of {paths} does not come"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("text", "ok", "counts"),
    [(PASSES, True, (1, 0, 0)), (FAILS, False, (1, 1, 0)), (SKIPS, False, (1, 0, 1)), (NOTHING, False, (0, 0, 0))],
)
def test_only_tests_that_ran_and_held_are_success(
    tmp_path: Path, text: str, ok: bool, counts: tuple[int, int, int]
) -> None:
    record = tmp_path / "record.json"
    with suite(tmp_path, text, "unit", "--json", str(record)) as running:
        said = running.communicate()[0].splitlines()
    assert (running.returncode == 0) is ok
    written = json.loads(record.read_text())
    step = written["steps"][0]
    assert (written["ok"], step["name"], step["ok"]) == (ok, "unit", ok)
    assert tuple(step["figures"][key] for key in ("tests", "failures", "skipped")) == counts
    assert len(step["not_held"]) == sum(counts[1:])
    for each in step["not_held"]:
        assert each.startswith("tests.unit.test_it::test_it: ")
        assert said[-2:] == [f"unit        | {each}", "NOT all held"]


def test_two_steps_run_at_once_and_every_line_says_whose_it_is(tmp_path: Path) -> None:
    with suite(tmp_path, MEETS.replace("WANTED", "'here'"), "unit", "live") as running:
        said = running.communicate()[0]
    assert {line.split()[0] for line in said.splitlines() if "AssertionError: they met" in line} == {"unit", "live"}
    assert [line.split()[1] for line in said.splitlines() if line.startswith("FAILED")] == ["unit", "live"]
    assert running.returncode == 1


def test_a_signal_ends_both_and_they_clean_up(tmp_path: Path) -> None:
    with suite(tmp_path, MEETS.replace("WANTED", "'never'"), "unit", "live") as running:
        wait_for(*(tmp_path / "tests" / name / "here" for name in ("unit", "live")))
        running.send_signal(signal.SIGTERM)
        running.communicate()
    assert running.returncode == 130
    assert all((tmp_path / "tests" / name / "left").exists() for name in ("unit", "live"))
