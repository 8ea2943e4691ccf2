"""What a second backup of MariaDB adds to the store: next to nothing where nothing changed."""

from pathlib import Path

from tests.agents import LiveAgent, site
from tests.cases import sample_of

SIZE = 220_000_000
PACK = 1 << 20


def stored(cluster: Path) -> dict[str, int]:
    """Return the sizes of a cluster's files, as ``du`` would add them up."""
    return {str(path): path.stat().st_size for path in cluster.rglob("*") if path.is_file()}


def taken(agent: LiveAgent) -> tuple[dict[str, object], int, list[int]]:
    """Back up; return the backup, how much one cluster grew, and the packs that came."""
    before = stored(agent.site.clusters[0])
    made = agent.ostler("backup", "create")
    assert isinstance(made, dict)
    after = stored(agent.site.clusters[0])
    packs = [size for name, size in after.items() if name not in before and "-g-" in name]
    return made, sum(after.values()) - sum(before.values()), packs


def test_growth_of_the_store() -> None:
    with site() as place:
        agent = place.agent("g1", "mariadb", "10.11").start()
        agent.prepare()
        sample = sample_of(agent)
        sample.fill(SIZE)
        sample.settle()
        full, whole, _ = taken(agent)
        assert full["kind"] == "full"
        sample.settle()
        taken(agent)
        sample.settle()
        same, grown, packs = taken(agent)
        assert same["kind"] == "incremental"
        assert grown <= whole * 0.01, f"{grown} of {whole}"
        assert len(packs) <= 1
        assert all(size < PACK for size in packs)
        sample.change(0.03)
        sample.settle()
        _, grown, _ = taken(agent)
        assert grown <= whole * 0.35, f"{grown} of {whole}"
