"""What ``prepare`` is asked for, and the check of every name in it before anything changes."""

from collections.abc import Mapping
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


def check_names(datastore: Datastore, databases: tuple[DatabaseRequest, ...], users: tuple[UserRequest, ...]) -> None:
    """Raise ``Refused`` that names the first bad member, as ``databases[1].name``, or what the datastore has not."""
    if databases and datastore.databases is None:
        raise Refused(f"{datastore.name} has no databases", field="databases")
    if users and datastore.users is None:
        raise Refused(f"{datastore.name} has no users", field="users")
    for number, database in enumerate(databases):
        _check(datastore, "database", database.name, f"databases[{number}].name")
    for number, user in enumerate(users):
        place = f"users[{number}]"
        _check(datastore, "user", user.name, f"{place}.name")
        _check(datastore, "password", user.password.reveal(), f"{place}.password")
        _check(datastore, "host", user.host, f"{place}.host")
        for which, name in enumerate(user.databases):
            _check(datastore, "database", name, f"{place}.databases[{which}]")


def spelled(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings as strings; numbers may come as numbers."""
    for name, value in settings.items():
        if not isinstance(value, str | int | float):
            raise Refused(f"setting {name[:80]!r} must be a string or a number", field=f"settings.{name[:80]}")
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in settings.items()}


def _check(datastore: Datastore, kind: str, value: str, field: str) -> None:
    rule = datastore.names.get(kind)
    if rule is None:
        return
    try:
        rule.check(value, kind)
    except BadInput as error:
        message = str(error) if kind != "password" else "the password is refused: it breaks the rule for passwords"
        raise Refused(f"{field}: {message}", field=field) from None
