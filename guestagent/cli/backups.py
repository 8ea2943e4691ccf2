"""Backups of a realm, with the caller's own rights: no agent, no broker, no control plane.

``OSTLER_REALM`` names the realm file, ``OSTLER_KEY_FILE`` the key-encryption key.  Only
``create`` and ``restore`` are the agent's.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cliff.command import Command

from datastores.contract import JSON
from guestagent.cli.agents import Asking
from guestagent.cli.progress import follower
from guestagent.cli.show import Object, Rows
from guestagent.errors import DeadlinePassed, Refused, Unreachable
from objectstore.archive import Archive, Listed, Manifest, extract
from objectstore.keys import LocalKeys
from objectstore.realm import Realm, open_store
from objectstore.store import Corrupt, Missing, StoreError


def archive(*, renew: bool = False) -> Archive:
    """Open the realm's archive with the caller's rights; ``Refused`` names what is not set.

    ``renew``: a cluster that was lost is begun anew, which is for ``repair`` alone.
    """
    realm = _realm()
    keys = LocalKeys.from_file(Path(_environment("OSTLER_KEY_FILE", "the key-encryption key")))
    return Archive(open_store(realm, renew=renew), realm.name, keys, wanted=realm.mirror, quorum=realm.write_quorum)


def _realm() -> Realm:
    return Realm.read(Path(_environment("OSTLER_REALM", "the realm file")))


def _environment(name: str, what: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise Refused(f"{name} is not set", field=name, hint=f"it names {what}")
    return value


def described(kept: Archive, manifest: Manifest, listed: Listed | None = None) -> dict[str, JSON]:
    """Return the JSON of a sealed backup, its state as the clusters show it now."""
    return manifest.to_json(kept.copies(manifest, listed))


class Named(Object):
    """A command about one backup."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("id", metavar="ID")
        return parser


class List(Asking, Rows):
    """List the realm's backups, and the unfinished ones of the agent where one answers."""

    summary = ("id", "guest_id", "datastore", "kind", "state", "copies", "started_at", "stored_bytes")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--filter", action="append", default=[], metavar="K=V|K=in:A,B", dest="filters")
        parser.add_argument("--after", metavar="ID", help="begin behind this backup")
        parser.add_argument("--limit", metavar="N", type=int)
        return parser

    def rows(self, parsed: argparse.Namespace) -> Sequence[Mapping[str, object]]:
        wanted = [_filter(each) for each in parsed.filters]
        kept = archive()
        listed: Listed = {}
        unread: list[StoreError] = []
        found = [described(kept, each, listed) for each in kept.manifests(unread.append)]
        _warn(kept, found, unread)
        sealed = {str(each["id"]) for each in found}
        found += [each for each in self._building() if str(each.get("id")) not in sealed]
        found.sort(key=lambda each: (str(each["started_at"]), str(each["id"])))
        _must_be_known(found, wanted)
        return _page([each for each in found if _matches(each, wanted)], parsed.after, parsed.limit)

    def _building(self) -> Iterator[dict[str, JSON]]:
        if not self.app.options.agent:
            return
        try:
            answer = self.client().call("backup", "building", {}, deadline=self.app.options.deadline or 5.0)
        except (Unreachable, DeadlinePassed):
            return
        if isinstance(answer, list):
            yield from (each for each in answer if isinstance(each, dict))


def _warn(kept: Archive, found: Sequence[object], unread: Sequence[StoreError]) -> None:
    """Say why backups that somebody expects may not be in the list."""
    if unread:
        many = f"{len(unread)} backup{'s' if len(unread) > 1 else ''} cannot be read"
        print(f"warning: {many}: {unread[0]}", file=sys.stderr)
        if unread[0].hint:
            print(f"  hint: {unread[0].hint}", file=sys.stderr)
    elif not found and not any(kept.vault.store.containers()):
        places = ", ".join(each.url for each in _realm().clusters)
        print(f"warning: nothing was ever put into {places}, or what was is not there now", file=sys.stderr)


def _filter(text: str) -> tuple[str, frozenset[str]]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Refused(f"filter {text!r} must be NAME=VALUE or NAME=in:A,B", field="filter")
    return name, frozenset(value[3:].split(",") if value.startswith("in:") else [value])


