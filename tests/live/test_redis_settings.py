"""Redis settings held against the live servers: the table, the file and its quotes, what may not be set."""

import random  # noqa: TID251  (a seeded stream of values, no secrets)
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from datastores.contract import BadInput, Endpoint, NotReady, Rule
from datastores.manager import Manager
from datastores.redis.client import Connection, ServerError, agent, dial
from datastores.redis.conf import SYNONYMS, RedisConf, read
from datastores.redis.settings import FIXED
from tests.guests import Guests
from tests.live.test_names import PIECES

# What control planes of this kind let a tenant set.
_OFFERED = """
tcp-backlog timeout tcp-keepalive loglevel databases save stop-writes-on-bgsave-error rdbcompression rdbchecksum
slave-serve-stale-data slave-read-only repl-diskless-sync repl-diskless-sync-delay repl-ping-slave-period repl-timeout
repl-disable-tcp-nodelay repl-backlog-size repl-backlog-ttl slave-priority min-slaves-to-write min-slaves-max-lag
requirepass maxclients maxmemory maxmemory-policy maxmemory-samples appendonly appendfsync no-appendfsync-on-rewrite
auto-aof-rewrite-percentage auto-aof-rewrite-min-size aof-load-truncated lua-time-limit cluster-node-timeout
cluster-slave-validity-factor cluster-migration-barrier cluster-require-full-coverage slowlog-log-slower-than
slowlog-max-len latency-monitor-threshold notify-keyspace-events hash-max-ziplist-entries hash-max-ziplist-value
list-max-ziplist-entries list-max-ziplist-value set-max-intset-entries zset-max-ziplist-entries
zset-max-ziplist-value hll-sparse-max-bytes activerehashing client-output-buffer-limit hz
aof-rewrite-incremental-fsync
"""
OFFERED_ELSEWHERE = _OFFERED.split()
BY_DESIGN = {"appendonly", "save", "requirepass", "repl-backlog-ttl"}
NOT_THERE = {"list-max-ziplist-entries", "list-max-ziplist-value"}

# Strings the server takes as they are; none does anything here.
FREE = (
    *("masterauth", "masteruser", "syslog-ident", "server_cpulist", "bio_cpulist", "aof_rewrite_cpulist"),
    *("bgsave_cpulist", "slave-announce-ip", "cluster-announce-ip"),
)


@pytest.fixture(scope="module", params=["7.0", "6.2"])
def served(request: pytest.FixtureRequest, inn: Guests) -> Manager:
    return inn.manager("redis", request.param)


def samples(rule: Rule) -> list[str]:
    """Return values at and within the bounds of a rule."""
    if rule.kind == "boolean":
        return ["no", "yes"]
    if rule.kind == "enum":
        return list(rule.choices)
    if rule.kind == "events":
        return ["", "KEA", "Kx", "Eg$lsh", "KEAm", "zKt"]
    if rule.kind == "buffers":
        return ["replica 1gb 0 0", "normal 0 0 0 slave 1mb 1kb 5 pubsub 32mb 8mb 60", "pubsub 10 5 1"]
    low, high = int(rule.low or 0), int(rule.high or 0)
    # Every possible client needs a file, and every byte of backlog is taken at once.
    high = {"maxclients": 4000, "repl-backlog-size": 1 << 26}.get(rule.name, high)
    return [str(high), str(low), str(low + 7)]


def test_the_table_is_what_this_server_has(served: Manager) -> None:
    effective, rules = served.settings.part.effective(), served.settings.part.rules()
    assert set(rules) <= set(effective), "each setting is one the server knows"
    assert set(OFFERED_ELSEWHERE) - set(rules) == BY_DESIGN | NOT_THERE
    assert not NOT_THERE & set(effective)
    assert set(FIXED) >= BY_DESIGN
    assert not set(FIXED) & set(rules)


def test_each_dynamic_setting_takes_its_bounds_without_a_restart(served: Manager) -> None:
    part = served.settings.part
    before = part.effective()
    for rule in part.rules().values():
        if not rule.dynamic:
            with pytest.raises(BadInput, match="restart"):
                part.apply({rule.name: samples(rule)[0]})
            continue
        for value in samples(rule):
            part.apply({rule.name: value})
            assert part.effective()[rule.name] == part.check({rule.name: value})[rule.name], rule.name
        part.apply({rule.name: before[rule.name]})
    assert part.effective() == before


