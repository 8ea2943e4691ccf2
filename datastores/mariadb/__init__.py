"""MariaDB, declared."""

from datastores.contract import Datastore
from datastores.mariadb.accounts import NAMES, MariaDBDatabases, MariaDBGrants, MariaDBUsers
from datastores.mariadb.admin import MariaDBAdmin
from datastores.mariadb.backup import MariaDBBackup
from datastores.mariadb.root import MariaDBRoot
from datastores.mariadb.settings import FIXED, MariaDBSettings, OptionFile

DATASTORE = Datastore(
    name="mariadb",
    versions=("10.11",),
    ports={"mariadb": 3306},
    codec=OptionFile(),
    admin=MariaDBAdmin,
    settings=MariaDBSettings,
    names=NAMES,
    fixed_settings=FIXED,
    databases=MariaDBDatabases,
    users=MariaDBUsers,
    grants=MariaDBGrants,
    root=MariaDBRoot,
    backup=MariaDBBackup,
)
