"""The server as a service: start, stop, restart."""

import time
from collections.abc import Mapping

from datastores.contract import JSON, DatastoreError, Fate, NotReady, ToolFailed, verb
from guestagent.errors import Failed, Refused
from guestagent.operations.guest import Guest
from guestagent.operations.marks import marked
from guestagent.operations.run import Run, attempt

START_TIMEOUT = 300.0
_SLICE = 5.0


@verb(noun="service", scope="lifecycle", changes=True, timeout=600.0, steps=("accept", "start", "finish"))
def start(run: Run) -> dict[str, JSON]:
    """Start the database; settings with which it does not come up are rolled back."""
    run.step("accept", lambda: must_be_prepared(run.guest))
    run.step("start", lambda: start_proven(run))
    return run.step("finish", lambda: _is(run.guest, stopped=False))


@verb(noun="service", scope="lifecycle", changes=True, timeout=600.0, steps=("accept", "stop", "finish"))
def stop(run: Run) -> dict[str, JSON]:
    """Stop the database."""
    run.step("accept", lambda: must_be_prepared(run.guest))
    run.step("stop", lambda: _stop(run.guest))
    return run.step("finish", lambda: _is(run.guest, stopped=True))


@verb(noun="service", scope="lifecycle", changes=True, timeout=900.0, steps=("accept", "stop", "start", "finish"))
def restart(run: Run) -> dict[str, JSON]:
    """Stop and start the database; settings with which it does not come up are rolled back."""
    run.step("accept", lambda: must_be_prepared(run.guest))
    run.step("stop", run.guest.manager.service.stop)
    run.step("start", lambda: start_proven(run))
    return run.step("finish", lambda: _is(run.guest, stopped=False))


def must_be_prepared(guest: Guest) -> None:
    """Raise ``Refused`` where the guest was never prepared."""
    if guest.journal.facts.get("prepared") is None:
        raise Refused("this guest was not prepared yet", hint="ostler prepare --request FILE")


def start_server(run: Run) -> None:
    """Start the server and wait until it answers, or until the run is asked to end."""
    end = time.monotonic() + START_TIMEOUT
    while True:
        run.check()
        try:
            run.guest.manager.service.start(timeout=min(_SLICE, max(1.0, end - time.monotonic())))
            return
        except NotReady:
            if time.monotonic() >= end:
                raise


def start_proven(run: Run) -> None:
    """Start the server; where it does not come up with settings it never ran with, go back to those before and say so.

    ``Failed`` where it runs, with the settings before; ``NotReady`` where its data is not there.
    """
    settings, facts = run.guest.manager.settings, run.guest.journal.facts
    if run.guest.manager.service.pid() is None:
        _must_be_there(run.guest)
        settings.ensure()
    tried, proven = settings.generations.current(), facts.get("proven")
    try:
        start_server(run)
    except (ToolFailed, NotReady) as error:
        if tried == proven or tried < 2:
            raise
        run.guest.manager.service.stop()
        settings.rollback(proven if isinstance(proven, int) else None)
        start_server(run)
        facts.set("proven", settings.generations.current())
        raise Failed(
            f"the server did not come up with settings generation {tried}, which was rolled back; "
            f"it runs with generation {settings.generations.current()}: {error}"
        ) from error
    facts.set("proven", tried)


def _must_be_there(guest: Guest) -> None:
    """Raise ``NotReady`` where the guest's data is not in its place: a server would make a new database there."""
    data = guest.manager.node.places.data
    if marked(data) is None:
        raise NotReady(f"the data of this guest is not in {data}", hint="mount its disk, or restore a backup")


def quietly_stop(guest: Guest, data: Fate = "kept") -> None:
    """Stop the server where something failed already; a second failure is logged and no more."""
    attempt("stopping the server", lambda: guest.manager.service.stop(data=data))


def server(guest: Guest) -> Mapping[str, JSON]:
    """Return what is to be told of the server after a change."""
    return {"server_pid": guest.manager.service.pid()}


def answers(guest: Guest) -> bool:
    """Say whether the server answers now."""
    if guest.manager.service.pid() is None:
        return False
    try:
        guest.manager.admin.ping()
    except DatastoreError:
        return False
    return True


def _stop(guest: Guest) -> None:
    # Said first: a server that is seen down meanwhile has not crashed.
    guest.journal.facts.set("stopped", True)
    guest.manager.service.stop()


def _is(guest: Guest, *, stopped: bool) -> dict[str, JSON]:
    guest.journal.facts.set("stopped", stopped)
    return dict(server(guest))
