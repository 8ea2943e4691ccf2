"""Ports for guests of tests: no two that live at the same time, in whatever process, have the same one.

A guest keeps its port also while nothing listens there: before its server starts, and between two of them.
"""

import contextlib
import socket
from pathlib import Path

from guestagent.node import free_port

_held = list[socket.socket]()


def reserve() -> int:
    """Return a port that nobody listens on; it is this process's for as long as that lives."""
    while True:
        port = free_port("127.0.0.1")
        mark = socket.socket(socket.AF_UNIX)
        try:
            # A name that has no file, and that the kernel gives to one only.
            mark.bind(f"\0ostler-port-{port}")
        except OSError:
            mark.close()
            continue
        _held.append(mark)
        return port


def give(state: Path) -> None:
    """Have a guest that is to choose a port find that it has chosen, and what is reserved for it."""
    with contextlib.suppress(OSError):  # a folder that cannot be made is what some test is about
        state.mkdir(mode=0o711, parents=True, exist_ok=True)
        with (state / "port").open("x") as file:
            file.write(str(reserve()))