def test_a_number_beyond_its_bounds_is_refused_with_its_rule(served: Manager) -> None:
    part = served.settings.part
    for rule in part.rules().values():
        wrong = {"boolean": "maybe", "enum": "none", "events": "Q", "buffers": "normal 0 0"}.get(rule.kind)
        values = [wrong] if wrong else [str(int(rule.high or 0) + 1), str(int(rule.low or 0) - 1), "", "x", "1 2"]
        for value in (*values, "1\n2", "a\0", "yes\r"):
            with pytest.raises(BadInput, match=rule.name) as caught:
                part.check({rule.name: value})
            assert caught.value.field == rule.name


def test_whatever_else_the_server_has_is_refused(served: Manager) -> None:
    before = served.settings.part.effective()
    for name in {*before, "include", "loadmodule", "rename-command", "user", "sentinel"} - set(
        served.settings.part.rules()
    ):
        with pytest.raises(BadInput) as caught:
            served.settings.check({name: "1"})
        assert caught.value.field == name
    assert served.settings.part.effective() == before


def test_what_is_written_is_what_the_started_server_uses(served: Manager) -> None:
    layered, rules = served.settings, served.settings.part.rules()
    wanted = {name: samples(rule)[-1] for name, rule in rules.items() if name not in SYNONYMS}
    del wanted["min-replicas-to-write"], wanted["maxmemory"]
    checked = {name: str(value) for name, value in layered.check(wanted).items()}
    layered.switch(layered.write(checked))
    served.service.stop()
    served.service.start()
    written, effective = served.settings.part.written(), served.settings.part.effective()
    for name, value in checked.items():
        assert (written[name], effective[name]) == (value, value), name
    assert {name: effective.get(name) for name in written} == written
    layered.confirm(dict(checked))
    layered.switch(layered.write({}))
    served.service.stop()
    served.service.start()


def test_two_names_of_one_setting_are_one(served: Manager) -> None:
    part = served.settings.part
    with pytest.raises(BadInput, match="same setting"):
        part.check({"slave-priority": "1", "replica-priority": "2"})
    part.apply({"slave-priority": "17"})
    assert part.effective()["replica-priority"] == "17"
    part.apply({"replica-priority": "100"})
    made = RedisConf().dump([{"replica-priority": "1"}, {"slave-priority": "2"}])["redis.conf"]
    assert made == b'replica-priority "2"\n'


def test_protected_settings_are_protected_from_the_running_server_too(inn: Guests) -> None:
    manager = inn.manager("redis", "7.0")
    with agent(manager.node) as connection:
        for name in ("dir", "dbfilename", "enable-debug-command", "aclfile", "unixsocket", "appendfilename"):
            with pytest.raises(ServerError):
                connection.call("CONFIG", "SET", name, "/tmp/x")


def test_500_values_are_read_by_the_server_as_they_were_written(served: Manager) -> None:
    stream = random.Random("redis values")
    pieces = [each for each in PIECES if each != "\0"]
    odd = ["'", '"', "\\", "\\x41", "#", "#a", " ", "a b", "\n", "\r\nsave 1 1", "\t", "\\'", "'\\''", "é", "\x7f"]
    values = [*odd, *("".join(stream.choice(pieces) for _ in range(stream.randint(1, 12))) for _ in range(500))]
    tool = served.node.installation.tools["server"]
    with tempfile.TemporaryDirectory(prefix="oc-", dir="/tmp") as folder:
        for start in range(0, len(values), len(FREE)):
            batch = dict(zip(FREE, values[start : start + len(FREE)], strict=False))
            assert _asked(tool, Path(folder), batch) == batch


def _asked(tool: Path, folder: Path, batch: dict[str, str]) -> dict[str, str]:
    """Return what the server, started on a file that says ``batch``, says it uses."""
    fixed = {"port": "0", "unixsocket": str(folder / "s"), "save": "", "dir": str(folder), "logfile": ""}
    file = folder / "redis.conf"
    made = RedisConf().dump([fixed, batch])["redis.conf"]
    assert {name: read(made)[name] for name in batch} == batch
    file.write_bytes(made)
    process = subprocess.Popen([tool, file], stdout=subprocess.DEVNULL)
    try:
        connection = _dialled(folder / "s")
        found = {name: connection.items("CONFIG", "GET", name)[1] for name in batch}
        connection.close()
    finally:
        process.kill()
        process.wait()
        (folder / "s").unlink(missing_ok=True)
    return {name: value.decode("utf-8", "surrogateescape") for name, value in found.items() if isinstance(value, bytes)}


def _dialled(path: Path) -> Connection:
    until = time.monotonic() + 10
    while True:
        try:
            return dial(Endpoint("", 0, path))
        except NotReady:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
