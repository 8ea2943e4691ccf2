"""The page of interfaces, held against the program: names, fields and exit statuses from outside."""

import uuid

import pytest

from guestagent import declarations
from tests.agents import LiveAgent, Site
from tests.cases import first_request

OPERATION = {
    "id",
    "request_id",
    "verb",
    "state",
    "step",
    "steps",
    "progress",
    "result",
    "error",
    "started_at",
    "ended_at",
    "epoch",
}
BACKUP = {
    "id",
    "guest_id",
    "attempt",
    "digest",
    "kind",
    "parent",
    "generation",
    "state",
    "datastore",
    "version",
    "role",
    "server_id",
    "started_at",
    "ended_at",
    "logical_bytes",
    "read_bytes",
    "new_bytes",
    "stored_bytes",
    "copies",
    "position",
    "key_id",
    "members",
    "format",
}
STATUS = {
    "guest_id",
    "epoch",
    "pid",
    "server_pid",
    "datastore",
    "version",
    "status",
    "role",
    "endpoint",
    "operations",
    "heartbeat_at",
}
STEPS = {
    "prepare": "accept guard settings stage swap start secure accounts finish",
    "backup": "accept lease key open stream close manifest check finish",
    "restore": "accept manifest key space stream replay swap start finish",
    "settings": "accept check write switch apply confirm",
}


def test_prepare_prints_its_operation_and_the_same_again_changes_nothing(agent: LiveAgent) -> None:
    server = agent.status()["server_pid"]
    prepared = agent.prepare(**first_request(agent.datastore))
    assert isinstance(prepared, dict)
    assert set(prepared) >= OPERATION
    assert (prepared["verb"], prepared["state"]) == ("agent.prepare", "succeeded")
    assert agent.status()["server_pid"] == server


def test_describe_names_parts_and_verbs(agent: LiveAgent) -> None:
    seen = agent.ostler("describe")
    assert isinstance(seen, dict)
    assert set(seen) >= {"api", "datastore", "version", "level", "parts", "verbs"}
    for each in seen["verbs"]:
        assert set(each) >= {"name", "scope", "changes", "args", "reply", "timeout"}


def test_status_of_a_prepared_guest_is_healthy(agent: LiveAgent) -> None:
    seen = agent.ostler("status", "--wait", "HEALTHY", "--timeout", "120")
    assert isinstance(seen, dict)
    assert set(seen) >= STATUS
    assert seen["status"] == "HEALTHY"
    assert set(seen["endpoint"]) >= {"host", "port", "socket"}
    assert seen["server_pid"] in {each.pid for each in agent.servers()}


@pytest.mark.parametrize("verb", sorted(STEPS))
def test_the_steps_are_the_ones_of_the_page(agent: LiveAgent, verb: str) -> None:
    rows = agent.ostler("operation", "steps", verb)
    assert isinstance(rows, list)
    assert [each["name"] for each in rows] == STEPS[verb].split()


def test_the_same_request_id_is_the_same_operation(agent: LiveAgent) -> None:
    wanted = str(uuid.uuid4())
    one = agent.run("--request-id", wanted, "service", "restart")
    two = agent.run("--request-id", wanted, "service", "restart")
    assert one.status == two.status == 0
    assert one.json["id"] == two.json["id"]  # type: ignore[index]
    other = agent.run("--request-id", wanted, "service", "stop")
    assert other.status == 2
    assert agent.status()["server_pid"] is not None


def test_what_is_not_there_ends_with_six(agent: LiveAgent) -> None:
    assert agent.run("operation", "show", str(uuid.uuid4())).status == 6
    assert agent.run("backup", "show", str(uuid.uuid4())).status == 6
    has = declarations.load(agent.datastore).parts()
    if has["users"]:
        assert agent.run("user", "delete", "nobody-here").status == 6
    if has["databases"]:
        assert agent.run("database", "delete", "nothing_here").status == 6


def test_a_part_that_is_absent_ends_with_five(agent: LiveAgent) -> None:
    absent = {name for name, there in declarations.load(agent.datastore).parts().items() if not there}
    commands = {
        "databases": ("database", "list"),
        "users": ("user", "list"),
        "grants": ("user", "grant", "ann", "--database", "shop"),
        "root": ("root", "show"),
        "imports": ("backup", "restore", str(uuid.uuid4()), "--only", "shop"),
    }
    for part in absent & set(commands):
        answer = agent.run(*commands[part])
        assert answer.status == 5
        wanted = "cannot restore a part of a backup" if part == "imports" else f"has no {part}"
        assert answer.error["message"] == f"{agent.datastore} {wanted}"


