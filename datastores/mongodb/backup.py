from datastores.contract import Backup
class MongoBackup(Backup): pass
