"""Redis accounts on real servers: what survives the ACL file, who may do what, and that no door is open."""

import contextlib
from collections.abc import Iterator

import pytest

from datastores.contract import BadInput, NotFound, NotReady, Root, Secret, Users
from datastores.manager import Manager
from datastores.redis import acl
from datastores.redis.accounts import NAMES
from datastores.redis.client import Connection, ServerError, agent, dial, login, outside
from datastores.redis.sample import SampleData
from tests.guests import Guests
from tests.live.test_names import sorted_out


@pytest.fixture(scope="module", params=["7.0", "6.2"])
def served(request: pytest.FixtureRequest, inn: Guests) -> Manager:
    return inn.manager("redis", request.param)


def users(manager: Manager) -> Users:
    part = manager.part("users")
    assert isinstance(part, Users)
    return part


def root(manager: Manager) -> Root:
    part = manager.part("root")
    assert isinstance(part, Root)
    return part


@contextlib.contextmanager
def as_user(manager: Manager, name: str, password: str) -> Iterator[Connection]:
    connection = outside(manager.node.endpoint)
    try:
        login(connection, name, Secret(password))
        yield connection
    finally:
        connection.close()


def catalogue(manager: Manager) -> list[list[bytes]]:
    """Return every account with its rules; the server has them in an order of its own."""
    with agent(manager.node) as connection:
        lines = [each.split(b" ") for each in connection.items("ACL", "LIST") if isinstance(each, bytes)]
    return sorted([*words[:2], *sorted(words[2:])] for words in lines)


def restart(manager: Manager) -> None:
    manager.service.stop()
    manager.service.start()


def test_the_server_itself_draws_the_line_where_the_rule_does(served: Manager) -> None:
    with agent(served.node) as connection:
        for code in (*range(1, 256), 0x2028, 0x202E, 0x1F434):
            name = f"a{chr(code)}b"
            reply = connection.pipeline([("ACL", "SETUSER", name, "on", ">x")])[0]
            assert isinstance(reply, ServerError) == (chr(code) in NAMES["user"].forbidden), repr(name)
        connection.call("ACL", "SAVE")
        before = catalogue(served)
        connection.call("ACL", "LOAD")
    assert catalogue(served) == before
    with agent(served.node) as connection:
        for code in range(1, 256):
            connection.call("ACL", "DELUSER", f"a{chr(code)}b")
        connection.call("ACL", "DELUSER", *(f"a{chr(code)}b" for code in (0x2028, 0x202E, 0x1F434)))
        connection.call("ACL", "SAVE")


def test_500_names_and_passwords_survive_a_restart(served: Manager) -> None:
    part, sample = users(served), SampleData(served.node)
    names, _ = sorted_out(NAMES["user"], "redis restart names")
    words, _ = sorted_out(NAMES["password"], "redis restart passwords")
    pairs = dict(zip(names, words, strict=True))
    assert len(pairs) >= 500
    before = catalogue(served)
    with agent(served.node) as connection:
        for name, word in pairs.items():
            connection.pipeline([("ACL", "SETUSER", name, *acl.tenant_rules(acl.digest(Secret(word))))])
    last = names[-1]
    part.create(last, Secret(words[-1]))
    made = catalogue(served)
    assert len(made) == len(before) + len(pairs)
    restart(served)
    assert catalogue(served) == made
    listed: list[str] = []
    while page := part.list(after=listed[-1] if listed else None, limit=120):
        listed += [str(each["name"]) for each in page]
    assert listed == sorted(names)
    for name, word in pairs.items():
        assert sample.login(name, Secret(word)), name
    assert not sample.login(last, Secret(words[0]))
    with agent(served.node) as connection:
        connection.call("ACL", "DELUSER", *names)
        connection.call("ACL", "SAVE")
    assert catalogue(served) == before


