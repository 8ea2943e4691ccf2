"""``backup restore --only``: a part of a backup into the running server, which goes on serving all the rest."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from datastores.contract import JSON, DatastoreError, File, Unsupported
from guestagent.errors import Failed, Refused
from guestagent.operations.backups import archive_of, files_of
from guestagent.operations.fetching import (
    Known,
    checkpoint_of,
    find,
    fresh_staging,
    known_of,
    manifest_of,
    must_fit,
    watched,
)
from guestagent.operations.guest import Guest
from guestagent.operations.marks import settle
from guestagent.operations.run import Run, attempt
from guestagent.operations.service import server
from objectstore.archive import Contents

AGAIN = "the same order once more makes it whole"


def accept_part(guest: Guest, of_all: Mapping[str, object]) -> None:
    """Raise where no part can be taken in now; ``of_all``: options that mean all of the data, not one may be given."""
    datastore = guest.manager.datastore
    if datastore.imports is None:
        raise Unsupported(f"{datastore.name} cannot restore a part of a backup", field="only")
    for name, given in of_all.items():
        if given:
            raise Refused(f"{name} is about all of the data, and only a part is restored", field=name)
    guest.manager.admin.ping()


def take_in(run: Run, backup: str, digest: str | None, name: str) -> dict[str, JSON]:
    """Run the steps after ``accept``; until ``replay`` nothing of the server changes."""
    guest = run.guest
    with _cleared(run):
        known = run.step("manifest", lambda: known_of(find(guest, backup, digest), only=name))
        size = run.step("key", lambda: _size(guest, known))
        run.step("space", lambda: _make_room(guest, size))
        run.step("stream", lambda: _receive(run, known))
        run.commit("replay")
        run.step("replay", lambda: _load(run, known))
        return run.step("finish", lambda: _finish(guest, known, size))


def _chosen(guest: Guest, known: Known) -> tuple[Contents, tuple[File, ...]]:
    """Return the backup, and the inventory of the part."""
    contents = archive_of(guest).contents(manifest_of(guest, known))
    files = files_of(contents)
    wanted = {each.path for each in guest.manager.imports.choose(files, str(known["only"]), contents.read)}
    return contents, tuple(each for each in files if each.path in wanted)


def _size(guest: Guest, known: Known) -> int:
    """Open the key and the inventory, find the part, and return its bytes."""
    return sum(each.size for each in _chosen(guest, known)[1])


def _make_room(guest: Guest, size: int) -> None:
    guest.manager.node.host.remove(guest.manager.node.places.staging)
    must_fit(guest, size)


def _receive(run: Run, known: Known) -> None:
    """Have the part's files in staging, every byte verified, and durable."""
    guest = run.guest
    contents, files = _chosen(guest, known)
    extents = contents.extents({each.path for each in files})
    fresh_staging(guest)
    staging = guest.manager.node.places.staging
    guest.manager.imports.receive(files, watched(run, extents, sum(each.size for each in files)), staging)
    settle(staging)


def _load(run: Run, known: Known) -> None:
    guest, name = run.guest, str(known["only"])
    if run.begun("replay"):
        # What the server took before the kill is gone from staging.
        _receive(run, known)
    try:
        files = _chosen(guest, known)[1]
        guest.manager.imports.load(files, checkpoint_of(known), guest.manager.node.places.staging, name)
    except DatastoreError as error:
        raise Failed(f"{name!r} was not taken in whole, all else is as it was: {error}", hint=AGAIN) from error


def _finish(guest: Guest, known: Known, size: int) -> dict[str, JSON]:
    guest.manager.admin.probe()
    told = {name: known[name] for name in ("backup", "digest", "only")}
    return {**server(guest), **told, "bytes": size}


@contextmanager
def _cleared(run: Run) -> Iterator[None]:
    """However it ends, no staging is left lying."""
    node = run.guest.manager.node
    try:
        yield
    finally:
        attempt("removing what was staged", lambda: node.host.remove(node.places.staging))
