"""Where a server stands: a moment of its oplog, and under which reign."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bson import Timestamp

from datastores.contract import JSON, Incomplete, Mismatch
from datastores.mongodb.client import Client

PATIENCE = 30.0


@dataclass(frozen=True)
class Position:
    """A majority-committed moment of the oplog.

    ``term`` is the entry's own, which for a moment after an election is not yet the server's.  ``rollback`` counts the
    rollbacks this server has seen, ``compatibility`` is its feature compatibility version.
    """

    seconds: int
    increment: int
    term: int
    rollback: int
    compatibility: str

    @property
    def ts(self) -> Timestamp:
        """Return the moment as the oplog has it."""
        return Timestamp(self.seconds, self.increment)

    def to_json(self) -> dict[str, JSON]:
        """Return it as it is shown and kept."""
        return {
            "seconds": self.seconds,
            "increment": self.increment,
            "term": self.term,
            "rollback_id": self.rollback,
            "feature_compatibility": self.compatibility,
        }

    @classmethod
    def of(cls, position: Mapping[str, JSON]) -> "Position":
        """Read one back; ``Mismatch`` where it is not whole."""
        values = [position.get(each) for each in ("seconds", "increment", "term", "rollback_id")]
        numbers = [each for each in values if isinstance(each, int)]
        if len(numbers) != len(values):
            raise Mismatch("the backup's position is not a moment of an oplog")
        seconds, increment, term, rollback = numbers
        return cls(seconds, increment, term, rollback, str(position.get("feature_compatibility", "")))

    def __str__(self) -> str:
        return f"{self.seconds}.{self.increment} (term {self.term})"


def shown(moment: Timestamp) -> str:
    """Return a moment as messages have it."""
    return f"{moment.time}.{moment.inc}"


def now(client: Client) -> Position:
    """Return the newest moment that a majority holds."""
    found = client.admin.command("replSetGetStatus")["optimes"]["readConcernMajorityOpTime"]
    return Position(found["ts"].time, found["ts"].inc, int(found["t"]), _rollbacks(client), compatibility(client))


def reign(client: Client) -> tuple[int, int]:
    """Return the term that the server is in and how many rollbacks it has seen: both stay, or reads do not fit."""
    return int(client.admin.command("replSetGetStatus")["term"]), _rollbacks(client)


def settled(client: Client) -> Position:
    """Return a moment that a majority holds and that has all that can be seen of the server now.

    A collection that was dropped is gone at once, and its drop is a majority's a little later; ``Incomplete`` where
    that does not come.
    """
    seen = client.admin.command("replSetGetStatus")["optimes"]["appliedOpTime"]["ts"]
    end = time.monotonic() + PATIENCE
    while (here := now(client)).ts < seen:
        if time.monotonic() > end:
            raise Incomplete("a majority of the set does not take what was written last", hint="take it again")
        time.sleep(0.02)
    return here


def compatibility(client: Client) -> str:
    """Return the server's feature compatibility version, as ``6.0``."""
    told = client.admin.command("getParameter", 1, featureCompatibilityVersion=1)
    return str(told["featureCompatibilityVersion"]["version"])


def comply(client: Client, version: str) -> None:
    """Have the server at this feature compatibility version."""
    if compatibility(client) != version:
        client.admin.command("setFeatureCompatibilityVersion", version)


def set_id(client: Client) -> str:
    """Return the identity of the data: that of the replica set, made when its first member was initiated."""
    config: dict[str, Any] = client.admin.command("replSetGetConfig")["config"]
    return str(config["settings"]["replicaSetId"])


def _rollbacks(client: Client) -> int:
    found = client.local["system.rollback.id"].find_one({"_id": "rollbackId"}) or {}
    return int(found.get("rollbackId", 0))
