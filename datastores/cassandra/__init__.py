"""Cassandra: a ring from its first node, roles of the server's own, backups of its immutable files."""

from datastores.cassandra.accounts import NAMES, CassandraDatabases, CassandraGrants, CassandraUsers
from datastores.cassandra.admin import CassandraAdmin
from datastores.cassandra.backup import CassandraBackup
from datastores.cassandra.conf import CassandraConf
from datastores.cassandra.functions import CassandraFunctions
from datastores.cassandra.imports import CassandraImport
from datastores.cassandra.root import CassandraRoot
from datastores.cassandra.settings import FIXED, CassandraSettings
from datastores.contract import Datastore

DATASTORE = Datastore(
    name="cassandra",
    versions=("5.0",),
    ports={"cassandra": 9042},
    codec=CassandraConf(),
    admin=CassandraAdmin,
    settings=CassandraSettings,
    names=NAMES,
    fixed_settings=FIXED,
    databases=CassandraDatabases,
    users=CassandraUsers,
    grants=CassandraGrants,
    functions=CassandraFunctions,
    root=CassandraRoot,
    backup=CassandraBackup,
    imports=CassandraImport,
)