def test_bad_input_ends_with_two_names_the_field_and_is_no_operation(agent: LiveAgent) -> None:
    before = agent.ostler("operation", "list")
    for words, field in (
        (("backup", "create", "--id", "not-a-uuid"), "id"),
        (("backup", "create", "--nice", "99"), "nice"),
        (("backup", "create", "--workers", "0"), "workers"),
        (("backup", "create", "--bandwidth", "-1"), "bandwidth"),
        (("settings", "set", "no_such_setting=1"), "no_such_setting"),
        (("settings", "drop", "no_such_setting"), "no_such_setting"),
    ):
        answer = agent.run(*words)
        assert (answer.status, answer.error["field"]) == (2, field)
    if declarations.load(agent.datastore).parts()["users"]:
        answer = agent.run("user", "create", request={"name": "a\0b", "password": "pw-ann-1"})
        assert (answer.status, answer.error["field"]) == (2, "name")
    assert agent.ostler("operation", "list") == before
    assert agent.run("backup", "verify", str(uuid.uuid4()), "--digest", "XYZ").status == 2
    assert agent.run("prepare", request={"nonsense": 1}).status == 2
    assert agent.run("status", "--wait", "BETTER").error["field"] == "wait"
    assert agent.run("backup", "list", "--limit", "many").error["field"] == "limit"


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "soon"])
def test_a_deadline_that_is_none_ends_with_two(agent: LiveAgent, seconds: str) -> None:
    answer = agent.run("--deadline", seconds, "status")
    assert (answer.status, answer.error["field"]) == (2, "deadline")


def test_images_are_asked_about_by_datastore_and_version(agent: LiveAgent) -> None:
    packages = agent.ostler("image", "packages", agent.datastore, "--version", agent.version)
    assert isinstance(packages, list)
    assert packages == agent.ostler("image", "packages", agent.datastore, f"--version={agent.version}")
    assert agent.run("image", "packages", agent.datastore, "--version", "0.1").status == 2
    assert agent.run("image", "packages", "no-such-datastore").status == 2
    checked = agent.run("image", "check", agent.datastore, "--version", agent.version)
    assert isinstance(checked.json, list)
    assert {"name", "ok"} <= set(checked.json[0])


def test_nobody_there_ends_with_three(agent: LiveAgent) -> None:
    agent_url, agent.url = agent.url, agent.url.replace("id=g1", "id=nobody")
    try:
        answer = agent.run("status")
    finally:
        agent.url = agent_url
    assert answer.status == 3
    assert answer.error["retry"] is True


def test_a_second_agent_with_the_same_id_ends_with_four(agent: LiveAgent, place: Site) -> None:
    second = LiveAgent(place, "g1", agent.datastore, agent.version, agent.options)
    second.log = place.folder / "second.log"
    second.start(wait=False)
    assert second.wait_gone() == 4
    assert agent.status()["guest_id"] == "g1"


def test_backup_create_list_show_verify_and_extract(agent: LiveAgent, place: Site) -> None:
    wanted = str(uuid.uuid4())
    made = agent.ostler("backup", "create", "--id", wanted, "--parent", "none")
    assert isinstance(made, dict)
    assert set(made) >= BACKUP
    assert (made["id"], made["kind"], made["state"]) == (wanted, "full", "COMPLETED")
    assert made["copies"] == {"have": 2, "wanted": 2}
    assert agent.run("backup", "create", "--id", wanted).status == 2
    listed = agent.ostler("backup", "list", "--filter", "guest_id=g1")
    assert isinstance(listed, list)
    assert wanted in {each["id"] for each in listed}
    assert agent.ostler("backup", "show", wanted) == made
    seen = agent.ostler("backup", "verify", wanted, "--digest", str(made["digest"]))
    assert isinstance(seen, dict)
    assert seen["ok"] is True
    assert agent.run("backup", "verify", wanted, "--digest", "0" * 64).status == 7
    agent.ostler("backup", "extract", wanted, "--into", str(place.folder / "kit"))
    assert any((place.folder / "kit").rglob("*"))


def test_a_verb_that_is_not_waited_for_prints_its_operation(agent: LiveAgent) -> None:
    begun = agent.ostler("backup", "create", "--no-wait")
    assert isinstance(begun, dict)
    assert set(begun) >= OPERATION
    ended = agent.ostler("operation", "wait", str(begun["id"]))
    assert isinstance(ended, dict)
    assert ended["state"] == "succeeded"
    assert [each["name"] for each in ended["steps"]] == STEPS["backup"].split()
