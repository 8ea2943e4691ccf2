"""``prepare``: from an empty machine to a database that serves its tenant."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from datastores.contract import JSON, Databases, Users, verb
from guestagent.errors import Refused
from guestagent.operations.backups import archive_of
from guestagent.operations.fetching import (
    checkpoint_of,
    count_restore,
    fill,
    find,
    fresh_staging,
    identity_for,
    must_fit,
    seal_staging,
)
from guestagent.operations.guest import Guest
from guestagent.operations.marks import empty, marked
from guestagent.operations.parents import canonical
from guestagent.operations.requests import (
    DatabaseRequest,
    RestoreRequest,
    UserRequest,
    check_accounts,
    check_grants,
    spelled,
)
from guestagent.operations.run import Run, attempt
from guestagent.operations.service import quietly_stop, start_server
from guestagent.operations.swapping import swap
from objectstore.archive import check_digest

STEPS = ("accept", "guard", "settings", "stage", "swap", "start", "secure", "accounts", "finish")


def _checked(
    guest: Guest,
    databases: tuple[DatabaseRequest, ...],
    users: tuple[UserRequest, ...],
    settings: Mapping[str, object],
    restore: RestoreRequest | None,
) -> dict[str, str]:
    """Return the settings in the server's spelling; nothing has changed where this raises."""
    check_accounts(guest.manager.datastore, databases, users)
    if restore is None:
        check_grants(databases, users)
    else:
        archive_of(guest)
        canonical(restore.backup, "restore.backup")
        check_digest(restore.digest, "restore.digest")
    checked = guest.manager.settings.check(spelled(settings))
    return {name: value for name, value in checked.items() if value is not None}


@verb(noun="agent", scope="lifecycle", changes=True, timeout=6 * 3600.0, steps=STEPS, check=_checked)
def prepare(
    run: Run,
    *,
    databases: tuple[DatabaseRequest, ...] = (),
    users: tuple[UserRequest, ...] = (),
    settings: Mapping[str, object] = {},  # noqa: B006
    restore: RestoreRequest | None = None,
) -> dict[str, JSON]:
    """Make the database: settings, data (new, or from a backup), accounts; the same request again changes nothing.

    The request: {"databases": [{"name": "shop"}], "users": [{"name": "ann", "password": "...", "databases": ["shop"]}],
    "settings": {"max_connections": 200}, "restore": {"backup": "ID", "digest": "D"}}; every member may be left out.
    """
    guest = run.guest
    wanted = run.step("accept", lambda: _checked(guest, databases, users, settings, restore))
    if run.step("guard", lambda: _guard(run, restore)):
        return _told(guest)
    with _undone(run):
        run.step("settings", lambda: _settings(guest, wanted))
        checkpoint = run.step("stage", lambda: _stage(run, restore))
        run.step("swap", lambda: swap(run))
        run.step("start", lambda: start_server(run))
        run.step("secure", lambda: _secure(run, checkpoint))
        run.step("accounts", lambda: _accounts(run, databases, users))
        run.step("finish", lambda: _finish(run))
    return _told(guest)


def _guard(run: Run, restore: RestoreRequest | None) -> bool:
    """Return whether the guest was prepared by this very request; ``Refused`` where it must be left alone."""
    guest, data = run.guest, run.guest.manager.node.places.data
    prepared = guest.journal.facts.get("prepared")
    if prepared is not None:
        if prepared != run.row.digest:
            raise Refused("this guest was prepared before, by another request", hint="use the verbs for changes")
        return True
    if not empty(data) and not _left_over(guest):
        raise Refused(
            f"{data} holds data, and this agent's journal does not know of it",
            hint="bring the journal back; or move the data away, or choose another root",
        )
    if restore is not None:
        must_fit(guest, find(guest, restore.backup, restore.digest).logical_bytes)
    guest.journal.facts.set("failed", False)
    return False


def _left_over(guest: Guest) -> bool:
    """Say whether the data is of a prepare that came to nothing: our guest's, by an operation that is remembered."""
    there = marked(guest.manager.node.places.data)
    if there is None or there.guest_id != guest.guest_id:
        return False
    return any(row.id == there.operation for row in guest.journal.ledger.all())


def _settings(guest: Guest, wanted: Mapping[str, str]) -> None:
    layered = guest.manager.settings
    layered.switch(layered.write(wanted))


def _stage(run: Run, restore: RestoreRequest | None) -> dict[str, JSON] | None:
    """Fill staging; return the checkpoint of the backup it came from, or None for a new database."""
    guest, node = run.guest, run.guest.manager.node
    guest.manager.service.stop()
    if restore is None:
        fresh_staging(guest)
        staged = node.at(places=replace(node.places, data=node.places.staging))
        guest.manager.datastore.admin(staged).initialise()
        seal_staging(run, "new")
        return None
    manifest = find(guest, restore.backup, restore.digest)
    must_fit(guest, manifest.logical_bytes)
    fill(run, manifest, identity_for(guest, manifest, None))
    seal_staging(run, restore.backup)
    return {"server_id": manifest.server_id, "position": dict(manifest.position)}


def _secure(run: Run, checkpoint: Mapping[str, JSON] | None) -> None:
    guest = run.guest
    guest.manager.admin.secure()
    if checkpoint is not None:
        guest.manager.backup.confirm(checkpoint_of(checkpoint))
        guest.journal.facts.set_all(count_restore(guest, run.id))


def _accounts(run: Run, databases: tuple[DatabaseRequest, ...], users: tuple[UserRequest, ...]) -> None:
    manager = run.guest.manager
    for number, database in enumerate(databases):
        run.check()
        _databases(manager.part("databases")).create(
            database.name, charset=database.charset, collate=database.collate, replication=database.replication
        )
        run.progress(number + 1, len(databases) + len(users), "objects")
    for number, user in enumerate(users):
        run.check()
        _users(manager.part("users")).create(user.name, user.password, host=user.host, databases=user.databases)
        run.progress(len(databases) + number + 1, len(databases) + len(users), "objects")


def _finish(run: Run) -> None:
    guest = run.guest
    guest.manager.admin.probe()
    guest.manager.node.host.remove(guest.manager.node.places.staging)
    facts: dict[str, JSON] = {
        "prepared": run.row.digest,
        "failed": False,
        "stopped": False,
        "proven": guest.manager.settings.generations.current(),
    }
    guest.journal.facts.set_all(facts)


@contextmanager
def _undone(run: Run) -> Iterator[None]:
    """Where it fails or is cancelled: no half-made server is left running, no staging is left lying."""
    whole = False
    try:
        yield
        whole = True
    finally:
        if not whole:
            places, host = run.guest.manager.node.places, run.guest.manager.node.host
            quietly_stop(run.guest)
            attempt("removing what was staged", lambda: host.remove(places.staging))
            run.guest.journal.facts.set("failed", True)


def _told(guest: Guest) -> dict[str, JSON]:
    endpoint = guest.manager.node.endpoint
    return {"endpoint": {"host": endpoint.host, "port": endpoint.port, "socket": str(endpoint.socket)}}


def _databases(part: object) -> Databases:
    assert isinstance(part, Databases)
    return part


def _users(part: object) -> Users:
    assert isinstance(part, Users)
    return part
