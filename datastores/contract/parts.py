"""The parts: one small abstract class for each capability of one node.

A part that a datastore has not is ``None`` in its declaration, never a method
that raises.  Every part is made with its node alone and keeps no connection:
it opens what it needs and closes it.  All of them may be called from several
threads, and every changing one may safely be repeated after a kill.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from datastores.contract.host import Command, Node, Secret
from datastores.contract.verbs import JSON, verb


class Admin(ABC):
    """The server itself.  Required of every datastore."""

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    def initialise(self) -> None:
        """Make ``places.data``, empty or half-made, the data of a new server; not while it runs."""

    @abstractmethod
    def command(self) -> Command:
        """Return the server's command, to run in the foreground as its owner, reading ``places.config``."""

    @abstractmethod
    def ping(self) -> None:
        """Return when the server answers our account (or its first, open door); else raise ``NotReady``."""

    @abstractmethod
    def version(self) -> str:
        """Return the running server's version, as ``10.11.6``."""

    @abstractmethod
    def secure(self) -> None:
        """Leave one agent account and no open door; idempotent.  Also after a restore."""

    @abstractmethod
    def quiesce(self) -> None:
        """Prepare a clean end, as far as the server wants one."""

    @abstractmethod
    def stop_signal(self) -> int:
        """Return the signal that ends the server cleanly."""

    def abandon(self) -> int:
        """Prepare the end of a server whose data is being replaced, rather quick than clean; return the signal for it.

        What it acknowledged is there still where it is started on this data again.  Otherwise as any end.
        """
        self.quiesce()
        return self.stop_signal()

    @abstractmethod
    def probe(self) -> None:
        """Write something of our own and read it back; raise ``NotReady`` where it does not hold."""


@dataclass(frozen=True)
class Rule:
    """What a tenant may set: one row of ``settings.toml``.

    ``kind`` is ``boolean``, ``integer``, ``float``, ``string``, ``enum``, ``size`` or one of the datastore's own;
    ``low``/``high`` bound a number (bytes for a size), ``choices`` an enum, ``pattern`` a string.
    """

    name: str
    kind: str
    dynamic: bool
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    pattern: str = ""


class Codec(Protocol):
    """How a layer of settings is written as the server's own files, and read back."""

    def dump(self, layers: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
        """Return the files of one generation by name; later layers win."""


class Settings(ABC):
    """What may be set, what is set, and making it so."""

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    def rules(self) -> Mapping[str, Rule]:
        """Return what a tenant may set on this version, by name."""

    @abstractmethod
    def base(self) -> Mapping[str, str]:
        """Return the agent's own layer: paths, endpoint, ids, what the design fixes."""

    @abstractmethod
    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return the values in the server's spelling; ``BadInput`` names the first bad one and its rule."""

    @abstractmethod
    def written(self) -> dict[str, str]:
        """Return what the server would read from ``places.config``, asked of the server's own reader."""

    @abstractmethod
    def effective(self) -> dict[str, str]:
        """Return what the running server really uses, in the spelling of ``check``."""

    @abstractmethod
    def apply(self, values: Mapping[str, str]) -> None:
        """Apply dynamic settings to the running server, and read them back."""

    def defaults(self, names: Collection[str]) -> dict[str, str]:
        """Return what the server uses where nobody sets these, as far as it tells while it runs; the rest is absent."""
        return {}


class Databases(ABC):
    """The databases (keyspaces) of a tenant; system ones are neither listed nor touched."""

    noun: ClassVar[str] = "database"

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    @verb(scope="accounts", changes=True)
    def create(
        self, name: str, *, charset: str | None = None, collate: str | None = None, replication: str | None = None
    ) -> None:
        """Create a database; creating what exists is no error.  What this datastore has not is ``BadInput``.

        ``charset`` how its text is written, where the datastore has that
        ``collate`` how its text is sorted, where the datastore has that
        ``replication`` how many nodes keep each row, as 3, or by data centre as dc1:3,dc2:2
        """

    @abstractmethod
    @verb(scope="accounts", changes=True)
    def delete(self, name: str) -> None:
        """Delete a database and all it holds; ``NotFound`` where there is none."""

    @abstractmethod
    @verb()
    def list(self, *, after: str | None = None, limit: int = 1000) -> "list[dict[str, JSON]]":
        """List databases by name.

        ``after`` begin behind this name
        ``limit`` how many at the most
        """


class Users(ABC):
    """The tenant's users; the agent's own account and root are neither listed nor touched."""

    noun: ClassVar[str] = "user"

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    @verb(scope="accounts", changes=True)
    def create(self, name: str, password: Secret, *, host: str = "%", databases: tuple[str, ...] = ()) -> None:
        """Make a user as the request says, password included; an existing one is made so."""

    @abstractmethod
    @verb(scope="accounts", changes=True)
    def delete(self, name: str, *, host: str = "%") -> None:
        """Delete a user; ``NotFound`` where there is none."""

    @abstractmethod
    @verb()
    def list(self, *, after: str | None = None, limit: int = 1000) -> "list[dict[str, JSON]]":
        """List users as name, host and databases.

        ``after`` begin behind this name
        ``limit`` how many at the most
        """

    @abstractmethod
    @verb(scope="accounts", changes=True)
    def set_password(self, name: str, password: Secret, *, host: str = "%") -> None:
        """Change a user's password; ``NotFound`` where there is none."""


class Grants(ABC):
    """Which user may use which database; only where there are databases."""

    noun: ClassVar[str] = "user"

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    @verb(scope="accounts", changes=True)
    def grant(self, name: str, *, database: str, host: str = "%") -> None:
        """Give a user all rights on one database, its name taken literally, without the right to grant."""

    @abstractmethod
    @verb(scope="accounts", changes=True)
    def revoke(self, name: str, *, database: str, host: str = "%") -> None:
        """Take the rights on one database back; ``NotFound`` where the user or the grant is not there."""


class Functions(ABC):
    """Code of tenants that runs inside the server; only where a server takes any."""

    noun: ClassVar[str] = "function"

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    @verb()
    def list(self, *, after: str | None = None, limit: int = 1000) -> "list[dict[str, JSON]]":
        """List functions by database, then name with the types of the arguments, as ``plus(int, int)``.

        ``after`` begin behind this one, as DATABASE.NAME
        ``limit`` how many at the most
        """

    @abstractmethod
    @verb(scope="accounts", changes=True)
    def delete(self, name: str, *, database: str) -> None:
        """Delete a function, named as ``list`` prints it; ``NotFound`` where there is none.

        ``database`` the database it belongs to
        """


class Root(ABC):
    """The tenant's superuser, restricted: it can neither lock us out nor reach the machine."""

    noun: ClassVar[str] = "root"

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    @verb(scope="accounts", changes=True, once=True, result=True)
    def enable(self) -> "dict[str, JSON]":
        """Make root, with a new password each time; return its name and password, once."""

    @abstractmethod
    @verb(scope="accounts", changes=True)
    def disable(self) -> None:
        """Take root away; no error where it is not enabled."""

    @abstractmethod
    @verb()
    def show(self) -> "dict[str, JSON]":
        """Return whether root is enabled, as ``{"enabled": bool}``."""
