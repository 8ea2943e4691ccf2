"""Upon which backup an increment may be built."""

import uuid
from dataclasses import dataclass

from datastores.contract import Datastore, Mismatch
from guestagent.errors import Refused
from guestagent.operations.guest import Guest
from objectstore.archive import Archive, Manifest
from objectstore.store import Missing


@dataclass(frozen=True)
class Lineage:
    """Whose data this is; a parent must have been taken of the same."""

    guest_id: str
    datastore: Datastore
    version: str
    server_id: str
    restore_epoch: int

    @classmethod
    def of(cls, guest: Guest) -> "Lineage":
        """Return the lineage of a running guest."""
        manager = guest.manager
        version, server_id = manager.admin.version(), manager.backup.server_id()
        return cls(guest.guest_id, manager.datastore, version, server_id, guest.journal.restore_epoch)

    def differs(self, manifest: Manifest) -> str:
        """Say in what a backup is not of this lineage; the empty string where it is."""
        header, major = manifest.header, self.datastore.major
        if header.guest_id != self.guest_id:
            return f"it is guest {header.guest_id}'s"
        if header.datastore != self.datastore.name or major(header.version) != major(self.version):
            return f"it is of {header.datastore} {header.version}, this is {self.datastore.name} {self.version}"
        if manifest.server_id != self.server_id:
            return "the server's data was replaced since"
        if header.restore_epoch != self.restore_epoch:
            return "the guest was restored since"
        return ""


def choose(archive: Archive, lineage: Lineage, wanted: str) -> Manifest | None:
    """Return the parent for ``auto``, ``none`` or a backup's id; ``Mismatch`` where that cannot serve."""
    if wanted == "none":
        return None
    if wanted == "auto":
        mine = [each for each in archive.manifests() if not lineage.differs(each)]
        newest = sorted(mine, key=lambda each: each.ended_at, reverse=True)
        return next((each for each in newest if archive.copies(each).state != "FAILED"), None)
    try:
        found = archive.find(canonical(wanted, "parent"))
    except Missing as error:
        raise Mismatch(f"backup {wanted} cannot be the parent: there is none", field="parent") from error
    reason = lineage.differs(found)
    if reason:
        raise Mismatch(f"backup {wanted} cannot be the parent: {reason}", field="parent", hint="--parent auto")
    return found


def canonical(text: str, field: str) -> str:
    """Return a UUID in its one spelling, or raise ``Refused``."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Refused(f"{field} {text[:80]!r} is not a UUID", field=field) from None
