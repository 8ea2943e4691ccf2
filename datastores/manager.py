"""``Manager``: a datastore bound to one node; hands out its parts, its service and its settings."""

from collections.abc import Mapping
from dataclasses import replace

from datastores.contract import Admin, Backup, Datastore, Import, Node, Service, Unsupported
from datastores.settings import LayeredSettings


class Manager:
    """One class for every datastore, never subclassed."""

    def __init__(
        self, datastore: Datastore, node: Node, service: Service, image: Mapping[str, str] | None = None
    ) -> None:
        self.datastore = datastore
        self.node = node
        self.service = service
        self.admin: Admin = datastore.admin(node)
        self.settings = LayeredSettings(datastore, node, pid=service.pid, image=image)
        self._image = image

    def part(self, name: str) -> object:
        """Return a part by name, made for this node; ``Unsupported`` where the datastore has none."""
        kind = getattr(self.datastore, name) if name in self.datastore.PARTS else None
        if kind is None:
            raise Unsupported(f"{self.datastore.name} has no {name}")
        made: object = kind(self.node)
        return made

    @property
    def backup(self) -> Backup:
        """Return the backup part; ``Unsupported`` where the datastore has none."""
        if self.datastore.backup is None:
            raise Unsupported(f"{self.datastore.name} has no backup")
        return self.datastore.backup(self.node)

    @property
    def imports(self) -> Import:
        """Return the part that takes parts of backups in; ``Unsupported`` where the datastore has none."""
        if self.datastore.imports is None:
            raise Unsupported(f"{self.datastore.name} has no imports")
        return self.datastore.imports(self.node)

    def with_epoch(self, epoch: int) -> "Manager":
        """Return the same manager for data that has seen ``epoch`` restores."""
        return Manager(self.datastore, replace(self.node, epoch=epoch), self.service, self._image)
