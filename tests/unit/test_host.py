"""The moves on this machine: programs that die, secrets that do not show, files that are whole."""

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from datastores.contract import BadInput, Command, DatastoreError, NoSpace, ToolFailed
from guestagent.files import durable, no_room
from guestagent.host import LocalHost
from tests.guests import Guests

ROOT = os.geteuid() == 0
OWNER = ("nobody", "nogroup")


@pytest.fixture
def folder(inn: Guests) -> Iterator[Path]:
    path = inn.folder / os.urandom(4).hex()
    path.mkdir()
    path.chmod(0o755)
    yield path


@pytest.fixture
def host(folder: Path) -> LocalHost:
    return LocalHost(*OWNER, temp=folder, within=[folder])


def gone(pid: int, within: float = 10.0) -> bool:
    """Wait until a process has gone; a zombie has."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
                continue
        return True
    return False


def python(text: str, *words: str) -> Command:
    return Command(("/usr/bin/python3", "-I", "-c", textwrap.dedent(text), *words))


def test_run_returns_what_was_written(host: LocalHost) -> None:
    done = host.run(Command(("sh", "-c", "cat; echo oops >&2")), stdin=b"hello" * 100_000)
    assert (done.stdout, done.stderr) == (b"hello" * 100_000, b"oops\n")


def test_the_environment_is_minimal(host: LocalHost, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "seen")
    shown = dict(line.split("=", 1) for line in host.run(Command(("env",), {"MORE": "1"})).stdout.decode().split())
    assert shown.keys() <= {"PATH", "LC_ALL", "HOME", "TMPDIR", "MORE"}
    assert (shown["HOME"], shown["TMPDIR"], shown["LC_ALL"], shown["MORE"]) == (str(folder), str(folder), "C", "1")


def test_a_private_prefix_comes_first(folder: Path) -> None:
    made = LocalHost(*OWNER, temp=folder, within=[folder], libraries=[Path("/x/lib")], path=[Path("/x/bin")])
    assert made.environment["LD_LIBRARY_PATH"] == "/x/lib"
    assert made.environment["PATH"].startswith("/x/bin:")


def test_as_owner_is_the_servers_account_without_more(host: LocalHost) -> None:
    shown = host.run(Command(("id",)), as_owner=True).stdout.decode()
    wanted = OWNER[0] if ROOT else pwd.getpwuid(os.geteuid()).pw_name
    assert f"({wanted})" in shown.split()[0]
    if ROOT:
        assert "(root)" not in shown


def test_the_death_signal_is_set_also_after_the_account_has_changed(host: LocalHost) -> None:
    text = """
        import ctypes
        number = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(number))
        print(number.value)
    """
    for as_owner in (False, True):
        assert host.run(python(text), as_owner=as_owner).stdout.strip() == b"9"


def test_tools_die_with_the_agent_even_when_it_is_killed(folder: Path) -> None:
    text = f"""
        from pathlib import Path
        import sys
        from datastores.contract import Command
        from guestagent.host import LocalHost
        host = LocalHost({OWNER[0]!r}, {OWNER[1]!r}, temp=Path({str(folder)!r}), within=[])
        with host.stream(Command(("sleep", "600")), as_owner=True) as sleeping:
            print(sleeping._process.pid, flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(text)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        tool = int(agent.stdout.readline())
        # Until it is the program itself, setpriv may not have asked for the signal yet.
        while psutil.Process(tool).name() != "sleep":
            time.sleep(0.001)
        agent.kill()
    assert gone(tool)


def test_tools_outlive_the_thread_that_asked_for_them(host: LocalHost) -> None:
    entered = contextlib.ExitStack()
    asking = threading.Thread(target=lambda: entered.enter_context(host.stream(Command(("cat",)))))
    asking.start()
    asking.join()
    program = next(iter(host._programs))
    program.write(b"still here")
    window = memoryview(bytearray(10))
    assert program.readinto(window) == 10
    entered.close()


def test_a_secret_is_read_twice_and_seen_nowhere_else(host: LocalHost) -> None:
    text = """
        import pathlib, sys
        path = sys.argv[1].partition("=")[2]
        first, second = pathlib.Path(path).read_bytes(), pathlib.Path(path).read_bytes()
        assert first == second and first, "read once"
        mine = b"".join(pathlib.Path("/proc/self", name).read_bytes() for name in ("cmdline", "environ"))
        assert first not in mine
        sys.stdout.buffer.write(first)
    """
    done = host.run(python(text, "--file={secret}"), as_owner=True, secret=b"canary-4711")
    assert done.stdout == b"canary-4711"


def test_a_failure_says_why_without_the_secret(host: LocalHost) -> None:
    secret = b"[client]\npassword = canary-4711\n"
    with pytest.raises(ToolFailed) as caught:
        host.run(Command(("sh", "-c", 'cat "$0" >&2; printf "\\033[2Jsad\\n" >&2; exit 3', "{secret}")), secret=secret)
    assert "sh ended with status 3" in str(caught.value)
    assert "sad" in str(caught.value)
    assert "canary" not in str(caught.value)
    assert "\033" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failures_words_are_capped(host: LocalHost) -> None:
    with pytest.raises(ToolFailed) as caught:
        host.run(python("import sys; sys.stderr.write('x' * 5_000_000 + 'the end'); sys.exit(1)"))
    assert str(caught.value).endswith("the end")
    assert len(str(caught.value)) < 1000


def test_output_is_bounded(folder: Path) -> None:
    with pytest.raises(ToolFailed, match="more than 100000 bytes"):
        LocalHost(*OWNER, temp=folder, within=[], output=100_000).run(Command(("yes",)))


def test_time_is_bounded(host: LocalHost) -> None:
    with pytest.raises(ToolFailed, match="did not end within 0.2 s"):
        host.run(Command(("sh", "-c", "sleep 60 & sleep 60")), timeout=0.2)


def test_a_missing_program_is_said(host: LocalHost) -> None:
    with pytest.raises(ToolFailed, match="no-such-program"):
        host.run(Command(("/no/such/no-such-program",)))


def test_a_signal_is_named(host: LocalHost) -> None:
    with pytest.raises(ToolFailed, match="SIGTERM"):
        host.run(Command(("sh", "-c", "kill -TERM $$")))


def test_leaving_a_stream_early_kills_the_whole_group(host: LocalHost) -> None:
    window = memoryview(bytearray(32))
    with (
        pytest.raises(RuntimeError),
        host.stream(Command(("sh", "-c", "sleep 600 & echo $!; exec cat")), as_owner=True) as shell,
    ):
        child = int(bytes(window[: shell.readinto(window)]))
        leader = psutil.Process(child).ppid()
        raise RuntimeError
    assert gone(child)
    assert gone(leader)


def test_a_stream_is_read_as_it_comes_and_its_end_is_its_status(host: LocalHost) -> None:
    window = memoryview(bytearray(100_000))
    with host.stream(Command(("sh", "-c", "cat; exit 5"))) as shell:
        shell.write(b"a" * 50_000)
        shell.close_input()
        count = 0
        while got := shell.readinto(window):
            count += got
        assert count == 50_000
        with pytest.raises(ToolFailed, match="status 5"):
            shell.finish()


def test_a_reader_that_stops_is_an_error_with_its_words(host: LocalHost) -> None:
    with (
        pytest.raises(ToolFailed, match="no more"),
        host.stream(Command(("sh", "-c", "echo no more >&2; exit 1"))) as shell,
    ):
        for _ in range(1000):
            shell.write(b"x" * 100_000)


def test_niceness_is_lowered_from_the_first_instruction(host: LocalHost) -> None:
    window = memoryview(bytearray(32))
    with host.stream(Command(("nice",)), nice=7) as shown:
        assert bytes(window[: shown.readinto(window)]).strip() == str(os.nice(0) + 7).encode()
        shown.finish()


def test_interrupt_ends_what_one_thread_runs(host: LocalHost) -> None:
    caught: list[str] = []

    def work() -> None:
        try:
            host.run(Command(("sleep", "600")), timeout=600)
        except ToolFailed as error:
            caught.append(str(error))

    worker = threading.Thread(target=work)
    worker.start()
    with host.stream(Command(("cat",))) as mine:
        while len(host._programs) < 2:
            time.sleep(0.01)
        host.interrupt(worker.ident)
        worker.join(10)
        mine.write(b"x")
        assert mine.readinto(memoryview(bytearray(1))) == 1
    assert caught
    assert "SIGKILL" in caught[0]


def test_a_file_is_replaced_whole(host: LocalHost, folder: Path) -> None:
    path = folder / "file"
    host.write(path, b"one", mode=0o600)
    (folder / ".file.new").symlink_to("/etc/passwd")
    host.write(path, b"two" * 1000, mode=0o640)
    assert path.read_bytes() == b"two" * 1000
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_uid == host.uid
    assert [each.name for each in folder.iterdir()] == ["file"]


def test_no_room_leaves_the_old_file(host: LocalHost, folder: Path) -> None:
    small = Path("/dev/full")
    assert small.exists()
    with pytest.raises(NoSpace, match="no room"), no_room(folder):
        small.write_bytes(b"x")
    host.write(folder / "kept", b"old")
    with pytest.raises(FileNotFoundError):
        host.write(folder / "missing" / "file", b"new")
    assert (folder / "kept").read_bytes() == b"old"


def test_folders_belong_to_the_server(host: LocalHost, folder: Path) -> None:
    host.folder(folder / "a" / "b", mode=0o700)
    host.folder(folder / "a" / "b", mode=0o700)
    for path in (folder / "a", folder / "a" / "b"):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (host.uid, 0o700)
    (folder / "link").symlink_to("/etc")
    with pytest.raises(OSError, match="link"):
        host.folder(folder / "link")


def test_a_tree_is_given_away_links_and_all(host: LocalHost, folder: Path) -> None:
    (folder / "tree" / "deep").mkdir(parents=True)
    (folder / "tree" / "deep" / "file").write_bytes(b"")
    (folder / "outside").write_bytes(b"")
    (folder / "tree" / "link").symlink_to(folder / "outside")
    host.own(folder / "tree")
    assert (folder / "tree" / "deep" / "file").stat().st_uid == host.uid
    assert (folder / "tree" / "link").lstat().st_uid == host.uid
    assert (folder / "outside").stat().st_uid == os.geteuid()


def test_remove_stays_inside(host: LocalHost, folder: Path) -> None:
    (folder / "keep").mkdir()
    (folder / "keep" / "file").write_bytes(b"")
    (folder / "tree").mkdir()
    (folder / "tree" / "link").symlink_to(folder / "keep")
    (folder / "door").symlink_to("/tmp")
    host.remove(folder / "tree")
    host.remove(folder / "tree")
    assert (folder / "keep" / "file").exists()
    for path in (
        folder,
        folder.parent,
        Path("/"),
        Path("/etc/passwd"),
        folder / "..",
        folder / "door" / "x",
        Path("x"),
    ):
        with pytest.raises(BadInput):
            host.remove(path)
    host.remove(folder / "door")
    assert Path("/tmp").is_dir()


def test_space_is_what_is_free(host: LocalHost, folder: Path) -> None:
    found = os.statvfs(folder)
    assert abs(host.space(folder / "not" / "yet") - found.f_bavail * found.f_frsize) < 2**30


def test_two_folders_change_places_in_one_move(host: LocalHost, folder: Path) -> None:
    for name in ("one", "other"):
        (folder / name).mkdir()
        (folder / name / "who").write_text(name)
    host.exchange(folder / "one", folder / "other")
    assert (folder / "one" / "who").read_text() == "other"
    assert (folder / "other" / "who").read_text() == "one"
    with pytest.raises(DatastoreError, match="could not be exchanged"):
        host.exchange(folder / "one", folder / "missing")
    assert (folder / "one" / "who").read_text() == "other"


def test_an_exchange_over_file_systems_is_refused_clearly(host: LocalHost, folder: Path) -> None:
    other = Path("/dev/shm") / f"ostler-{os.getpid()}"
    other.mkdir()
    try:
        with pytest.raises(DatastoreError) as caught:
            host.exchange(folder, other)
        assert caught.value.hint == "both must lie on one file system"
    finally:
        other.rmdir()


def test_our_own_files_are_replaced_whole(folder: Path) -> None:
    durable(folder / "record", b"one")
    durable(folder / "record", b"two")
    assert (folder / "record").read_bytes() == b"two"
    assert (folder / "record").stat().st_mode & 0o777 == 0o600


def test_no_zombie_and_no_descriptor_is_left(host: LocalHost) -> None:
    host.run(Command(("true",)))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        host.run(Command(("true",)), secret=b"x")
        with contextlib.suppress(ToolFailed):
            host.run(Command(("false",)))
    mine = psutil.Process()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert not [each for each in mine.children() if each.status() == psutil.STATUS_ZOMBIE]
    assert signal.getsignal(signal.SIGCHLD) in (signal.SIG_DFL, None)
