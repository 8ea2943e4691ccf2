"""``backup create``: the loop in which a snapshot's extents become an archive's draft."""

import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any, Literal

from datastores.contract import JSON, Blocks, Checkpoint, Extent, File, Kept, Limits, Since, Snapshot, verb
from guestagent.errors import Failed, Interrupted, Refused
from guestagent.journal import CANCELLED, FAILED, Row
from guestagent.journal.clock import now
from guestagent.operations.guest import Guest
from guestagent.operations.pace import Pace, be_nice, limits
from guestagent.operations.parents import Lineage, canonical, choose
from guestagent.operations.run import Run, attempt
from guestagent.operations.service import must_be_prepared
from objectstore.archive import Archive, Contents, Cut, Draft, Entry, Header, Manifest
from objectstore.store import Missing, Unavailable

STEPS = ("accept", "lease", "key", "open", "stream", "close", "manifest", "check", "finish")


def _checked(
    guest: Guest, *, id: str | None, parent: str, bandwidth: int, workers: int, nice: int, **_: object
) -> Limits:
    """Return the limits; raise where the realm, an id or a limit can never do."""
    archive_of(guest)
    if id is not None:
        canonical(id, "id")
    if parent not in ("auto", "none"):
        canonical(parent, "parent")
    return limits(bandwidth, workers, nice)


@verb(noun="backup", scope="data", changes=True, timeout=24 * 3600.0, steps=STEPS, result=True, check=_checked)
def create(
    run: Run,
    *,
    id: str | None = None,
    parent: str = "auto",
    on_hole: Literal["fail", "full"] = "fail",
    bandwidth: int = 0,
    workers: int = 2,
    nice: int = 0,
) -> dict[str, JSON]:
    """Back the database up: in full, or what changed since a parent.

    ``id`` a UUID of your choice; the same one twice is refused
    ``parent`` auto (the newest that can serve, else a full), none (a full), or a backup's id
    ``on_hole`` where the log since the parent has a gap: fail, or full (which still stores only what changed)
    ``bandwidth`` bytes a second that are read at the most; 0 is no limit
    ``workers`` threads that compress and seal
    ``nice`` niceness of the tools and threads, 0 to 19
    """
    allowed = limits(bandwidth, workers, nice)
    header = _header(run.step("accept", lambda: _accept(run, id, parent)))
    be_nice(allowed.nice)
    with _swept(run, header):
        manifest = _sealed_before(run, header) or _take(run, header, allowed, on_hole)
        # What is in the store cannot be cancelled any more.
        run.commit("manifest")
        run.step("manifest", lambda: manifest.digest)
        state = run.step("check", lambda: _check(archive_of(run.guest), manifest))
        return run.step("finish", lambda: _finish(run, manifest, state))


@verb(noun="backup")
def building(guest: Guest) -> list[dict[str, JSON]]:
    """List this guest's own backups that are under way or came to nothing."""
    rows = [row for row in guest.journal.ledger.all() if row.verb == "backup.create" and row.note]
    return [unfinished(row) for row in rows if row.state != "succeeded"]


def archive_of(guest: Guest) -> Archive:
    """Return the archive; ``Refused`` where no realm was configured."""
    if guest.archive is None:
        raise Refused("this agent was given no realm to keep backups in", field="realm")
    return guest.archive


def unfinished(row: Row) -> dict[str, JSON]:
    """Return the ``backup`` JSON of an attempt that has no manifest."""
    state = "BUILDING" if row.live else "CANCELLED" if row.state == CANCELLED else "FAILED"
    counts: dict[str, JSON] = dict.fromkeys(("logical_bytes", "new_bytes", "stored_bytes"), 0)
    return {
        **dict(row.note),
        "digest": None,
        "state": state,
        "ended_at": row.ended_at,
        "read_bytes": row.progress[0],
        **counts,
        "copies": {"have": 0, "wanted": 0},
        "position": {},
        "key_id": None,
        "members": [],
        "format": 1,
    }


def _accept(run: Run, wanted_id: str | None, parent: str) -> dict[str, JSON]:
    """Return the header of the backup that is to be."""
    guest, archive = run.guest, archive_of(run.guest)
    backup = canonical(wanted_id, "id") if wanted_id is not None else str(uuid.uuid4())
    if wanted_id is not None and _taken(run, backup):
        raise Refused(f"there is a backup {backup} already", field="id")
    must_be_prepared(guest)
    guest.manager.admin.ping()
    lineage = Lineage.of(guest)
    base = choose(archive, lineage, parent)
    header = Header(
        backup=backup,
        attempt=str(uuid.uuid4()),
        guest_id=guest.guest_id,
        generation=base.header.generation if base is not None else str(uuid.uuid4()),
        parent=base.header.backup if base is not None else None,
        datastore=guest.manager.datastore.name,
        version=lineage.version,
        role=guest.manager.datastore.roles[0],
        server_id=lineage.server_id,
        restore_epoch=lineage.restore_epoch,
        started_at=now(),
    )
    told = asdict(header)
    run.note(id=told.pop("backup"), kind="incremental" if base is not None else "full", **told)
    return asdict(header)


def _header(values: dict[str, Any]) -> Header:
    return Header(**values)


def _taken(run: Run, backup: str) -> bool:
    ledger = run.guest.journal.ledger
    if any(row.note.get("id") == backup and row.id != run.id for row in ledger.all()):
        return True
    try:
        archive_of(run.guest).find(backup)
    except Missing:
        return False
    return True


