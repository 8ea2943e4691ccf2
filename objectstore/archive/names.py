"""The names of an archive's objects, all in one place."""

import re
from dataclasses import dataclass

from objectstore.store import check_container

_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MANIFEST = re.compile(rf"manifest\.({_ID})\.({_ID})")
_KEY = re.compile(rf"({_ID})\.(.+)")


@dataclass(frozen=True)
class Names:
    """Name every object of a realm's archive; the realm's name is the first part of each."""

    realm: str

    def __post_init__(self) -> None:
        check_container(f"{self.realm}-g-{'0' * 36}")

    @property
    def catalogue(self) -> str:
        return f"{self.realm}-backups"

    @property
    def keyring(self) -> str:
        return f"{self.realm}-keys"

    def container(self, generation: str) -> str:
        """Return the container of a generation's packs."""
        return f"{self.realm}-g-{generation}"

    def pack(self, generation: str, attempt: str, number: int) -> str:
        return f"{self.container(generation)}/{attempt}.{number}"

    def key(self, attempt: str, key_id: str) -> str:
        return f"{self.keyring}/{attempt}.{key_id}"

    def manifest(self, backup: str, attempt: str) -> str:
        return f"{self.catalogue}/manifest.{backup}.{attempt}"

    def index(self, digest: str) -> str:
        return f"{self.catalogue}/index.{digest}"

    def lease(self, attempt: str) -> str:
        return f"{self.catalogue}/lease.{attempt}"

    def tomb(self, backup: str) -> str:
        return f"{self.catalogue}/tomb.{backup}"


def manifest_of(key: str) -> tuple[str, str] | None:
    """Return backup and attempt of a manifest's object name (without its container), or None."""
    found = _MANIFEST.fullmatch(key)
    return (found[1], found[2]) if found else None


def key_of(key: str) -> tuple[str, str] | None:
    """Return attempt and key-encryption key of a wrapped key's object name, or None."""
    found = _KEY.fullmatch(key)
    return (found[1], found[2]) if found else None


def placement(names: Names, generation: str) -> str:
    """Return the name of the record that says where a generation lives; the federation's, not ours."""
    return f"{names.catalogue}/placement.{generation}"
