"""Cassandra killed in the middle of a restore: the server that serves, the private one, the one that comes up."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

from datastores.cassandra.private import FOLDER
from tests.aftermath import PASSWORD, alone, begin, ends, whole
from tests.agents import LiveAgent, site, until
from tests.cases import sample_of

SIZE = 500_000
NEIGHBOURS = 7000
"""The port that a server opens last but one, when its tables are there."""


@dataclass
class Restoring:
    """A guest whose backup is not what it serves: ``kept`` is the digest of the one, ``current`` of the other."""

    agent: LiveAgent
    backup: str
    kept: dict[str, str]
    current: dict[str, str]

    def begin(self, identity: str) -> str:
        return begin(self.agent, "backup", "restore", backup=self.backup, identity=identity)

    def change(self) -> None:
        """Have other data than the backup's."""
        sample_of(self.agent).change(0.5, seed=2)
        self.current = sample_of(self.agent).digest()
        assert self.current != self.kept

    def private(self, process: psutil.Process) -> bool:
        """Say whether it is the private server, far enough that it has touched the data."""
        mark = str(self.agent.root / "temp" / FOLDER)
        return any(mark in word for word in process.cmdline()) and listens(process)

    def seen(self, wanted: Callable[[psutil.Process], bool], *, kill: bool = False) -> None:
        """Wait for a server; ``kill`` it at once."""

        def there() -> bool:
            assert self.agent.process is not None
            # Each is the agent's own child: to look at all processes takes its time.
            for each in psutil.Process(self.agent.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if wanted(each):
                        if kill:
                            each.kill()
                        return True
            return False

        until(there, 120, "the server is there")

    def nothing_left(self) -> None:
        """One server, and of what the restore has made nothing."""
        alone(self.agent)
        assert not list((self.agent.root / "temp").iterdir())
        assert {each.name for each in self.agent.root.iterdir()} <= {"data", "config", "config.d", "temp", "log", "run"}


def listens(process: psutil.Process) -> bool:
    """Say whether a server has its tables and listens to its neighbours."""
    return any(each.laddr and each.laddr.port == NEIGHBOURS for each in process.net_connections())


@pytest.fixture(scope="module")
def guest() -> Iterator[Restoring]:
    with site() as place:
        agent = place.agent("g1", "cassandra", "5.0").start()
        agent.prepare(users=[{"name": "ann", "password": PASSWORD}])
        sample_of(agent).fill(SIZE)
        made = agent.ostler("backup", "create")
        assert isinstance(made, dict)
        digest = sample_of(agent).digest()
        yield Restoring(agent, str(made["id"]), digest, digest)


def test_the_private_server_is_killed(guest: Restoring) -> None:
    guest.change()
    serving = guest.agent.status()["server_pid"]
    operation = guest.begin("new")
    guest.seen(guest.private, kill=True)
    ended = ends(guest.agent, operation)
    assert ended["state"] == "failed"
    assert "private server" in str(ended["error"])
    assert guest.agent.status()["server_pid"] == serving
    whole(guest.agent, guest.current)
    guest.nothing_left()


def test_the_server_that_comes_up_with_the_restored_data_is_killed(guest: Restoring) -> None:
    guest.change()
    serving = guest.agent.status()["server_pid"]
    operation = guest.begin("same")
    guest.seen(lambda each: each.pid != serving and not guest.private(each) and listens(each), kill=True)
    ended = ends(guest.agent, operation)
    assert ended["state"] == "failed"
    assert "old data is served again" in str(ended["error"])
    whole(guest.agent, guest.current)
    guest.nothing_left()


def test_the_serving_server_is_killed_while_the_backup_comes(guest: Restoring) -> None:
    guest.change()
    serving = guest.agent.status()["server_pid"]
    operation = guest.begin("new")
    guest.seen(guest.private)
    psutil.Process(int(str(serving))).kill()
    ended = ends(guest.agent, operation)
    assert ended["state"] == "succeeded", ended["error"]
    whole(guest.agent, guest.kept)
    guest.nothing_left()
