"""The server's account passes private folders; others do not, and nothing is listed."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from datastores.contract import BadInput, Command, ToolFailed
from guestagent.host import LocalHost, account
from guestagent.node import node_for
from guestagent.passage import ATTRIBUTE, admit
from tests.guests import Guests

ROOT = os.geteuid() == 0


@pytest.fixture
def private() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="op-", dir="/tmp") as folder:
        yield Path(folder)


def host(folder: Path, owner: str = "nobody") -> LocalHost:
    return LocalHost(owner, "nogroup", temp=folder, within=[folder])


def sees(owner: str, path: Path) -> bool:
    """Say whether an account can read a file, or list a folder."""
    try:
        host(Path("/tmp"), owner).run(Command(("cat" if path.is_file() else "ls", str(path))), as_owner=True)
    except ToolFailed:
        return False
    return True


def test_one_account_passes_and_only_passes(private: Path) -> None:
    inner = private / "a" / "b"
    inner.mkdir(parents=True)
    (private / "a").chmod(0o700)
    (inner / "file").write_text("x")
    assert sees("nobody", inner / "file") is not ROOT
    changed = admit(inner / "file", *account("nobody", "nogroup"))
    assert changed == ([private, private / "a"] if ROOT else [])
    assert sees("nobody", inner / "file")
    assert sees("nobody", private) is not ROOT
    assert sees("games", inner / "file") is not ROOT
    assert admit(inner / "file", *account("nobody", "nogroup")) == []
    assert private.stat().st_mode & 0o007 == 0


def test_a_second_account_is_added_to_the_first(private: Path) -> None:
    (private / "file").write_text("x")
    for name in ("nobody", "games"):
        admit(private / "file", *account(name, "nogroup"))
    assert sees("nobody", private / "file")
    assert sees("games", private / "file")
    assert sees("mail", private / "file") is not ROOT


def test_open_folders_are_left_alone(private: Path) -> None:
    private.chmod(0o755)
    assert admit(private / "file", *account("nobody", "nogroup")) == []
    with pytest.raises(OSError, match="No data"):
        os.getxattr(private, ATTRIBUTE)


def test_a_folder_of_somebody_else_is_named(private: Path) -> None:
    other = private / "other"
    other.mkdir(mode=0o700)
    if ROOT:
        os.chown(other, 12345, 12345)
        with pytest.raises(BadInput, match=str(other)):
            admit(other / "x", *account("nobody", "nogroup"))
    else:
        assert admit(other / "x", *account("nobody", "nogroup")) == []


def test_a_guest_below_a_private_folder_can_be_served(private: Path, inn: Guests) -> None:
    from guestagent.declarations import load

    facts = inn.node("toy").installation
    node = node_for("g", load("toy"), "1.0", facts, private / "g" / "root", private / "g" / "state", port=0)
    for folder in (node.places.data, node.places.run, node.places.temp, node.places.log):
        probe = Command(("touch", str(folder / "file")))
        node.host.run(probe, as_owner=True)
