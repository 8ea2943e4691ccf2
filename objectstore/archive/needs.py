"""What a backup needs: each of its objects, and how a copy of it is known to be whole."""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from objectstore.archive.contents import Contents
from objectstore.archive.fetch import check_frame
from objectstore.archive.index import Ref, digest, open_part
from objectstore.archive.manifest import Manifest, Pack
from objectstore.archive.names import Names
from objectstore.archive.pieces import Frame
from objectstore.archive.vault import Vault
from objectstore.store import Corrupt, checksum

Check = Callable[[bytes], None]


@dataclass(frozen=True)
class Need:
    """One object; ``size`` is None where the manifest does not know it (a wrapped key)."""

    name: str
    size: int | None


def needs(manifest: Manifest, names: Names, key_id: str) -> Iterator[Need]:
    """Yield every object that a restore of this backup reads."""
    header = manifest.header
    yield Need(names.manifest(header.backup, header.attempt), manifest.size)
    for attempt in manifest.attempts:
        yield Need(names.key(attempt, key_id), None)
    for ref in {ref.digest: ref for ref in manifest.index}.values():
        yield Need(names.index(ref.digest), ref.size)
    for pack in manifest.packs:
        yield Need(names.pack(header.generation, pack.attempt, pack.number), pack.size)


class Audit:
    """Check copies of a backup's objects; ``frames`` and ``bytes`` say how many it has, and what they hold."""

    def __init__(self, vault: Vault, contents: Contents) -> None:
        self._vault = vault
        self._manifest = contents.manifest
        self._generation = contents.manifest.header.generation
        self._frames: dict[tuple[str, int], array[int]] = {}
        self.frames = 0
        self.bytes = 0
        self._collect(contents)

    def checks(self) -> Iterator[tuple[Need, Check]]:
        """Yield every object with the check that raises ``Corrupt`` for a copy that is not whole."""
        names, manifest = self._vault.names, self._manifest
        found: dict[str, Check] = {
            names.manifest(manifest.header.backup, manifest.header.attempt): self._check_manifest
        }
        found |= {names.key(attempt, self._key_id): self._key_check(attempt) for attempt in manifest.attempts}
        found |= {names.index(ref.digest): self._part_check(ref) for ref in manifest.index}
        for pack in manifest.packs:
            found[names.pack(self._generation, pack.attempt, pack.number)] = self._pack_check(pack)
        for need in needs(manifest, names, self._key_id):
            yield need, found[need.name]

    @property
    def _key_id(self) -> str:
        return self._vault.keys.key_id

    def _collect(self, contents: Contents) -> None:
        """Remember where every frame lies: five numbers for each, by pack."""
        for entry in {entry.stored: entry for entry in contents.files}.values():
            for piece in contents.parts.pieces(entry.stored, entry.size):
                for frame in piece.frames():
                    rows = self._frames.setdefault((frame.attempt, frame.pack), array("I"))
                    rows.extend((frame.number, frame.offset, frame.length, frame.plain))
        for pack in self._frames:
            found = list(self._of(*pack))
            self.frames += len(found)
            self.bytes += sum(frame.plain for frame in found)

    def _of(self, attempt: str, pack: int) -> Iterator[Frame]:
        rows = self._frames.get((attempt, pack), array("I"))
        found = {tuple(rows[at : at + 4]) for at in range(0, len(rows), 4)}
        return (Frame(attempt, pack, *row) for row in sorted(found))

    def _check_manifest(self, data: bytes) -> None:
        if digest(data) != self._manifest.digest:
            raise Corrupt("the manifest is another")

    def _key_check(self, attempt: str) -> Check:
        return lambda data: self._vault.check_key(self._generation, attempt, data)

    def _part_check(self, ref: Ref) -> Check:
        def check(data: bytes) -> None:
            open_part(self._vault.sealer(self._generation, ref.attempt), ref, data)

        return check

    def _pack_check(self, pack: Pack) -> Check:
        def check(data: bytes) -> None:
            if len(data) != pack.size or checksum([data]) != pack.crc:
                raise Corrupt(f"pack {pack.number} of attempt {pack.attempt} is not what was put")
            sealer = self._vault.sealer(self._generation, pack.attempt)
            with memoryview(data) as view:
                for frame in self._of(pack.attempt, pack.number):
                    check_frame(sealer, frame, view[frame.offset : frame.offset + frame.length])

        return check
