"""Toy: a third datastore, made by somebody else."""

from datastores.contract import Datastore, NameRule
from ostler_toy.accounts import ToyDatabases, ToyGrants, ToyRoot, ToyUsers
from ostler_toy.admin import ToyAdmin
from ostler_toy.backup import ToyBackup
from ostler_toy.imports import ToyImport
from ostler_toy.settings import KeyValueLines, ToySettings

DATASTORE = Datastore(
    name="toy",
    versions=("1.0",),
    ports={"toy": 7007},
    codec=KeyValueLines(),
    fixed_settings={"data": "the data root", "socket": "the agent's socket"},
    names={
        "database": NameRule(length=60, unit="bytes", reserved=("system",), prefixes=("toy_",)),
        "user": NameRule(length=40, forbidden=":", reserved=("root", "ostler")),
        "password": NameRule(length=200, least=4),
        "host": NameRule(length=1, pattern="%"),
    },
    admin=ToyAdmin,
    settings=ToySettings,
    databases=ToyDatabases,
    users=ToyUsers,
    grants=ToyGrants,
    root=ToyRoot,
    backup=ToyBackup,
    imports=ToyImport,
)
