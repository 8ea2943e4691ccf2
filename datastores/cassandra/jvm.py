"""The virtual machine the server runs in: its options by the size of the heap, and the server's command.

A file of options is read by ``java`` itself (``@FILE``), so that no shell is between us and the server.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from datastores.contract import Command, Node

OPTIONS = "jvm.options"
OPENED = Path(__file__).with_name("jvm17.options")
CLASSES = "classes.jsa"
"""Beside the server's jar: the classes of a start, for Java to map; with it a start takes two thirds of the time."""
DAEMON = "org.apache.cassandra.service.CassandraDaemon"
SMALL = 1 << 30
"""Below this heap start-up is most of what the compiler would do: one collector thread, the first compiler only."""

UNPACKED = ("*.so", "*.so.lck", "jna*.tmp")
SETTLED = 600.0
"""A library is loaded as soon as it is unpacked; after so many seconds it surely is."""


def options(heap: int, properties: Sequence[tuple[str, str]]) -> bytes:
    """Return the file of options for a heap of so many bytes, with these properties of the server."""
    small = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
    large = ("-XX:+UseG1GC", "-XX:MaxGCPauseMillis=300", "-XX:+ParallelRefProcEnabled", f"-Xms{heap}")
    lines = [
        f"-Xmx{heap}",
        "-Xss256k",
        *(small if heap < SMALL else large),
        # Out of memory, it ends: half a server answers its peers, and nobody else.
        "-XX:+ExitOnOutOfMemoryError",
        # Otherwise every account of the machine may read its counters.
        "-XX:-UsePerfData",
        "-XX:+DisableAttachMechanism",
        *words(OPENED.read_text()),
        *(f"-D{name}={value}" for name, value in properties),
    ]
    return "".join(f"{_quoted(each)}\n" for each in lines).encode()


def words(text: str) -> list[str]:
    """Return the options of a file as ``options`` writes it."""
    lines = (line.strip() for line in text.splitlines() if not line.startswith("#"))
    return [re.sub(r"\\(.)", r"\1", line[1:-1]) if line.startswith('"') else line for line in lines if line]


def command(node: Node, config: Path, data: Path, *more: str) -> Command:
    """Return the server's command: on the generation ``config`` and the folder ``data``."""
    tools = node.installation.tools
    classes = tools["library"].with_name(CLASSES)
    return Command(
        (
            str(tools["server"]),
            f"@{config / OPTIONS}",
            *((f"-XX:SharedArchiveFile={classes}",) if classes.is_file() else ()),
            f"-Dcassandra.config={(config / 'cassandra.yaml').as_uri()}",
            f"-Dcassandra-rackdc.properties={(config / 'cassandra-rackdc.properties').as_uri()}",
            f"-Dlogback.configurationFile={config / 'logback.xml'}",
            f"-Dcassandra.storagedir={data}",
            "-Dcassandra-foreground=yes",
            # Where it unpacks libraries of its own, and leaves them where it is killed.
            *(f"-D{each}={node.places.run}" for each in ("java.io.tmpdir", "jna.tmpdir", "user.home")),
            *more,
            "-cp",
            class_path(node),
            DAEMON,
        )
    )


def sweep(node: Node) -> None:
    """Remove what killed servers have left of the libraries they unpacked; a running one needs the names no more."""
    for each in (found for kind in UNPACKED for found in node.places.run.glob(kind)):
        if time.time() - each.lstat().st_mtime > SETTLED:
            node.host.remove(each)


def class_path(node: Node) -> str:
    """Return where the server's classes lie: its own jar, and what it depends on."""
    folder = node.installation.tools["library"].parent
    return f"{folder}/*:{folder}/lib/*"


def _quoted(word: str) -> str:
    if not any(each in word for each in " \t'#\"\\"):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
