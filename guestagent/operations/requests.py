"""What ``prepare`` is asked for, and the check of every name in a request before anything changes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from datastores.contract import BadInput, Datastore, Secret
from guestagent.errors import Refused


@dataclass(frozen=True)
class DatabaseRequest:
    """A database that is to be there."""

    name: str
    charset: str | None = None
    collate: str | None = None
    replication: str | None = None


@dataclass(frozen=True)
class UserRequest:
    """A user who is to be there, with a password, and the databases he may use."""

    name: str
    password: Secret
    host: str = "%"
    databases: tuple[str, ...] = ()


@dataclass(frozen=True)
class RestoreRequest:
    """The backup that the data is to come from."""

    backup: str
    digest: str | None = None


def check_names(datastore: Datastore, noun: str, values: Mapping[str, object], place: str = "") -> None:
    """Hold the arguments of a verb about a ``noun`` to the datastore's rules for names.

    ``Refused`` names the first bad one behind ``place``, as ``users[1].name``, or what the datastore has not.
    """
    if values.get("databases") and datastore.databases is None:
        raise Refused(f"{datastore.name} has no databases", field=f"{place}databases")
    for argument, value in values.items():
        kind = {"name": noun, "databases": "database"}.get(argument, argument)
        for field, each in _each(value, f"{place}{argument}"):
            _check(datastore, kind, each, field)


def check_accounts(
    datastore: Datastore, databases: tuple[DatabaseRequest, ...], users: tuple[UserRequest, ...]
) -> None:
    """Hold all that ``prepare`` is asked for to the datastore's rules for names; ``Refused`` as ``check_names``."""
    if databases and datastore.databases is None:
        raise Refused(f"{datastore.name} has no databases", field="databases")
    if users and datastore.users is None:
        raise Refused(f"{datastore.name} has no users", field="users")
    for number, database in enumerate(databases):
        check_names(datastore, "database", vars(database), f"databases[{number}].")
    for number, user in enumerate(users):
        check_names(datastore, "user", vars(user), f"users[{number}].")


def check_grants(databases: tuple[DatabaseRequest, ...], users: tuple[UserRequest, ...]) -> None:
    """Raise ``Refused`` where a user of a new server is to have a database that is not asked for."""
    known = {each.name for each in databases}
    for number, user in enumerate(users):
        for which, name in enumerate(user.databases):
            if name not in known:
                field = f"users[{number}].databases[{which}]"
                raise Refused(f"{field}: the request makes no such database", field=field, hint="databases names it")


def spelled(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings as strings; numbers may come as numbers."""
    for name, value in settings.items():
        if not isinstance(value, str | int | float):
            raise Refused(f"setting {name[:80]!r} must be a string or a number", field=f"settings.{name[:80]}")
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in settings.items()}


def _each(value: object, field: str) -> Iterator[tuple[str, str]]:
    """Yield every text of an argument with its place."""
    if isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from _each(each, f"{field}[{number}]")
    elif isinstance(value, str | Secret):
        yield field, value if isinstance(value, str) else value.reveal()


def _check(datastore: Datastore, kind: str, value: str, field: str) -> None:
    rule = datastore.names.get(kind)
    if rule is None:
        return
    try:
        rule.check(value, kind)
    except BadInput as error:
        bounds = f"{rule.least} to {rule.length} {rule.unit} long" + (f", of {rule.pattern}" if rule.pattern else "")
        message = str(error) if kind != "password" else f"the password is refused: it must be {bounds}, without NUL"
        place = f"{field}: " if field.endswith("]") or "." in field else ""
        raise Refused(f"{place}{message}", field=field) from None
