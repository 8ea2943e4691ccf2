"""Where a node's files lie in its data folder, and what its base configuration says of them."""

import json
from pathlib import Path

FOLDERS = {
    "commitlog_directory": "commitlog",
    "saved_caches_directory": "saved_caches",
    "hints_directory": "hints",
    "cdc_raw_directory": "cdc_raw",
}
TABLES = "data"
"""The tables' own folder, below which lies ``KEYSPACE/TABLE-ID``."""


def folders(data: Path) -> dict[str, str]:
    """Return the settings that lay a node's files out below ``data``."""
    named = {name: str(data / folder) for name, folder in FOLDERS.items()}
    return {"data_file_directories": json.dumps([str(data / TABLES)]), **named}
