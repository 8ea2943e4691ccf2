"""Sample data: three InnoDB tables as different as a tenant's are.

``orders`` are words (they compress well), ``tokens`` random bytes (not at all), ``documents`` JSON of half a
kilobyte to two.  The same size gives the same rows.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from random import Random  # noqa: TID251 - sample data, to be had again

import pymysql
from pymysql.cursors import Cursor

from datastores.contract import NotReady, Sample, Secret
from datastores.mariadb.accounts import SYSTEM_DATABASES
from datastores.mariadb.client import code_of, rows, session
from datastores.mariadb.dialect import identifier

DATABASE = "sample"
BATCH = 1000
TOGETHER = 20
"""Rows of a statement, statements of a transaction."""
WORDS = tuple(
    re.findall(
        r"\w+",
        "anvil barn bridle brush bucket canter carriage chestnut clover coach colt currycomb dapple farrier feed "
        "foal gallop girth groom halter harness hay hoof inn lantern manger mare meadow mill oats paddock pasture "
        "pitchfork rein road saddle shoe stable stall stirrup straw tack trot wagon water wheel whip yard ",
    )
)
REFUSED = frozenset({1044, 1045, 1130, 1698, 4151})


def _order(random: Random, number: int, pool: str) -> tuple[object, ...]:
    at = random.randrange(len(pool) - 400)
    return number, pool[at : at + 24], random.randrange(10**9), pool[at + 24 : at + 24 + random.randrange(120, 360)]


def _token(random: Random, number: int, pool: str) -> tuple[object, ...]:
    return number, random.choice(WORDS), random.randrange(10**9), random.randbytes(200)


def _document(random: Random, number: int, pool: str) -> tuple[object, ...]:
    at = random.randrange(len(pool) - 2000)
    body = {"id": number, "key": random.randbytes(60).hex(), "text": pool[at : at + random.randrange(400, 1800)]}
    return number, random.choice(WORDS), random.randrange(10**9), json.dumps(body)


Maker = Callable[[Random, int, str], tuple[object, ...]]
TABLES: dict[str, tuple[str, int, float, Maker]] = {
    "orders": ("VARCHAR(400)", 290, 0.5, _order),
    "tokens": ("VARBINARY(200)", 230, 0.2, _token),
    "documents": ("TEXT", 1300, 0.3, _document),
}
"""By table: the type of its body, about the bytes of a row, its share of the size, and what makes a row."""


class SampleData(Sample):
    """Rows of the tables above, in a database of their own."""

    def fill(self, size: int) -> None:
        """Insert about ``size`` bytes after the rows that are there."""
        with session(self.node, timeout=600) as cursor:
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
            for table, (body, row, share, make) in TABLES.items():
                cursor.execute(
                    f"CREATE TABLE IF NOT EXISTS {DATABASE}.{table} (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, "
                    f"amount INT NOT NULL, body {body} NOT NULL) ENGINE=InnoDB STATS_AUTO_RECALC=0"
                )
                first = _last(cursor, table) + 1
                cursor.execute("START TRANSACTION")
                for count, batch in enumerate(_batches(make, table, first, max(1, int(size * share) // row))):
                    if count % TOGETHER == 0:
                        cursor.execute("COMMIT AND CHAIN")
                    cursor.executemany(f"INSERT INTO {DATABASE}.{table} VALUES (%s, %s, %s, %s)", batch)  # noqa: S608
                cursor.execute("COMMIT")

    def change(self, share: float, seed: int = 0) -> int:
        """Change two ranges of keys in each table: the latest rows, and as many somewhere before."""
        changed = 0
        with session(self.node, timeout=600) as cursor:
            for table in TABLES:
                last = _last(cursor, table)
                half = max(1, round(last * share / 2))
                for end in (last, max(half, last // 2 - seed * half % max(1, last // 2))):
                    changed += cursor.execute(
                        f"UPDATE {DATABASE}.{table} SET amount = amount + %s, name = REVERSE(name) "  # noqa: S608
                        "WHERE id > %s AND id <= %s",
                        (seed + 1, end - half, end),
                    )
        return changed

    def digest(self) -> dict[str, str]:
        """Return the server's own checksum of every tenant's table."""
        with session(self.node, timeout=600) as cursor:
            tables = rows(
                cursor,
                "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES "
                "WHERE TABLE_TYPE IN ('BASE TABLE', 'SEQUENCE') AND TABLE_SCHEMA NOT IN %s ORDER BY 1, 2",
                (SYSTEM_DATABASES,),
            )
            found = {}
            for database, table in tables:
                name = f"{identifier(str(database))}.{identifier(str(table))}"
                found[f"{database}.{table}"] = str(rows(cursor, f"CHECKSUM TABLE {name} EXTENDED")[0][1])
        return found

    def login(self, name: str, password: Secret) -> bool:
        """Log in over the network."""
        endpoint = self.node.endpoint
        try:
            pymysql.connect(
                host=endpoint.host,
                port=endpoint.port,
                user=name.encode(),
                password=password.reveal().encode(),
                charset="utf8mb4",
                connect_timeout=10,
                ssl_disabled=True,
            ).close()
        except pymysql.err.MySQLError as error:
            if code_of(error) in REFUSED:
                return False
            raise NotReady(f"no login could be tried: {code_of(error)}") from None
        return True

    def settle(self) -> None:
        """Wait for the purge, then write every dirty page and every closed table."""
        end = time.monotonic() + 120
        with session(self.node, logged=False, timeout=120) as cursor:
            while True:
                cursor.execute("SET GLOBAL innodb_max_purge_lag_wait=0")
                cursor.execute("FLUSH LOCAL TABLES")
                cursor.execute("SET GLOBAL innodb_log_checkpoint_now=ON")
                status = {str(name): str(value) for name, value in rows(cursor, "SHOW GLOBAL STATUS LIKE 'Innodb%%'")}
                left = int(status["Innodb_history_list_length"]) + int(status["Innodb_buffer_pool_pages_dirty"])
                if left == 0:
                    return
                if time.monotonic() > end:
                    raise NotReady(f"the server still has {left} things to do")
                time.sleep(0.2)


SAMPLE = SampleData


def _last(cursor: Cursor, table: str) -> int:
    return int(str(rows(cursor, f"SELECT COALESCE(MAX(id), 0) FROM {DATABASE}.{table}")[0][0]))  # noqa: S608


def _batches(make: Maker, table: str, first: int, count: int) -> Iterator[list[tuple[object, ...]]]:
    random = Random(f"{table} {first}")
    pool = " ".join(random.choice(WORDS) for _ in range(40_000))
    for start in range(first, first + count, BATCH):
        yield [make(random, number, pool) for number in range(start, min(start + BATCH, first + count))]
