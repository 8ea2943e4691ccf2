"""Every installed datastore's server: prepared, adopted, ended and started again.  Written once, naming none."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from datastores.contract import NotReady, Unsupported
from datastores.manager import Manager
from guestagent.declarations import describe, installed
from guestagent.image import read_image
from guestagent.node import manager_for
from tests.guests import IMAGE, Guests, sample


@pytest.fixture(scope="module", params=list(installed()))
def served(request: pytest.FixtureRequest, inn: Guests) -> Manager:
    return inn.manager(request.param)


@pytest.fixture(autouse=True)
def running(request: pytest.FixtureRequest) -> None:
    if "served" in request.fixturenames:
        request.getfixturevalue("served").service.start()


def test_the_server_is_the_declared_one(served: Manager) -> None:
    version = served.admin.version()
    assert served.datastore.major(version) == served.node.installation.version
    served.admin.ping()
    served.admin.probe()


def test_probes_at_the_same_time_all_hold(served: Manager) -> None:
    """The agent's look at the server and an operation's last step do not wait for each other."""
    with ThreadPoolExecutor(8) as crew:
        for each in [crew.submit(served.admin.probe) for _ in range(80)]:
            each.result()


def test_the_server_does_not_run_as_root(served: Manager) -> None:
    server = psutil.Process(served.service.pid())
    assert server.username() == served.node.installation.owner
    assert server.uids().real != 0 or os.geteuid() != 0
    assert Path(served.node.installation.tools["server"]).name in " ".join(server.cmdline())


def test_secure_may_be_repeated(served: Manager) -> None:
    served.admin.secure()
    served.admin.secure()
    served.admin.ping()


@pytest.mark.timeout(1200)
def test_a_server_that_was_just_killed_is_started_again(served: Manager) -> None:
    """It may still be there when start looks: it is not taken for one that serves."""
    for _ in range(5):
        killed = served.service.pid()
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        served.service.start()
        served.admin.ping()
        assert served.service.pid() != killed


def test_start_does_not_start_a_second_one(served: Manager) -> None:
    before = served.service.pid()
    served.service.start()
    assert served.service.pid() == before


def test_a_restarted_agent_adopts_the_server(served: Manager, inn: Guests) -> None:
    again = manager_for(served.datastore, served.node, inn.state(served.node), "process")
    assert again.service.pid() == served.service.pid()
    again.admin.ping()


def test_a_server_without_a_record_is_found(served: Manager, inn: Guests) -> None:
    before = served.service.pid()
    (inn.state(served.node) / "server.json").unlink()
    again = manager_for(served.datastore, served.node, inn.state(served.node), "process")
    assert again.service.pid() is None
    again.service.start()
    assert again.service.pid() == before
    again.admin.ping()


def test_a_stopped_server_has_gone_and_comes_back_with_its_data(served: Manager) -> None:
    data = sample(served)
    data.fill(200_000)
    before, digest = served.service.pid(), data.digest()
    served.service.stop()
    assert served.service.pid() is None
    assert not psutil.pid_exists(before or 0) or psutil.Process(before).status() == psutil.STATUS_ZOMBIE
    with pytest.raises(NotReady):
        served.admin.ping()
    served.service.stop()
    served.service.start()
    assert served.service.pid() not in (None, before)
    assert data.digest() == digest


def test_a_killed_server_is_seen_and_started_again(served: Manager) -> None:
    before = served.service.pid()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(before)] if psutil.pid_exists(before) else [], timeout=10)
    assert served.service.pid() is None
    served.service.start()
    assert served.service.pid() not in (None, before)
    served.admin.probe()


@pytest.mark.parametrize("name", list(installed()))
def test_half_made_data_is_made_anew(name: str, inn: Guests) -> None:
    manager = inn.manager(name, start=False)
    manager.settings.ensure()
    manager.node.host.write(manager.node.places.data / "half-made", b"left by a kill")
    manager.admin.initialise()
    assert not (manager.node.places.data / "half-made").exists()
    manager.service.start()
    manager.admin.secure()
    manager.admin.probe()


@pytest.mark.parametrize("name", list(installed()))
def test_versions_of_the_image_run_side_by_side(name: str, inn: Guests) -> None:
    versions = read_image(IMAGE).versions(name)
    managers = [inn.manager(name, version) for version in versions]
    found = [each.datastore.major(each.admin.version()) for each in managers]
    assert found == list(versions)
    assert len({each.node.endpoint.port for each in managers}) == len(versions)


@pytest.mark.parametrize("name", list(installed()))
def test_parts_are_there_or_unsupported(name: str, inn: Guests) -> None:
    manager = inn.manager(name, start=False)
    for part, there in manager.datastore.parts().items():
        if there:
            assert type(manager.part(part)) is getattr(manager.datastore, part)
        else:
            with pytest.raises(Unsupported, match=f"{name} has no {part}"):
                manager.part(part)
    with pytest.raises(Unsupported):
        manager.part("datastore")


@pytest.mark.parametrize("name", list(installed()))
def test_the_declaration_is_whole(name: str, inn: Guests) -> None:
    manager = inn.manager(name, start=False)
    shown = describe(manager.datastore, manager.node.installation.version)
    assert shown["datastore"] == name == manager.datastore.name
    assert set(read_image(IMAGE).versions(name)) <= set(manager.datastore.versions)
    kinds = {"password", *(["database"] if manager.datastore.databases else [])}
    assert kinds <= set(manager.datastore.names)
