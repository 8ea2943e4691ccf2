"""Backups: frames in packs, an index that later backups share, and a manifest that makes it all exist.

``FORMAT.md`` describes every byte.
"""

from objectstore.archive.archive import Archive
from objectstore.archive.contents import Contents
from objectstore.archive.draft import Draft
from objectstore.archive.extract import extract
from objectstore.archive.manifest import Manifest
from objectstore.archive.model import Copies, Cut, Entry, Header, check_digest
from objectstore.archive.verify import Listed, Verified

__all__ = [
    "Archive",
    "Contents",
    "Copies",
    "Cut",
    "Draft",
    "Entry",
    "Header",
    "Listed",
    "Manifest",
    "Verified",
    "check_digest",
    "extract",
]
