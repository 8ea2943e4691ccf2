"""What may be set on a Cassandra server, what is set, and making it so."""

import json
from collections.abc import Mapping

from datastores.cassandra import jolokia
from datastores.cassandra.conf import HEAP, read
from datastores.cassandra.layout import folders
from datastores.contract import BadInput, Node, Rule, Settings

CLUSTER = "ostler"
CENTRE, RACK = "dc1", "rack1"
STORAGE_PORT = "7000"
FIXED: Mapping[str, str] = {
    "authenticator": "PasswordAuthenticator",
    "authorizer": "CassandraAuthorizer",
    "role_manager": "CassandraRoleManager",
    "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
    "endpoint_snitch": "GossipingPropertyFileSnitch",
    "uuid_sstable_identifiers_enabled": "true",
}
"""What the design fixes: accounts are asked for, and no file's name is ever used twice."""


class CassandraSettings(Settings):
    """Rules in ``settings.toml``; the truth from ``system_views.settings``."""

    def rules(self) -> Mapping[str, Rule]:
        """Return what a tenant may set, by name."""
        return {}

    def base(self) -> Mapping[str, str]:
        """Return the agent's own layer: paths, addresses, what the design fixes."""
        return {**FIXED, **folders(self.node.places.data), **addresses(self.node), **START}

    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the values in the server's spelling; ``BadInput`` names the first bad one and its rule."""
        for name in values:
            raise BadInput(f"setting {name[:80]!r} is not one that may be set here", field=name[:80])
        return {}

    def written(self) -> dict[str, str]:
        """Return what the server would read from ``places.config``."""
        return read(self.node.places.config)

    def effective(self) -> dict[str, str]:
        """Return what the running server really uses, in the spelling of ``check``."""
        return {}

    def apply(self, values: Mapping[str, str]) -> None:
        """Apply dynamic settings to the running server, and read them back."""


START: Mapping[str, str] = {
    "cluster_name": CLUSTER,
    "num_tokens": "16",
    "allocate_tokens_for_local_replication_factor": "3",
    "commitlog_sync": "periodic",
    "commitlog_sync_period": "10s",
    # A table that is dropped is gone: links to its files would fill the disk, and nobody would look for them.
    "auto_snapshot": "false",
    "place.dc": CENTRE,
    "place.rack": RACK,
    HEAP: "256MiB",
}


def addresses(node: Node) -> dict[str, str]:
    """Return where the node is reached: by tenants at its endpoint, by its ring there too or within this machine.

    A node that is its ring's only seed has nobody to wait for when it starts; a ring within one machine hears of
    every change in a second.
    """
    host, port = node.endpoint.host, node.endpoint.port
    ring = jolokia.address(node) if local(host) else host
    seeds = [{"class_name": "org.apache.cassandra.locator.SimpleSeedProvider", "parameters": [{"seeds": ring}]}]
    quick = {"property.cassandra.ring_delay_ms": "2000"} if local(ring) else {}
    return {
        "listen_address": ring,
        "storage_port": STORAGE_PORT,
        "rpc_address": host,
        **({"broadcast_rpc_address": ring} if host in ("0.0.0.0", "::") else {}),
        "native_transport_port": str(port),
        "seed_provider": json.dumps(seeds),
        "property.cassandra.skip_wait_for_gossip_to_settle": "0",
        "property.cassandra.superuser_setup_delay_ms": "0",
        **quick,
    }


def local(host: str) -> bool:
    """Say whether nobody outside this machine reaches the address, or whether none was named."""
    return host.startswith("127.") or host in ("::1", "0.0.0.0", "::", "localhost")