def test_changes_are_durable_at_once(served: Manager) -> None:
    part, sample = users(served), SampleData(served.node)
    part.create("bob", Secret("one"))
    part.create("eve", Secret("two"))
    part.set_password("bob", Secret("three"))
    part.delete("eve")
    restart(served)
    assert sample.login("bob", Secret("three"))
    assert not sample.login("bob", Secret("one"))
    assert not sample.login("eve", Secret("two"))
    part.create("bob", Secret("four"))
    assert sample.login("bob", Secret("four"))
    assert not sample.login("bob", Secret("three"))
    part.delete("bob")


def test_what_redis_has_not_is_refused(served: Manager) -> None:
    part, before = users(served), catalogue(served)
    with pytest.raises(BadInput, match="no databases"):
        part.create("bob", Secret("x"), databases=("db",))
    for act in (
        lambda: part.create("bob", Secret("x"), host="10.0.0.1"),
        lambda: part.delete("bob", host="localhost"),
        lambda: part.set_password("bob", Secret("x"), host=""),
    ):
        with pytest.raises(BadInput) as caught:
            act()
        assert caught.value.field == "host"
    for name in ("nobody", "*", "nobody "):
        with pytest.raises((NotFound, BadInput)):
            part.delete(name)
        with pytest.raises((NotFound, BadInput)):
            part.set_password(name, Secret("x"))
    for name in ("ostler", "default", "OSTLER", "Default"):
        with pytest.raises(BadInput, match="reserved"):
            part.create(name, Secret("x"))
        with pytest.raises(BadInput, match="reserved"):
            part.delete(name)
    assert catalogue(served) == before


CLOSED = (
    ("CONFIG", "SET", "dir", "/tmp"),
    ("CONFIG", "REWRITE"),
    ("ACL", "SETUSER", "x"),
    ("ACL", "LIST"),
    ("ACL", "LOAD"),
    ("DEBUG", "SLEEP", 0),
    ("MODULE", "LOAD", "/tmp/x.so"),
    ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "127.0.0.1", 1),
    ("SLAVEOF", "127.0.0.1", 1),
    ("PSYNC", "?", -1),
    ("SYNC",),
    ("REPLCONF", "capa", "eof"),
    ("MIGRATE", "127.0.0.1", 1, "k", 0, 10),
    ("FAILOVER",),
    ("SAVE",),
    ("BGSAVE",),
    ("BGREWRITEAOF",),
    ("CLUSTER", "RESET"),
    ("CLIENT", "PAUSE", 100000),
    ("CLIENT", "NO-EVICT", "on"),
)


def test_tenants_and_root_reach_their_data_and_nothing_else(served: Manager) -> None:
    users(served).create("bob", Secret("pw"))
    made = root(served).enable()
    restart(served)
    for name, word in (("bob", "pw"), ("default", str(made["password"]))):
        with as_user(served, name, word) as connection:
            for words in CLOSED:
                with pytest.raises(ServerError, match="NOPERM|not allowed"):
                    connection.call(*words)
            script = (
                "return redis.call('config', 'get', 'dir')" if name == "bob" else "return redis.call('acl', 'list')"
            )
            with pytest.raises(ServerError):
                connection.call("EVAL", script, 0)
            for words in (("SET", "a", 1), ("CLIENT", "SETNAME", "me"), ("ACL", "WHOAMI"), ("INFO",), ("FLUSHALL",)):
                connection.call(*words)
            assert connection.call("PUBLISH", "channel", "x") == 0
    with as_user(served, "default", str(made["password"])) as connection:
        assert connection.items("CONFIG", "GET", "maxmemory")[0] == b"maxmemory"
    with as_user(served, "bob", "pw") as connection, pytest.raises(ServerError, match="NOPERM"):
        connection.call("CONFIG", "GET", "maxmemory")
    root(served).disable()
    users(served).delete("bob")


