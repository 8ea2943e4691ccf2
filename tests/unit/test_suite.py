"""``make test`` itself: what it calls success."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).resolve().parents[2] / "tools" / "suite.py"
PASSES = "def test_it() -> None:\n    assert True\n"
FAILS = "def test_it() -> None:\n    assert not True\n"
SKIPS = 'import pytest\n\n\ndef test_it() -> None:\n    pytest.skip("no server")\n'
NOTHING = "def not_a_test() -> None:\n    pass\n"


@pytest.mark.parametrize(
    ("text", "ok", "counts"),
    [(PASSES, True, (1, 0, 0)), (FAILS, False, (1, 1, 0)), (SKIPS, False, (1, 0, 1)), (NOTHING, False, (0, 0, 0))],
)
def test_only_tests_that_ran_and_held_are_success(
    tmp_path: Path, text: str, ok: bool, counts: tuple[int, int, int]
) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tests/unit").mkdir(parents=True)
    shutil.copy(SUITE, tmp_path / "tools")
    (tmp_path / "tests/unit/test_it.py").write_text(text)
    record = tmp_path / "record.json"
    command = [sys.executable, str(tmp_path / "tools/suite.py"), "unit", "--json", str(record)]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path)
    assert (done.returncode == 0) is ok
    written = json.loads(record.read_text())
    step = written["steps"][0]
    assert (written["ok"], step["name"], step["ok"]) == (ok, "unit", ok)
    assert tuple(step["figures"][key] for key in ("tests", "failures", "skipped")) == counts
