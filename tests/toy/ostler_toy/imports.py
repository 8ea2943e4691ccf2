"""One database of a backup into a running toy server: its file takes the other's place in one move."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from datastores.contract import Checkpoint, Extent, File, Import, NotFound
from ostler_toy.backup import write
from ostler_toy.wire import connection


class ToyImport(Import):
    """A part is a database."""

    def choose(self, files: Sequence[File], name: str, private: Callable[[str], bytes]) -> Sequence[File]:
        """Return the database's file."""
        from ostler_toy import DATASTORE

        DATASTORE.names["database"].check(name, "only")
        there = {bytes.fromhex(Path(each.path).stem).decode(): each for each in files if each.path.endswith(".tbl")}
        if name not in there:
            raise NotFound(f"the backup has no database {name!r}, only {', '.join(sorted(there))}", field="only")
        return [there[name]]

    def receive(self, files: Sequence[File], extents: Iterator[Extent], into: Path) -> None:
        """Write the file."""
        write(self.node, files, extents, into)

    def load(self, files: Sequence[File], checkpoint: Checkpoint, into: Path, name: str) -> None:
        """Let the server move it to where it belongs, and read it."""
        with connection(self.node) as ask:
            ask("take", name=name, path=str(into / files[0].path))
