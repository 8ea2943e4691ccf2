"""``backup restore``: staged, verified, exchanged in one move; the old data goes only when the new data serves."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from datastores.contract import JSON, DatastoreError, Identity, Unsupported, verb
from guestagent.errors import AgentError, Failed
from guestagent.operations.backups import archive_of
from guestagent.operations.fetching import (
    DISCARD,
    Known,
    checkpoint_of,
    count_restore,
    fill,
    find,
    identity_for,
    known_of,
    manifest_of,
    must_fit,
    seal_staging,
)
from guestagent.operations.guest import Guest
from guestagent.operations.importing import accept_part, take_in
from guestagent.operations.marks import empty, size_of
from guestagent.operations.parents import canonical
from guestagent.operations.run import Run, attempt
from guestagent.operations.service import must_be_prepared, quietly_stop, server, start_server
from guestagent.operations.swapping import swap, swap_back, swapped
from objectstore.archive import check_digest

STEPS = ("accept", "manifest", "key", "space", "stream", "replay", "swap", "start", "finish")


def _checked(guest: Guest, *, backup: str, digest: str | None, until: str | None, **_: object) -> None:
    """Raise where there is no realm, or the backup, its digest or the point in time can never do."""
    archive_of(guest)
    canonical(backup, "backup")
    check_digest(digest, "digest")
    if until is not None:
        raise Unsupported(f"{guest.manager.datastore.name} cannot restore to a point in time", field="until")


@verb(noun="backup", scope="lifecycle", changes=True, timeout=24 * 3600.0, steps=STEPS, check=_checked)
def restore(
    run: Run,
    backup: str,
    *,
    digest: str | None = None,
    discard_current: bool = False,
    identity: Identity | None = None,
    only: str | None = None,
    until: str | None = None,
) -> dict[str, JSON]:
    """Put a backup's data in the place of the current data; users, grants and passwords are the backup's then.

    With --only the server goes on running, and takes in that part of the backup alone: what it has under this name is
    replaced, and nothing else changes.  Where that is cut short, the same order once more makes the part whole.

    ``backup`` its id, as ``backup list`` shows it
    ``digest`` what the backup's manifest must be, as ``backup create`` told it: detects a replaced one
    ``discard_current`` delete the current data first where both do not fit; else it goes only after success
    ``identity`` same (the backup's server once more) or new (another one with its data); else same where it is ours
    ``only`` a part of it, named as ``database list`` prints it; DATABASE.TABLE where the datastore takes single tables
    ``until`` a point in time, where the datastore can
    """
    guest = run.guest
    of_all = {"identity": identity, "discard_current": discard_current}
    run.step("accept", lambda: _accept(guest, only, of_all))
    if only is not None:
        return take_in(run, backup, digest, only)
    with _cleared(run):
        known = run.step("manifest", lambda: _known(guest, backup, digest, identity))
        # From here on the digest decides which backup this is, also after a kill.
        run.step("key", lambda: _open(guest, known))
        run.step("space", lambda: _make_room(run, known, discard_current))
        run.step("stream", lambda: fill(run, manifest_of(guest, known), _identity(known)))
        run.step("replay", lambda: seal_staging(run, backup))
        run.commit("swap")
        run.step("swap", lambda: swap(run))
        run.step("start", lambda: _start(run, known))
        return run.step("finish", lambda: _finish(run, known))


def _accept(guest: Guest, only: str | None, of_all: Mapping[str, object]) -> None:
    must_be_prepared(guest)
    if only is not None:
        accept_part(guest, of_all)
    guest.manager.backup.sweep()


def _known(guest: Guest, backup: str, digest: str | None, identity: Identity | None) -> Known:
    manifest = find(guest, backup, digest)
    return known_of(manifest, identity=identity_for(guest, manifest, identity))


def _identity(known: Known) -> Identity:
    return "same" if known["identity"] == "same" else "new"


def _open(guest: Guest, known: Known) -> None:
    """Open the key and the inventory: the last door before anything is read or touched."""
    archive_of(guest).contents(manifest_of(guest, known))


def _make_room(run: Run, known: Known, discard: bool) -> None:
    """Have room for the backup; only where it must be and may be, the current data goes first."""
    manager, manifest = run.guest.manager, manifest_of(run.guest, known)
    places, host = manager.node.places, manager.node.host
    host.remove(places.staging)
    if not discard:
        must_fit(run.guest, manifest.logical_bytes, hint=DISCARD)
        return
    must_fit(run.guest, manifest.logical_bytes, spare=size_of(places.data))
    try:
        must_fit(run.guest, manifest.logical_bytes, hint=DISCARD)
    except DatastoreError:
        manager.service.stop(data="replaced")
        host.remove(places.data)


def _start(run: Run, known: Known) -> None:
    """Serve the new data, standing where the backup stood; else exchange back, serve the old, and say so."""
    guest = run.guest
    if not swapped(run):
        raise Failed(_back(run, "the agent was killed while it went back"))
    try:
        start_server(run)
        guest.manager.admin.secure()
        guest.manager.backup.confirm(checkpoint_of(known))
    except (DatastoreError, AgentError) as error:
        raise Failed(_back(run, str(error)), field=error.field) from error
    guest.journal.facts.set_all(count_restore(guest, run.id))


def _back(run: Run, reason: str) -> str:
    """Return what is to be told after the old data is served again."""
    quietly_stop(run.guest, "discarded" if swapped(run) else "kept")
    if not swap_back(run):
        return f"the restored data is not served and there is no old data to go back to: {reason}"
    start_server(run)
    return f"the restored data was not served; the old data is served again: {reason}"


def _finish(run: Run, known: Known) -> dict[str, JSON]:
    guest = run.guest
    guest.manager.admin.probe()
    guest.journal.facts.set_all({"stopped": False, "proven": guest.manager.settings.generations.current()})
    guest.manager.node.host.remove(guest.manager.node.places.staging)
    return {**server(guest), "backup": known["backup"], "digest": known["digest"]}


@contextmanager
def _cleared(run: Run) -> Iterator[None]:
    """Where it comes to nothing: the old data is in its place, served if it was, and no staging is left lying."""
    whole = False
    try:
        yield
        whole = True
    finally:
        if not whole and run.row.step_state("start") != "done":
            attempt("keeping the old data", lambda: _keep_old(run))


def _keep_old(run: Run) -> None:
    manager = run.guest.manager
    if swap_back(run):
        manager.node.host.remove(manager.node.places.staging)
    if not run.guest.journal.facts.get("stopped") and not empty(manager.node.places.data):
        manager.service.start()
