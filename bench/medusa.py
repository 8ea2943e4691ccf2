"""Side by side on one Cassandra server: our backups beside cassandra-medusa's; the second half of ``make bench``.

Ours is compressed and sealed, medusa's is neither.  The figures that count are CPU seconds of whole process trees,
without the server's.  Medusa asks the server through a small program of ours instead of a virtual machine for each
question: that saves it 0.7 CPU seconds each.  Both restore in place, the server stopped, files placed, and started:
several times in turn, of which the medians are shown.  Before each of them the disk has done what was asked of it
before, and what was kept is read from it: a backup is rarely restored while the machine remembers it.  When ours
ends its bytes are on the disk, medusa's are not; that is left to it.
"""

import argparse
import configparser
import os
import shlex
import subprocess
import sys
import time
import venv
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from bounds import Bound, all_held  # noqa: E402
from demo_show import Show  # noqa: E402
from demo_site import Broken, Guest, Patience, Site  # noqa: E402
from meter import Cost, metered, spent, waited  # noqa: E402
from pipelines import Failed, stored  # noqa: E402
from run import Costs, median, operation, run, tables  # noqa: E402
from volume import Volume  # noqa: E402

from datastores.cassandra.client import ACCOUNT, agent_password  # noqa: E402
from datastores.cassandra.jolokia import FILE  # noqa: E402
from datastores.contract import Node  # noqa: E402
from guestagent import declarations  # noqa: E402

MEDUSA = "cassandra-medusa==0.31.0"
DATASTORE = "cassandra"
KINDS = ("full", "unchanged", "second", "restore")
CHANGED = 0.03
RESTORES = 3
NODETOOL = """#!{python}
import base64, http.client, json, sys
words, known = sys.argv[1:], dict(line.split("=", 1) for line in open({properties!r}).read().splitlines())
tag = words[words.index("-t") + 1] if "-t" in words else ""
bean = "org.apache.cassandra.db:type=StorageService"
if "snapshot" in words:
    asked = "takeSnapshot(java.lang.String,java.util.Map,[Ljava.lang.String;)", [tag, {{}}, []]
elif "clearsnapshot" in words:
    asked = "clearSnapshot(java.util.Map,java.lang.String,[Ljava.lang.String;)", [{{}}, tag, []]
else:
    sys.exit(0)
login = base64.b64encode((known["user"] + ":" + known["password"]).encode()).decode()
server = http.client.HTTPConnection(known["host"], int(known["port"]))
body = {{"type": "exec", "mbean": bean, "operation": asked[0], "arguments": asked[1]}}
server.request("POST", "/jolokia/", json.dumps(body), {{"Authorization": "Basic " + login}})
told = json.loads(server.getresponse().read())
sys.exit(0 if told.get("status") == 200 else str(told)[:500])
"""


class Medusa:
    """The peer: installed in an environment of its own, with a configuration that finds our server."""

    def __init__(self, site: Site, guest: Guest, node: Node) -> None:
        self._folder = site.folder / "medusa"
        self._node = node
        self._running: list[int] = []
        (self._folder / "kept").mkdir(parents=True)
        venv.create(self._folder / "env", with_pip=True)
        pip = [str(self._folder / "env/bin/pip"), "install", "-q", MEDUSA]
        subprocess.run(pip, check=True, stdout=subprocess.DEVNULL)
        self._configure(site, guest)

    def backup(self, name: str) -> Cost:
        """Take a differential backup; ``stored_bytes`` is what it added."""
        before = stored(self._folder / "kept")
        cost = self._run("backup-node", "--backup-name", name, "--mode", "differential")
        cost.stored_bytes = stored(self._folder / "kept") - before
        return cost

    def restore(self, name: str) -> Cost:
        """Bring a backup back in place."""
        return self._run("restore-node", "--backup-name", name, "--in-place", "--temp-dir", str(self._folder / "temp"))

    def _configure(self, site: Site, guest: Guest) -> None:
        places, tool = self._node.places, self._folder / "nodetool"
        text = (places.config / "cassandra.yaml").read_text().splitlines()
        host = self._node.endpoint.host
        lines = [f"listen_address: {host}" if each.startswith("listen_address:") else each for each in text]
        (self._folder / "cassandra.yaml").write_text("\n".join(lines))
        tool.write_text(NODETOOL.format(python=sys.executable, properties=str(places.data / FILE)))
        tool.chmod(0o700)
        ostler = [str(Path(sys.executable).with_name("ostler")), "--agent", f"unix://{site.folder}/bus?id={guest.name}"]
        config = configparser.ConfigParser(interpolation=None)
        config["cassandra"] = {
            "config_file": str(self._folder / "cassandra.yaml"),
            "cql_username": ACCOUNT,
            "cql_password": agent_password(self._node).reveal(),
            "stop_cmd": shlex.join([*ostler, "service", "stop"]),
            "start_cmd": shlex.join([*ostler, "service", "start"]),
            "nodetool_executable": str(tool),
            "nodetool_flags": "",
            "check_running": f"{tool} version",
            "use_sudo": "False",
            "resolve_ip_addresses": "False",
        }
        config["storage"] = {
            "storage_provider": "local",
            "base_path": str(self._folder),
            "bucket_name": "kept",
            "fqdn": host,
            "prefix": "bench",
            "concurrent_transfers": "1",
            "transfer_max_bandwidth": "5000MB/s",
            "use_sudo_for_restore": "False",
        }
        path = self._folder / "medusa.ini"
        path.touch(mode=0o600)
        with path.open("w") as file:
            config.write(file)

    def _run(self, *words: str) -> Cost:
        cost, log = Cost(), self._folder / "medusa.log"
        # To look at every process ten times a second takes a part of a core, which one that is timed would miss.
        watched = self._running if words[0] == "backup-node" else []
        argv = [str(self._folder / "env/bin/medusa"), "--config-file", str(self._folder / "medusa.ini"), *words]
        with metered(lambda: watched, set, cost), log.open("ab") as said:
            child = subprocess.Popen(argv, stdout=said, stderr=said, env={**os.environ, "HOME": str(self._folder)})
            self._running.append(child.pid)
            status, cost.cpu = waited(child.pid)
            child.returncode = status
        self._running.clear()
        if status:
            raise Failed(f"medusa {words[0]}: {status}\n{log.read_text(errors='replace')[-2000:]}")
        return cost


