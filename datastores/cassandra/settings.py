"""What may be set on a Cassandra server, what is set, and making it so."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from datastores.cassandra import jolokia
from datastores.cassandra.client import session
from datastores.cassandra.conf import HEAP, IMAGE, LEVEL, read
from datastores.cassandra.jolokia import Management
from datastores.cassandra.layout import folders
from datastores.cassandra.rules import table
from datastores.cassandra.units import spell
from datastores.contract import BadInput, Node, Rule, Settings, ToolFailed

STORAGE_PORT = "7000"
FIXED: Mapping[str, str] = {
    "authenticator": "PasswordAuthenticator",
    "authorizer": "CassandraAuthorizer",
    "role_manager": "CassandraRoleManager",
    "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
    "endpoint_snitch": "GossipingPropertyFileSnitch",
    "commitlog_sync": "periodic",
    "uuid_sstable_identifiers_enabled": "true",
    # A table that is dropped is gone: links to its files would fill the disk, and nobody would look for them.
    "auto_snapshot": "false",
}
"""What the design fixes: accounts are asked for, writes are logged, no file's name is ever used twice."""
START: Mapping[str, str] = {
    "cluster_name": "ostler",
    "num_tokens": "16",
    "allocate_tokens_for_local_replication_factor": "3",
    "commitlog_sync_period": "10s",
    "disk_failure_policy": "stop",
    "commit_failure_policy": "stop",
    "place.dc": "dc1",
    "place.rack": "rack1",
    # What a row costs in memory is measured at each start; a hundred times fewer rows tell the same.
    "property.cassandra.memtable_row_overhead_computation_step": "1000",
}
SMALL = "256MiB"
"""The heap of a server that shares its machine."""
EVERYWHERE = ("0.0.0.0", "::")
RUNTIME = "java.lang:type=Runtime"


class CassandraSettings(Settings):
    """Rules in ``settings.toml``; the truth from ``system_views.settings``, the log and the machine's command line."""

    def rules(self) -> Mapping[str, Rule]:
        """Return what a tenant may set, by name."""
        return {name: way.rule for name, way in table().items()}

    def base(self) -> Mapping[str, str]:
        """Return the agent's own layer: paths, addresses, what the design fixes; below it lies the image's own file."""
        packaged = self.node.installation.config
        image = {IMAGE: str(packaged)} if packaged.is_file() else {}
        return {
            **image,
            **START,
            **FIXED,
            HEAP: heap(self.node),
            **folders(self.node.places.data),
            **addresses(self.node),
        }

    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the values in the server's spelling; ``BadInput`` names the first bad one and its rule."""
        known, found = table(), dict[str, str]()
        for name, value in values.items():
            if name not in known:
                raise BadInput(f"setting {name[:80]!r} is not one that may be set here", field=name[:80])
            found[name] = known[name].canonical(value)
        return found

    def written(self) -> dict[str, str]:
        """Return what the server would read from ``places.config``, by a reader that is stricter than its own."""
        return read(self.node.places.config)

    def effective(self) -> dict[str, str]:
        """Return what the running server really uses, in the spelling of ``check``."""
        with session(self.node) as cql:
            rows = cql.execute("SELECT name, value FROM system_views.settings")
            told: dict[str, Any] = {each.name: each.value for each in rows}
        management = Management(self.node)
        told[LEVEL] = management.read(jolokia.STORAGE, "LoggingLevels").get("ROOT")
        told[HEAP] = _heap(management)
        return {name: _spelled(name, str(told[name])) for name in table() if told.get(name) is not None}

    def apply(self, values: Mapping[str, str]) -> None:
        """Apply dynamic settings to the running server, and read them back."""
        wanted, management = self.check(values), Management(self.node)
        for name, value in wanted.items():
            if not table()[name].rule.dynamic:
                raise BadInput(f"setting {name} takes effect at a restart only", field=name)
            try:
                _change(management, name, value)
            except ToolFailed as error:
                raise BadInput(f"setting {name} was refused: {error}", field=name) from None
        running = self.effective()
        for name, value in wanted.items():
            if running.get(name) != value:
                raise BadInput(f"setting {name} did not take: the server uses {running.get(name)!r}", field=name)


def addresses(node: Node) -> dict[str, str]:
    """Return where the node is reached: by tenants at its endpoint, by its ring there too, or within this machine.

    A node that is its ring's only seed has nobody to hear from, to wait for, or to tell that it ends.
    """
    host = node.endpoint.host
    ring = jolokia.address(node) if own(host) or host in EVERYWHERE else host
    seeds = [{"class_name": "org.apache.cassandra.locator.SimpleSeedProvider", "parameters": [{"seeds": ring}]}]
    return {
        "listen_address": ring,
        "storage_port": STORAGE_PORT,
        "rpc_address": host,
        **({"broadcast_rpc_address": ring} if host in EVERYWHERE else {}),
        "native_transport_port": str(node.endpoint.port),
        "seed_provider": json.dumps(seeds),
        "property.cassandra.skip_wait_for_gossip_to_settle": "0",
        "property.cassandra.superuser_setup_delay_ms": "0",
        "property.cassandra.shutdown_announce_in_ms": "0",
        "property.cassandra.ring_delay_ms": "0",
    }


def heap(node: Node) -> str:
    """Return the heap a node starts with: by the machine's memory, as the server's own scripts have it.

    One that nobody outside reaches is not alone on its machine, and is small.
    """
    if own(node.endpoint.host):
        return SMALL
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = max(min(memory // 2, 1 << 30), min(memory // 4, 8 << 30))
    return spell("storage", wanted >> 20 << 20, "MiB")


def own(host: str) -> bool:
    """Say whether the address is the machine's own, which nobody outside reaches."""
    return host.startswith("127.") or host in ("::1", "localhost")


def _change(management: Management, name: str, value: str) -> None:
    way = table()[name]
    if name == LEVEL:
        management.call(jolokia.STORAGE, jolokia.LOGGING, "ROOT", value)
    else:
        management.write(way.bean, way.attribute, way.managed(value))


def _heap(management: Management) -> str | None:
    """Return what the virtual machine was told; what it uses is less by a part that it keeps free."""
    found = [each for each in management.read(RUNTIME, "InputArguments") if re.fullmatch(r"-Xmx[0-9]+", each)]
    return spell("storage", int(found[-1].removeprefix("-Xmx")), "MiB") if found else None


def _spelled(name: str, value: str) -> str:
    try:
        return table()[name].canonical(value)
    except BadInput:
        return value
