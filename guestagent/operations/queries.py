"""Reading verbs of the agent's own: answered at once."""

from datastores.contract import JSON, verb
from guestagent.declarations import describe as declared
from guestagent.declarations import verbs
from guestagent.errors import Cancelled, Refused
from guestagent.operations.guest import Guest
from guestagent.operations.killing import verbs_meant
from guestagent.operations.run import steps_of as declared_steps
from guestagent.status import report


@verb(noun="agent")
def describe(guest: Guest) -> dict[str, JSON]:
    """Say what this agent can do: its datastore's parts and every verb."""
    return declared(guest.manager.datastore, guest.manager.node.installation.version)


@verb(noun="agent")
def status(guest: Guest) -> dict[str, JSON]:
    """Say how the database is, where it listens and what runs."""
    return report(guest)


@verb(noun="operation")
def list_(guest: Guest, *, after: str | None = None, limit: int | None = None) -> list[dict[str, JSON]]:
    """List the operations in the order in which they were accepted; results are left to ``show``.

    ``after`` begin behind the operation with this id
    ``limit`` how many at the most; without it all of them
    """
    return [row.to_json() for row in guest.journal.ledger.page(after, limit)]


@verb(noun="operation")
def show(guest: Guest, id: str) -> dict[str, JSON]:
    """Show one operation with its result; one that is told once is told now, and then gone."""
    return guest.journal.told(guest.journal.ledger.find(id), deliver=True)


@verb(noun="operation")
def cancel(guest: Guest, id: str) -> dict[str, JSON]:
    """Ask an operation to end; one beyond the point of no return goes on, one that has ended stays as it is."""
    row = guest.journal.ledger.find(id)
    if row.live:
        guest.signals.ask(id, Cancelled("the operation was cancelled", operation=id))
    return guest.journal.told(guest.journal.ledger.find(id))


@verb(noun="operation")
def steps(guest: Guest, verb: str) -> list[str]:
    """List the steps of a verb: ``prepare``, ``backup``, ``restore``, ``settings``, or ``noun.verb``."""
    return list(steps_of(verb))


def steps_of(name: str) -> tuple[str, ...]:
    """Return the steps of a verb by the name people call it, or raise ``Refused``."""
    found = verbs().get(verbs_meant(name)[0])
    if found is None or not found.mark.changes:
        raise Refused(f"there is no changing verb {name[:80]!r}", field="verb")
    return declared_steps(found)
