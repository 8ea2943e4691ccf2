"""Archives that live servers filled, spoilt a thousand ways: no wrong byte is ever released."""

import os
from pathlib import Path

from objectstore.archive import Archive
from objectstore.keys import LocalKeys
from tests.agents import LiveAgent, site
from tests.cases import Case, sample_of
from tests.corruption import Objects, Truth, onslaught
from tests.fakes_archive import MemoryStore

ROUNDS = 400 * int(os.environ.get("OSTLER_COUNT", "1"))
LARGEST = 5_000_000


def objects_of(cluster: Path) -> Objects:
    """Return a cluster's objects by name."""
    found = (path for path in cluster.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(cluster)): path.read_bytes() for path in found}


def backup(agent: LiveAgent, kit: Path) -> Truth:
    """Take a backup and extract it: what it is meant to be."""
    made = agent.ostler("backup", "create")
    assert isinstance(made, dict)
    agent.ostler("backup", "extract", str(made["id"]), "--into", str(kit))
    files = {str(path.relative_to(kit)): path.read_bytes() for path in kit.rglob("*") if path.is_file()}
    return Truth(str(made["id"]), str(made["digest"]), files)


def test_no_corruption_of_a_live_servers_archive_is_missed(datastore_case: Case) -> None:
    name, version, options = datastore_case
    with site() as place:
        agent = place.agent("g1", name, version, **options).start()
        agent.prepare()
        sample_of(agent).fill(1_500_000)
        truths = [backup(agent, place.folder / "kit0")]
        sample_of(agent).change(0.05)
        truths.append(backup(agent, place.folder / "kit1"))
        objects = objects_of(place.clusters[0])
        key = place.key_file.read_bytes()
    assert sum(map(len, objects.values())) <= LARGEST

    def reader(store: MemoryStore) -> Archive:
        return Archive(store, "ostler", LocalKeys(key))

    outcome = onslaught(objects, truths, reader, ROUNDS, seed=3)
    assert outcome.missed == []
    assert outcome.refused >= ROUNDS // 8
