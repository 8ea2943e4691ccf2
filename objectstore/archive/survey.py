"""Gathering what a collection decides on, in the order that makes its invariant hold."""

from collections.abc import Iterable

from objectstore.archive.lease import LeaseRecord, deleted_at
from objectstore.archive.manifest import Manifest
from objectstore.archive.needs import needs
from objectstore.archive.vault import Vault
from objectstore.collection import Backup, Estate, Working
from objectstore.store import Listing, Missing, Stat, StoreError, split

_LARGEST = 1 << 16


class Survey:
    """List one realm, packs and keys first, manifests last."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._objects: dict[str, Stat] = {}
        self._silent: set[str] = set()
        realm = vault.names.realm
        mine = [name for name in vault.store.containers() if name.startswith((f"{realm}-g-", f"{realm}-keys"))]
        for container in [*mine, vault.names.catalogue]:
            self._list(container)
        self._wrapped = self._keys()
        self._leases = self._list(vault.names.catalogue, "lease.")
        self._tombs = self._list(vault.names.catalogue, "tomb.")
        self._list(vault.names.catalogue, "manifest.")

    def estate(self, found: Iterable[Manifest | StoreError]) -> Estate:
        """Return the facts; ``found`` reads the manifests, and begins to only now."""
        names = self._vault.names
        rows = list(found)
        manifests = [one for one in rows if isinstance(one, Manifest)]
        return Estate(
            realm=names.realm,
            objects=tuple(self._objects),
            backups=tuple(self._backup(one) for one in manifests),
            working=tuple(self._working(row) for row in self._leases.objects),
            tombs={split(row.name)[1].removeprefix("tomb."): self._deleted(row) for row in self._tombs.objects},
            silent=tuple(sorted(self._silent)),
            unreadable=tuple(one for one in rows if isinstance(one, StoreError)),
        )

    def _list(self, container: str, prefix: str = "") -> Listing:
        found = self._vault.store.listing(container, prefix)
        self._objects.update((row.name, row) for row in found.objects)
        self._silent.update(found.silent)
        return found

    def _keys(self) -> dict[str, list[str]]:
        """Return the wrapped keys of every attempt: one for each key-encryption key."""
        found: dict[str, list[str]] = {}
        for name in self._objects:
            container, key = split(name)
            if container == self._vault.names.keyring:
                found.setdefault(key.partition(".")[0], []).append(name)
        return found

    def _backup(self, manifest: Manifest) -> Backup:
        needed = {need.name for need in needs(manifest, self._vault.names, self._vault.keys.key_id)}
        every = {name for attempt in manifest.attempts for name in self._wrapped.get(attempt, ())}
        return Backup(manifest.header.backup, manifest.header.generation, frozenset(needed | every))

    def _working(self, row: Stat) -> Working:
        attempt = split(row.name)[1].removeprefix("lease.")
        record = LeaseRecord.of(attempt, self._read(row))
        return Working(attempt, record.generation, record.expires)

    def _deleted(self, row: Stat) -> float:
        return deleted_at(self._read(row))

    def _read(self, row: Stat) -> bytes:
        try:
            return self._vault.store.get(row.name, 0, _LARGEST)
        except Missing:  # ended since it was listed
            return b""
