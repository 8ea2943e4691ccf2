"""Where an archive lies, what its objects are called, and the keys that open them."""

import threading
from pathlib import Path

from objectstore.archive.cache import Cache
from objectstore.archive.copies import read_whole
from objectstore.archive.names import Names, key_of
from objectstore.archive.seal import Sealer, context
from objectstore.keys import KEY_BYTES, Keys
from objectstore.store import Corrupt, Missing, Store, StoreError, split

_LARGEST_KEY = 1 << 16


class Vault:
    """Hold store, names, keys and cache together.  May be used from several threads."""

    def __init__(self, store: Store, realm: str, keys: Keys, cache: Path | None) -> None:
        self.store = store
        self.names = Names(realm)
        self.keys = keys
        self.directory = cache
        self.cache = Cache(cache)
        self._lock = threading.Lock()
        self._sealers: dict[tuple[str, str], Sealer] = {}

    def new_key(self, generation: str, attempt: str) -> tuple[Sealer, bytes]:
        """Return a fresh key for an attempt, and its wrapped form."""
        plain, wrapped = self.keys.new(context(b"K", self.names.realm, generation, attempt))
        return Sealer(self.names.realm, generation, attempt, plain), wrapped

    def sealer(self, generation: str, attempt: str) -> Sealer:
        """Return the key of an attempt, or raise ``Corrupt`` saying why it cannot be had."""
        with self._lock:
            known = self._sealers.get((generation, attempt))
        if known is None:
            plain = self._unwrap(generation, attempt)
            known = Sealer(self.names.realm, generation, attempt, plain)
            with self._lock:
                self._sealers[generation, attempt] = known
        return known

    def check_key(self, generation: str, attempt: str, wrapped: bytes) -> None:
        """Raise ``Corrupt`` where these bytes are not the wrapped key of an attempt."""
        if len(wrapped) > _LARGEST_KEY:
            raise Corrupt(f"the wrapped key of attempt {attempt} is not to be believed")
        plain = self.keys.open(wrapped, context(b"K", self.names.realm, generation, attempt))
        if len(plain) != KEY_BYTES:
            raise Corrupt(f"the key of attempt {attempt} has {len(plain)} bytes")

    def _unwrap(self, generation: str, attempt: str) -> bytes:
        bound = context(b"K", self.names.realm, generation, attempt)

        def open_key(wrapped: bytes) -> bytes:
            self.check_key(generation, attempt, wrapped)
            return self.keys.open(wrapped, bound)

        name = self.names.key(attempt, self.keys.key_id)
        try:
            return read_whole(self.store, name, open_key, length=_LARGEST_KEY + 1, gone=True)
        except Missing:
            raise self._keyless(attempt) from None

    def _keyless(self, attempt: str) -> StoreError:
        found = self.store.list(self.names.keyring, f"{attempt}.")
        others = [named[1] for named in (key_of(split(row.name)[1]) for row in found) if named is not None]
        if others:
            return Corrupt(
                f"the key of attempt {attempt} is wrapped by key {', '.join(others)}, and ours is {self.keys.key_id}",
                hint="use the key file it was made with",
            )
        return Corrupt(f"the key of attempt {attempt} is gone: what it wrote cannot be read")
