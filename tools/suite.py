"""Run everything that is checked, some steps at a time; exit 0 only when all held.

A skipped test counts as a failure: a server that is missing must not look like success.
What did not hold is named once more at the end, where whoever reads the last lines alone finds it.
``python tools/suite.py [--json FILE] [STEP…]``
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as tree
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SUITES = ("unit", "conformance", "interop", "faults", "live")
LONGEST_FIRST = ("live", "faults", "conformance", "interop", "unit")
LANES = 3
"""Steps that run at once: each is a process that mostly waits for another, and shares nothing with the rest."""
HANDS = {"live": 2, "faults": 2}
"""The suites whose files several such processes take, each the next one, as one alone would outlast everything."""
DOORS = ("tools/servers", "tools/environment")
CHECKS: dict[str, list[str]] = {
    "lint": ["ruff", "check", ".", *DOORS],
    "format": ["ruff", "format", "--check", ".", *DOORS],
    "types": ["mypy"],
    "imports": ["lint-imports"],
}
Figures = dict[str, float]
COUNTS = ("tests", "failures", "errors", "skipped")
NOT_HELD = ("failure", "error", "skipped")
LIMIT = 600 * int(os.environ.get("OSTLER_COUNT", "1"))
"""Seconds that one test may take; where there is more to do, more."""
WIDTH = 300
"""Characters of what is said of one test at the end."""


@dataclass
class Step:
    """One step as it goes into the record."""

    name: str
    ok: bool
    seconds: float
    figures: Figures = field(default_factory=dict)
    not_held: list[str] = field(default_factory=list)
    """The tests that did not hold, each with the beginning of why."""

    def line(self) -> str:
        """Return the step as one line of the closing table."""
        figures = "  ".join(f"{key} {value:g}" for key, value in self.figures.items())
        return f"{'ok' if self.ok else 'FAILED':<7} {self.name:<12} {self.seconds:7.1f} s  {figures}"


def main() -> int:
    """Run the steps that were named, or all; print the table and write the record."""
    parser = argparse.ArgumentParser(prog="make test", description=__doc__.split("\n\n")[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(names())} (default: all)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    options = parser.parse_args()
    unknown = set(options.steps) - set(names())
    if unknown:
        parser.error(f"there is no step {min(unknown)!r}")
    signal.signal(signal.SIGTERM, _interrupt)
    steps = Lanes().run(list(dict.fromkeys(options.steps or names())))
    ok = all(step.ok for step in steps)
    told = [f"{step.name:<11} | {each}" for step in steps for each in step.not_held]
    told += [f"{step.name:<11} | see above" for step in steps if not step.ok and not step.not_held]
    told.append("all held" if ok else "NOT all held")
    print("\n".join(["", *(step.line() for step in steps), "", *told]), flush=True)
    if options.json:
        record = {"ok": ok, "steps": [vars(step) for step in steps]}
        options.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if ok else 1


def names() -> list[str]:
    """Return the steps there are: the checks, then the folders of tests that hold any."""
    return [*CHECKS, *(name for name in SUITES if any((ROOT / "tests" / name).glob("test_*.py")))]


class Lanes:
    """Run steps in lanes; what they say comes line by line, each with its step's name before it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._children: set[subprocess.Popen[str]] = set()
        self._over = False
        self._many = False

    def run(self, wanted: list[str]) -> list[Step]:
        """Run steps, the longest first; return them in the order they were wanted."""
        self._many = len(wanted) > 1 or wanted[0] in HANDS
        ordered = sorted(wanted, key=lambda name: LONGEST_FIRST.index(name) if name in LONGEST_FIRST else -1)
        with ThreadPoolExecutor(LANES) as lanes:
            try:
                begun = {name: lanes.submit(self._step, name) for name in ordered}
                return [begun[name].result() for name in wanted]
            except KeyboardInterrupt:
                lanes.shutdown(wait=False, cancel_futures=True)
                self._end()
                raise

    def _step(self, name: str) -> Step:
        """Run one step to its end and say how it went."""
        print(f"== {name}", flush=True)
        began = time.monotonic()
        ok, figures, not_held = self._suite(name) if name in SUITES else (self._execute(name, CHECKS[name]), {}, [])
        step = Step(name, ok, round(time.monotonic() - began, 1), figures, not_held)
        print(f"== {step.line()}", flush=True)
        return step

    def _suite(self, name: str) -> tuple[bool, Figures, list[str]]:
        """Run one folder of tests; not ok where a test failed, was skipped, or none was found."""
        files = sorted(str(each.relative_to(ROOT)) for each in (ROOT / "tests" / name).glob("test_*.py"))
        hands = [[file] for file in files] if name in HANDS else [files]
        with ThreadPoolExecutor(HANDS.get(name, 1)) as players:
            ended = list(players.map(lambda hand: self._files(name, hand), hands))
        figures = {key: sum(counts.get(key, 0) for _, counts, _ in ended) for key in COUNTS}
        ok = all(well and counts.get("tests", 0) > 0 for well, counts, _ in ended) and figures["skipped"] == 0
        return ok, figures, [each for _, _, told in ended for each in told]

    def _files(self, name: str, files: list[str]) -> tuple[bool, Figures, list[str]]:
        """Run some files of a suite in one process; no figures where it left no report."""
        with tempfile.TemporaryDirectory(prefix="ostler-") as folder:
            report = Path(folder) / "junit.xml"
            told = [f"--junitxml={report}", f"--timeout={LIMIT}", "--durations=5", "--durations-min=5"]
            ok = self._execute(name, ["python", "-m", "pytest", *files, *told])
            if not report.exists():
                return False, {}, [f"{' '.join(files)}: ended without a report"]
            suite = tree.parse(report).getroot()[0]
            return ok, {key: int(suite.attrib[key]) for key in COUNTS}, not_held(suite)

    def _execute(self, name: str, argv: list[str]) -> bool:
        """Run a tool of the environment to its end; alone it has the terminal for itself."""
        environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if self._many else {}
        with self._lock:
            if self._over:
                return False
            command = [str(BIN / argv[0]), *argv[1:]]
            child = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, errors="replace", **piped)
            self._children.add(child)
        with child:
            for line in child.stdout or ():
                sys.stdout.write(f"{name:<11} | {line}")
                sys.stdout.flush()
        with self._lock:
            self._children.remove(child)
        return child.returncode == 0

    def _end(self) -> None:
        """End what runs, each with its own clean-up, and begin nothing more."""
        with self._lock:
            self._over = True
            for child in self._children:
                child.send_signal(signal.SIGINT)


def not_held(suite: tree.Element) -> list[str]:
    """Return the tests of a report that did not hold, each with the beginning of why."""
    found = []
    for case in suite.iter("testcase"):
        why = next((each for each in case if each.tag in NOT_HELD), None)
        if why is not None:
            told = " ".join((why.get("message") or "").split())
            found.append(f"{case.get('classname')}::{case.get('name')}: {why.tag}: {told}"[:WIDTH])
    return found


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
