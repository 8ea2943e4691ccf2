"""A day's work on the sample: 2 % of the rows updated, most of them recent ones, and 1 % inserted."""

from random import Random  # noqa: TID251 - the same work for everybody, every time

from datastores.contract import Sample
from datastores.mariadb.client import rows, session

UPDATED, INSERTED = 0.02, 0.01
RECENT, HEAD = 0.60, 0.35
"""Shares of the updates that go to recent ids and to the first ones; the rest goes anywhere."""
SPREAD = 0.05
"""How far a hot spot reaches: the mean distance from its end, as a share of the table."""
BATCH = 500


def a_day(sample: Sample, size: int, seed: int) -> int:
    """Change the sample that was filled with ``size`` bytes; return how many rows were updated."""
    changed = 0
    with session(sample.node, timeout=600) as cursor:
        names = rows(
            cursor, "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA='sample'"
        )
        for number, (schema, table) in enumerate(sorted(names)):
            last = int(str(rows(cursor, f"SELECT MAX(id) FROM {schema}.{table}")[0][0]))
            wanted = ids(Random(seed * 100 + number), last)
            for start in range(0, len(wanted), BATCH):
                some = tuple(wanted[start : start + BATCH])
                changed += cursor.execute(
                    f"UPDATE {schema}.{table} SET amount = amount + 1, name = REVERSE(name) WHERE id IN %s", (some,)
                )
    sample.fill(int(size * INSERTED))
    return changed


def ids(random: Random, last: int) -> list[int]:
    """Return which rows are updated, ascending, of a table whose ids end with ``last``."""
    found: set[int] = set()
    while len(found) < int(last * UPDATED):
        kind, far = random.random(), int(random.expovariate(1 / (SPREAD * last)))
        place = last - far if kind < RECENT else 1 + far if kind < RECENT + HEAD else 1 + random.randrange(last)
        if 1 <= place <= last:
            found.add(place)
    return sorted(found)
