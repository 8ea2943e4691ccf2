"""The exchange of staging and data: old or new, never neither, and after a kill one looks which it is."""

from guestagent.operations.marks import empty, marked
from guestagent.operations.run import Run


def swapped(run: Run) -> bool:
    """Say whether the data is what this operation has staged."""
    there = marked(run.guest.manager.node.places.data)
    return there is not None and there.operation == run.id


def swap(run: Run) -> None:
    """Stop the server, whose data goes, and exchange the two folders, once."""
    manager = run.guest.manager
    places, host = manager.node.places, manager.node.host
    if swapped(run):
        return
    manager.service.stop(data="replaced")
    host.folder(places.data)
    host.exchange(places.staging, places.data)


def swap_back(run: Run) -> bool:
    """Have the data of before in its place again; return whether there was any."""
    manager = run.guest.manager
    places, host = manager.node.places, manager.node.host
    if swapped(run):
        if empty(places.staging):
            return False
        manager.service.stop(data="discarded")
        host.exchange(places.staging, places.data)
    return True
