"""The command by itself: what it refuses before it asks anybody, and how its errors look."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.agents import OSTLER

NOBODY = ("--agent", "unix:///tmp/no-such-bus?id=g1")
DEEP = '{"databases": ' + "[" * 3000 + "]" * 3000 + "}"


def ostler(*words: str, request: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(OSTLER), *words], input=request, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("words", "request_", "field"),
    [
        ((), DEEP, "request"),
        ((), '{"name": "a", "name": "b", "password": "x"}', "name"),
        ((), '{"name": "a", "password": "x", "request_id": "mine"}', "request_id"),
        ((), '{"name": "a", "password": "x", "bogus": 1}', "bogus"),
        ((), '{"password": "x"}', "name"),
        ((), '["name"]', "request"),
        (("carl",), '{"name": "dora", "password": "x"}', "name"),
    ],
)
def test_a_request_that_cannot_be_meant_is_sent_to_nobody(words: tuple[str, ...], request_: str, field: str) -> None:
    done = ostler(*NOBODY, "user", "create", *words, "--request", "-", "-f", "json", request=request_)
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["error"]["field"] == field


def test_a_traceback_changes_neither_status_nor_last_line() -> None:
    done = ostler("--debug", *NOBODY, "status", "-f", "json")
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert json.loads(done.stderr.splitlines()[-1])["error"]["type"] == "Unreachable"


def test_without_a_word_it_helps_and_ends_with_two() -> None:
    done = ostler()
    assert done.returncode == 2
    assert "usage: ostler" in done.stderr


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_configuration_that_is_no_text_ends_with_two(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ostler.conf"
    path.mkdir() if content is None else path.write_bytes(content)
    done = ostler("agent", "start", "--config-file", str(path))
    assert done.returncode == 2
    assert "config_file" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_image_that_cannot_be_ends_with_two() -> None:
    done = ostler("image", "check", "--image", "x" * 400, "-f", "json")
    assert done.returncode == 2
    assert json.loads(done.stderr.splitlines()[-1])["error"]["field"] == "image"
