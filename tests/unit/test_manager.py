"""A node's folders, port, number and secrets; its manager; and the two ways to keep a server running."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from datastores.contract import Admin, BadInput, Command, Node, NotReady, Secret, ToolFailed, Unsupported
from datastores.manager import Manager
from guestagent import node as room
from guestagent.declarations import load
from guestagent.host import LocalHost
from guestagent.node import FileSecrets, free_port, manager_for, node_for, server_number, service_for
from guestagent.processes import end, identify
from guestagent.supervisor import ProcessService
from guestagent.systemd import UnitService, quoted
from tests.guests import Guests

TOY = load("toy")


class SleepingAdmin(Admin):
    """A server that is a shell script: it answers when a file is there."""

    script = "trap 'exit 0' TERM; touch {data}/answers; while :; do sleep 0.05; done"
    signal = signal.SIGTERM

    def initialise(self) -> None:
        self.node.host.folder(self.node.places.data)

    def command(self) -> Command:
        data = str(self.node.places.data)
        return Command(("/bin/dash", "-c", self.script.replace("{data}", data), data))

    def ping(self) -> None:
        if not (self.node.places.data / "answers").exists():
            raise NotReady("not yet")

    def version(self) -> str:
        return "1.0.3"

    def secure(self) -> None:
        self.ping()

    def quiesce(self) -> None:
        (self.node.places.data / "answers").unlink(missing_ok=True)

    def stop_signal(self) -> int:
        return self.signal

    def probe(self) -> None:
        self.ping()


class Stubborn(SleepingAdmin):
    script = "trap '' TERM; touch {data}/answers; while :; do sleep 0.05; done"


class Dying(SleepingAdmin):
    script = "echo the disk is made of cheese >&2; exit 3"


class Mute(SleepingAdmin):
    script = "while :; do sleep 0.05; done"


@pytest.fixture
def node(inn: Guests) -> Node:
    made = inn.node("toy")
    tools = replace(made.installation, tools={"server": Path("/bin/dash")})
    return made.at(installation=tools)


@pytest.fixture
def record(inn: Guests, node: Node) -> Path:
    return inn.state(node) / "server.json"


@pytest.fixture
def service(node: Node, record: Path) -> Iterator[ProcessService]:
    made = ProcessService(node, SleepingAdmin(node), record)
    yield made
    made.stop(timeout=5)


def test_a_server_outlives_its_agent_and_is_adopted(node: Node, record: Path, service: ProcessService) -> None:
    service.start(timeout=10)
    pid = service.pid()
    assert pid is not None
    assert os.getsid(pid) == pid
    again = ProcessService(node, SleepingAdmin(node), record)
    assert again.pid() == pid
    again.start(timeout=10)
    assert again.pid() == pid


def test_a_record_of_another_process_or_boot_is_nobody(node: Node, record: Path) -> None:
    me = identify(os.getpid())
    assert me is not None
    for text in (
        f'{{"pid": {me.pid}, "started": {me.started + 1}, "boot": "{me.boot}"}}',
        f'{{"pid": {me.pid}, "started": {me.started}, "boot": "another"}}',
        '{"pid": 1',
        "[]",
        "",
    ):
        record.write_text(text)
        assert ProcessService(node, SleepingAdmin(node), record).pid() is None
    record.unlink()


def test_a_server_started_by_hand_is_adopted(node: Node, record: Path, service: ProcessService) -> None:
    (node.places.data / "answers").touch()
    with subprocess.Popen(SleepingAdmin(node).command().argv) as by_hand:
        try:
            # For a moment a new program has no command line yet.
            while not psutil.Process(by_hand.pid).cmdline():
                time.sleep(0.01)
            service.start(timeout=10)
            assert service.pid() == by_hand.pid
            service.stop(timeout=10)
            assert by_hand.wait(5) == 0
        finally:
            by_hand.kill()


def test_a_server_on_other_data_is_left_alone(inn: Guests, node: Node, service: ProcessService) -> None:
    other = inn.node("toy")
    argv = SleepingAdmin(other).command().argv
    sibling = node.places.data.with_name(node.places.data.name + "2")
    with subprocess.Popen(argv) as one, subprocess.Popen([*argv[:3], str(sibling)]) as two:
        try:
            service.start(timeout=10)
            assert service.pid() not in (one.pid, two.pid)
        finally:
            one.kill()
            two.kill()


def test_stop_is_clean_then_hard(node: Node, record: Path) -> None:
    stubborn = ProcessService(node, Stubborn(node), record)
    stubborn.start(timeout=10)
    pid = stubborn.pid()
    assert pid is not None
    stubborn.stop(timeout=0.3)
    assert stubborn.pid() is None
    assert identify(pid) is None
    assert not record.exists()
    stubborn.stop()


class Slow(SleepingAdmin):
    """A server that takes its time to find out that it cannot."""

    script = "echo begun >> {data}/starts; sleep 1; exit 3"


def test_a_server_that_fails_is_not_started_again_and_again(node: Node, record: Path) -> None:
    """Whoever waits for it in slices finds it still at it."""
    slow = ProcessService(node, Slow(node), record)
    with pytest.raises(NotReady):
        slow.start(timeout=0.1)
    with pytest.raises(ToolFailed, match="ended before it answered"):
        slow.start(timeout=60)
    assert (node.places.data / "starts").read_text() == "begun\n"


HALF_GONE = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_server_is_there_until_its_last_thread_has_ended() -> None:
    """Killed, it may look like a zombie while it still holds its port and its locks."""
    with subprocess.Popen([sys.executable, "-c", HALF_GONE]) as process:
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        found = identify(process.pid)
        assert found is not None
        assert found.alive()
        assert end(found, signal.SIGKILL, 60)
        assert identify(process.pid) is None
        assert not found.alive()


def test_nothing_is_asked_of_a_server_whose_data_is_discarded(node: Node, service: ProcessService) -> None:
    service.start(timeout=10)
    service.stop(timeout=10, data="discarded")
    assert (node.places.data / "answers").exists()
    # It answers once its program has made the file anew, and not before.
    (node.places.data / "answers").unlink()
    service.start(timeout=10)
    service.stop(timeout=10)
    assert not (node.places.data / "answers").exists()


def test_a_server_that_dies_is_told_at_once_with_its_last_words(node: Node, record: Path) -> None:
    began = time.monotonic()
    with pytest.raises(ToolFailed, match="made of cheese"):
        ProcessService(node, Dying(node), record).start(timeout=60)
    assert time.monotonic() - began < 30


def test_a_server_that_does_not_answer_may_be_waited_for_again(node: Node, record: Path) -> None:
    mute = ProcessService(node, Mute(node), record)
    with pytest.raises(NotReady, match=r"did not answer within 0.2 s: not yet"):
        mute.start(timeout=0.2)
    pid = mute.pid()
    assert pid is not None
    (node.places.data / "answers").touch()
    mute.start(timeout=10)
    assert mute.pid() == pid
    mute.stop(timeout=0.2)


def test_a_killed_server_is_nobody_and_leaves_no_zombie(service: ProcessService) -> None:
    service.start(timeout=10)
    pid = service.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while service.pid() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert service.pid() is None
    assert pid not in [each.pid for each in psutil.Process().children()]


FAKE_SYSTEMCTL = """#!/bin/sh
# Keeps the contract of the words we use: start, stop, show --property=MainPID --value, daemon-reload.
here={here}
echo "$*" >> $here/calls
case "$1" in
start) test -f $here/pid && exit 0; grep -q ExecStart=. $here/drop/*/ostler.conf || exit 5
       # Only in a session of its own does it outlive the command that starts it.
       setsid sh -c "trap 'exit 0' TERM; echo \\$\\$ > $here/pid; while :; do sleep 0.05; done" >/dev/null 2>&1 &
       until test -s $here/pid; do sleep 0.01; done; touch {data}/answers ;;
stop) kill -TERM $(cat $here/pid); rm $here/pid ;;
show) cat $here/pid 2>/dev/null || echo 0 ;;
daemon-reload) ;;
*) exit 4 ;;
esac
"""


@pytest.fixture
def unit(inn: Guests, node: Node) -> UnitService:
    folder = inn.folder / f"systemd-{os.urandom(3).hex()}"
    folder.mkdir()
    fake = folder / "systemctl"
    fake.write_text(FAKE_SYSTEMCTL.replace("{here}", str(folder)).replace("{data}", str(node.places.data)))
    fake.chmod(0o755)
    host = LocalHost("root", "root", temp=folder, within=[folder], path=[folder])
    return UnitService(node, SleepingAdmin(node), host=host, drop_ins=folder / "drop")


def test_a_unit_is_pointed_at_our_configuration_and_driven(unit: UnitService, node: Node, inn: Guests) -> None:
    assert unit.pid() is None
    unit.start(timeout=10)
    pid = unit.pid()
    assert pid is not None
    assert identify(pid) is not None
    unit.start(timeout=10)
    unit.stop(timeout=10)
    unit.stop(timeout=10)
    assert unit.pid() is None
    folder = unit._drop_in.parent.parent.parent
    calls = (folder / "calls").read_text().splitlines()
    name = node.installation.unit
    assert calls.count("daemon-reload") == 1
    assert calls.count(f"stop -- {name}") == 1
    assert f"start -- {name}" in calls
    drop_in = unit._drop_in.read_text()
    assert "ExecStart=\n" in drop_in
    assert f"User={node.installation.owner}" in drop_in
    assert str(node.places.data) in drop_in
    while identify(pid) is not None:
        time.sleep(0.01)


def test_words_of_a_unit_file_are_literal() -> None:
    assert quoted('a "b" %n $HOME \\') == '"a \\"b\\" %%n $$HOME \\\\"'


def test_who_keeps_the_server_is_chosen(node: Node, inn: Guests) -> None:
    admin = SleepingAdmin(node)
    assert isinstance(service_for(node, admin, inn.state(node), "process"), ProcessService)
    assert isinstance(service_for(node, admin, inn.state(node), "systemd"), UnitService)
    assert type(service_for(node, admin, inn.state(node))) is (UnitService if room.in_charge() else ProcessService)
    with pytest.raises(BadInput) as caught:
        service_for(node, admin, inn.state(node), "cron")
    assert caught.value.field == "supervisor"


def test_a_node_has_its_folders_and_who_they_belong_to(inn: Guests) -> None:
    node = inn.node("toy")
    places, owner = node.places, node.installation.owner
    for folder in (places.data, places.run, places.temp, places.log):
        assert (folder.owner(), folder.stat().st_mode & 0o007) == (owner, 0)
    assert places.root.owner() == psutil.Process().username()
    assert {places.data.parent, places.staging.parent, places.config.parent} == {places.root}
    assert len(os.fsencode(node.endpoint.socket)) < 104


def test_a_deep_state_folder_gets_a_short_socket(inn: Guests) -> None:
    facts = inn.node("toy").installation
    deep = inn.folder / ("d" * 120)
    made = [node_for("g", TOY, "1.0", facts, deep / "root", deep / "state", port=0) for _ in range(2)]
    assert len(os.fsencode(made[0].endpoint.socket)) < 104
    assert made[0].endpoint == made[1].endpoint
    assert made[0].places.run.owner() == facts.owner
    made[0].places.run.rmdir()


def test_a_port_is_the_default_the_wanted_or_a_free_one_that_stays(inn: Guests) -> None:
    facts = inn.node("toy").installation
    home = inn.folder / "ports"

    def port(wanted: int | None) -> int:
        return node_for("g", TOY, "1.0", facts, home / "root", home / "state", port=wanted).endpoint.port

    assert port(None) == TOY.ports["toy"]
    assert port(4711) == 4711
    free = port(0)
    assert free == port(0)
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert free < low or low < 16000
    assert free_port("127.0.0.1") != 0


def test_a_number_is_stable_and_in_range() -> None:
    numbers = {server_number(f"guest-{n}") for n in range(2000)}
    assert len(numbers) == 2000
    assert all(1 <= each < 2**31 for each in numbers)
    assert server_number("g1") == server_number("g1")


def test_secrets_are_private_files(inn: Guests) -> None:
    folder = inn.folder / "secrets"
    kept = FileSecrets(folder)
    assert kept.load("agent") is None
    kept.keep("agent", Secret("a\nb' ü"))
    kept.keep("agent", Secret("second"))
    assert FileSecrets(folder).load("agent") == Secret("second")
    assert (folder.stat().st_mode & 0o777, (folder / "agent").stat().st_mode & 0o777) == (0o700, 0o600)
    kept.drop("agent")
    kept.drop("agent")
    assert kept.load("agent") is None
    assert list(folder.iterdir()) == []
    for name in ("../agent", "", "a/b", ".hidden", "A"):
        with pytest.raises(BadInput):
            kept.keep(name, Secret("x"))


def test_a_manager_hands_out_what_is_there(inn: Guests) -> None:
    node = inn.node("toy")
    manager = manager_for(replace(TOY, databases=None, backup=None), node, inn.state(node), "process")
    with pytest.raises(Unsupported, match="toy has no databases"):
        manager.part("databases")
    with pytest.raises(Unsupported, match="toy has no backup"):
        _ = manager.backup
    assert type(manager.part("users")) is TOY.users
    later = manager.with_epoch(3)
    assert (later.node.epoch, manager.node.epoch) == (3, 0)
    assert later.service is manager.service
    assert isinstance(later, Manager)
