"""From an archive into staging: what ``backup restore`` and ``prepare`` have in common."""

from collections.abc import Iterator, Mapping

from datastores.contract import JSON, BadInput, Checkpoint, Extent, Identity, Mismatch, NoSpace, Unsupported
from guestagent.operations.backups import archive_of, files_of
from guestagent.operations.guest import Guest
from guestagent.operations.marks import Marked, mark, settle
from guestagent.operations.parents import canonical
from guestagent.operations.run import Run
from objectstore.archive import Manifest

ROOM = 1.1
DISCARD = "--discard-current deletes the current data first"


Known = dict[str, JSON]
"""What of a manifest must be known later, when the store may be away or tell another story."""


def known_of(manifest: Manifest, **more: JSON) -> Known:
    """Return what is to be journalled of a manifest, and whatever else."""
    return {
        "backup": manifest.header.backup,
        "digest": manifest.digest,
        "server_id": manifest.server_id,
        "position": dict(manifest.position),
        **more,
    }


def manifest_of(guest: Guest, known: Known) -> Manifest:
    """Return the very manifest that is known."""
    return find(guest, str(known["backup"]), str(known["digest"]))


def find(guest: Guest, backup: str, digest: str | None) -> Manifest:
    """Return the manifest of a backup that fits this guest; ``Mismatch`` before any byte where it does not."""
    manifest = archive_of(guest).find(canonical(backup, "backup"), digest)
    manager, header = guest.manager, manifest.header
    if header.datastore != manager.datastore.name:
        raise Mismatch(f"backup {backup} is of {header.datastore}, this guest is {manager.datastore.name}")
    if _major(guest, header.version) != _major(guest, manager.node.installation.version):
        raise Mismatch(
            f"backup {backup} is of {header.datastore} {header.version}, "
            f"this guest runs {manager.node.installation.version}"
        )
    if header.role not in manager.datastore.roles:
        raise Mismatch(f"backup {backup} is of a {header.role}, which this datastore has not")
    return manifest


def identity_for(guest: Guest, manifest: Manifest, wanted: Identity | None) -> Identity:
    """Return whose a restore's data will be; ``Unsupported`` where the datastore leaves no such choice."""
    fitting: Identity = "same" if manifest.header.guest_id == guest.guest_id else "new"
    if wanted not in (None, fitting, *guest.manager.backup.identities):
        raise Unsupported(f"{manifest.header.datastore} gives this data identity {fitting!r} only", field="identity")
    return wanted or fitting


def must_fit(guest: Guest, size: int, *, spare: int = 0, hint: str | None = None) -> None:
    """Raise ``NoSpace`` where ``size`` bytes would not fit beside what is there; ``spare`` could be freed first."""
    need = int(size * ROOM) + guest.manager.backup.reserve
    have = guest.manager.node.host.space(guest.manager.node.places.root) + spare
    if have < need:
        raise NoSpace(f"the restore needs {need} bytes and {have} are free", hint=hint)


def fresh_staging(guest: Guest) -> None:
    """Have an empty staging folder."""
    places, host = guest.manager.node.places, guest.manager.node.host
    host.remove(places.staging)
    host.folder(places.staging)


def fill(run: Run, manifest: Manifest, identity: Identity) -> None:
    """Fill staging, wiped before, with the backup's data: every byte was verified before it is written."""
    guest = run.guest
    contents = archive_of(guest).contents(manifest)
    fresh_staging(guest)
    guest.manager.backup.restore(
        files_of(contents),
        watched(run, contents.extents(), manifest.logical_bytes),
        Checkpoint(manifest.server_id, manifest.position),
        guest.manager.node.places.staging,
        identity,
    )


def seal_staging(run: Run, source: str) -> None:
    """Mark staging as this operation's and make it durable."""
    staging = run.guest.manager.node.places.staging
    mark(run.guest, staging, Marked(run.guest.guest_id, run.id, source))
    settle(staging)


def checkpoint_of(known: Mapping[str, JSON]) -> Checkpoint:
    """Return where a restored server must stand, from its journalled JSON."""
    position = known["position"]
    return Checkpoint(str(known["server_id"]), position if isinstance(position, dict) else {})


def count_restore(guest: Guest, operation: str) -> dict[str, JSON]:
    """Return the facts of one restore more, counted once however often an operation says so."""
    if guest.journal.facts.get("restored_by") == operation:
        return {}
    return {"restored_by": operation, "restore_epoch": guest.journal.restore_epoch + 1}


def watched(run: Run, extents: Iterator[Extent], total: int) -> Iterator[Extent]:
    """Yield the extents; tell how far it is, and end where the operation is asked to."""
    done = 0
    for extent in extents:
        run.check()
        yield extent
        done += memoryview(extent[2]).nbytes
        run.progress(done, max(done, total))


def _major(guest: Guest, version: str) -> str:
    """Return a version's declared release; a version that is none of ours stands for itself."""
    try:
        return guest.manager.datastore.major(version)
    except BadInput:
        return version
