"""Settings: a tenant's values, written as a new generation, put in force and confirmed on the server."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypedDict, cast

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
    return _check(guest, changes)


def _check(guest: Guest, changes: Changes) -> dict[str, JSON]:
    """Return the changes in the server's spelling; what the user has set already must go together with them."""
    layered = guest.manager.settings
    checked = layered.check(changes)
    layered.part.check(_merged(layered.user(), checked))
    return cast("dict[str, JSON]", checked)


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
    checked = run.step("check", lambda: _check(run.guest, changes))
    wanted = cast("Changes", checked)
    number = run.step("write", lambda: layered.write(_merged(layered.user(), wanted)))
    run.commit("switch")
    proven = run.guest.journal.facts.get("proven")
    run.step("switch", lambda: layered.switch(number, keep=proven if isinstance(proven, int) else None))
    run.step("apply", lambda: _apply(run.guest, wanted, number, before))
    return run.step("confirm", lambda: _confirm(run.guest, wanted, number, before))


class Before(TypedDict):
    """What held before a change: the generation in force, and what the running server used that can be set back."""

    generation: int
    running: dict[str, str]


def _accept(guest: Guest) -> Before:
    must_be_prepared(guest)
    return {"generation": guest.manager.settings.generations.current(), "running": _running(guest)}


def _running(guest: Guest) -> dict[str, str]:
    """Return every dynamic setting that the server uses; none where it does not answer."""
    part = guest.manager.settings.part
    rules, found = part.rules(), part.effective() if answers(guest) else {}
    return {name: value for name, value in found.items() if name in rules and rules[name].dynamic}


def _merged(user: Mapping[str, str], changes: Changes) -> dict[str, str]:
    merged = {**user, **{name: value for name, value in changes.items() if value is not None}}
    return {name: value for name, value in merged.items() if changes.get(name, value) is not None}


def _apply(guest: Guest, changes: Changes, number: int, before: Before) -> None:
    if answers(guest):
        _or_back(guest, changes, number, before, guest.manager.settings.apply)


def _confirm(guest: Guest, changes: Changes, number: int, before: Before) -> list[dict[str, JSON]]:
    layered = guest.manager.settings
    _or_back(guest, changes, number, before, layered.confirm)
    return [row for row in layered.rows(every=True) if row["name"] in changes]


def _or_back(guest: Guest, changes: Changes, number: int, before: Before, move: Callable[[Changes], object]) -> None:
    """Make a move; where it fails, put what held before in force again, on the running server too, and say so."""
    layered = guest.manager.settings
    try:
        if layered.generations.current() != number:
            raise Mismatch(f"generation {number} is not in force any more")
        move(changes)
    except DatastoreError as error:
        if layered.generations.current() != before["generation"]:
            layered.rollback(before["generation"])
        attempt("setting the running server back", lambda: _set_back(guest, before["running"]))
        raise Failed(
            f"the settings were rolled back to generation {layered.generations.current()}: {error}", field=error.field
        ) from error


def _set_back(guest: Guest, before: Mapping[str, str]) -> None:
    """Set what the running server uses now and did not before: one by one, as one that is refused keeps none back."""
    part = guest.manager.settings.part
    for name, value in sorted(_running(guest).items()):
        if before.get(name, value) != value:
            attempt(f"setting {name} back", partial(part.apply, {name: before[name]}))