def main() -> int:
    """Measure, print the tables and each bound, write the record; 0 when every bound held."""
    options = _options()
    show, patience = Show(), Patience()
    patience.install()
    site = Site(options.prefix, patience, ("east",))
    ok = False
    try:
        site.open()
        ok = measure(site, show, options.size * 1_000_000)
    except (Broken, Failed, subprocess.CalledProcessError) as error:
        show.console.print(f"\n{error}", style="red", markup=False)
    except KeyboardInterrupt:
        return 130
    finally:
        site.close()
    if options.json:
        show.record(options.json, ok)
    return 0 if ok else 1


def measure(site: Site, show: Show, wanted: int) -> bool:
    """Fill a server, then a full, one without and one after changes, and the last restored, each way."""
    guest = site.guest(DATASTORE, declarations.load(DATASTORE).versions[0])
    guest.ostler("prepare", request={"databases": [{"name": "bench"}]})
    sample = guest.sample()
    peer, volume = Medusa(site, guest, sample.node), Volume(sample.node, sample)
    with show.step("fill", "fill the server") as figures:
        figures["sstable_bytes"] = volume.fill(wanted)
    costs: Costs = {kind: {} for kind in KINDS}
    made: dict[str, object] = {}
    fresh = 0
    for kind in KINDS[:-1]:
        if kind == "second":
            with show.step("change", "change 3 % of the rows") as figures:
                figures["new_sstable_bytes"] = fresh = volume.change(CHANGED)
        run(show, costs, kind, "ostler", lambda: ours(guest, made))
        run(show, costs, kind, "medusa", lambda kind=kind: peer.backup(kind))
    digest = sample.digest()
    words = ("backup", "restore", str(made["id"]), "--digest", str(made["digest"]))
    rounds: list[Costs] = []
    for _ in range(RESTORES):
        rounds.append({kind: {} for kind in KINDS})
        cold(site.folder)
        run(show, rounds[-1], "restore", "ostler", lambda: restored(guest, words))
        if sample.digest() != digest:
            raise Broken("what we restored is not what was there")
        cold(site.folder)
        run(show, rounds[-1], "restore", "medusa", lambda: peer.restore("second"))
        if sample.digest() != digest:
            raise Broken("what medusa restored is not what was there")
    costs["restore"] = median(rounds)["restore"]
    tables(show, costs, KINDS)
    return all_held(show, bounds(costs, fresh))


def cold(folder: Path) -> None:
    """Have nothing wait for the disk, and no file below ``folder`` in memory, as far as no server holds it."""
    os.sync()
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bounds(costs: Costs, fresh: int) -> dict[str, Bound]:
    """Return what was measured, and what was promised."""
    (full, its_full), (second, _), (restore, its_restore) = (
        (costs[kind]["ostler"], costs[kind]["medusa"]) for kind in ("full", "second", "restore")
    )
    memory = max(costs[kind]["ostler"].anonymous_bytes for kind in KINDS[:-1])
    unchanged = costs["unchanged"]["ostler"]
    return {
        "full: CPU, ours/medusa's": Bound(full.cpu / its_full.cpu, most=1.1),
        "full: stored, ours/medusa's": Bound(full.stored_bytes / its_full.stored_bytes, most=0.75),
        "backups: anonymous memory, MB": Bound(memory / 1e6, most=100),
        "unchanged: stored, of the full's": Bound(unchanged.stored_bytes / full.stored_bytes, most=0.001),
        "3 % updated: stored, of the new SSTables": Bound(second.stored_bytes / fresh, most=0.75),
        "restore: CPU, ours/medusa's": Bound(restore.cpu / its_restore.cpu, most=0.5),
        "restore: wall, ours/medusa's": Bound(restore.wall / its_restore.wall, most=0.5),
    }


def ours(guest: Guest, made: dict[str, object]) -> Cost:
    """Measure ``backup create``: the agent's whole tree."""
    cost, result = operation(guest, "backup", "create")
    made.update(result)
    cost.stored_bytes = int(str(made["stored_bytes"]))
    return cost


def restored(guest: Guest, words: tuple[str, ...]) -> Cost:
    """Measure a restore, from the command to its end: the agent alone, for it starts nothing but servers."""
    agent, began = guest.process.pid if guest.process else 0, time.monotonic()
    before, _ = spent(agent)
    guest.ostler(*words)
    return Cost(cpu=spent(agent)[0] - before, wall=time.monotonic() - began)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--prefix", default="", help="what tools/servers printed")
    parser.add_argument("--size", type=int, default=1000, help="MB of files that the tables have (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
