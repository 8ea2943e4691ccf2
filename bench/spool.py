"""The storage half of the pipeline of Trove's guest agent, rebuilt to be measured; a process of its own.

``spool.py save FOLDER``: standard input in 64 KiB reads, md5 of each segment and of the whole, every segment of up to
2 GiB spooled to a temporary file first and then copied in 64 KiB pieces to the "object" (a file in place of Swift).
``spool.py load FOLDER``: the objects in order to standard output, in 64 KiB reads, checked by md5.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

PIECE = 64 * 1024
SEGMENT = 2 * 1024**3


def save(folder: Path) -> None:
    """Store standard input as segments; the list of their digests comes last."""
    folder.mkdir()
    digests, whole = [], hashlib.md5(usedforsecurity=False)
    while digest := _segment(sys.stdin.buffer, folder / f"{len(digests):08d}", whole):
        digests.append(digest)
    (folder / "digests").write_text(json.dumps([*digests, whole.hexdigest()]))


def _segment(source: BinaryIO, target: Path, whole: "hashlib._Hash") -> str:
    digest, size = hashlib.md5(usedforsecurity=False), 0
    with tempfile.NamedTemporaryFile(dir=target.parent) as spool:
        while size < SEGMENT and (piece := source.read(PIECE)):
            digest.update(piece)
            whole.update(piece)
            spool.write(piece)
            size += len(piece)
        spool.seek(0)
        if size:
            with target.open("wb") as out:
                while piece := spool.read(PIECE):
                    out.write(piece)
    return digest.hexdigest() if size else ""


def load(folder: Path) -> None:
    """Send the segments to standard output; end badly where one is not what it was."""
    for number, wanted in enumerate(json.loads((folder / "digests").read_text())[:-1]):
        digest = hashlib.md5(usedforsecurity=False)
        with (folder / f"{number:08d}").open("rb") as source:
            while piece := source.read(PIECE):
                digest.update(piece)
                sys.stdout.buffer.write(piece)
        if digest.hexdigest() != wanted:
            sys.exit(f"segment {number} is damaged")


if __name__ == "__main__":
    {"save": save, "load": load}[sys.argv[1]](Path(sys.argv[2]))
