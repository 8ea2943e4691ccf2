"""The archive of a realm: begin backups, find them, read them, check them, delete them."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from objectstore.archive import manifest as roots
from objectstore.archive import verify as verifying
from objectstore.archive.contents import Contents
from objectstore.archive.copies import read_whole
from objectstore.archive.draft import Draft
from objectstore.archive.index import digest as digest_of
from objectstore.archive.lease import release, tombstone
from objectstore.archive.manifest import Manifest
from objectstore.archive.model import Copies, Header, check_digest, check_id
from objectstore.archive.names import manifest_of
from objectstore.archive.seal import Sealer
from objectstore.archive.survey import Survey
from objectstore.archive.vault import Vault
from objectstore.archive.verify import Progress, Verified
from objectstore.collection import Plan, plan
from objectstore.keys import Keys
from objectstore.store import BadRequest, Corrupt, Denied, Exists, Missing, Store, StoreError, split


class Archive:
    """Keep backups of one realm in a store.

    ``cache`` is a directory for the newest backup's index, ``wanted`` the number of copies that
    should be, ``quorum`` the number that must.
    """

    def __init__(
        self, store: Store, realm: str, keys: Keys, *, cache: Path | None = None, wanted: int = 1, quorum: int = 1
    ) -> None:
        self.wanted = wanted
        self.quorum = quorum
        self.vault = Vault(store, realm, keys, cache)

    def draft(self, header: Header, *, workers: int = 2, nice: int = 0) -> Draft:
        """Begin an attempt; leaving it unsealed stops its threads and deletes nothing.

        ``Exists`` where a backup with this id was deleted: its tombstone would bury this one, too.
        """
        with suppress(Denied):  # who may only add cannot look
            if self.vault.names.tomb(header.backup) in self._names(f"tomb.{header.backup}"):
                raise Exists(f"backup {header.backup} was deleted, and its id is not used again", field="id")
        return Draft(self.vault, header, workers=workers, nice=nice)

    def find(self, backup: str, digest: str | None = None) -> Manifest:
        """Return a backup's manifest; ``digest``, where given, is the one it must have.

        ``BadRequest`` for what is no digest, ``Missing`` for an unknown or deleted backup, ``Corrupt``
        where no whole manifest with that digest is left.
        """
        check_digest(digest)
        found = self._manifests_of(backup)
        if self.vault.names.tomb(backup) in self._names(f"tomb.{backup}"):
            raise Missing(f"backup {backup} was deleted")
        if len(found) > 1 and digest is None:
            raise Corrupt(f"backup {backup} has {len(found)} manifests", hint="give the digest of the right one")
        return self._one_of(found, digest)

    def manifests(self, unread: Callable[[StoreError], None] | None = None) -> Iterator[Manifest]:
        """Yield every sealed backup's manifest that our key opens and that is whole; ``unread`` is told of others."""
        for found in self._survey():
            if isinstance(found, Manifest):
                yield found
            elif unread is not None:
                unread(found)

    def contents(self, manifest: Manifest) -> Contents:
        """Return a backup's inventory and bytes."""
        return Contents(self.vault, manifest)

    def copies(self, manifest: Manifest, listed: verifying.Listed | None = None) -> Copies:
        """Return in how many clusters all of a backup is, by their listings, which are kept in ``listed``."""
        return verifying.count(self.vault, manifest, self.wanted, listed)

    def verify(self, manifest: Manifest, progress: Progress | None = None) -> Verified:
        """Read every copy of every object of a backup; ``Corrupt`` where of one none is whole.

        ``progress`` gets the stored bytes that were checked, one copy counted, and those that will be.
        """
        return verifying.verify(self.vault, self.contents(manifest), self.wanted, progress)

    def repair(self, manifest: Manifest, progress: Progress | None = None) -> Copies:
        """Bring missing and damaged copies back, from whole ones; ``Corrupt`` where of an object none is whole."""
        return verifying.repair(self.vault, self.contents(manifest), self.wanted, progress)

    def delete(self, backup: str) -> None:
        """Remove a backup's manifest; its packs stay until a collection.  ``Missing`` for an unknown one."""
        found = self._manifests_of(backup)
        attempts = [named[1] for named in (manifest_of(split(name)[1]) for name in found) if named]
        self.vault.store.put(self.vault.names.tomb(backup), [tombstone(backup, attempts)])
        for name in found:
            self.vault.store.delete(name)

    def abandon(self, attempt: str) -> None:
        """End the lease of an attempt that is dead: what it put may be freed."""
        release(self.vault.store, self.vault.names.lease(check_id(attempt, "attempt")))

    def purge_plan(self, grace: float = 0.0) -> Plan:
        """Return what a collection would keep and free; ``Unavailable`` or ``Corrupt`` where that cannot be known."""
        facts = Survey(self.vault).estate(self._survey())
        return plan(facts, time.time(), grace)

    def _survey(self) -> Iterator[Manifest | StoreError]:
        """Yield what every manifest object says, or why it cannot be read."""
        deleted = {name.split("/tomb.", 1)[1] for name in self._names("tomb.")}
        for name in self._names("manifest."):
            named = manifest_of(split(name)[1])
            if named is not None and named[0] not in deleted:
                try:
                    yield self._read(name, None)
                except Missing:  # deleted since it was listed
                    continue
                except Corrupt as error:
                    yield error

    def _names(self, prefix: str) -> list[str]:
        return [row.name for row in self.vault.store.list(self.vault.names.catalogue, prefix)]

    def _manifests_of(self, backup: str) -> list[str]:
        """Return the names of a backup's manifests, at least one, or raise ``Missing``."""
        with suppress(BadRequest):
            found = self._names(f"manifest.{check_id(backup, 'backup')}.")
            if found:
                return found
        raise Missing(f"there is no backup {backup!r:.80}")

    def _one_of(self, names: list[str], digest: str | None) -> Manifest:
        """Return the manifest under one of these names that has the digest."""
        for name in names[:-1]:
            with suppress(Corrupt):
                return self._read(name, digest)
        return self._read(names[-1], digest)

    def _read(self, name: str, digest: str | None) -> Manifest:
        named = manifest_of(split(name)[1])
        if named is None:
            raise Corrupt(f"{name} is no manifest's name")
        backup, attempt = named

        def check(data: bytes) -> Manifest:
            if digest is not None and digest_of(data) != digest:
                raise Corrupt(f"backup {backup} is not the one with digest {digest}")
            return roots.decode(data, self.vault.names.realm, backup, attempt, self._sealer(attempt))

        return read_whole(self.vault.store, name, check, length=roots.LARGEST_ROOT + 1, gone=True)

    def _sealer(self, attempt: str) -> Callable[[str], Sealer]:
        return lambda generation: self.vault.sealer(generation, attempt)
