"""Much data in little time: texts of 8 kB in one table, beside the sample's rows of many shapes.

What a row costs the server does not depend on its length, so that long ones fill a disk several times as fast.
"""

from collections.abc import Iterator
from pathlib import Path

from datastores.cassandra.client import session
from datastores.cassandra.sample import passage
from datastores.contract import Node, Sample

TOGETHER = 64
WORDS = 1200
SHAPED = 0.1
"""Which share of the bytes has the sample's shapes."""
TABLE = "CREATE TABLE IF NOT EXISTS bench.volume (lot int, number int, body text, PRIMARY KEY (lot, number))"
PUT = "INSERT INTO bench.volume (lot, number, body) VALUES (?, ?, ?)"


class Volume:
    """Lots of texts in the keyspace ``bench``, numbered on."""

    def __init__(self, node: Node, sample: Sample) -> None:
        self._node = node
        self._sample = sample
        self._lots = 0

    def fill(self, wanted: int) -> int:
        """Put data in until the files of tables have at least ``wanted`` bytes; return how many they have."""
        self._sample.fill(int(wanted * SHAPED))
        while (have := self._settled()) < wanted:
            each = len(passage(0, words=WORDS)) * TOGETHER
            more = max(1, int(1.2 * (wanted - have)) // each)
            self._put(range(self._lots, self._lots + more), 0)
            self._lots += more
        return have

    def change(self, share: float) -> int:
        """Write this share of the rows anew, of the sample's and of the texts; return how many bytes new files have."""
        before = sstables(self._node)
        self._sample.change(share, seed=1)
        count = round(self._lots * share)
        self._put(range(self._lots // 2, self._lots // 2 + count), 1)
        self._settled()
        return sum(size for path, size in sstables(self._node).items() if path not in before)

    def _put(self, lots: range, seed: int) -> None:
        with session(self._node, timeout=120) as cql:
            cql.execute(TABLE)
            statement = cql.driver.prepare(PUT)
            for lot in lots:
                rows = [(lot, number, passage(seed, lot, number, words=WORDS)) for number in range(TOGETHER)]
                for sent in [cql.driver.execute_async(statement, each) for each in rows]:
                    sent.result()

    def _settled(self) -> int:
        self._sample.settle()
        return sum(sstables(self._node).values())


def sstables(node: Node) -> dict[Path, int]:
    """Return the files of tables with their sizes; what a snapshot links is not counted again."""
    return dict(_sizes(node.places.data / "data"))


def _sizes(data: Path) -> Iterator[tuple[Path, int]]:
    for each in data.glob("*/*/nb-*"):
        if each.is_file():
            yield each, each.stat().st_size
