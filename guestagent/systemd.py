"""``UnitService``: the database server as a unit of systemd, pointed at our configuration."""

import contextlib
import time
from pathlib import Path

from datastores.contract import Admin, Command, DatastoreError, Fate, Host, Node, NotReady, ToolFailed
from guestagent.processes import wait_until

DROP_INS = Path("/etc/systemd/system")


class UnitService:
    """Keep ``contract.Service`` through ``systemctl``; the drop-in is the only file of systemd's we write."""

    def __init__(self, node: Node, admin: Admin, *, host: Host | None = None, drop_ins: Path = DROP_INS) -> None:
        self._node = node
        self._admin = admin
        self._host = host if host is not None else node.host
        self._drop_in = drop_ins / f"{node.installation.unit}.d" / "ostler.conf"

    def start(self, *, timeout: float = 120.0) -> None:
        """Point the unit at our configuration, start it and wait until the server answers."""
        until = time.monotonic() + timeout
        self._point()
        self._systemctl("start", timeout=timeout)
        pause, last = 0.01, NotReady("it is starting")
        while True:
            try:
                return self._admin.ping()
            except NotReady as error:
                last = error
            if self.pid() is None:
                raise ToolFailed(f"{self._node.installation.unit} ended before the server answered")
            if wait_until(until) == 0.0:
                raise NotReady(f"the server did not answer within {timeout:g} s: {last}") from last
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def stop(self, *, timeout: float = 120.0, data: Fate = "kept") -> None:
        """Quiesce and stop the unit; systemd kills what does not end, and knows one way only."""
        if self.pid() is not None:
            with contextlib.suppress(DatastoreError):
                if data != "discarded":
                    self._admin.quiesce()
            self._systemctl("stop", timeout=timeout)

    def pid(self) -> int | None:
        """Return the unit's main process, or None where it does not run."""
        shown = self._systemctl("show", "--property=MainPID", "--value").strip()
        return int(shown) if shown.isdigit() and shown != "0" else None

    def _systemctl(self, word: str, *options: str, timeout: float = 30.0) -> str:
        argv = ("systemctl", word, *options, "--", self._node.installation.unit)
        return self._host.run(Command(argv), timeout=timeout).stdout.decode()

    def _point(self) -> None:
        command = self._admin.command()
        lines = ["[Service]", "Type=exec", "ExecStart=", f"ExecStart={' '.join(map(quoted, command.argv))}"]
        lines += [f"User={self._node.installation.owner}", f"Group={self._node.installation.group}"]
        lines += [f"Environment={quoted(f'{name}={value}')}" for name, value in command.env.items()]
        wanted = ("\n".join(lines) + "\n").encode()
        if not self._drop_in.is_file() or self._drop_in.read_bytes() != wanted:
            self._host.folder(self._drop_in.parent, mode=0o755)
            self._host.write(self._drop_in, wanted, mode=0o644)
            self._host.run(Command(("systemctl", "daemon-reload")))


def quoted(word: str) -> str:
    """Return one word as a unit file wants it: in quotes, specifiers and variables taken literally."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"'.replace("\n", "\\n")


def in_charge() -> bool:
    """Say whether PID 1 is systemd."""
    return Path("/run/systemd/system").is_dir() and Path("/proc/1/comm").read_text().strip() == "systemd"
