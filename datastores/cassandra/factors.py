"""How many nodes keep each row of a keyspace, by data centre.

The server takes a factor above the nodes there are with no more than a warning; such a keyspace then lets no node
leave.  So the guard is ours.  What is not asked for is three, or as many as there are: no keyspace is made with one
copy where a second node could hold another, unless that is asked for by name.
"""

import re
from collections import Counter
from collections.abc import Mapping

from datastores.cassandra.client import Session
from datastores.cassandra.schema import tenants
from datastores.contract import BadInput

WANTED = 3


def nodes(cql: Session) -> dict[str, int]:
    """Return how many nodes each data centre has, those that are down among them."""
    here = cql.execute("SELECT data_center FROM system.local").one()
    others = cql.execute("SELECT data_center FROM system.peers_v2")
    return dict(Counter(str(each.data_center) for each in (here, *others)))


def replications(cql: Session) -> dict[str, str]:
    """Return the tenant's keyspaces with the replication each has, as ``factors`` takes it."""
    told = cql.execute("SELECT keyspace_name, replication FROM system_schema.keyspaces")
    return {each.keyspace_name: _shown(each.replication) for each in told if tenants(each.keyspace_name)}


def factors(asked: str | None, there: Mapping[str, int]) -> dict[str, int]:
    """Return the factor of each data centre: what was asked for, or the default; ``BadInput`` where it cannot be.

    ``asked`` is a number, meant for every data centre, or ``dc1:3,dc2:2``; a centre not named then keeps nothing.
    """
    if asked is None:
        return {center: min(WANTED, count) for center, count in sorted(there.items())}
    wanted = dict.fromkeys(sorted(there), _number(asked)) if asked.isdecimal() else _by_center(asked)
    for center, factor in wanted.items():
        if center not in there:
            raise _refused(f"there is no data centre {center[:80]!r}, but {', '.join(sorted(there))}")
        if factor > there[center]:
            raise _refused(f"{factor} copies in {center}, which has {there[center]} node(s)")
    return wanted


def fitting(told: Mapping[str, str], there: Mapping[str, int]) -> dict[str, int]:
    """Return the factors that a backup's keyspace gets here: its own, and never above the nodes there are.

    ``told`` is its replication as the server has it; where none of its data centres is here, it is the default.
    """
    plain = {center: int(factor.partition("/")[0]) for center, factor in told.items() if factor[:1].isdigit()}
    same = plain.pop("replication_factor", None)
    wanted = plain if same is None else dict.fromkeys(there, same)
    fits = {center: min(factor, there[center]) for center, factor in sorted(wanted.items()) if center in there}
    return {center: factor for center, factor in fits.items() if factor} or factors(None, there)


def _by_center(asked: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in asked.split(","):
        center, _, factor = each.strip().rpartition(":")
        if not center or center in found:
            raise _refused("wanted is a number, or a number for each data centre as dc1:3,dc2:2")
        found[center] = _number(factor)
    return found


def _number(factor: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,2}", factor):
        raise _refused("a number of copies is a whole number from 1 on")
    return int(factor)


def _refused(reason: str) -> BadInput:
    return BadInput(f"this replication is refused: {reason}", field="replication")


def _shown(options: Mapping[str, str]) -> str:
    """Return a replication in one line; of another strategy than ours its name, too."""
    strategy = options["class"].rpartition(".")[2]
    rest = ",".join(f"{name}:{value}" for name, value in sorted(options.items()) if name != "class")
    return rest if strategy == "NetworkTopologyStrategy" else f"{strategy} {rest}"
