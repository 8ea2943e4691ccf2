"""The tenant's root: everything in the tenant's databases; it makes no users and does not run the server.

Root belongs to the guest, not to the data: its salted credentials are kept among the agent's secrets (never the
password), and after a restore root is again what it was here, whatever the backup's was.
"""

import re
import secrets

from bson import json_util
from pymongo.errors import OperationFailure

from datastores.contract import JSON, Node, Root, Secret, ToolFailed
from datastores.mongodb.client import AUTH, MECHANISM, Client, Document, agent

NAME = "root"
KEPT = "tenant-root"
TEMPORARY = "ostler.incoming"
ROLES = ("readWriteAnyDatabase", "dbAdminAnyDatabase", "clusterMonitor")
"""No userAdmin: who may grant can make himself anything.  No clusterManager, no hostManager: they end our work."""
USER_NOT_FOUND = 11


class MongoRoot(Root):
    """Root as a user of ``admin`` with a closed list of built-in roles."""

    def enable(self) -> dict[str, JSON]:
        """Make root with a new random password, kept nowhere but as its salted credentials."""
        password = secrets.token_urlsafe(24)
        with agent(self.node) as client:
            _drop(client)
            client[AUTH].command("createUser", NAME, pwd=password, roles=list(ROLES), mechanisms=[MECHANISM])
            made = found(client)
            self.node.secrets.keep(KEPT, Secret(json_util.dumps(made, json_options=json_util.CANONICAL_JSON_OPTIONS)))
        return {"name": NAME, "password": password}

    def disable(self) -> None:
        """Take root away; no error where it is not enabled."""
        self.node.secrets.drop(KEPT)
        with agent(self.node) as client:
            _drop(client)

    def show(self) -> dict[str, JSON]:
        """Ask the server, not our memory."""
        with agent(self.node) as client:
            return {"enabled": found(client) is not None}


def restore(node: Node, client: Client) -> None:
    """Make root what is kept about it, or gone."""
    kept, there = node.secrets.load(KEPT), found(client)
    wanted = json_util.loads(kept.reveal()) if kept is not None else None
    if there is not None and (wanted is None or there["credentials"] != wanted["credentials"]):
        _drop(client)
        there = None
    if wanted is not None and there is None:
        merge_user(client, wanted)
    if wanted is not None:
        client[AUTH].command("updateUser", NAME, roles=list(ROLES))


def found(client: Client) -> Document | None:
    """Return root's own document, credentials and all; None where root is not enabled."""
    user: Document | None = client[AUTH]["system.users"].find_one({"_id": f"{AUTH}.{NAME}"})
    return user


def merge_user(client: Client, user: Document) -> None:
    """Let the server itself check and take over one user's document."""
    for each in client[AUTH].list_collection_names(filter={"name": {"$regex": f"^{re.escape(TEMPORARY)}"}}):
        client[AUTH].drop_collection(each)
    # Root writes in this database, too: a name that nobody can guess, and what lies there is looked at.
    temporary = client[AUTH][f"{TEMPORARY}.{secrets.token_hex(16)}"]
    temporary.insert_one(user)
    if [each["_id"] for each in temporary.find()] != [user["_id"]]:
        raise ToolFailed("somebody else wrote where a user's document waited")
    merge: Document = {"tempUsersCollection": temporary.full_name, "db": "", "drop": False}
    client.admin.command("_mergeAuthzCollections", 1, **merge)
    temporary.drop()


def _drop(client: Client) -> None:
    try:
        client[AUTH].command("dropUser", NAME)
    except OperationFailure as error:
        if error.code != USER_NOT_FOUND:
            raise
