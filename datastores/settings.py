"""Settings in layers, as generations with one pointer.

Three layers, the later one wins: **image** (what the image's builder set), **agent** (what the
datastore and the design fix) and **user**.  A generation is a folder ``config.d/N`` below the root with
the server's own files and ``layers.json``; it is written whole and made durable before the pointer
(``places.config``, a link) is renamed to it.  The pointer alone decides what is in force; the
generation before it stays, as a spare to go back to.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datastores.contract import JSON, BadInput, Codec, Datastore, Mismatch, Node, NotFound, NotReady, Settings

Changes = Mapping[str, str | None]
"""New values by name; None drops one."""

LAYERS = "layers.json"


@dataclass(frozen=True)
class Layers:
    """What one generation was made of.

    ``waiting`` are the names that the server with the process id ``server`` has not taken over yet.
    """

    image: Mapping[str, str] = field(default_factory=dict)
    agent: Mapping[str, str] = field(default_factory=dict)
    user: Mapping[str, str] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    server: int | None = None

    def source(self, name: str) -> str:
        """Return the layer a name's value comes from; what nobody set is the image's."""
        return next((each for each in ("user", "agent") if name in getattr(self, each)), "image")

    def merged(self) -> dict[str, str]:
        """Return what holds, by name."""
        return {**self.image, **self.agent, **self.user}


class Generations:
    """The folders and their pointer; moves only, no thought about what is in them."""

    def __init__(self, node: Node, codec: Codec) -> None:
        self._node = node
        self._codec = codec
        self._folder = node.places.config.with_name(node.places.config.name + ".d")

    def current(self) -> int:
        """Return the number of the generation in force; 0: there is none yet."""
        try:
            name = self._node.places.config.readlink().name
        except FileNotFoundError:
            return 0
        return int(name) if name.isdigit() else 0

    def read(self, number: int) -> Layers:
        """Return what a generation was made of; ``NotFound`` where it is not whole."""
        try:
            kept = json.loads((self.path(number) / LAYERS).read_bytes())
        except (FileNotFoundError, ValueError) as error:
            raise NotFound(f"there is no settings generation {number}") from error
        return Layers(kept["image"], kept["agent"], kept["user"], tuple(kept["waiting"]), kept["server"])

    def write(self, number: int, layers: Layers) -> None:
        """Make a generation, durable, not in force; one that was left half-made is made anew."""
        host, path = self._node.host, self.path(number)
        host.remove(path)
        host.folder(path)
        files = self._codec.dump([layers.image, layers.agent, layers.user])
        for name, content in files.items():
            host.write(path / name, content)
        host.write(path / LAYERS, json.dumps(asdict(layers), sort_keys=True, indent=1).encode())

    def switch(self, number: int) -> None:
        """Put a whole generation in force in one rename."""
        self.read(number)
        pointer = self._node.places.config
        fresh = pointer.with_name(f".{pointer.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(f"{self._folder.name}/{number}")
        fresh.rename(pointer)
        _sync(pointer.parent)

    def sweep(self, *others: int) -> None:
        """Remove all but the generation in force, the one before it and those named."""
        current = self.current()
        keep = {current, current - 1, *others}
        for each in self._folder.iterdir() if self._folder.is_dir() else ():
            if each.name.isdigit() and int(each.name) not in keep:
                self._node.host.remove(each)

    def path(self, number: int) -> Path:
        """Return the folder of a generation."""
        return self._folder / str(number)


class LayeredSettings:
    """What may be set on this node, what is set and where it comes from."""

    def __init__(
        self,
        datastore: Datastore,
        node: Node,
        *,
        pid: Callable[[], int | None],
        image: Mapping[str, str] | None = None,
    ) -> None:
        self.part: Settings = datastore.settings(node)
        self.generations = Generations(node, datastore.codec)
        self._fixed = datastore.fixed_settings
        self._image = dict(image or {})
        self._pid = pid

    def user(self) -> dict[str, str]:
        """Return the user's layer of the generation in force."""
        return dict(self._layers().user)

    def check(self, changes: Changes) -> dict[str, str | None]:
        """Return the changes in the server's spelling; ``BadInput`` names the first bad one and its rule."""
        rules = self.part.rules()
        for name in changes:
            if name in self._fixed:
                raise BadInput(f"setting {name} is fixed to {self._fixed[name]!r} by the design", field=name)
            if name not in rules:
                raise BadInput(f"setting {name[:80]!r} is not one that may be set here", field=name[:80])
        values = self.part.check({name: value for name, value in changes.items() if value is not None})
        return {name: None if value is None else values[name] for name, value in changes.items()}

    def write(self, user: Mapping[str, str]) -> int:
        """Write the next generation with this user layer; durable, not in force; return its number."""
        before, number = self._layers(), self.generations.current() + 1
        after = Layers(self._image, dict(self.part.base()), dict(user))
        old, new = before.merged(), after.merged()
        changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        pid = self._pid() if self.generations.current() else None
        at_once = self._at_once(changed, new).keys() if pid else set()
        waiting = changed - at_once if pid else set()
        if pid is not None and pid == before.server:
            waiting |= set(before.waiting) - at_once
        layers = Layers(after.image, after.agent, after.user, tuple(sorted(waiting)), pid)
        self.generations.write(number, layers)
        return number

    def switch(self, number: int, *, keep: int | None = None) -> None:
        """Put a generation in force; what runs is not touched.

        It and the one before it stay, and ``keep``: the one the server last came up with.
        """
        self.generations.switch(number)
        self.generations.sweep(*([] if keep is None else [keep]))

    def ensure(self) -> int:
        """Have a generation in force that says what the agent says today; return its number."""
        current = self.generations.current()
        if current:
            layers = self._layers()
            if (dict(layers.image), dict(layers.agent)) == (self._image, dict(self.part.base())):
                return current
        self.switch(self.write(self.user()))
        return self.generations.current()

    def rollback(self, to: int | None = None) -> int:
        """Go back to a generation that was kept, or (without, or where it is gone) to the one before; return which."""
        kept = to is not None and (self.generations.path(to) / LAYERS).is_file()
        number = to if to is not None and kept else self.generations.current() - 1
        self.generations.switch(number)
        return number

    def apply(self, changes: Changes) -> list[str]:
        """Apply what is dynamic to the running server; return the names that wait for a restart.

        What is dropped is applied where another layer, or the server itself, tells what holds then.
        """
        now = self._at_once(changes, self._layers().merged())
        if now:
            self.part.apply(self.part.check(now))
        return sorted(name for name in changes if name not in now)

    def confirm(self, changes: Changes) -> None:
        """Raise ``Mismatch`` unless the server's own reader, and the running server, have the new values."""
        values = self._layers().merged()
        written = self.part.written()
        for name in changes:
            wanted = self._spelled(name, values.get(name))
            if wanted is not None and self._spelled(name, written.get(name)) != wanted:
                raise Mismatch(f"setting {name} was written, but the server would read another value", field=name)
        if self._pid() is None:
            return
        running = self.part.effective()
        for name, value in self._at_once(changes, values).items():
            if running.get(name) != self._spelled(name, value):
                raise Mismatch(f"setting {name} was applied, but the server uses another value", field=name)

    def rows(self, *, every: bool = False) -> list[dict[str, JSON]]:
        """Return settings by name: value, source, whether dynamic, whether a restart is awaited.

        Without ``every`` only what a layer sets; with it, all that a tenant may set, as the server uses it.
        """
        layers, rules = self._layers(), self.part.rules()
        pid = self._pid()
        running = self._running() if pid is not None else {}
        waiting = set(layers.waiting) if pid is not None and pid == layers.server else set()
        values = layers.merged()
        names = values.keys() | (rules.keys() & running.keys() if every else set()) | waiting
        rows: list[dict[str, JSON]] = []
        for name in sorted(names):
            wanted = self._spelled(name, values.get(name))
            differs = wanted is not None and name in rules and name in running and running[name] != wanted
            rows.append(
                {
                    "name": name,
                    "value": values.get(name, running.get(name)),
                    "source": layers.source(name),
                    "dynamic": name in rules and rules[name].dynamic,
                    "pending_restart": differs or (name in waiting and (wanted is None or name not in running)),
                }
            )
        return rows

    def _layers(self) -> Layers:
        current = self.generations.current()
        return self.generations.read(current) if current else Layers(self._image)

    def _at_once(self, names: Iterable[str], values: Mapping[str, str]) -> dict[str, str]:
        """Return the dynamic ones of these names with what the running server is to use: of ``values``, or its own."""
        rules = self.part.rules()
        dynamic = {name for name in names if name in rules and rules[name].dynamic}
        theirs = dynamic - values.keys()
        own: dict[str, str] = {}
        with suppress(NotReady):
            own = self.part.defaults(theirs) if theirs else {}
        return {name: {**own, **values}[name] for name in sorted(dynamic) if name in values or name in own}

    def _running(self) -> dict[str, str]:
        try:
            return self.part.effective()
        except NotReady:
            return {}

    def _spelled(self, name: str, value: str | None) -> str | None:
        if value is None or name not in self.part.rules():
            return value
        try:
            return self.part.check({name: value})[name]
        except BadInput:
            return value


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
