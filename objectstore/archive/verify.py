"""Looking after copies: count them, read every one, bring back those that are missing."""

from collections.abc import Callable
from dataclasses import dataclass

from objectstore.archive.contents import Contents
from objectstore.archive.copies import keepers, worst
from objectstore.archive.manifest import Manifest
from objectstore.archive.model import Copies
from objectstore.archive.names import placement
from objectstore.archive.needs import Audit, Check, Need, needs
from objectstore.archive.vault import Vault
from objectstore.store import Corrupt, Missing, Store, StoreError, split

Progress = Callable[[int, int], None]
Listed = dict[tuple[str, str], dict[str, int]]
"""Sizes by name, by cluster and container: listings that were made already."""


@dataclass(frozen=True)
class Verified:
    """What was read: the backup's frames and the bytes they hold, and how many copies of all of it are whole."""

    frames: int
    bytes: int
    copies: Copies
    ok: bool = True


def count(vault: Vault, manifest: Manifest, wanted: int, listed: Listed | None = None) -> Copies:
    """Return in how many clusters every object is, by their listings; nothing is read.

    Whoever counts many backups passes one ``listed`` for all, so that each container is listed once.
    """
    listed = {} if listed is None else listed

    def sizes(cluster: str, store: Store, container: str) -> dict[str, int]:
        if (cluster, container) not in listed:
            try:
                found = {row.name: row.size for row in store.list(container)}
            except StoreError:  # one that does not answer holds nothing for us
                found = {}
            listed[cluster, container] = found
        return listed[cluster, container]

    def holds(cluster: str, store: Store, need: Need) -> bool:
        size = sizes(cluster, store, split(need.name)[0]).get(need.name)
        return size is not None and need.size in (None, size)

    found = [
        sum(holds(cluster, store, need) for cluster, store in keepers(vault.store, need.name).items())
        for need in needs(manifest, vault.names, vault.keys.key_id)
    ]
    return Copies(min(found), wanted)


def verify(vault: Vault, contents: Contents, wanted: int, progress: Progress | None = None) -> Verified:
    """Read every copy of every object; ``Corrupt`` naming the first of which no copy is whole.

    ``Unavailable`` where a copy that cannot be asked may be the whole one.
    """
    audit = Audit(vault, contents)
    found: list[int] = []
    done, total = 0, _total(contents.manifest)
    for need, check in audit.checks():
        whole, errors = _ask(vault.store, need, check)
        if not whole:
            raise worst(need.name, list(errors.values()))
        found.append(len(whole))
        done += need.size or 0
        if progress is not None:
            progress(done, total)
    return Verified(audit.frames, audit.bytes, Copies(min(found), wanted))


def repair(vault: Vault, contents: Contents, wanted: int, progress: Progress | None = None) -> Copies:
    """Put a whole copy of every object where one is missing or damaged; return the copies there are then.

    Each is checked before it is written.  A cluster that does not answer is left as it is.
    """
    done, total = 0, _total(contents.manifest)
    for need, check in Audit(vault, contents).checks():
        whole, errors = _ask(vault.store, need, check)
        if not whole:
            raise worst(need.name, list(errors.values()))
        lacking = [name for name, error in errors.items() if isinstance(error, Missing | Corrupt)]
        if lacking:
            _copy(vault.store, need.name, check, whole[0], lacking)
        done += need.size or 0
        if progress is not None:
            progress(done, total)
    _copy_placement(vault, contents.manifest)
    return count(vault, contents.manifest, wanted)


def _ask(store: Store, need: Need, check: Check) -> tuple[list[str], dict[str, StoreError]]:
    """Return the clusters with a whole copy, and what is wrong with the others."""
    whole: list[str] = []
    errors: dict[str, StoreError] = {}
    for cluster, member in keepers(store, need.name).items():
        try:
            check(member.get(need.name))
            whole.append(cluster)
        except StoreError as error:
            errors[cluster] = error
    return whole, errors


def _copy(store: Store, name: str, check: Check, source: str, targets: list[str]) -> None:
    members = store.members()
    data = members[source].get(name)
    check(data)
    for target in targets:
        members[target].put(name, [data])


def _copy_placement(vault: Vault, manifest: Manifest) -> None:
    """Give every cluster that answers the record of where the generation lives, as the others have it."""
    name = placement(vault.names, manifest.header.generation)
    found: dict[str, bytes | None] = {}
    for cluster, member in keepers(vault.store, name).items():
        try:
            found[cluster] = member.get(name)
        except Missing:
            found[cluster] = None
        except StoreError:
            continue
    record = next((data for data in found.values() if data), None)
    for cluster in [cluster for cluster, data in found.items() if data is None and record is not None]:
        vault.store.members()[cluster].put(name, [record or b""])


def _total(manifest: Manifest) -> int:
    return manifest.size + sum(ref.size for ref in manifest.index) + sum(pack.size for pack in manifest.packs)
