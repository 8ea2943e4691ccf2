"""The configuration file: every option of INTERFACES, section 2, and what is refused by name."""

import dataclasses
import logging
from pathlib import Path

import oslo_log._options
import oslo_messaging.opts
import pytest

from guestagent import config
from guestagent.errors import Refused

WHOLE = {
    "DEFAULT": {
        "guest_id": "g1",
        "datastore_manager": "toy",
        "datastore_version": "1.0",
        "transport_url": "rabbit://agent:pa55word@broker:5672/vhost",
        "control_exchange": "mine",
        "report_interval": "3",
        "state_dir": "/tmp/x/state",
    },
    "ostler": {
        "image": "debian-12",
        "root": "/tmp/x/data",
        "prefix": "/opt/servers",
        "bind": "127.0.0.2",
        "port": "0",
        "supervisor": "process",
        "realm": "/tmp/x/realm.toml",
        "key_file": "/tmp/x/kek",
    },
}


def written(folder: Path, **changes: str | None) -> list[str]:
    """Write the whole file with some options changed, or left out where None; return the arguments."""
    lines = []
    for group, options in WHOLE.items():
        lines.append(f"[{group}]")
        for name, value in options.items():
            now = changes.get(name, value)
            if now is not None:
                lines.append(f"{name} = {now}")
    path = folder / "agent.conf"
    path.write_text("\n".join(lines) + "\n")
    return ["--config-file", str(path)]


def test_every_option_is_read(tmp_path: Path) -> None:
    found = config.load(written(tmp_path)).settings
    assert found == config.AgentSettings(
        guest_id="g1",
        datastore_manager="toy",
        datastore_version="1.0",
        transport_url="ostler+rabbit://agent:pa55word@broker:5672/vhost",
        control_exchange="mine",
        report_interval=3,
        state_dir=Path("/tmp/x/state"),
        image="debian-12",
        root=Path("/tmp/x/data"),
        prefix=Path("/opt/servers"),
        bind="127.0.0.2",
        port=0,
        supervisor="process",
        realm=Path("/tmp/x/realm.toml"),
        key_file=Path("/tmp/x/kek"),
    )


def test_what_may_be_left_out(tmp_path: Path) -> None:
    left = ("control_exchange", "report_interval", "prefix", "bind", "port", "supervisor", "realm", "key_file")
    found = config.load(written(tmp_path, **dict.fromkeys(left))).settings
    assert (found.control_exchange, found.report_interval, found.bind) == ("ostler", 10, "127.0.0.1")
    assert (found.prefix, found.port, found.supervisor, found.realm, found.key_file) == (None, None, "auto", None, None)


@pytest.mark.parametrize(
    "name", ["guest_id", "datastore_manager", "datastore_version", "transport_url", "state_dir", "image", "root"]
)
def test_what_may_not(tmp_path: Path, name: str) -> None:
    for value in (None, ""):
        with pytest.raises(Refused) as refused:
            config.load(written(tmp_path, **{name: value}))
        assert refused.value.field == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guest_id", "a b"),
        ("guest_id", "../up"),
        ("guest_id", "-g"),
        ("guest_id", "g" * 65),
        ("transport_url", "amqp://x"),
        ("transport_url", "unix:relative"),
        ("transport_url", "unix://host/folder"),
        ("transport_url", "rabbit://u:p@h:port/"),
        ("report_interval", "0"),
        ("report_interval", "soon"),
        ("state_dir", "relative"),
        ("root", "./data"),
        ("prefix", "opt"),
        ("bind", "localhost"),
        ("port", "65536"),
        ("port", "-1"),
        ("supervisor", "cron"),
        ("realm", "realm.toml"),
        ("key_file", "kek"),
    ],
)
def test_a_bad_value_is_refused_with_its_option(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(Refused) as refused:
        config.load(written(tmp_path, **{name: value}))
    assert refused.value.field == name
    assert name in str(refused.value)


def refused(words: list[str]) -> Refused:
    with pytest.raises(Refused) as found:
        config.load(words)
    assert "Location" not in str(found.value)
    return found.value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("port", "x", "port must be a whole number from 0 to 65535, not 'x'"),
        ("port", "70000", "port must be a whole number from 0 to 65535, not '70000'"),
        ("report_interval", "0", "report_interval must be a whole number from 1 to 3600, not '0'"),
        ("supervisor", "cron", "supervisor must be one of auto, process, systemd, not 'cron'"),
    ],
)
def test_a_bad_value_is_told_with_what_it_may_be(tmp_path: Path, name: str, value: str, words: str) -> None:
    assert str(refused(written(tmp_path, **{name: value}))) == words


def test_a_bad_value_that_could_come_by_argument_is_refused_too(tmp_path: Path) -> None:
    error = refused(added(tmp_path, "[DEFAULT]\ndebug = maybe\n"))
    assert error.field == "config_file"


