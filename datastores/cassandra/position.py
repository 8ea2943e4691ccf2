"""Where a node stands: whose data it is, which part of the ring is its, and what its schema and its data are."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from datastores.cassandra.client import Session
from datastores.cassandra.schema import Schema, tenants
from datastores.contract import JSON, Identity, Mismatch

AUTH = "system_auth"


@dataclass(frozen=True)
class Position:
    """A node at one moment.

    ``peers`` are the other nodes, as address, data centre and rack; ``segments`` the commit-log files that there were;
    ``run`` counts the starts of the server, and ``writes`` what tenants' tables and roles took since the last one.
    """

    host_id: str
    cluster: str
    version: str
    data_center: str
    rack: str
    tokens: tuple[str, ...]
    peers: tuple[str, ...]
    schema: str
    segments: tuple[str, ...]
    run: int
    writes: int

    def to_json(self) -> dict[str, JSON]:
        """Return it as it is shown and kept."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, position: Mapping[str, JSON]) -> "Position":
        """Read one back; ``Mismatch`` where it is not whole."""
        told = {each.name: position.get(each.name) for each in fields(cls)}
        lists = {"tokens", "peers", "segments"}
        for name, value in told.items():
            wanted = list if name in lists else int if name in ("run", "writes") else str
            if not isinstance(value, wanted):
                raise Mismatch(f"the backup's position has no {name}")
        values: dict[str, Any] = {name: tuple(map(str, told[name])) if name in lists else told[name] for name in told}  # type: ignore[arg-type]
        return cls(**values)

    def differs(self, here: "Position", restored: Identity | None) -> str:
        """Return in what a node ``here`` does not stand at this position, or nothing; None: it was never restored."""
        wrong = [each for each in ("tokens", "schema") if getattr(self, each) != getattr(here, each)]
        if (self.host_id == here.host_id) == (restored == "new"):
            wrong.append("host_id")
        if restored is None:
            wrong += [each for each in ("run", "writes") if getattr(self, each) != getattr(here, each)]
        return ", ".join(f"{each} is {getattr(here, each)}, not {getattr(self, each)}" for each in wrong)

    def __str__(self) -> str:
        return f"node {self.host_id}, schema {self.schema}, run {self.run}, write {self.writes}"


def now(session: Session, schema: Schema, data: Path) -> Position:
    """Return where the server stands that answers; ``data`` is its folder, ``schema`` what was read of it."""
    here = session.execute("SELECT * FROM system.local WHERE key = 'local'").one()
    peers = session.execute("SELECT peer, data_center, rack FROM system.peers_v2")
    return Position(
        host_id=str(here.host_id),
        cluster=here.cluster_name,
        version=here.release_version,
        data_center=here.data_center,
        rack=here.rack,
        tokens=tuple(sorted(here.tokens, key=int)),
        peers=tuple(sorted(f"{row.peer} {row.data_center} {row.rack}" for row in peers)),
        schema=schema.digest(),
        segments=tuple(sorted(each.name for each in (data / "commitlog").glob("CommitLog-*.log"))),
        run=int(here.gossip_generation),
        writes=writes(session),
    )


def host_id(session: Session) -> str:
    """Return the identity of the node's data."""
    return str(session.execute("SELECT host_id FROM system.local WHERE key = 'local'").one().host_id)


def run(session: Session) -> int:
    """Return which start of the server this is."""
    return int(session.execute("SELECT gossip_generation FROM system.local WHERE key = 'local'").one()[0])


def writes(session: Session) -> int:
    """Return how many writes tenants' tables and the tables of roles took since the server started."""
    told = session.execute("SELECT keyspace_name, count FROM system_views.local_write_latency")
    return sum(int(row.count) for row in told if tenants(row.keyspace_name) or row.keyspace_name == AUTH)
