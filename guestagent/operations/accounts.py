"""The changing verbs of a datastore's parts: each is an operation of three steps, made here for all of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from datastores.contract import JSON, DatastoreError, NotFound
from guestagent.errors import Failed
from guestagent.operations.run import Run

if TYPE_CHECKING:
    from guestagent.declarations import Verb

_REMOVING = ("delete", "revoke")


def perform(run: Run, verb: "Verb", args: Mapping[str, object]) -> JSON:
    """Let the part do it, on a server that answers before and after."""
    manager = run.guest.manager
    method = getattr(manager.part(verb.part or ""), verb.name)

    def move() -> JSON:
        try:
            result: JSON = method(**args)
        except DatastoreError as error:
            # A kill between the effect and its record: what was to go is gone.
            if isinstance(error, NotFound) and run.begun(verb.name) and verb.name in _REMOVING:
                return None
            # A part says which kind of object it is about, who asked knows the argument.
            error.field = "name" if error.field == verb.noun else error.field
            raise
        return result

    run.step("accept", manager.admin.ping)
    found = run.step(verb.name, move)
    run.step("finish", manager.admin.ping)
    if verb.mark.once and found is None:
        raise Failed(f"{verb.key} had nothing to tell")
    return found
