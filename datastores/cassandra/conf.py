"""The server's configuration files of one generation: ``cassandra.yaml``, its machine's options, its place, its log.

A layer is flat.  A plain name is one of ``cassandra.yaml``, nested ones dotted; ``jvm.heap`` sizes the machine it runs
in, ``property.NAME`` is a property of the server's, ``place.dc`` and ``place.rack`` say where the node stands,
``log.level`` how much it tells.  ``image.file`` is a ``cassandra.yaml`` of the image: what it says holds below every
layer, and its comments stay.  Documents with a key twice, an anchor or a tag are refused: the server would take the
last, and none of ours has them.
"""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from datastores.cassandra import jolokia, jvm
from datastores.cassandra.rules import writable
from datastores.cassandra.units import parse, spell
from datastores.contract import Mismatch

CONFIG = "cassandra.yaml"
PLACE = "cassandra-rackdc.properties"
LOG = "logback.xml"
IMAGE = "image.file"
HEAP = "jvm.heap"
LEVEL = "log.level"
PROPERTY = "property."
WHERE = "place."
OTHERS = ("image.", "jvm.", "log.", PROPERTY, WHERE)
LOGBACK = """<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level [%thread] %date{{ISO8601}} %F:%L - %msg%n</pattern></encoder>
  </appender>
  <root level="{level}"><appender-ref ref="OUT"/></root>
</configuration>
"""


class CassandraConf:
    """Keep ``contract.Codec``: five files, which name each other by nothing but their folder."""

    def dump(self, layers: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
        """Return the files of one generation by name; later layers win."""
        merged: dict[str, str] = {}
        for layer in layers:
            merged.update(layer)
        return {
            CONFIG: _document(merged),
            jvm.OPTIONS: jvm.options(parse("storage", merged[HEAP]), list(_below(merged, PROPERTY))),
            PLACE: "".join(f"{name}={value}\n" for name, value in _below(merged, WHERE)).encode(),
            LOG: LOGBACK.format(level=merged.get(LEVEL, "INFO")).encode(),
            jolokia.POLICY: jolokia.policy(writable()),
        }


def read(folder: Path) -> dict[str, str]:
    """Return what a generation's files say, by the names of the layers."""
    found = flat(document((folder / CONFIG).read_bytes()))
    for word in jvm.words((folder / jvm.OPTIONS).read_text()):
        if word.startswith("-Xmx"):
            found[HEAP] = spell("storage", int(word.removeprefix("-Xmx")), "MiB")
        elif word.startswith("-D"):
            name, _, value = word.removeprefix("-D").partition("=")
            found[PROPERTY + name] = value
    for line in (folder / PLACE).read_text().splitlines():
        name, _, value = line.partition("=")
        found[WHERE + name] = value
    found[LEVEL] = (folder / LOG).read_text().partition('<root level="')[2].partition('"')[0]
    return found


def document(text: bytes) -> CommentedMap:
    """Return a document with its comments; ``Mismatch`` where it is none, or one that can be read in two ways."""
    try:
        for event in YAML(typ="rt", pure=True).parse(text):
            if isinstance(event, AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
                raise Mismatch("the configuration has an anchor or a tag, which none of ours has")
        tree = YAML(typ="rt", pure=True).load(text)
    except YAMLError as error:
        raise Mismatch(f"the configuration is not YAML: {str(error)[:300]}") from error
    if not isinstance(tree, CommentedMap | None):
        raise Mismatch("the configuration is not a table of names and values")
    return CommentedMap() if tree is None else tree


def flat(tree: Mapping[str, object], above: str = "") -> dict[str, str]:
    """Return a document's values by dotted names, in the server's spelling; a list is one value, as JSON."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found.update(flat(value, f"{above}{key}."))
        elif value is not None:
            found[f"{above}{key}"] = spelled(value)
    return found


def spelled(value: object) -> str:
    """Return a value as the layers have it: ``true``, ``100``, ``0.5``, ``["a"]``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value) if isinstance(value, list) else str(value)


def _document(merged: Mapping[str, str]) -> bytes:
    image = merged.get(IMAGE)
    tree = document(Path(image).read_bytes()) if image else CommentedMap()
    for name in sorted(merged):
        if not name.startswith(OTHERS):
            _put(tree, name.split("."), _typed(merged[name]))
    out = io.BytesIO()
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 4096
    yaml.dump(tree, out)
    return out.getvalue()


def _put(tree: CommentedMap, path: Sequence[str], value: object) -> None:
    first, *rest = path
    if not rest:
        tree[first] = value
        return
    if not isinstance(tree.get(first), CommentedMap):
        tree[first] = CommentedMap()
    _put(tree[first], rest, value)


def _typed(value: str) -> object:
    """Return a number, a truth or a list as such, and all else as text in quotes: ``on`` and ``010`` stay text."""
    if value.startswith("["):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    if value in ("true", "false"):
        return value == "true"
    if value.isascii() and value.lstrip("-").isdigit() and str(int(value)) == value:
        return int(value)
    try:
        return float(value) if f"{float(value):g}" == value and "." in value else DoubleQuotedScalarString(value)
    except ValueError:
        return DoubleQuotedScalarString(value)


def _below(merged: Mapping[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    for name in sorted(merged):
        if name.startswith(prefix):
            yield name.removeprefix(prefix), merged[name]