def added(folder: Path, text: str) -> list[str]:
    """Write the whole file and one more in a folder of files; return the arguments."""
    extra = folder / "conf.d"
    extra.mkdir()
    (extra / "20.conf").write_text(text)
    return [*written(folder), "--config-dir", str(extra)]


@pytest.mark.parametrize(
    ("text", "field", "hint"),
    [
        ("[ostler]\nkeyfile = /x\n", "keyfile", "did you mean key_file?"),
        ("[Ostler]\nkeyfile = /x\n", "keyfile", "did you mean key_file?"),
        ("[ostler]\nguest_id = g2\n", "guest_id", "it belongs into [DEFAULT]"),
        ("[DEFAULT]\nport = 7\n", "port", "it belongs into [ostler]"),
        ("[ostlr]\nport = 7\n", "ostlr", "did you mean [ostler]?"),
    ],
)
def test_a_name_of_ours_that_stands_wrong_is_refused(tmp_path: Path, text: str, field: str, hint: str) -> None:
    error = refused(added(tmp_path, text))
    assert (error.field, error.hint) == (field, hint)


def test_an_unknown_name_is_told_with_all_that_are_known(tmp_path: Path) -> None:
    assert "realm" in str(refused(added(tmp_path, "[ostler]\nzzz = 1\n")).hint)


def test_what_nobody_reads_in_the_shared_section_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = "debug = false\nrpc_response_timeout = 7\nuse_syslog = false\n"
    others = "[oslo_messaging_rabbit]\nwhatever = 1\n[castellan]\nbackend = x\n"
    loaded = config.load(added(tmp_path, f"[DEFAULT]\nreport_intervall = 5\n{known}{others}"))
    monitored = logging.getLogger("guestagent.config")
    loaded.set_up_logging()
    monitored.addHandler(caplog.handler)
    try:
        loaded.set_up_logging()
    finally:
        monitored.removeHandler(caplog.handler)
    assert caplog.messages == ["Nobody reads report_intervall in [DEFAULT]: did you mean report_interval?"]


def test_the_names_that_libraries_read_are_theirs() -> None:
    theirs = {
        name
        for group, options in (*oslo_messaging.opts.list_opts(), *oslo_log._options.list_opts())
        if group in (None, "DEFAULT")
        for each in options
        for name in (each.dest, *(old.name.replace("-", "_") for old in each.deprecated_opts if old.name))
    }
    known = {*config._ours(), *config.MESSAGING_OPTIONS, *config.OLD_LOG_OPTIONS}
    assert theirs <= known
    assert theirs >= config.MESSAGING_OPTIONS | config.OLD_LOG_OPTIONS


def test_a_password_in_the_url_is_never_shown(tmp_path: Path) -> None:
    loaded = config.load(written(tmp_path))
    assert "pa55word" not in repr(loaded.settings)
    for bad in ("rabbit://agent:pa55word@broker:pa55word/vhost", "amqp://agent:pa55word@broker/"):
        with pytest.raises(Refused) as refused:
            config.load(written(tmp_path, transport_url=bad))
        assert "pa55word" not in str(refused.value)


@pytest.mark.parametrize("words", [[], ["--config-file", "/nowhere/agent.conf"]])
def test_no_file_is_refused(words: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        config.load(words)
    assert refused.value.field in ("guest_id", "config_file")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.conf"
    bad.write_text("guest_id\n")
    with pytest.raises(Refused) as refused:
        config.load(["--config-file", str(bad)])
    assert refused.value.field == "config_file"


def test_a_folder_adds_to_a_file(tmp_path: Path) -> None:
    words = written(tmp_path, report_interval=None)
    extra = tmp_path / "conf.d"
    extra.mkdir()
    (extra / "10.conf").write_text("[DEFAULT]\nreport_interval = 42\n")
    assert config.load([*words, "--config-dir", str(extra)]).settings.report_interval == 42


def test_settings_are_frozen(tmp_path: Path) -> None:
    found = config.load(written(tmp_path)).settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.guest_id = "g2"  # type: ignore[misc]


def test_the_generator_is_told_every_option() -> None:
    listed = {(group or "DEFAULT", each.name) for group, options in config.list_opts() for each in options}
    assert listed == {(group, name) for group, options in WHOLE.items() for name in options}
    assert all(each.help for _, options in config.list_opts() for each in options)


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("rabbit://u:p@h/", "ostler+rabbit://u:p@h/"),
        ("rabbit://u:p@h:1,u:p@i:2/", "ostler+rabbit://u:p@h:1,u:p@i:2/"),
        ("unix:///tmp/bus", "unix:///tmp/bus"),
        ("kombu+memory:///", "kombu+memory:///"),
    ],
)
def test_rabbit_becomes_our_own_driver(url: str, ours: str) -> None:
    assert config.transport(url) == ours
