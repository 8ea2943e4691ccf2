"""The agent's configuration file, read once into frozen settings; nobody else reads oslo.config.

Every option is one of INTERFACES, section 2.  ``load`` checks what can be checked without the machine, and
a bad value is refused with the option's name.
"""

import ipaddress
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from oslo_config import cfg
from oslo_log import log

from guestagent import spelling
from guestagent.errors import Refused

LOG = logging.getLogger(__name__)
Written = dict[str, dict[str, Any]]
DRIVERS = ("unix", "rabbit", "ostler+rabbit", "kombu+memory")
_GUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

DEFAULT_OPTIONS = [
    cfg.StrOpt("guest_id", help="The guest's id: 1 to 64 letters, digits, dots, underscores and hyphens."),
    cfg.StrOpt("datastore_manager", help="The datastore's name, as an installed package declares it."),
    cfg.StrOpt("datastore_version", help="The datastore's version, as the image file writes it."),
    cfg.IntOpt("report_interval", default=10, min=1, max=3600, help="Seconds between two heartbeats."),
    cfg.StrOpt("state_dir", help="Folder of the agent's own: journal, lock, sealed keys, run files."),
]
OSTLER_OPTIONS = [
    cfg.StrOpt("image", help="The image file: a name among those that come along, or a path."),
    cfg.StrOpt("root", help="The data root: everything of the database lies below it."),
    cfg.StrOpt("prefix", default="", help="Tools and libraries are looked up below this folder first."),
    cfg.StrOpt("bind", default="127.0.0.1", help="The address the database listens on."),
    cfg.PortOpt("port", help="The database's port; 0: a free one. Default: the datastore's."),
    cfg.StrOpt(
        "supervisor",
        default="auto",
        choices=("auto", "process", "systemd"),
        help="Who keeps the database running; auto: systemd where it is PID 1.",
    ),
    cfg.StrOpt("realm", default="", help="The realm file: where backups go."),
    cfg.StrOpt("key_file", default="", help="The key-encryption key: exactly 32 raw bytes, mode 0600 or 0400."),
]
TRANSPORT_OPTIONS = [
    cfg.StrOpt("transport_url", secret=True, help="unix:///FOLDER, or rabbit://USER:PASSWORD@HOST:PORT/VHOST."),
    cfg.StrOpt("control_exchange", default="ostler", help="The exchange of the agent's topics."),
]
MESSAGING_OPTIONS = frozenset(
    {"executor_thread_pool_size", "rpc_ping_enabled", "rpc_response_timeout", "rpc_thread_pool_size"}
)
"""What oslo.messaging reads in [DEFAULT]; its list of them would load every driver it has."""

OLD_LOG_OPTIONS = frozenset({"fatal_deprecations", "log_config", "logdir", "logfile"})
_REQUIRED = (
    (None, "guest_id"),
    (None, "datastore_manager"),
    (None, "datastore_version"),
    (None, "transport_url"),
    (None, "state_dir"),
    ("ostler", "image"),
    ("ostler", "root"),
)


@dataclass(frozen=True)
class AgentSettings:
    """What the configuration file says; paths are absolute.

    ``transport_url`` may hold the broker's password and is not shown.  ``port``: None is the datastore's
    default, 0 a free one.  ``prefix``, ``realm`` and ``key_file`` are None where they are not set.
    """

    guest_id: str
    datastore_manager: str
    datastore_version: str
    transport_url: str = field(repr=False)
    control_exchange: str
    report_interval: int
    state_dir: Path
    image: str
    root: Path
    prefix: Path | None
    bind: str
    port: int | None
    supervisor: str
    realm: Path | None
    key_file: Path | None


class Configuration:
    """The files that were read: ``settings``, and ``messaging``, the same files as oslo.messaging reads them."""

    def __init__(self, words: Sequence[str]) -> None:
        self._conf = _parsed(_ours(), words)
        written = _written(self._conf)
        self._strange = _strange(self._conf, written)
        try:
            self.settings = _settings(self._conf)
        except cfg.Error as error:
            raise _refused(error, written) from error
        self.messaging = _parsed(cfg.ConfigOpts(), words)

    def set_up_logging(self) -> None:
        """Log as the file says, to standard error where it says nothing; never to standard output."""
        if not (self._conf.log_file or self._conf.log_dir or self._conf.use_journal):
            self._conf.set_override("use_stderr", True)
        log.setup(self._conf, "ostler")
        for each in self._strange:
            LOG.warning("%s", each)

    def read_log_level_again(self) -> None:
        """Read the files once more and take over the log level; ``Refused`` where they cannot be read."""
        try:
            self._conf.mutate_config_files()
        except cfg.Error as error:
            raise _refused(error) from error


def load(words: Sequence[str]) -> Configuration:
    """Read ``--config-file`` and ``--config-dir``; ``Refused`` names the file or the option that is wrong."""
    try:
        return Configuration(words)
    except cfg.Error as error:
        raise _refused(error) from error
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is not text"
        raise Refused(f"the configuration cannot be read: {said}", field="config_file") from error
    except SystemExit as end:
        # What the library has told in words of its own, it ends with 1: an option that may also come by argument.
        if end.code != 1:
            raise
        raise Refused("the configuration has a bad value; the line above names it", field="config_file") from None


