"""Which code an operation began under.

A finished step answers from the journal with what the code of its day had returned, so an operation goes on after
a kill only under that very code.
"""

from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from datastores.contract import Datastore

ROOMS = ("datastores", "guestagent", "objectstore")
_CODE = (".py", ".toml")


def vintage(datastore: Datastore) -> str:
    """Return a mark of all code that a step may come to: ours, and the datastore's, wherever it was installed from."""
    theirs = datastore.admin.__module__.partition(".")[0]
    mark = sha256()
    for package in (*ROOMS, theirs):
        for path in _files(package):
            mark.update(b"%s\0%d\0" % (path.name.encode(), path.stat().st_size) + path.read_bytes())
    return mark.hexdigest()[:16]


def _files(package: str) -> list[Path]:
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or ()) if spec is not None else ()
    return sorted(each for folder in folders for each in Path(folder).rglob("*") if each.suffix in _CODE)
