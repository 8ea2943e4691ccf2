"""Side by side on one server: our backups beside two other pipelines; ``make bench``.

The figures that count are CPU seconds of whole process trees.  Ours is the agent with all its tools, from the
request to the outcome, with one copy in a directory; of the restore it also contains the start of the private
and of the new server's tools.  The database server itself is in nobody's figure.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from demo_show import Show, size  # noqa: E402
from demo_site import Broken, Guest, Patience, Site  # noqa: E402
from meter import Cost, anonymous, metered, running, spent  # noqa: E402
from pipelines import Failed, peers  # noqa: E402
from workload import a_day  # noqa: E402

from guestagent import declarations  # noqa: E402

DATASTORE = "mariadb"
KINDS = ("full", "second", "restore")
Costs = dict[str, dict[str, Cost]]


def main() -> int:
    """Measure, print the tables, write the record; 0 when everything ran."""
    options = _options()
    show, patience = Show(), Patience()
    patience.install()
    site = Site(options.prefix, patience, ("east",))
    rounds: list[Costs] = []
    ok = False
    try:
        site.open()
        for number in range(options.rounds):
            show.title(f"round {number + 1} of {options.rounds}")
            rounds.append(measure(site, show, options.size * 1_000_000, number))
        ok = True
    except (Broken, Failed) as error:
        show.console.print(f"\n{error}", style="red", markup=False)
    except KeyboardInterrupt:
        return 130
    finally:
        site.close()
    if ok:
        tables(show, median(rounds))
    if options.json:
        show.record(options.json, ok)
    return 0 if ok else 1


def measure(site: Site, show: Show, wanted: int, number: int) -> Costs:
    """Fill a server, then a full, a day of changes, a second, and the full restored, each way."""
    guest = site.guest(DATASTORE, declarations.load(DATASTORE).versions[0])
    guest.ostler("prepare", request={"databases": [{"name": "bench"}]})
    sample = guest.sample()
    with show.step("fill", "fill the server") as figures:
        sample.fill(wanted)
        sample.settle()
        figures["asked_bytes"] = wanted
    folder = site.folder / f"peers{number}"
    others = peers(sample.node, folder) if not folder.mkdir() else []
    for each in others:
        each.folder.mkdir()
    costs: Costs = {kind: {} for kind in KINDS}
    identity: dict[str, object] = {}
    run(show, costs, "full", "ostler", lambda: ours(guest, identity))
    for each in others:
        run(show, costs, "full", each.name, lambda each=each: each.backup("full"))
    with show.step("change", "update 2 % of the rows in hot spots, insert 1 %") as figures:
        figures["rows"] = a_day(sample, wanted, number)
        sample.settle()
    run(show, costs, "second", "ostler", lambda: ours(guest, {}))
    for each in others:
        run(show, costs, "second", each.name, lambda each=each: each.backup("second", "full"))
    guest.ostler("service", "stop")
    run(show, costs, "restore", "ostler", lambda: our_restore(site, identity))
    for each in others:
        run(show, costs, "restore", each.name, lambda each=each: each.restore("full"))
    return costs


def run(show: Show, costs: Costs, kind: str, name: str, work: Callable[[], Cost]) -> None:
    """Measure one thing as one step."""
    with show.step(f"{kind} {name}", f"{kind}: {name}") as figures:
        cost = costs[kind][name] = work()
        figures.update(cpu_seconds=cost.cpu, of_it_tools=cost.tools, pss_bytes=cost.pss_bytes)
        if cost.stored_bytes:
            figures["stored_bytes"] = cost.stored_bytes


def ours(guest: Guest, made: dict[str, object]) -> Cost:
    """Measure ``backup create``: the agent's whole tree, without the server and without the waiting command."""
    cost = operation(guest, "backup", "create")
    made.update(cost[1])
    cost[0].stored_bytes = int(str(made["stored_bytes"]))
    return cost[0]


def our_restore(site: Site, made: dict[str, object]) -> Cost:
    """Measure the restore of a backup into a new guest."""
    two = site.guest(DATASTORE, site.guests[-1].version)
    request = {"restore": {"backup": made["id"], "digest": made["digest"]}}
    cost, _ = operation(two, "prepare", request=request)
    two.ostler("service", "stop")
    return cost


def operation(guest: Guest, *words: str, request: object = None) -> tuple[Cost, dict[str, object]]:
    """Run one operation to its end; return what the agent's tree spent on it, and its result."""
    cost = Cost()
    agent = guest.process.pid if guest.process else 0
    server = guest.sample().node.installation.tools["server"].resolve()
    before = spent(agent)
    with metered(lambda: [agent], lambda: running(server), cost), anonymous(agent, cost):
        begun = guest.ostler(*words, "--no-wait", request=request)
        ended = guest.ostler("operation", "wait", str(begun["id"]))
    own, tools = (after - then for after, then in zip(spent(agent), before, strict=True))
    cost.cpu, cost.tools = own + tools, tools
    return cost, ended["result"] if isinstance(ended["result"], dict) else {}


def median(rounds: list[Costs]) -> Costs:
    """Return the median of each figure over the rounds."""
    return {
        kind: {
            name: Cost(
                **{key: statistics.median(asdict(each[kind][name])[key] for each in rounds) for key in asdict(Cost())}
            )
            for name in rounds[0][kind]
        }
        for kind in KINDS
    }


def tables(show: Show, costs: Costs, kinds: tuple[str, ...] = KINDS) -> None:
    """Print what each cost, and ours as a share of the others'; keep the ratios for the record."""
    with show.step("ratios", "ours as a share of the others'") as figures:
        for kind in kinds:
            own = costs[kind]["ostler"]
            show.console.print(f"\n{kind:<18} CPU s   wall s   PSS        stored     ours/its CPU", markup=False)
            for name, cost in costs[kind].items():
                ratio = own.cpu / cost.cpu if cost.cpu else 0.0
                kept = size(int(cost.stored_bytes)) if cost.stored_bytes else ""
                text = f"  {name:<16} {cost.cpu:6.2f} {cost.wall:8.2f}   {size(int(cost.pss_bytes)):<10} {kept:<10}"
                show.console.print(f"{text} {'' if cost is own else f'{ratio:.3f} (1/{1 / ratio:.1f})'}", markup=False)
                if cost is not own:
                    figures[f"{kind} cpu, ours/{name}"] = round(ratio, 4)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.split("\n\n")[0])
    parser.add_argument("--prefix", default="", help="what tools/servers printed")
    parser.add_argument("--size", type=int, default=1000, help="MB of sample data (%(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="how often; medians are shown (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