def without_file() -> cfg.ConfigOpts:
    """Return options with their defaults and no file: what a client's transport is made with."""
    return _parsed(cfg.ConfigOpts(), ())


def list_opts() -> list[tuple[str | None, list[Any]]]:
    """Return all options by group, for oslo-config-generator."""
    return [(None, [*DEFAULT_OPTIONS, *TRANSPORT_OPTIONS]), ("ostler", list(OSTLER_OPTIONS))]


def transport(url: str) -> str:
    """Return the URL with our own driver in the place of oslo's ``rabbit``; ``Refused`` for a scheme we have not."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in DRIVERS:
        raise Refused(f"transport_url must begin with one of {', '.join(DRIVERS)}", field="transport_url")
    if scheme == "unix" and not rest.startswith("/"):
        raise Refused("transport_url unix:// is followed by an absolute folder", field="transport_url")
    try:
        urlsplit(url).port  # noqa: B018 - it is the reading that fails
    except ValueError:
        if "," not in rest:
            raise Refused("transport_url: what follows the host is not a port", field="transport_url") from None
    return f"ostler+rabbit://{rest}" if scheme == "rabbit" else url


def _ours() -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    conf.register_opts([*DEFAULT_OPTIONS, *TRANSPORT_OPTIONS])
    conf.register_opts(OSTLER_OPTIONS, group="ostler")
    return conf


def _parsed(conf: cfg.ConfigOpts, words: Sequence[str]) -> cfg.ConfigOpts:
    conf(list(words), project="ostler", prog="ostler agent start", default_config_files=[], default_config_dirs=[])
    return conf


def _settings(conf: cfg.ConfigOpts) -> AgentSettings:
    for group, name in _REQUIRED:
        if not (conf[name] if group is None else conf[group][name]):
            raise Refused(f"{name} is not set" + (f" in [{group}]" if group else ""), field=name)
    ours = conf.ostler
    return AgentSettings(
        guest_id=_guest_id(conf.guest_id),
        datastore_manager=conf.datastore_manager,
        datastore_version=conf.datastore_version,
        transport_url=transport(conf.transport_url),
        control_exchange=conf.control_exchange,
        report_interval=conf.report_interval,
        state_dir=_absolute(conf.state_dir, "state_dir"),
        image=ours.image,
        root=_absolute(ours.root, "root"),
        prefix=_absolute(ours.prefix, "prefix") if ours.prefix else None,
        bind=_address(ours.bind),
        port=ours.port,
        supervisor=ours.supervisor,
        realm=_absolute(ours.realm, "realm") if ours.realm else None,
        key_file=_absolute(ours.key_file, "key_file") if ours.key_file else None,
    )


def _guest_id(value: str) -> str:
    if not _GUEST_ID.fullmatch(value):
        raise Refused(f"guest_id {value[:80]!r} must be 1 to 64 letters, digits, . _ -", field="guest_id")
    return value


def _address(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        raise Refused(f"bind {value[:80]!r} is not an IP address", field="bind") from None


def _absolute(value: str, name: str) -> Path:
    path = Path(value)
    if not path.is_absolute():
        raise Refused(f"{name} must be an absolute path, not {value[:200]!r}", field=name)
    return path


def _written(conf: cfg.ConfigOpts) -> Written:
    """Return the files' own words: values by section and name, as lists, the last one wins."""
    found: Written = {}
    folders = conf.config_dirs if conf.config_dir else ()
    for path in [*conf.config_file, *(str(each) for folder in folders for each in sorted(Path(folder).glob("*.conf")))]:
        cfg.ConfigParser(path, found).parse()
    return found


def _strange(conf: cfg.ConfigOpts, written: Written) -> list[str]:
    """Return in words what [DEFAULT] says that nobody reads; ``Refused`` where it must be a slip of ours."""
    shared = {*conf, *MESSAGING_OPTIONS, *OLD_LOG_OPTIONS} - {"ostler"}
    return spelling.check(written, {each.name for each in OSTLER_OPTIONS}, shared)


def _refused(error: cfg.Error, written: Mapping[str, Mapping[str, Any]] = {}) -> Refused:  # noqa: B006
    """Return the error in plain words: the option, what it may be, and what it was."""
    found = re.match(r"Value for option (\w+)(?: from .*?\))? is not valid: (.*)", str(error), re.DOTALL)
    if found is None:
        return Refused(str(error), field="config_file")
    name, reason = found.groups()
    allowed = next((_allowed(each.type) for each in (*DEFAULT_OPTIONS, *OSTLER_OPTIONS) if each.name == name), None)
    if allowed is None:
        return Refused(f"{name}: {reason}", field=name)
    value = next((each[name][-1] for each in written.values() if name in each), "")
    return Refused(f"{name} must be {allowed}, not {value[:80]!r}", field=name)


def _allowed(kind: Any) -> str:
    if getattr(kind, "choices", None):
        return f"one of {', '.join(kind.choices)}"
    return f"a whole number from {kind.min} to {kind.max}"
