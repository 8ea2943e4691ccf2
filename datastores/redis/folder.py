"""Making a data folder from a backup's files: a dump, the stream after it as the server's own log, the users.

Dump and slices need no server to be put together: the dump is the first file of the append-only log
and the slices, one after the other, are the second (before 7.0 both are one file).  After a hole the dumps are
filtered: of each record only the one is written whose fingerprint the last table still has.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

from datastores.contract import Buffer, Extent, File, Incomplete, Mismatch
from datastores.redis.chain import Chain
from datastores.redis.fingerprints import Table
from datastores.redis.rdb import Unwalkable, Walker
from datastores.redis.sinks import END, Write, head
from datastores.redis.versions import Traits

_NAME = "appendonly.aof"
_BASE, _INCR = f"{_NAME}.1.base.rdb", f"{_NAME}.1.incr.aof"
_MANIFEST = f"file {_BASE} seq 1 type b\nfile {_INCR} seq 1 type i\n"

Runs = Iterator[tuple[File, Iterator[Buffer]]]


class Folder:
    """One restore; ``fill`` writes the log below ``into`` and returns the users."""

    def __init__(self, files: Sequence[File], traits: Traits, into: Path) -> None:
        self._files = files
        self._chain = Chain.of(files)
        self._traits = traits
        self._into = into
        self._table: Table | None = None

    def fill(self, extents: Iterator[Extent]) -> bytes:
        """Write everything, durable; ``Incomplete`` or ``Mismatch`` where the files are not what they must be."""
        users = b""
        dump, log = self._open()
        with dump, log:
            for file, pieces in self._runs(extents):
                if file.private:
                    self._learn(file, b"".join(bytes(each) for each in pieces))
                elif file in self._chain.dumps:
                    self._dump(file, pieces, dump)
                elif file in self._chain.slices:
                    dump.flush()
                    for each in pieces:
                        log.write(each)
                else:
                    users = b"".join(bytes(each) for each in pieces)
            for out in (dump, log):
                out.flush()
                os.fsync(out.fileno())
        return users

    def _open(self) -> tuple[BinaryIO, BinaryIO]:
        """Open the dump's file and the log's, which may be one; the manifest names them."""
        if not self._traits.log_folder:
            whole = self._into / _NAME
            return whole.open("ab"), whole.open("ab")
        folder = self._into / self._traits.own["appenddirname"]
        folder.mkdir(mode=0o750)
        (folder / f"{_NAME}.manifest").write_text(_MANIFEST)
        return (folder / _BASE).open("wb"), (folder / _INCR).open("wb")

    def _runs(self, extents: Iterator[Extent]) -> Runs:
        """Yield each file with its bytes, in the order of the inventory and whole."""
        wanted = iter(self._files)
        for path, run in groupby(extents, key=itemgetter(0)):
            file = next(wanted, None)
            if file is None or file.stored != path:
                raise Incomplete(f"the backup's file {path[:80]!r} comes out of its order")
            yield file, _whole(file, run)
        missing = next(wanted, None)
        if missing is not None:
            raise Incomplete(f"the backup's file {missing.path[:80]!r} is missing")

    def _learn(self, file: File, content: bytes) -> None:
        # A table alone says nothing that is needed here: without a delta the dump is written as it is.
        if file == self._chain.table and self._chain.deltas:
            self._table = Table.load(content)
        elif self._table is not None:
            self._table.change(content)

    def _dump(self, file: File, pieces: Iterator[Buffer], out: BinaryIO) -> None:
        if self._table is None:
            for each in pieces:
                out.write(each)
            return
        first, last = file == self._chain.dumps[0], file == self._chain.dumps[-1]
        out.write(head(self._table.version) if first else b"")
        sink = Write(self._table.take, others=last)
        walker = Walker(self._table.key, file.stored, sink)
        try:
            for each in pieces:
                walker.feed(each)
                out.write(sink.taken())
            walker.finish()
        except Unwalkable as error:
            raise Mismatch(f"{file.path} cannot be filtered: {error}") from error
        out.write(sink.taken())
        if last:
            if len(self._table):
                raise Mismatch(f"{len(self._table)} records of the backup are in none of its dumps")
            out.write(END)


def _whole(file: File, run: Iterator[Extent]) -> Iterator[Buffer]:
    at = 0
    for _, offset, buffer in run:
        if offset != at:
            raise Incomplete(f"{file.path} has a gap at {at}")
        at += len(buffer)
        yield buffer
    if at != file.size:
        raise Incomplete(f"{file.path} has {at} bytes instead of {file.size}")
