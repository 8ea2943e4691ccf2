"""Access control lists: what our accounts may do, and the lines of the ACL file.

A line is ``user NAME RULE RULE ...``.  A password is only ever its SHA-256, as the server keeps it.
Three kinds of account, decided here once:

* the agent's own may do everything;
* a tenant's user may use all keys and channels, and every command but those that reach the
  machine, the server's configuration, its accounts or other servers (``CLOSED``);
* root is the server's ``default`` user with a password: a tenant's user that may also look at the
  configuration and at what clients do.
"""

import hashlib
from collections.abc import Iterable

from datastores.contract import Secret
from datastores.redis.client import ACCOUNT

FILE = "users.acl"
ROOT = "default"

# CLIENT PAUSE would lock the agent out, MIGRATE and REPLICAOF reach other machines, MONITOR looks at what is
# not the user's own, SAVE stops the server for as long as it takes, BGSAVE fills its disk with a file nobody reads.
CLOSED = (
    *("acl", "bgrewriteaof", "bgsave", "client", "cluster", "config", "debug", "failover", "migrate", "module"),
    *("monitor", "pfdebug", "pfselftest", "psync", "replconf", "replicaof", "restore-asking", "save", "shutdown"),
    *("slaveof", "sync"),
)
_OWN_CLIENT = ("caching", "getname", "getredir", "id", "info", "list", "reply", "setname", "tracking", "trackinginfo")
_TENANT = (
    *("sanitize-payload", "~*", "&*", "+@all"),
    *(f"-{each}" for each in CLOSED),
    *(f"+client|{each}" for each in _OWN_CLIENT),
    "+acl|whoami",
)
_ROOT_ONLY = ("+client|kill", "+client|unblock", "+config|get", "+monitor")


def digest(password: Secret) -> str:
    """Return a password as the server keeps it."""
    return hashlib.sha256(password.reveal().encode()).hexdigest()


def agent_rules(hashed: str) -> list[str]:
    """Return the rules of the agent's account, from nothing."""
    return ["reset", "on", f"#{hashed}", "~*", "&*", "+@all"]


def tenant_rules(hashed: str) -> list[str]:
    """Return the rules of a tenant's user, from nothing."""
    return ["reset", "on", f"#{hashed}", *_TENANT]


def root_rules(hashed: str | None) -> list[str]:
    """Return the rules of the ``default`` user: root, or (None) a closed door.

    Behind the closed door it keeps a tenant's commands: the server reads its append-only file as this
    user, and a transaction in it that holds a command the user may not use is left out of the data.
    """
    if hashed is None:
        return ["reset", "off", *_TENANT]
    return ["reset", "on", f"#{hashed}", *_TENANT, *_ROOT_ONLY]


def line(name: str, rules: Iterable[str]) -> str:
    """Return one line of the ACL file."""
    return " ".join(["user", name, *(each for each in rules if each != "reset")])


def initial(hashed: str, root: str | None) -> bytes:
    """Return the first ACL file of a server: the agent's account, and ``default`` closed or as root."""
    lines = [line(ACCOUNT, agent_rules(hashed)), line(ROOT, root_rules(root))]
    return "".join(f"{each}\n" for each in lines).encode()
