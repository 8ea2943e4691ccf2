"""Redis: one server with a durable log, users by access control lists, backups from its replication stream."""

from datastores.contract import Datastore
from datastores.redis.accounts import NAMES, RedisRoot, RedisUsers
from datastores.redis.admin import RedisAdmin
from datastores.redis.backup import RedisBackup
from datastores.redis.conf import RedisConf
from datastores.redis.settings import FIXED, RedisSettings

DATASTORE = Datastore(
    name="redis",
    versions=("7.0", "6.2"),
    ports={"redis": 6379},
    codec=RedisConf(),
    fixed_settings=FIXED,
    names=NAMES,
    admin=RedisAdmin,
    settings=RedisSettings,
    users=RedisUsers,
    root=RedisRoot,
    backup=RedisBackup,
)
