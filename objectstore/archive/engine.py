"""The moving parts of a draft: threads, packs, index and intake, made together and stopped together."""

from objectstore.archive.copies import put_once
from objectstore.archive.crew import Crew, Monitor
from objectstore.archive.intake import Intake
from objectstore.archive.lease import Lease
from objectstore.archive.model import Header
from objectstore.archive.packs import Packs
from objectstore.archive.seal import Sealer
from objectstore.archive.track import Spool
from objectstore.archive.vault import Vault
from objectstore.archive.writer import IndexWriter
from objectstore.store import BadRequest, Buffer, Stat

_LINE = 2


class Engine:
    """Run one attempt's workers and its uploader.  Each pack that is put renews the lease where that is due."""

    def __init__(self, vault: Vault, header: Header, sealer: Sealer, lease: Lease, workers: int, nice: int) -> None:
        self._vault = vault
        self._header = header
        self._lease = lease
        self.sealer = sealer
        self.monitor = Monitor()
        self.spool = Spool(vault.directory)
        self._workers = Crew(self.monitor, "archive-work", workers, _LINE, nice)
        self._uploads = Crew(self.monitor, "archive-put", 1, _LINE)
        self.packs = Packs(sealer, self._put_pack, self.monitor, self._uploads)
        self.index = IndexWriter(sealer, self._put_index, self._uploads, vault.cache)
        self.intake = Intake(self.monitor, self._workers, workers, self.packs, self.spool, self.index.emit)

    @property
    def stored_bytes(self) -> int:
        """Return what was put so far, of one copy."""
        return self.packs.stored_bytes + self.index.stored_bytes

    def drain(self) -> None:
        """Wait until everything that was handed over is in the store."""
        self._uploads.drain()

    def stop(self) -> None:
        """End the threads; what has not begun is dropped."""
        self.monitor.fail(BadRequest("the draft was left"))
        self._workers.stop()
        self._uploads.stop()
        self.intake.close()
        self.packs.close()
        self.spool.close()

    def _put_pack(self, number: int, data: Buffer) -> Stat:
        self.monitor.check()
        self._lease.renew()
        name = self._vault.names.pack(self._header.generation, self._header.attempt, number)
        return self._vault.store.put(name, [data])

    def _put_index(self, digest: str, data: bytes) -> None:
        self.monitor.check()
        put_once(self._vault.store, self._vault.names.index(digest), data)
