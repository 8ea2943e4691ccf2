"""The story of one datastore, from nothing to a backup that survived a kill.  It never asks which datastore it is."""

import secrets
import time
import uuid
from collections.abc import Mapping

from demo_show import Show
from demo_site import Broken, Guest, Site

from datastores.contract import Secret
from guestagent import declarations

USER = "ann"
DATABASE = "shop"
SHARE = 0.03
SLOWLY = 15  # seconds that the backup to be killed would take
SIZES = ("logical_bytes", "new_bytes", "stored_bytes")


def tell(site: Site, show: Show, name: str, size: int) -> None:
    """Tell the whole story of datastore ``name`` with ``size`` bytes of sample data; ``Broken`` where it fails."""
    version = declarations.load(name).versions[0]
    show.title(f"{name} {version}")
    one = site.guest(name, version)
    password = secrets.token_urlsafe(12)
    prepare(show, one, password)
    sample = one.sample()
    with show.step(f"{name} load", "load sample data") as figures:
        sample.fill(size)
        sample.settle()
        figures["asked_bytes"] = size
    full = backup(show, one, "full", {})
    with show.step(f"{name} change", f"change {SHARE:.0%} of the rows") as figures:
        figures["rows"] = sample.change(SHARE)
        sample.settle()
    second = backup(show, one, "incremental", full)
    verify(show, one, second)
    restore(site, show, one, second, password)
    survive(show, one, int(str(full["logical_bytes"])))
    stop(show, site)


def prepare(show: Show, guest: Guest, password: str) -> None:
    """Make a database with a user, as far as the datastore has such things, and log in."""
    parts = declarations.load(guest.datastore).parts()
    request: dict[str, object] = {}
    if parts["databases"]:
        request["databases"] = [{"name": DATABASE}]
    if parts["users"]:
        databases = {"databases": [DATABASE]} if parts["grants"] else {}
        request["users"] = [{"name": USER, "password": password, **databases}]
    with show.step(
        f"{guest.datastore} prepare", f"prepare {guest.name}: {', '.join(request) or 'the server'}"
    ) as figures:
        guest.ostler("prepare", request=request)
        status = guest.ostler("status", "--wait", "HEALTHY")
        figures.update(status=status["status"])
        if parts["users"]:
            figures["login"] = hold(guest.sample().login(USER, Secret(password)), f"{USER} can log in")


def backup(show: Show, guest: Guest, kind: str, before: Mapping[str, object]) -> dict[str, object]:
    """Make a backup and hold it against what is expected; show sizes and, beside an earlier one, the ratio."""
    with show.step(f"{guest.datastore} {kind}", f"{kind} backup") as figures:
        made = guest.ostler("backup", "create")
        hold(made["kind"] == kind, f"the backup is {kind}, not {made['kind']}")
        hold(made["state"] == "COMPLETED", f"the backup is COMPLETED, not {made['state']}")
        figures.update({name: made[name] for name in SIZES})
        if before:
            figures["of_full"] = ratio(made, before)
    return made


def verify(show: Show, guest: Guest, made: Mapping[str, object]) -> None:
    """Read every copy of a backup."""
    with show.step(f"{guest.datastore} verify", "verify: every frame of every copy is read") as figures:
        seen = guest.site.ostler("backup", "verify", str(made["id"]), "--digest", str(made["digest"]))
        hold(seen["ok"] is True, "the backup is whole")
        hold(seen["copies"] == {"have": 2, "wanted": 2}, f"both copies are whole: {seen['copies']}")
        figures.update(frames=seen["frames"], copies=2)


def restore(site: Site, show: Show, one: Guest, made: Mapping[str, object], password: str) -> None:
    """Take one of the two directories away, restore into a second agent, and compare all tables."""
    name = one.datastore
    east, away = site.folder / "east", site.folder / "east.away"
    wanted = one.sample().digest()
    with show.step(f"{name} restore", "restore into a second agent, one directory taken away") as figures:
        east.rename(away)
        two = site.guest(name, one.version)
        two.ostler("prepare", request={"restore": {"backup": made["id"], "digest": made["digest"]}})
        figures["logical_bytes"] = made["logical_bytes"]
    with show.step(f"{name} compare", "digests of all tables on both guests") as figures:
        found = two.sample().digest()
        hold(found == wanted, f"the digests are equal: {sorted(wanted)} and {sorted(found)}")
        figures.update(tables=len(found), equal=True)
        if declarations.load(name).parts()["users"]:
            figures["login"] = hold(two.sample().login(USER, Secret(password)), f"{USER} can log in on {two.name}")
        away.rename(east)


def survive(show: Show, guest: Guest, size: int) -> None:
    """Kill the agent in the middle of a backup; it comes back, tells the truth, and the next backup works."""
    name = guest.datastore
    server = guest.ostler("status")["server_pid"]
    with show.step(f"{name} kill", "kill -9 of the agent in the middle of a backup"):
        backup_id = str(uuid.uuid4())
        slowly = ("--parent", "none", "--bandwidth", str(max(1, size // SLOWLY)), "--no-wait")
        operation = str(guest.ostler("backup", "create", "--id", backup_id, *slowly)["id"])
        in_the_middle(guest, operation)
        guest.kill()
    with show.step(f"{name} truth", "the agent comes back and tells the truth") as figures:
        guest.start()
        after = guest.ostler("operation", "show", operation)
        hold(after["state"] in ("failed", "interrupted"), f"the operation is not {after['state']}")
        killed = guest.ostler("backup", "show", backup_id)["state"]
        hold(killed == "FAILED", f"the killed backup is not {killed}")
        hold(guest.ostler("status")["server_pid"] == server, "the database went on running and was adopted")
        figures.update(operation=after["state"], backup=killed, server="adopted")
    with show.step(f"{name} again", "the next backup works") as figures:
        made = guest.ostler("backup", "create")
        hold(made["state"] == "COMPLETED", f"the backup is COMPLETED, not {made['state']}")
        figures.update(kind=made["kind"], stored_bytes=made["stored_bytes"])


def in_the_middle(guest: Guest, operation: str) -> None:
    """Return while the backup's stream flows; ``Broken`` where it ended before."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        seen = guest.ostler("operation", "show", operation)
        progress = seen["progress"]
        if seen["step"] == "stream" and isinstance(progress, dict) and progress.get("done"):
            return
        hold(seen["state"] in ("queued", "running"), f"the backup was still running: {seen['state']} {seen['error']}")
    raise Broken("the backup did not begin to stream within 30 s")


def stop(show: Show, site: Site) -> None:
    """Stop the servers by their agents, as an operator would."""
    with show.step(f"{site.guests[-1].datastore} stop", "stop the servers and the agents") as figures:
        for guest in site.guests:
            guest.ostler("service", "stop")
            hold(guest.ostler("status")["server_pid"] is None, f"the server of {guest.name} is gone")
            guest.kill()
        figures["guests"] = len(site.guests)
        site.guests.clear()


def hold(held: bool, what: str) -> bool:
    """Raise ``Broken`` unless it held."""
    if not held:
        raise Broken(f"did not hold: {what}")
    return True


def ratio(made: Mapping[str, object], before: Mapping[str, object]) -> str:
    """Return the stored bytes as a share of an earlier backup's."""
    return f"{int(str(made['stored_bytes'])) / max(1, int(str(before['stored_bytes']))):.1%}"
