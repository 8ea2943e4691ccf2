"""The newest backup's index, kept beside the agent: plain, one file a part, named by its digest.

Nothing in it is believed: a part is used only where it has the digest that an
authentic manifest names.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from objectstore.archive.index import digest

_OURS = re.compile(r"[0-9a-f]{64}|\.[0-9a-f]{64}\.[0-9]+")


class Cache:
    """Keep parts in a directory that is the owner's alone; without one, keep nothing."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def get(self, plain: str, length: int) -> bytes | None:
        """Return the part with this digest and length, or None."""
        with suppress(OSError):
            if self._directory is not None and (self._directory / plain).stat().st_size == length:
                data = (self._directory / plain).read_bytes()
                return data if digest(data) == plain else None
        return None

    def keep(self, plain: str, data: bytes) -> None:
        """Keep a part; where that cannot be, it will be read from the store."""
        with suppress(OSError):
            if self._directory is not None:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                draft = self._directory / f".{plain}.{os.getpid()}"
                draft.unlink(missing_ok=True)
                with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                    file.write(data)
                draft.replace(self._directory / plain)

    def settle(self, wanted: set[str]) -> None:
        """Forget all parts but these."""
        with suppress(OSError):
            for file in self._directory.iterdir() if self._directory is not None else ():
                if file.name not in wanted and _OURS.fullmatch(file.name):
                    file.unlink()
