"""The server's configuration file: YAML, its dotted names as nested mappings.

``setParameter.NAME`` is one name of the flat form as well.  Documents with anchors or aliases are refused.
"""

import io
from collections.abc import Mapping, Sequence

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from datastores.contract import Mismatch

CONFIG = "mongod.conf"
PARAMETER = "setParameter"


class MongodConf:
    """Keep ``contract.Codec``: one file."""

    def dump(self, layers: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
        """Return the files of one generation by name; later layers win."""
        merged: dict[str, str] = {}
        for layer in layers:
            merged.update(layer)
        tree: dict[str, object] = {}
        for name in sorted(merged):
            _put(tree, name.split("."), merged[name])
        out = io.BytesIO()
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False
        yaml.allow_unicode = True
        yaml.dump(tree, out)
        return {CONFIG: out.getvalue()}


def read(text: bytes) -> dict[str, str]:
    """Return the settings of a document by their dotted names, in the server's spelling."""
    try:
        events = list(YAML(typ="safe", pure=True).parse(text))
        if any(isinstance(each, AliasEvent) or getattr(each, "anchor", None) for each in events):
            raise Mismatch("the configuration has an anchor, which none of ours has")
        tree = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise Mismatch(f"the configuration is not YAML: {str(error)[:200]}") from error
    found: dict[str, str] = {}
    _flatten(tree if isinstance(tree, Mapping) else {}, "", found)
    return found


def spelled(value: object) -> str:
    """Return a scalar as the settings have it: ``true``, ``100``, ``0.5``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flatten(tree: Mapping[object, object], above: str, found: dict[str, str]) -> None:
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            _flatten(value, f"{name}.", found)
        else:
            found[name] = spelled(value)


def _put(tree: dict[str, object], path: Sequence[str], value: str) -> None:
    first, *rest = path
    if not rest:
        tree[first] = _typed(value)
        return
    below = tree.setdefault(first, {})
    if isinstance(below, dict):
        _put(below, rest, value)


def _typed(value: str) -> object:
    """Return a scalar that is written without quotes where it is one: a number, a truth, else text."""
    if value in ("true", "false"):
        return value == "true"
    if value.isascii() and value.lstrip("-").isdigit():
        return int(value)
    return value
