"""What a kill may leave behind, looked for from outside: on the server, in the guest's folders, among the processes.

``Aftermath.of`` is taken of a guest that is at rest; two of the same guest compare equal when nothing was left.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil

from datastores.contract import JSON, Node, Secret
from guestagent import declarations
from guestagent.rpc.client import connect
from tests.agents import LiveAgent, until
from tests.cases import node_of, sample_of

ENDED = frozenset({"succeeded", "failed", "interrupted", "cancelled"})
GENERATIONS = 3
RANDOM = re.compile(r"\d{12,}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""How a server's runtime names the libraries that it unpacks for itself."""
LEARNT = ("cache", "clusters")
"""What an agent keeps of its store from one backup to the next, whether that one came to anything or not."""
PASSWORD = "pw-ann-1"


@dataclass(frozen=True)
class Aftermath:
    """A guest at rest: what lies beside its data, who may log in, and what its server really reads."""

    files: frozenset[str]
    accounts: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, agent: LiveAgent) -> "Aftermath":
        """Look at a guest whose server runs."""
        node = node_of(agent)
        effective = declarations.load(agent.datastore).settings(node).effective()
        # A probe is the agent's own write, and another one every time.
        settings = sorted((name, value) for name, value in effective.items() if name != "probe")
        return cls(files_of(agent), tuple(sorted(accounts(agent, node))), tuple(settings))


def files_of(agent: LiveAgent) -> frozenset[str]:
    """Return the names below the guest's state and root, without what is counted up or random in them."""
    found = set[str]()
    for folder in (agent.state, agent.root):
        for parts in below(folder):
            if parts[0] in LEARNT or (parts[0] == "data" and len(parts) > 1):
                continue
            if parts[0] == "config.d":
                parts = (parts[0], "N", *parts[2:])
            if parts[0] != "log":
                found.add(RANDOM.sub("N", "/".join((folder.name, *parts))))
    assert len(list((agent.root / "config.d").iterdir())) <= GENERATIONS
    return frozenset(found)


def below(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield what is below a folder, by its parts; what a running server removes meanwhile disturbs nobody."""
    for at, folders, names in os.walk(folder):
        for name in (*folders, *names):
            yield (*Path(at).relative_to(folder).parts, name)


def accounts(agent: LiveAgent, node: Node) -> list[str]:
    """Return every account that the server itself has, ours among them; others are asked as a tenant."""
    if agent.datastore == "mariadb":
        from datastores.mariadb.client import rows, session

        with session(node) as cursor:
            return [f"{user}@{host}" for user, host in rows(cursor, "SELECT User, Host FROM mysql.global_priv")]
    return [str(each) for each in cast("list[object]", ask(agent, "user", "list"))]


def ask(agent: LiveAgent, noun: str, verb: str, **args: JSON) -> JSON:
    """Ask the agent without a command, which takes a second to start."""
    client = connect(agent.url)
    try:
        return client.call(noun, verb, args, deadline=20)
    finally:
        client.close()


def operation_of(agent: LiveAgent, request_id: str) -> dict[str, JSON]:
    """Return the one operation that a request became."""
    rows = cast("list[dict[str, JSON]]", ask(agent, "operation", "list"))
    [found] = [each for each in rows if each["request_id"] == request_id]
    return found


def shown(agent: LiveAgent, operation: object) -> dict[str, JSON]:
    """Return an operation as the agent shows it."""
    return cast("dict[str, JSON]", ask(agent, "operation", "show", id=str(operation)))


def ends(agent: LiveAgent, operation: object, timeout: float = 120.0) -> dict[str, JSON]:
    """Wait until an operation has ended and return it."""
    until(lambda: shown(agent, operation)["state"] in ENDED, timeout, f"operation {operation} ends")
    return shown(agent, operation)


def alone(agent: LiveAgent) -> None:
    """Exactly one server runs on the guest's data, and no tool beside it."""
    server = agent.status()["server_pid"]
    try:
        until(lambda: [each.pid for each in agent.servers()] == [server], 30, "one server runs")
    except AssertionError:
        raise AssertionError(f"not one server runs, but {told(agent)}") from None


def told(agent: LiveAgent) -> list[tuple[int, list[str]]]:
    """Return the processes on a guest's data, for a message."""
    found = []
    for each in agent.servers():
        with contextlib.suppress(psutil.Error):
            found.append((each.pid, each.cmdline()))
    return found


def whole(agent: LiveAgent, digest: dict[str, str]) -> None:
    """The database answers, holds what it held, takes a write and lets its tenant in, and nobody with another word."""
    agent.ostler("status", "--wait", "HEALTHY", "--timeout", "120")
    sample = sample_of(agent)
    assert sample.digest() == digest
    assert sample.login("ann", Secret(PASSWORD))
    assert not sample.login("ann", Secret("pw-ann-2"))


def objects(agent: LiveAgent) -> set[str]:
    """Return the names of all objects in the guest's realm, whichever cluster has them."""
    found = set[str]()
    for cluster in agent.site.clusters:
        for path in cluster.glob("*/*"):
            if path.is_file() and not path.name.startswith(".") and not path.parent.name.startswith("."):
                found.add(f"{path.parent.name}/{path.name}")
    return found


def attempts(names: set[str]) -> set[str]:
    """Leave out what is a generation's and no attempt's: the record of where it lies outlives its last pack."""
    return {each for each in names if "/placement." not in each}


def waste(agent: LiveAgent) -> set[str]:
    """Return what ``purge --dry-run`` would free."""
    plan = agent.ostler("purge", "--dry-run")
    assert isinstance(plan, dict)
    assert set(plan["keep"]) | set(plan["free"]) == objects(agent)
    assert set(plan["why"]) == objects(agent)
    return set(plan["free"])


def no_drafts(agent: LiveAgent) -> None:
    """No half-written file of a writer that is gone lies in the realm or in the guest's cache."""
    lying = list((agent.state / "cache").glob(".*"))
    assert not lying, lying


def begin(agent: LiveAgent, noun: str, verb: str, **args: JSON) -> str:
    """Give an order; return its operation's id without waiting for it."""
    return str(cast("dict[str, JSON]", ask(agent, noun, verb, **args))["id"])


def streaming(agent: LiveAgent, operation: str, at_least: int = 0) -> dict[str, JSON]:
    """Wait until a backup is streaming and so many bytes have gone by; they are told once a second."""
    end = time.monotonic() + 60
    while True:
        found = shown(agent, operation)
        done = int(str(cast("dict[str, JSON]", found["progress"])["done"]))
        if found["step"] == "stream" and done >= at_least:
            return found
        assert found["state"] == "running" and time.monotonic() < end, found
        time.sleep(0.01)


def listed(agent: LiveAgent, backup: object) -> dict[str, JSON]:
    """Return one backup as ``backup list`` shows it."""
    rows = cast("list[dict[str, JSON]]", agent.ostler("backup", "list"))
    [found] = [each for each in rows if each["id"] == backup]
    return found