def _sealed_before(run: Run, header: Header) -> Manifest | None:
    """After a kill: return the manifest if it was put, else raise ``Interrupted``; None where nothing had begun."""
    if not run.begun("lease"):
        return None
    found = _put(archive_of(run.guest), header)
    if found is None:
        raise Interrupted(f"interrupted at {run.row.step!r}: the agent was killed there", operation=run.id)
    attempt("ending the lease", lambda: archive_of(run.guest).abandon(header.attempt))
    return found


def _take(run: Run, header: Header, allowed: Limits, on_hole: str) -> Manifest:
    """Make the backup; the manifest is put only after the snapshot was left well."""
    archive, backup = archive_of(run.guest), run.guest.manager.backup
    with archive.draft(header, workers=allowed.workers, nice=allowed.nice) as draft, ExitStack() as held:
        run.step("lease", draft.lease, repeatable=False)
        run.step("key", draft.key, repeatable=False)
        snapshots: list[Snapshot] = []

        def begin() -> None:
            base = None if header.parent is None else archive.contents(archive.find(header.parent))
            draft.open(base, lambda path, head: _cut(snapshots[0], path, head))
            since = None if base is None else _since(run, base, on_hole)
            snapshots.append(held.enter_context(backup.snapshot(since, allowed)))

        run.step("open", begin, repeatable=False)
        run.step("stream", lambda: _pour(run, snapshots[0], draft, allowed), repeatable=False)
        end = run.step("close", lambda: _close(snapshots[0], held, draft), repeatable=False)
        return _seal(run, header, draft, end)


def _seal(run: Run, header: Header, draft: Draft, end: Mapping[str, JSON]) -> Manifest:
    """Put the manifest; where the store does not say whether it took it, look."""
    archive, sealed = archive_of(run.guest), list[Manifest]()
    position = end["position"] if isinstance(end["position"], dict) else {}

    def seal() -> str:
        try:
            sealed.append(draft.seal(str(end["kind"]), str(end["server_id"]), position))
        except Unavailable:
            found = _put(archive, header)
            if found is None:
                raise
            sealed.append(found)
        return sealed[0].digest

    run.commit("manifest")
    run.step("manifest", seal)
    return sealed[0]


def _put(archive: Archive, header: Header) -> Manifest | None:
    """Return the manifest of this very attempt, if the store has it."""
    try:
        found = archive.find(header.backup)
    except Missing:
        return None
    return found if found.header.attempt == header.attempt else None


def _pour(run: Run, snapshot: Snapshot, draft: Draft, allowed: Limits) -> None:
    pace, done = Pace(allowed.bandwidth), 0
    for item in snapshot.extents():
        run.check()
        if isinstance(item, Kept):
            draft.keep(item.path)
            continue
        path, offset, buffer = item
        draft.add(path, offset, buffer)
        size = memoryview(buffer).nbytes
        done += size
        run.progress(done, max(done, snapshot.estimate))
        run.pause(pace.owed(size))


def _close(snapshot: Snapshot, held: ExitStack, draft: Draft) -> dict[str, JSON]:
    files = tuple(snapshot.files())
    end, kind = snapshot.checkpoint(), snapshot.kind
    # The server is let go before we wait for the store.
    held.pop_all().close()
    draft.close(Entry(each.path, each.stored, each.size, each.mode, each.identity, each.private) for each in files)
    return {"kind": kind, "server_id": end.server_id, "position": dict(end.position)}


def _cut(snapshot: Snapshot, path: str, head: memoryview) -> Cut | None:
    found = snapshot.blocks(path, head)
    return found if isinstance(found, Blocks) else None


def _since(run: Run, base: Contents, on_hole: str) -> Since:
    def extents(paths: Collection[str]) -> Iterator[Extent]:
        # Nothing is read ahead: this stands in memory beside a backup.
        for each in base.extents(paths, ahead=0):
            run.check()
            yield each

    checkpoint = Checkpoint(base.manifest.server_id, base.manifest.position)
    return Since(checkpoint, files_of(base), base.read, extents, on_hole)


def files_of(contents: Contents) -> tuple[File, ...]:
    """Return an archive's inventory in the words of the contract."""
    return tuple(
        File(each.path, each.stored, each.size, each.mode, each.identity, each.private) for each in contents.files
    )


def _check(archive: Archive, manifest: Manifest) -> dict[str, JSON]:
    copies = archive.copies(manifest)
    if copies.state == "FAILED":
        raise Failed(f"no cluster holds all of backup {manifest.header.backup}")
    return manifest.to_json(copies)


def _finish(run: Run, manifest: Manifest, backup: dict[str, JSON]) -> dict[str, JSON]:
    run.guest.journal.outbox.put("backup", manifest.header.backup, backup)
    return backup


@contextmanager
def _swept(run: Run, header: Header) -> Iterator[None]:
    """Where it comes to nothing: leave no trace on the server, end the lease, and tell."""
    whole = False
    try:
        yield
        whole = True
    finally:
        if not whole:
            guest = run.guest
            told = unfinished(replace(run.row, state=CANCELLED if run.cancelled else FAILED, ended_at=now()))
            attempt("sweeping", guest.manager.backup.sweep)
            attempt("ending the lease", lambda: archive_of(guest).abandon(header.attempt))
            attempt("telling", lambda: guest.journal.outbox.put("backup", header.backup, told))