def test_transactions_and_scripts_survive_a_restart_whoever_root_is(served: Manager) -> None:
    users(served).create("bob", Secret("pw"))
    for enabled in (False, True):
        if enabled:
            root(served).enable()
        with as_user(served, "bob", "pw") as connection:
            connection.call("FLUSHALL")
            connection.pipeline(
                [("MULTI",), ("SET", "a", 1), ("SWAPDB", 0, 1), ("XADD", "s", "1-1", "f", "v"), ("EXEC",)]
            )
            connection.call("EVAL", "redis.call('hset', 'h', 'f', 1); redis.call('sort', 's2', 'store', 'out')", 0)
        before = SampleData(served.node).digest()
        assert set(before) >= {"db0", "db1"}
        restart(served)
        assert SampleData(served.node).digest() == before
    root(served).disable()
    users(served).delete("bob")


def test_root_is_new_each_time_and_closed_when_disabled(served: Manager) -> None:
    sample, part = SampleData(served.node), root(served)
    assert part.show() == {"enabled": False}
    first, second = part.enable(), part.enable()
    assert part.show() == {"enabled": True}
    assert first["password"] != second["password"]
    assert not sample.login("default", Secret(str(first["password"])))
    restart(served)
    assert sample.login("default", Secret(str(second["password"])))
    part.disable()
    part.disable()
    restart(served)
    assert part.show() == {"enabled": False}
    for word in (str(second["password"]), "", "foobared"):
        assert not sample.login("default", Secret(word))


def test_no_door_is_open_at_any_time(inn: Guests) -> None:
    manager = inn.manager("redis", "7.0", start=False)
    manager.settings.ensure()
    manager.admin.initialise()
    manager.service.start()
    for _ in range(2):
        for connect in (outside, dial):
            connection = connect(manager.node.endpoint)
            for words in (("PING",), ("GET", "a"), ("CONFIG", "GET", "*"), ("AUTH", "")):
                with pytest.raises(ServerError, match="NOAUTH|WRONGPASS|ERR AUTH"):
                    connection.call(*words)
            connection.close()
        manager.admin.secure()
    with agent(manager.node) as connection:
        connection.call("ACL", "SETUSER", "open", "on", "nopass", "+@all", "~*")
        connection.call("ACL", "SETUSER", "default", "on", "nopass", "+@all", "~*")
    assert SampleData(manager.node).login("open", Secret("anything"))
    manager.admin.secure()
    assert not SampleData(manager.node).login("open", Secret("anything"))
    assert not SampleData(manager.node).login("default", Secret("anything"))


def test_secure_changes_nothing_the_second_time(served: Manager) -> None:
    users(served).create("bob", Secret("pw"))
    root(served).enable()
    served.admin.secure()
    before = catalogue(served)
    served.admin.secure()
    assert catalogue(served) == before
    users(served).delete("bob")
    root(served).disable()


def test_no_secret_is_in_the_files_or_the_command(served: Manager) -> None:
    users(served).create("bob", Secret("canary-of-bob"))
    secret = served.node.secrets.load("agent-password")
    made = str(root(served).enable()["password"])
    assert secret is not None
    words = [each.encode() for each in ("canary-of-bob", made, secret.reveal())]
    places = served.node.places
    for folder in (places.root, places.log, places.run):
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert not any(word in content for word in words), path
    assert not any(word in " ".join(served.admin.command().argv).encode() for word in words)
    users(served).delete("bob")
    root(served).disable()


def test_probe_and_ping(served: Manager) -> None:
    before = SampleData(served.node).digest()
    served.admin.probe()
    assert SampleData(served.node).digest() == before
    with agent(served.node) as connection:
        connection.call("CONFIG", "SET", "min-replicas-to-write", 1)
        with pytest.raises(NotReady, match="NOREPLICAS|EXECABORT"):
            served.admin.probe()
        connection.call("CONFIG", "SET", "min-replicas-to-write", 0)
    served.service.stop()
    with pytest.raises(NotReady):
        served.admin.ping()
    served.service.start()
    served.admin.ping()
