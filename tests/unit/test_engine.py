"""The engine: what is accepted, what excludes what, and how it ends."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datastores.contract import JSON, BadInput, NotReady, Unsupported
from guestagent.declarations import verbs
from guestagent.errors import Busy, DeadlinePassed, Fault, JournalCorrupt, Refused, UnknownOperation
from guestagent.operations.engine import Operations, Request
from guestagent.operations.guest import Guest
from guestagent.operations.vintage import vintage
from objectstore.store import BadRequest
from tests.fakes_ops import SHAM, ShamAdmin, read_state, sham_archive, sham_guest, up
from tests.fakes_site import until


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    made = sham_guest(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def engine(guest: Guest) -> Operations:
    return Operations(guest, verbs())


def request(verb: str, request_id: str | None = None, deadline: float | None = None, **args: JSON) -> Request:
    return Request(request_id or str(uuid.uuid4()), verb, args, deadline)


def done(engine: Operations, operation: dict[str, JSON], timeout: float = 20.0) -> Any:
    assert engine.wait(str(operation["id"]), timeout), "it does not end"
    shown = engine.read("operation.show", {"id": operation["id"]})
    assert isinstance(shown, dict)
    return shown


def prepared(engine: Operations, **args: JSON) -> Any:
    return done(engine, engine.accept(request("agent.prepare", **args)))


def test_prepare_makes_what_was_asked_for(guest: Guest, engine: Operations) -> None:
    ended = prepared(
        engine,
        databases=[{"name": "shop"}],
        users=[{"name": "ann", "password": "s3cret", "databases": ["shop"]}],
        settings={"color": "red", "size": 5},
    )
    assert ended["state"] == "succeeded", ended["error"]
    assert up(guest.manager.node)
    state = read_state(guest.manager.node)
    assert state["users"]["ann"] == {"password": "s3cret", "databases": ["shop"]}
    assert [each["state"] for each in ended["steps"]] == ["done"] * 9
    status = engine.read("agent.status", {})
    assert status["status"] == "HEALTHY"


def hold_users(guest: Guest) -> Path:
    """Make every user operation wait until the returned gate is removed."""
    gate = guest.manager.node.places.root / "gate"
    gate.touch()
    return gate


def at_work(engine: Operations, order: dict[str, JSON]) -> bool:
    """Say whether an operation stands before the gate."""
    shown = engine.read("operation.show", {"id": order["id"]})
    assert isinstance(shown, dict)
    return shown["step"] == "create"


def user(name: str = "ann", **more: JSON) -> dict[str, JSON]:
    return {"name": name, "password": "s3cret", **more}


@pytest.mark.parametrize(
    ("verb", "args", "field"),
    [
        ("agent.prepare", {"databases": [{"name": "good"}, {"name": "far too long"}]}, "databases[1].name"),
        (
            "agent.prepare",
            {"users": [{"name": "ann", "password": "x"}, {"name": "b\0b", "password": "x"}]},
            "users[1].name",
        ),
        ("agent.prepare", {"users": [{"name": "ann", "password": "x" * 65}]}, "users[0].password"),
        ("agent.prepare", {"settings": {"colour": "red"}}, "colour"),
        ("agent.prepare", {"settings": {"color": ["red"]}}, "settings.color"),
        ("agent.prepare", {"restore": {"backup": "yesterday's"}}, "restore.backup"),
        ("agent.prepare", {"restore": {"backup": str(uuid.uuid4()), "digest": "AB"}}, "restore.digest"),
        ("database.create", {"name": "far too long"}, "name"),
        ("user.create", {"name": "", "password": "x"}, "name"),
        ("user.create", {"name": "ann", "password": "x" * 65}, "password"),
        ("user.create", {"name": "ann", "password": "x", "databases": ["ok", "n\0"]}, "databases[1]"),
        ("user.delete", {"name": "far too long"}, "name"),
        ("settings.set", {"values": {}}, "values"),
        ("settings.set", {"values": {"color": "blue"}}, "color"),
        ("settings.set", {"values": {"colour": "red"}}, "colour"),
        ("settings.drop", {"names": []}, "names"),
        ("settings.drop", {"names": ["colour"]}, "colour"),
        ("backup.create", {"id": "mine"}, "id"),
        ("backup.create", {"parent": "newest"}, "parent"),
        ("backup.create", {"bandwidth": -1}, "bandwidth"),
        ("backup.create", {"workers": 0}, "workers"),
        ("backup.create", {"workers": 65}, "workers"),
        ("backup.create", {"nice": 99}, "nice"),
        ("backup.create", {"nice": -1}, "nice"),
    ],
)
def test_bad_input_is_refused_at_the_door_and_not_journalled(
    tmp_path: Path, verb: str, args: dict[str, JSON], field: str
) -> None:
    guest = sham_guest(tmp_path, archive=sham_archive(tmp_path))
    engine = Operations(guest, verbs())
    for take in (engine.accept, engine.enqueue):
        with pytest.raises((Refused, BadInput, BadRequest)) as refused:
            take(request(verb, **args))
        assert Fault.of(refused.value).field == field
        assert Fault.of(refused.value).exit_status == 2
    assert guest.journal.ledger.all() == []
    guest.journal.close()


def test_a_backup_without_a_realm_is_refused_at_the_door(guest: Guest, engine: Operations) -> None:
    with pytest.raises(Refused, match="no realm"):
        engine.accept(request("backup.create"))
    assert guest.journal.ledger.all() == []


def test_what_a_part_refuses_is_named_by_its_argument(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    for noun in ("user", "database"):
        ended = done(engine, engine.accept(request(f"{noun}.delete", name="nobody")))
        assert (ended["error"]["type"], ended["error"]["field"]) == ("NotFound", "name")


def test_the_same_prepare_again_changes_nothing_and_another_is_refused(guest: Guest, engine: Operations) -> None:
    request_of = {"users": [user()], "databases": [{"name": "shop"}]}
    assert prepared(engine, **request_of)["state"] == "succeeded"
    before = read_state(guest.manager.node)
    again = prepared(engine, **request_of)
    assert again["state"] == "succeeded"
    assert read_state(guest.manager.node) == before
    other = prepared(engine, users=[user(name="bob")])
    assert (other["state"], other["error"]["type"], other["step"]) == ("failed", "Refused", "guard")
    assert read_state(guest.manager.node) == before
    assert engine.read("agent.status", {})["status"] == "HEALTHY"


def test_foreign_data_is_left_alone(guest: Guest, engine: Operations) -> None:
    precious = guest.manager.node.places.data / "precious"
    precious.write_text("not ours")
    ended = prepared(engine)
    assert (ended["state"], ended["error"]["type"]) == ("failed", "Refused")
    assert precious.read_text() == "not ours"


def test_data_of_a_guest_whose_journal_was_lost_is_left_alone(guest: Guest, engine: Operations) -> None:
    assert prepared(engine)["state"] == "succeeded"
    precious = guest.manager.node.places.data / "precious"
    precious.write_text("a tenant's")
    guest.journal.close()
    for path in guest.state_dir.glob("journal.db*"):
        path.unlink()
    later = sham_guest(guest.state_dir.parent)
    ended = prepared(Operations(later, verbs()))
    assert (ended["state"], ended["error"]["type"]) == ("failed", "Refused")
    assert precious.read_text() == "a tenant's"
    later.journal.close()


def test_a_prepare_that_failed_leaves_no_server_and_can_be_done_again(guest: Guest, engine: Operations) -> None:
    ended = prepared(engine, settings={"size": "13"})
    assert (ended["state"], ended["step"]) == ("failed", "start")
    assert not up(guest.manager.node)
    assert not guest.manager.node.places.staging.exists()
    assert engine.read("agent.status", {})["status"] == "FAILED"
    assert prepared(engine, settings={"size": "12"})["state"] == "succeeded"
    assert engine.read("agent.status", {})["status"] == "HEALTHY"


def test_the_same_request_is_the_same_operation(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    first = engine.accept(request("user.create", "r1", **user()))
    second = engine.accept(request("user.create", "r1", **user()))
    assert second["id"] == first["id"]
    done(engine, first)
    third = engine.accept(request("user.create", "r1", **user()))
    assert (third["id"], third["state"]) == (first["id"], "succeeded")
    with pytest.raises(Refused) as refused:
        engine.accept(request("user.create", "r1", **user(password="other")))
    assert refused.value.field == "request_id"
    with pytest.raises(Refused):
        engine.accept(request("user.delete", "r1", name="ann"))
    assert len(guest.journal.ledger.all()) == 2


def test_what_excludes_it_is_named_and_it_is_not_accepted(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    gate = hold_users(guest)
    first = engine.accept(request("user.create", **user()))
    for verb, args in (("user.create", user("bob")), ("service.stop", {}), ("database.create", {"name": "a"})):
        with pytest.raises(Busy) as busy:
            engine.accept(request(verb, **args))
        assert busy.value.operation == first["id"]
    assert len(guest.journal.ledger.all()) == 2
    other = engine.accept(request("settings.set", values={"color": "green"}))
    assert done(engine, other)["state"] == "succeeded", "settings do not exclude accounts"
    gate.unlink()
    assert done(engine, first)["state"] == "succeeded"
    assert done(engine, engine.accept(request("user.create", **user("bob"))))["state"] == "succeeded"


def test_casts_wait_their_turn_in_order(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    gate = hold_users(guest)
    waiting = [engine.enqueue(request("user.create", **user(f"u{number}"))) for number in range(4)]
    waiting.append(engine.enqueue(request("service.stop")))
    waiting.append(engine.enqueue(request("settings.set", values={"color": "green"})))
    assert [engine.read("operation.show", {"id": each["id"]})["state"] for each in waiting[1:]] == ["queued"] * 5
    with pytest.raises(Busy) as busy:
        engine.accept(request("settings.set", values={"color": "red"}))
    assert busy.value.operation == waiting[4]["id"], "a call does not overtake the cast that excludes it"
    gate.unlink()
    ended = [done(engine, each) for each in waiting]
    assert [each["state"] for each in ended] == ["succeeded"] * 6
    starts = [str(each["started_at"]) for each in ended]
    assert starts == sorted(starts)
    assert sorted(read_state(guest.manager.node)["users"]) == ["u0", "u1", "u2", "u3"]


def test_the_queue_is_bounded(guest: Guest) -> None:
    engine = Operations(guest, verbs(), queue=3)
    prepared(engine)
    gate = hold_users(guest)
    waiting = [engine.enqueue(request("user.create", **user(f"u{number}"))) for number in range(4)]
    with pytest.raises(Busy):
        engine.enqueue(request("user.create", **user("late")))
    gate.unlink()
    assert all(done(engine, each)["state"] == "succeeded" for each in waiting)


def test_a_deadline_passes_before_during_and_while_waiting(guest: Guest, engine: Operations) -> None:
    with pytest.raises(DeadlinePassed):
        engine.accept(request("agent.prepare", deadline=time.time() - 1))
    assert guest.journal.ledger.all() == []
    prepared(engine)
    late = engine.enqueue(request("user.create", deadline=time.time() - 1, **user("late")))
    assert done(engine, late)["error"]["type"] == "DeadlinePassed"
    gate = hold_users(guest)
    first = engine.accept(request("user.create", **user()))
    waiting = engine.enqueue(request("user.create", deadline=time.time() + 0.3, **user("bob")))
    ended = done(engine, waiting)
    assert (ended["state"], ended["error"]["type"], ended["step"]) == ("failed", "DeadlinePassed", None)
    gate.unlink()
    done(engine, first)
    assert sorted(read_state(guest.manager.node)["users"]) == ["ann"]
    guest.manager.node.host.write(guest.manager.node.places.root / "slow-start", b"")
    stopped = done(engine, engine.accept(request("service.stop")))
    assert stopped["state"] == "succeeded"
    started = engine.accept(request("service.start", deadline=time.time() + 3))
    assert done(engine, started)["error"]["type"] == "DeadlinePassed"


def test_cancel_ends_what_waits_and_what_runs(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    done(engine, engine.accept(request("service.stop")))
    (guest.manager.node.places.root / "slow-start").touch()
    running = engine.accept(request("service.start"))
    waiting = engine.enqueue(request("user.create", **user()))
    engine.read("operation.cancel", {"id": waiting["id"]})
    assert done(engine, waiting)["state"] == "cancelled"
    engine.read("operation.cancel", {"id": running["id"]})
    ended = done(engine, running)
    assert (ended["state"], ended["error"]["type"], ended["error"]["operation"]) == (
        "cancelled",
        "Cancelled",
        running["id"],
    )
    again = engine.read("operation.cancel", {"id": running["id"]})
    assert again["state"] == "cancelled"


def test_programs_are_killed_when_their_operation_is_cancelled(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    (guest.manager.node.places.root / "run-tool").touch()
    operation = engine.accept(request("database.create", name="a"))
    until = time.monotonic() + 10
    while not (guest.manager.node.places.temp / "tool-runs").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    engine.read("operation.cancel", {"id": operation["id"]})
    assert done(engine, operation)["state"] == "cancelled"


def test_root_is_told_once(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    operation = engine.accept(request("root.enable"))
    assert engine.wait(str(operation["id"]), 10)
    listed = engine.read("operation.list", {})
    assert all(each["result"] is None for each in listed)
    first = engine.read("operation.show", {"id": operation["id"]})
    assert str(first["result"]["password"]).startswith("canary-")
    assert engine.read("operation.show", {"id": operation["id"]})["result"] is None


def test_absent_parts_unknown_verbs_and_bad_arguments_are_refused(guest: Guest, engine: Operations) -> None:
    with pytest.raises(Unsupported, match="sham has no grants"):
        engine.accept(request("user.grant", name="ann", database="shop"))
    with pytest.raises(Refused):
        engine.read("operation.__class__", {})
    with pytest.raises(Refused):
        engine.accept(request("operation.show", id="x"))
    with pytest.raises(Refused):
        engine.read("service.stop", {})
    with pytest.raises(Refused) as refused:
        engine.accept(request("user.create", name=7, password="x"))
    assert refused.value.field == "name"
    assert guest.journal.ledger.all() == []


def test_a_setting_that_does_not_go_with_one_set_before_is_refused_at_the_door(
    guest: Guest, engine: Operations
) -> None:
    prepared(engine)
    done(engine, engine.accept(request("settings.set", values={"shade": "dark"})))
    before = len(guest.journal.ledger.all())
    with pytest.raises(BadInput, match="dark green"):
        engine.accept(request("settings.set", values={"color": "green"}))
    assert len(guest.journal.ledger.all()) == before
    done(engine, engine.accept(request("settings.drop", names=["shade"])))
    assert done(engine, engine.accept(request("settings.set", values={"color": "green"})))["state"] == "succeeded"


def test_an_account_on_a_guest_that_is_not_there_is_not_ready(engine: Operations) -> None:
    ended = done(engine, engine.accept(request("user.create", **user())))
    assert (ended["error"]["type"], ended["error"]["retry"]) == ("NotReady", True)


def test_operations_are_listed_by_page(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    for name in ("ann", "bob", "cyd"):
        done(engine, engine.accept(request("user.create", **user(name))))
    every = [each["id"] for each in engine.read("operation.list", {})]  # type: ignore[union-attr, index, call-overload]
    seen: list[object] = []
    after: dict[str, JSON] = {}
    while page := engine.read("operation.list", {**after, "limit": 3}):
        assert len(page) <= 3  # type: ignore[arg-type]
        seen += [each["id"] for each in page]  # type: ignore[union-attr, index, call-overload]
        after = {"after": seen[-1]}  # type: ignore[dict-item]
    assert seen == every
    assert len(every) == 4
    for args, field in (({"limit": 0}, "limit"), ({"after": "nobody"}, "after")):
        with pytest.raises((Refused, UnknownOperation)) as refused:
            engine.read("operation.list", args)  # type: ignore[arg-type]
        assert refused.value.field == field


def test_a_damaged_journal_stops_changes_and_answers_reads(guest: Guest, engine: Operations) -> None:
    guest.journal.database.trouble = "a page is not what was written"
    with pytest.raises(JournalCorrupt, match="changes are refused"):
        engine.accept(request("agent.prepare"))
    assert engine.read("agent.status", {})["status"] == "FAILED"
    assert engine.read("agent.describe", {})["datastore"] == "sham"


def test_every_operation_uses_exactly_the_steps_it_declares(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    orders: list[tuple[str, dict[str, JSON]]] = [
        ("service.restart", {}),
        ("service.stop", {}),
        ("service.start", {}),
        ("settings.set", {"values": {"color": "green"}}),
        ("settings.drop", {"names": ["color"]}),
        ("user.create", user()),
        ("user.set_password", user()),
        ("user.delete", {"name": "ann"}),
        ("database.create", {"name": "shop"}),
        ("database.delete", {"name": "shop"}),
        ("root.enable", {}),
        ("root.disable", {}),
    ]
    for verb, args in orders:
        ended = done(engine, engine.accept(request(verb, **args)))
        assert ended["state"] == "succeeded", (verb, ended["error"])
        assert [each["name"] for each in ended["steps"]] == engine.read("operation.steps", {"verb": verb})
        assert {each["state"] for each in ended["steps"]} == {"done"}, (verb, ended["steps"])


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("prepare", "accept guard settings stage swap start secure accounts finish"),
        ("backup", "accept lease key open stream close manifest check finish"),
        ("restore", "accept manifest key space stream replay swap start finish"),
        ("settings", "accept check write switch apply confirm"),
        ("user create", "accept create finish"),
        ("service.restart", "accept stop start finish"),
    ],
)
def test_the_steps_are_those_that_stay(engine: Operations, name: str, steps: str) -> None:
    assert engine.read("operation.steps", {"verb": name}) == steps.split()


def test_what_ran_and_what_waited_goes_on_in_the_next_life(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    gate = hold_users(guest)
    orders = [engine.enqueue(request("user.create", **user(f"u{number}"))) for number in range(3)]
    until(lambda: at_work(engine, orders[0]))
    engine.stop(0.1)
    with pytest.raises(NotReady):
        engine.accept(request("service.stop"))
    gate.unlink()
    time.sleep(0.3)
    rows = {row.id: row for row in guest.journal.ledger.all(live=True)}
    assert [rows[str(each["id"])].state for each in orders] == ["running", "queued", "queued"]
    assert rows[str(orders[0]["id"])].step_state("create") == "running", "it went on though the agent ends"
    again = Operations(guest, verbs())
    again.resume()
    ended = [done(again, each) for each in orders]
    assert [each["state"] for each in ended] == ["succeeded"] * 3
    starts = [str(each["started_at"]) for each in ended]
    assert starts == sorted(starts)


def test_after_an_upgrade_what_waited_goes_on_and_what_ran_does_not(guest: Guest, engine: Operations) -> None:
    prepared(engine)
    gate = hold_users(guest)
    ran, waited = [engine.enqueue(request("user.create", **user(name))) for name in ("ann", "bob")]
    until(lambda: at_work(engine, ran))
    engine.stop(0.1)
    gate.unlink()
    for row in guest.journal.ledger.all(live=True):
        guest.journal.ledger.save(replace(row, version="before", steps=(("of old", "pending"),)))
    again = Operations(guest, verbs())
    again.resume()
    assert (done(again, ran)["state"], done(again, waited)["state"]) == ("interrupted", "succeeded")
    assert [each["name"] for each in done(again, waited)["steps"]] == ["accept", "create", "finish"]


def test_any_code_that_a_step_may_come_to_makes_another_vintage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "elsewhere"
    (package / "deep").mkdir(parents=True)
    for name in ("__init__.py", "admin.py", "deep/__init__.py", "deep/reading.py"):
        (package / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    theirs = replace(SHAM, admin=type("Admin", (ShamAdmin,), {"__module__": "elsewhere.admin"}))
    seen = [vintage(theirs)]
    (package / "deep" / "reading.py").write_text("CHUNK = 2\n")
    seen.append(vintage(theirs))
    (package / "settings.toml").write_text("")
    seen.append(vintage(theirs))
    assert len(set(seen)) == 3
    assert vintage(theirs) == seen[-1]
    assert vintage(SHAM) not in seen


def test_secrets_are_neither_logged_nor_kept(
    guest: Guest, engine: Operations, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    canary = "canary-3b9f1e"
    with pytest.raises(Refused) as refused:
        prepared(engine, users=[user(password=canary), user(name="bob", password=canary * 9)])
    assert canary not in str(refused.value)
    prepared(engine, users=[user(password=canary)])
    for _ in range(2):
        done(engine, engine.accept(request("user.set_password", name="ann", password=canary)))
    (guest.manager.node.places.root / "leak").touch()
    ended = done(engine, engine.accept(request("user.set_password", name="ann", password=canary)))
    assert (ended["state"], ended["error"]["type"]) == ("failed", "Failed")
    assert canary not in str(engine.read("operation.list", {})) + caplog.text
    state = guest.state_dir
    assert canary.encode() not in b"".join(each.read_bytes() for each in state.rglob("*") if each.is_file())
