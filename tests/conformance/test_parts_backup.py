"""Every installed datastore's backup: whole, comparable, restorable, and gone without a trace.  Written once."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from datastores.contract import Limits, Mismatch, Secret, Users
from datastores.manager import Manager
from tests.fakes_host import Keeper, Taken, restore
from tests.guests import Guests, having, sample

WORD = Secret("kept in the backup")
SIZE = 3_000_000
EPOCHS = itertools.count(1)


@pytest.fixture(scope="module", params=having("backup"))
def served(request: pytest.FixtureRequest, inn: Guests) -> Manager:
    manager = inn.manager(request.param)
    sample(manager).fill(SIZE)
    sample(manager).settle()
    return manager


@pytest.fixture(scope="module")
def full(served: Manager) -> Taken:
    return Keeper().take(served.backup)


@pytest.fixture(scope="module")
def other(served: Manager, inn: Guests) -> Manager:
    """A guest with data of its own, in whose place others' are put."""
    manager = inn.manager(served.datastore.name)
    sample(manager).fill(50_000)
    return manager


def brought_back(other: Manager, taken: Taken) -> Manager:
    """Restore into a guest that has had other data, by the exchange of folders."""
    places, host = other.node.places, other.node.host
    other.service.stop()
    host.folder(places.staging)
    restore(other.backup, taken, places.staging)
    host.exchange(places.staging, places.data)
    manager = other.with_epoch(next(EPOCHS))
    manager.service.start()
    manager.admin.secure()
    manager.backup.confirm(taken.checkpoint)
    host.remove(places.staging)
    return manager


def test_another_servers_backup_cannot_be_the_parent(served: Manager, other: Manager) -> None:
    """Before anything was restored there."""
    assert other.backup.server_id() != served.backup.server_id()


def test_a_full_backup_is_whole(served: Manager, full: Taken) -> None:
    assert full.kind == "full"
    assert full.size >= SIZE / 3
    assert full.new_bytes >= full.size * 0.9
    assert full.checkpoint.server_id == served.backup.server_id()
    assert full.checkpoint.position
    served.backup.confirm(full.checkpoint)


def test_a_restored_guest_has_the_same_data_users_and_position(served: Manager, other: Manager) -> None:
    accounts = served.part("users")
    assert isinstance(accounts, Users)
    accounts.create("kept", WORD)
    taken = Keeper().take(served.backup)
    back = brought_back(other, taken)
    assert sample(back).digest() == sample(served).digest()
    assert sample(back).login("kept", WORD)
    back.admin.probe()
    back.service.stop()
    back.service.start()
    assert sample(back).digest() == sample(served).digest()
    back.service.stop()


def test_a_backup_knows_what_it_was_taken_before(served: Manager, full: Taken) -> None:
    sample(served).change(0.01, seed=5)
    with pytest.raises(Mismatch):
        served.backup.confirm(full.checkpoint)


def test_increments_send_less_and_restore_the_same(served: Manager, other: Manager) -> None:
    sample(served).settle()
    taken = Keeper().take(served.backup)
    for seed in (1, 2):
        sample(served).change(0.03, seed=seed)
        sample(served).settle()
        parent, taken = taken, Keeper(taken).take(served.backup)
        assert taken.kind == "incremental"
        assert 0 < taken.new_bytes < parent.size * 0.6
    digest = sample(served).digest()
    back = brought_back(other, taken)
    assert sample(back).digest() == digest
    again = Keeper().take(back.backup)
    assert again.kind == "full"
    back.service.stop()


def test_a_backup_taken_while_others_write_is_of_one_moment(served: Manager, other: Manager) -> None:
    over, changed = threading.Event(), []

    def write() -> None:
        while not over.is_set():
            changed.append(sample(served).change(0.002, seed=100 + len(changed)))
            over.wait(0.02)

    def more(wanted: int) -> None:
        # A server that holds its writers still does not get there, and that is well.
        for _ in range(100):
            if len(changed) >= wanted:
                return
            over.wait(0.01)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            taken = Keeper().take(served.backup, meanwhile=lambda: more(len(changed) + 2))
        finally:
            over.set()
        writing.result()
    back = brought_back(other, taken)
    assert sample(back).digest().keys() == sample(served).digest().keys()
    back.admin.probe()
    back.service.stop()


def test_nothing_changed_sends_next_to_nothing(served: Manager) -> None:
    sample(served).settle()
    first = Keeper().take(served.backup)
    second = Keeper(first).take(served.backup)
    assert second.new_bytes <= max(first.size * 0.05, 300_000)


def test_leaving_early_leaves_no_trace(served: Manager) -> None:
    digest = sample(served).digest()
    temp = sorted(served.node.places.temp.rglob("*"))
    with pytest.raises(RuntimeError, match="early"), served.backup.snapshot(None, Limits()) as snapshot:
        list(itertools.islice(snapshot.extents(), 2))
        raise RuntimeError("early")
    assert sorted(served.node.places.temp.rglob("*")) == temp
    assert sample(served).digest() == digest
    sample(served).change(0.01, seed=9)
    assert Keeper().take(served.backup).kind == "full"


def test_sweep_may_be_repeated_and_hurts_nobody(served: Manager) -> None:
    digest = sample(served).digest()
    served.backup.sweep()
    served.backup.sweep()
    assert sample(served).digest() == digest
    served.admin.probe()
    assert list(served.node.places.temp.iterdir()) == []


def test_limits_do_not_change_what_is_sent(served: Manager) -> None:
    sample(served).settle()
    one = Keeper().take(served.backup, limits=Limits(workers=1, nice=5))
    assert one.kind == "full"
    assert one.size > SIZE / 3
