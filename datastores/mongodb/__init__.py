"""MongoDB: a replica set from its first member, users of one authentication database, backups of raw BSON and oplog."""

from datastores.contract import Datastore
from datastores.mongodb.accounts import NAMES, MongoDatabases, MongoGrants, MongoUsers
from datastores.mongodb.admin import MongoAdmin
from datastores.mongodb.backup import MongoBackup
from datastores.mongodb.conf import MongodConf
from datastores.mongodb.root import MongoRoot
from datastores.mongodb.settings import FIXED, MongoSettings

DATASTORE = Datastore(
    name="mongodb",
    versions=("6.0",),
    ports={"mongodb": 27017},
    codec=MongodConf(),
    admin=MongoAdmin,
    settings=MongoSettings,
    names=NAMES,
    fixed_settings=FIXED,
    databases=MongoDatabases,
    users=MongoUsers,
    grants=MongoGrants,
    root=MongoRoot,
    backup=MongoBackup,
)
