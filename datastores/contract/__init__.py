"""The contract between a database, the agent that keeps it and the machine.

Everything a datastore promises, and everything it may ask for, is named here:

* ``errors``  what can go wrong, and whether to try again;
* ``verbs``   the mark that makes a method a verb, read by every door;
* ``host``    the moves one may make on a machine, and the facts about it;
* ``backup``  extents, inventories, checkpoints and what makes and takes them;
* ``imports`` a part of a backup into the running server;
* ``parts``   one small abstract class for each capability;
* ``declaration``  ``Datastore``: what a database *is*, as pure data.
"""

from datastores.contract.backup import (
    Backup,
    Blocks,
    Buffer,
    Checkpoint,
    Extent,
    File,
    Identity,
    Kept,
    Limits,
    Since,
    Snapshot,
    Whole,
)
from datastores.contract.declaration import Datastore, NameRule, Sample
from datastores.contract.errors import (
    BadInput,
    DatastoreError,
    Hole,
    Incomplete,
    Mismatch,
    NoSpace,
    NotFound,
    NotReady,
    ToolFailed,
    Unsupported,
)
from datastores.contract.host import (
    Command,
    Completed,
    Endpoint,
    Fate,
    Host,
    Installation,
    Node,
    Places,
    Secret,
    Secrets,
    Service,
    Stream,
)
from datastores.contract.imports import Import
from datastores.contract.parts import (
    Admin,
    Codec,
    Databases,
    Functions,
    Grants,
    Root,
    Rule,
    Settings,
    Users,
)
from datastores.contract.verbs import JSON, Mark, mark_of, verb

__all__ = [
    "JSON",
    "Admin",
    "Backup",
    "BadInput",
    "Blocks",
    "Buffer",
    "Checkpoint",
    "Codec",
    "Command",
    "Completed",
    "Databases",
    "Datastore",
    "DatastoreError",
    "Endpoint",
    "Extent",
    "Fate",
    "File",
    "Functions",
    "Grants",
    "Hole",
    "Host",
    "Identity",
    "Import",
    "Incomplete",
    "Installation",
    "Kept",
    "Limits",
    "Mark",
    "Mismatch",
    "NameRule",
    "NoSpace",
    "Node",
    "NotFound",
    "NotReady",
    "Places",
    "Root",
    "Rule",
    "Sample",
    "Secret",
    "Secrets",
    "Service",
    "Settings",
    "Since",
    "Snapshot",
    "Stream",
    "ToolFailed",
    "Unsupported",
    "Users",
    "Whole",
    "mark_of",
    "verb",
]
