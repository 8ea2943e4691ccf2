"""The virtual machine the server runs in: its options by the size of the heap, and the server's command.

A file of options is read by ``java`` itself (``@FILE``), so that no shell is between us and the server.
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from datastores.contract import Command, Node

OPTIONS = "jvm.options"
DAEMON = "org.apache.cassandra.service.CassandraDaemon"
SMALL = 1 << 30
"""Below this heap start-up is most of what the compiler would do: one collector thread, the first compiler only."""

_BASE_OPENS = (
    "java.io java.lang java.lang.module java.lang.reflect java.math java.net java.nio java.util java.util.concurrent "
    "java.util.concurrent.atomic jdk.internal.loader jdk.internal.math jdk.internal.module jdk.internal.ref "
    "jdk.internal.reflect jdk.internal.util.jar sun.nio.ch"
)
OPENS = (
    *(f"java.base/{each}" for each in _BASE_OPENS.split()),
    "jdk.compiler/com.sun.tools.javac",
    "jdk.management/com.sun.management.internal",
)
EXPORTS = (
    "java.base/java.lang.ref",
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.attach/sun.tools.attach",
    "jdk.compiler/com.sun.tools.javac.file",
    "jdk.unsupported/sun.misc",
)
"""What of the machine's own the server takes hold of; it does not start without."""
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
        *(f"--add-opens={each}=ALL-UNNAMED" for each in OPENS),
        *(f"--add-exports={each}=ALL-UNNAMED" for each in EXPORTS),
        *(f"-D{name}={value}" for name, value in properties),
    ]
    return "".join(f"{_quoted(each)}\n" for each in lines).encode()


def words(text: str) -> list[str]:
    """Return the options of a file that ``options`` has written."""
    lines = (line.strip() for line in text.splitlines())
    return [re.sub(r"\\(.)", r"\1", line[1:-1]) if line.startswith('"') else line for line in lines if line]


def command(node: Node, config: Path, data: Path, *more: str) -> Command:
    """Return the server's command: on the generation ``config`` and the folder ``data``."""
    tools = node.installation.tools
    return Command(
        (
            str(tools["server"]),
            f"@{config / OPTIONS}",
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
