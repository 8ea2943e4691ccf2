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
MARGIN = 16 << 20


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


def must_fit(guest: Guest, manifest: Manifest, spare: int = 0) -> None:
    """Raise ``NoSpace`` where the backup would not fit beside what is there; ``spare`` bytes could be freed first."""
    need = int(manifest.logical_bytes * ROOM) + MARGIN
    have = guest.manager.node.host.space(guest.manager.node.places.root) + spare
    if have < need:
        raise NoSpace(
            f"the restore needs {need} bytes and {have} are free",
            hint="--discard-current deletes the current data first" if not spare else None,
        )


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
        _watched(run, contents.extents(), manifest.logical_bytes),
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


def _watched(run: Run, extents: Iterator[Extent], total: int) -> Iterator[Extent]:
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
