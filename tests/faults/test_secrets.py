"""No secret anywhere it can be read: canaries, looked for while real agents do real work.

Every password in the requests is a canary.  While the work runs the command line and the
environment of every process are watched; afterwards every file of the guest and of the
store, the logs at DEBUG among them, is searched.
"""

import base64
import contextlib
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from datastores.contract import Secret
from guestagent import declarations
from tests.agents import LiveAgent, Site, site, texts
from tests.cases import Case, sample_of


@dataclass
class Watch:
    """Look for canaries in every process's arguments and environment until told to stop."""

    canaries: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    rounds: int = 0

    def new(self) -> str:
        self.canaries.append(f"cAn-{secrets.token_hex(12)}")
        return self.canaries[-1]

    def look(self) -> None:
        while not self.done.wait(0.02):
            self.rounds += 1
            for each in psutil.process_iter():
                with contextlib.suppress(psutil.Error, OSError):
                    words = [*each.cmdline(), *each.environ().values()]
                    self.seen += [word for word in words for canary in self.canaries if canary in word]


@pytest.fixture
def watch() -> Iterator[Watch]:
    made = Watch()
    thread = threading.Thread(target=made.look)
    thread.start()
    yield made
    made.done.set()
    thread.join()


@pytest.fixture
def place() -> Iterator[Site]:
    with site() as made:
        yield made


def forms(canary: str) -> Iterator[bytes]:
    """Yield a secret as it stands and as base64 at each of its three alignments."""
    yield canary.encode()
    for shift in range(3):
        yield base64.b64encode(b"x" * shift + canary.encode())[4:-4]


def left_in(place: Site, canaries: list[str]) -> list[str]:
    """Return the files of the guest and the store that hold a canary."""
    wanted = [form for canary in canaries for form in forms(canary)]
    return [str(path) for path, data in texts(place.folder) if any(form in data for form in wanted)]


def work(agent: LiveAgent, watch: Watch) -> None:
    """Do whatever a password is needed for, and what its bearer's data goes through."""
    has = declarations.load(agent.datastore).parts()
    agent.prepare(users=[{"name": "ann", "password": watch.new()}])
    agent.ostler("user", "create", request={"name": "bob", "password": watch.new()})
    changed = watch.new()
    agent.ostler("user", "set-password", request={"name": "bob", "password": changed})
    assert sample_of(agent).login("bob", Secret(changed))
    refused = agent.run("user", "create", request={"name": "bob\x00", "password": watch.new()})
    assert refused.status == 2
    assert not any(canary in refused.stderr + refused.stdout for canary in watch.canaries)
    if has["root"]:
        root = agent.ostler("root", "enable")
        assert isinstance(root, dict)
        watch.canaries.append(str(root["password"]))
    made = agent.ostler("backup", "create")
    assert isinstance(made, dict)
    agent.ostler("backup", "restore", str(made["id"]))


def test_no_canary_is_found(place: Site, watch: Watch, datastore_case: Case) -> None:
    name, version, options = datastore_case
    agent = place.agent("g1", name, version, **options).start()
    work(agent, watch)
    agent.kill()
    agent.start()
    assert agent.terminate() == 0
    assert watch.rounds > 10
    assert not watch.seen
    assert left_in(place, watch.canaries) == []


def test_the_search_finds_what_is_there(place: Site, watch: Watch) -> None:
    canary = watch.new()
    (place.folder / "leak").write_bytes(b"\x00" + base64.b64encode(b"ab" + canary.encode()))
    assert left_in(place, [canary]) == [str(place.folder / "leak")]
