"""The server itself: its first folder, its command, its one agent account, its replica set.

The account is made by a private server, before the real one starts for the first time, so the localhost
exception (a server without users obeys whoever is on the machine) never stands open.
"""

import secrets
import signal
import time
from pathlib import Path

from pymongo import ReadPreference, ReturnDocument
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from datastores.contract import Admin, Command, Endpoint, Node, NotReady, Secret, ToolFailed
from datastores.mongodb import root
from datastores.mongodb.client import ACCOUNT, AUTH, MECHANISM, Client, Document, agent, agent_password
from datastores.mongodb.conf import CONFIG
from datastores.mongodb.position import compatibility
from datastores.mongodb.private import private

SET = "ostler"
KEYFILE = "keyfile"
STATE = "ostler.state"
"""Our own collection in ``admin``: what a probe wrote, what a restore has brought."""
PATIENCE = 60.0
OURS = ("root", "__system")
"""Everything, and what the server keeps to its own members: views and users as they are stored."""
USER_NOT_FOUND, NOT_YET_INITIATED = 11, 94
MAJORITY = WriteConcern(w="majority", wtimeout=10_000)


class MongoAdmin(Admin):
    """One agent account, a keyfile, and a replica set that begins with this member."""

    def initialise(self) -> None:
        """Make a new data folder in which only our account is known; what a killed attempt left is removed first."""
        host, data = self.node.host, self.node.places.data
        host.remove(data)
        host.folder(data, mode=0o700)
        write_keyfile(self.node, data)
        with private(self.node, data) as client:
            make_account(self.node, client)

    def command(self) -> Command:
        """Return the server's command: all else stands in the file."""
        return Command((str(self.node.installation.tools["server"]), "--config", str(self.node.places.config / CONFIG)))

    def ping(self) -> None:
        """Return when a member of a set has (or knows) a primary, or waits to be the first of one."""
        with agent(self.node, timeout=10) as client:
            if not (_led(client.admin.command("hello")) or _outside(client)):
                raise NotReady("the member has no primary yet")

    def version(self) -> str:
        """Return the running server's version, as ``6.0.27``; one that is held back says so: ``6.0.27 (as 5.0)``."""
        with agent(self.node, timeout=10) as client:
            version, features = str(client.admin.command("buildInfo")["version"]), compatibility(client)
        return version if version.startswith(f"{features}.") else f"{version} (as {features})"

    def secure(self) -> None:
        """Have a set of which this is a member, our account as it must be, and the tenant's root as it was here."""
        with agent(self.node) as client:
            _join(self.node, client)
            client.admin.command("updateUser", ACCOUNT, roles=list(OURS))
            root.restore(self.node, client)

    def quiesce(self) -> None:
        """Have everything written; the rest is the server's own on its signal."""
        with agent(self.node, timeout=60) as client:
            client.admin.command("fsync")

    def stop_signal(self) -> int:
        """SIGTERM is a clean shutdown."""
        return signal.SIGTERM

    def probe(self) -> None:
        """Write a mark of our own that a majority holds, and read it back as a majority has it."""
        with agent(self.node, timeout=15) as client:
            kept = client[AUTH].get_collection(
                STATE,
                write_concern=MAJORITY,
                read_concern=ReadConcern("majority"),
                read_preference=ReadPreference.PRIMARY,
            )
            after = ReturnDocument.AFTER
            mark = kept.find_one_and_update(
                {"_id": "probe"}, {"$inc": {"count": 1}}, upsert=True, return_document=after
            )
            found = kept.find_one({"_id": "probe"})
        # Another probe may have come after ours.
        if not (mark and found and found["count"] >= mark["count"]):
            raise NotReady("what was written to the server did not come back")


def write_keyfile(node: Node, data: Path) -> None:
    """Put the key that members of a set know each other by into a data folder."""
    kept = node.secrets.load(KEYFILE)
    if kept is None:
        kept = Secret(secrets.token_hex(128))
        node.secrets.keep(KEYFILE, kept)
    node.host.write(data / KEYFILE, kept.reveal().encode(), mode=0o400)


def make_account(node: Node, client: Client) -> None:
    """Have our account with our password, whatever was there under its name."""
    account: Document = {"pwd": agent_password(node).reveal(), "roles": list(OURS), "mechanisms": [MECHANISM]}
    try:
        client[AUTH].command("updateUser", ACCOUNT, **account)
    except OperationFailure as error:
        if error.code != USER_NOT_FOUND:
            raise
        client[AUTH].command("createUser", ACCOUNT, **account)


def _led(told: Document) -> bool:
    """Say whether a member has a primary: one that has just been elected is none before it takes writes."""
    other = told.get("secondary") and told.get("primary") not in (None, told.get("me"))
    return bool(told.get("isWritablePrimary") or other)


def _outside(client: Client) -> bool:
    """Say whether a server is in no set, as one that was never in any or moved; not that it has yet to read which."""
    known = _config(client) is not None or client.local["system.replset"].find_one() is None
    return known and bool(client.admin.command("hello").get("isreplicaset"))


def _config(client: Client) -> Document | None:
    """Return the configuration of the set that a server works by; None where it has none."""
    try:
        config: Document = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != NOT_YET_INITIATED:
            raise
        return None
    return config


def _join(node: Node, client: Client) -> None:
    """Begin the set where there is none, and wait for a primary; a member that moved is told its new address."""
    if client.admin.command("hello").get("isreplicaset"):
        _begin(node, client)
    end = time.monotonic() + PATIENCE
    while not client.admin.command("hello").get("isWritablePrimary"):
        if time.monotonic() > end:
            raise NotReady("the first member of the set does not become its primary")
        time.sleep(0.05)


def _begin(node: Node, client: Client) -> None:
    """Make the set, or, where a set does not find this server at any of its addresses, give it its new one."""
    config = _config(client)
    if config is None:
        members = [{"_id": 0, "host": address(node.endpoint)}]
        client.admin.command("replSetInitiate", {"_id": SET, "members": members})
        return
    if len(config["members"]) != 1:
        raise ToolFailed("the set does not know this member any more")
    config["members"][0]["host"] = address(node.endpoint)
    config["version"] += 1
    # Nobody else has a vote, so nobody can be overruled.
    client.admin.command("replSetReconfig", config, force=True)


def address(endpoint: Endpoint) -> str:
    """Return how other members reach this one; a server that listens everywhere is its machine's."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(endpoint.host, endpoint.host)
    return f"[{host}]:{endpoint.port}" if ":" in host else f"{host}:{endpoint.port}"