def _must_be_known(found: Sequence[Mapping[str, JSON]], filters: Sequence[tuple[str, frozenset[str]]]) -> None:
    names = {name for backup in found for name in backup}
    for name, _ in filters:
        if found and name not in names:
            raise Refused(f"backups have no {name!r} to filter by", field="filter", hint=", ".join(sorted(names)))


def _matches(backup: Mapping[str, JSON], filters: Sequence[tuple[str, frozenset[str]]]) -> bool:
    """Say whether a backup is one of those; what one that is not sealed lacks is the empty string."""
    return all(("" if backup.get(name) is None else str(backup[name])) in values for name, values in filters)


def _page(found: list[dict[str, JSON]], after: str | None, limit: int | None) -> list[dict[str, JSON]]:
    if after is not None:
        ids = [each["id"] for each in found]
        if after not in ids:
            raise Missing(f"there is no backup {after} to begin behind", field="after")
        found = found[ids.index(after) + 1 :]
    if limit is not None and limit < 1:
        raise Refused("limit must be at least 1", field="limit")
    return found[:limit]


class Show(Asking, Named):
    """Show one backup."""

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        kept = archive()
        try:
            return described(kept, kept.find(parsed.id))
        except Missing:
            for each in List._building(self):  # type: ignore[arg-type]
                if each.get("id") == parsed.id:
                    return each
            raise


class Verify(Asking, Named):
    """Read every copy of a backup; succeed when at least one is whole."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--digest", metavar="D", help="what the backup's manifest must be, as create printed it")
        return parser

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        kept = archive()
        manifest = kept.find(parsed.id, parsed.digest)
        with follower("verify", self.app.options.progress) as shown:
            seen = kept.verify(manifest, shown.figures)
        copies = {"have": seen.copies.have, "wanted": seen.copies.wanted}
        return {"id": parsed.id, "frames": seen.frames, "bytes": seen.bytes, "copies": copies, "ok": seen.ok}


class Repair(Asking, Named):
    """Bring the missing copies of a backup back."""

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        kept = archive(renew=True)
        manifest = kept.find(parsed.id)
        with follower("repair", self.app.options.progress) as shown:
            kept.repair(manifest, shown.figures)
        return described(kept, manifest)


class Delete(Named):
    """Remove a backup's manifest; what nothing else needs is freed by a later collection."""

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        kept, gone = archive(), dict[str, JSON](id=parsed.id)
        with suppress(Missing, Corrupt):  # one that was deleted in part, or cannot be read, goes all the same
            gone = described(kept, kept.find(parsed.id))
        kept.delete(parsed.id)
        return gone


class Extract(Asking, Named):
    """Write a backup's files into a folder: the recovery kit, which needs no agent."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--into", required=True, metavar="DIR", help="an empty folder, or one to be made")
        parser.add_argument("--digest", metavar="D", help="what the backup's manifest must be, as create printed it")
        return parser

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        kept = archive()
        manifest = kept.find(parsed.id, parsed.digest)
        contents = kept.contents(manifest)
        with follower("extract", self.app.options.progress) as shown:
            extract(contents, Path(parsed.into), shown.figures)
        return {"id": parsed.id, "into": parsed.into, "files": len(contents.files), "bytes": manifest.logical_bytes}


class Purge(Object):
    """Show what a collection would keep and what it would free, and why."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        parser.add_argument("--dry-run", action="store_true", help="only show; freeing is the keeper's work")
        return parser

    def result(self, parsed: argparse.Namespace) -> Mapping[str, object]:
        if not parsed.dry_run:
            raise Refused("purge only shows what it would do", field="dry_run", hint="--dry-run")
        plan = archive().purge_plan()
        return {"keep": list(plan.keep), "free": list(plan.free), "why": dict(plan.why)}


def commands() -> dict[str, type[Command]]:
    """Return this room's commands by name."""
    return {
        "backup list": List,
        "backup show": Show,
        "backup verify": Verify,
        "backup repair": Repair,
        "backup delete": Delete,
        "backup extract": Extract,
        "purge": Purge,
    }
