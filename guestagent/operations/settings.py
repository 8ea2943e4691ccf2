"""Settings: a tenant's values, written as a new generation, put in force and confirmed on the server."""

from collections.abc import Callable, Mapping
from typing import cast

from datastores.contract import JSON, DatastoreError, Mismatch, verb
from datastores.settings import Changes
from guestagent.errors import Failed, Refused
from guestagent.operations.guest import Guest
from guestagent.operations.run import Run, attempt
from guestagent.operations.service import answers, must_be_prepared

STEPS = ("accept", "check", "write", "switch", "apply", "confirm")


def _checked(guest: Guest, values: Mapping[str, str] | None = None, names: tuple[str, ...] = ()) -> dict[str, JSON]:
    """Return the changes in the server's spelling; ``Refused`` or ``BadInput`` names what cannot be set."""
    changes: Changes = dict.fromkeys(names) if values is None else values
    if not changes:
        raise Refused("no setting was named", field="names" if values is None else "values")
    return cast("dict[str, JSON]", guest.manager.settings.check(changes))


@verb(noun="settings", scope="settings", changes=True, timeout=120.0, steps=STEPS, result=True, check=_checked)
def set_(run: Run, values: Mapping[str, str]) -> list[dict[str, JSON]]:
    """Set values: dynamic ones hold at once, static ones wait for a restart, which is left to you."""
    return _change(run, dict(values))


@verb(noun="settings", scope="settings", changes=True, timeout=120.0, steps=STEPS, result=True, check=_checked)
def drop(run: Run, names: tuple[str, ...]) -> list[dict[str, JSON]]:
    """Take back values that were set; what the image or the agent says holds again."""
    return _change(run, dict.fromkeys(names))


@verb(noun="settings")
def list_(guest: Guest, *, all: bool = False) -> list[dict[str, JSON]]:
    """List the settings with their source; ``all``: every one that may be set, as the server uses it."""
    return guest.manager.settings.rows(every=all)


def _change(run: Run, changes: dict[str, str | None]) -> list[dict[str, JSON]]:
    layered = run.guest.manager.settings
    before = run.step("accept", lambda: _accept(run.guest))
    checked = run.step("check", lambda: cast("dict[str, JSON]", layered.check(changes)))
    wanted = cast("Changes", checked)
    number = run.step("write", lambda: layered.write(_merged(layered.user(), wanted)))
    run.commit("switch")
    proven = run.guest.journal.facts.get("proven")
    run.step("switch", lambda: layered.switch(number, keep=proven if isinstance(proven, int) else None))
    run.step("apply", lambda: _apply(run.guest, wanted, number, before))
    return run.step("confirm", lambda: _confirm(run.guest, wanted, number, before))


def _accept(guest: Guest) -> int:
    """Return the generation in force."""
    must_be_prepared(guest)
    return guest.manager.settings.generations.current()


def _merged(user: Mapping[str, str], changes: Changes) -> dict[str, str]:
    merged = {**user, **{name: value for name, value in changes.items() if value is not None}}
    return {name: value for name, value in merged.items() if changes.get(name, value) is not None}


def _apply(guest: Guest, changes: Changes, number: int, before: int) -> None:
    if answers(guest):
        _or_back(guest, changes, number, before, guest.manager.settings.apply)


def _confirm(guest: Guest, changes: Changes, number: int, before: int) -> list[dict[str, JSON]]:
    layered = guest.manager.settings
    _or_back(guest, changes, number, before, layered.confirm)
    return [row for row in layered.rows(every=True) if row["name"] in changes]


def _or_back(guest: Guest, changes: Changes, number: int, before: int, move: Callable[[Changes], object]) -> None:
    """Make a move; where it fails, put the generation before in force again, on the server too, and say so."""
    layered = guest.manager.settings
    try:
        if layered.generations.current() != number:
            raise Mismatch(f"generation {number} is not in force any more")
        move(changes)
    except DatastoreError as error:
        if layered.generations.current() != before:
            layered.rollback(before)
        if answers(guest):
            attempt("applying the settings before", lambda: layered.apply(changes))
        raise Failed(
            f"the settings were rolled back to generation {layered.generations.current()}: {error}", field=error.field
        ) from error
