"""The table of MariaDB's settings, held against the real server."""

import pytest

from datastores.contract import BadInput, Command
from datastores.manager import Manager
from datastores.mariadb.client import session
from datastores.mariadb.settings import OptionFile, spelled
from tests.guests import Guests

LEFT_OUT = (
    "innodb_thread_concurrency",
    "character_set_client",
    "character_set_connection",
    "character_set_database",
    "character_set_results",
    "collation_connection",
    "collation_database",
    "server_id",
    "local_infile",
    "lower_case_table_names",
)
HOSTILE = ("1", "ON", "/etc/passwd", "x\n[mariadbd]\ninit_file=/tmp/x", "SET GLOBAL super = 1", "0")


@pytest.fixture(scope="module")
def server(inn: Guests) -> Manager:
    return inn.manager("mariadb")


@pytest.fixture(scope="module")
def variables(server: Manager) -> dict[str, tuple[object, ...]]:
    with session(server.node) as cursor:
        cursor.execute("SELECT VARIABLE_NAME, READ_ONLY, VARIABLE_SCOPE FROM information_schema.SYSTEM_VARIABLES")
        return {str(name).lower(): tuple(rest) for name, *rest in cursor.fetchall()}


def as_read(server: Manager, values: dict[str, str]) -> dict[str, str]:
    """Ask the server's program what it makes of options, without a start."""
    options = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    program = str(server.node.installation.tools["server"])
    told = server.node.host.run(Command((program, "--no-defaults", "--verbose", "--help", *options)), as_owner=True)
    table = told.stdout.decode().rsplit("\n\nTo see what", 1)[0].rsplit("-----", 1)[-1]
    pairs = (line.split(None, 1) for line in table.splitlines() if line.strip())
    return {pair[0].replace("-", "_"): (pair[1] if len(pair) > 1 else "").strip() for pair in pairs}


def test_every_name_exists_and_is_dynamic_where_the_server_says_so(
    server: Manager, variables: dict[str, tuple[object, ...]]
) -> None:
    rules = server.settings.part.rules()
    assert len(rules) == 30
    for name, rule in rules.items():
        assert rule.dynamic is (variables[name][0] == "NO"), name
    assert "innodb_thread_concurrency" not in variables
    assert not set(LEFT_OUT) & set(rules)


@pytest.mark.parametrize("bound", ["low", "high"])
def test_the_server_takes_every_bound_as_it_stands(server: Manager, bound: str) -> None:
    limits = {name: getattr(rule, bound) for name, rule in server.settings.part.rules().items()}
    values = {name: str(int(limit)) for name, limit in limits.items() if limit is not None}
    checked = server.settings.part.check(values)
    # This one also depends on how many files a process may open here; a running server takes it as it is.
    connections = {"max_connections": checked.pop("max_connections")}
    server.settings.part.apply(connections)
    read = as_read(server, checked)
    for name, value in checked.items():
        assert spelled(name, read[name]) == value, name


def test_the_server_knows_every_choice(server: Manager) -> None:
    rules = server.settings.part.rules()
    with session(server.node) as cursor:
        cursor.execute("SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS")
        assert sorted(rules["character_set_server"].choices) == sorted(str(row[0]) for row in cursor.fetchall())
        cursor.execute("SELECT FULL_COLLATION_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY")
        for (name,) in cursor.fetchall():
            assert spelled("collation_server", str(name)) == name
    for method in rules["innodb_flush_method"].choices:
        assert as_read(server, {"innodb_flush_method": method})["innodb_flush_method"] == method


def test_one_meaning_has_one_spelling(server: Manager) -> None:
    pairs = {
        ("autocommit", "1"): "ON",
        ("autocommit", "off"): "OFF",
        ("max_allowed_packet", "16M"): "16777216",
        ("max_allowed_packet", "16777216"): "16777216",
        ("max_allowed_packet", "1025"): "1024",
        ("long_query_time", "10.000000"): "10",
        ("long_query_time", "0.50"): "0.5",
        ("innodb_flush_method", "o_direct"): "O_DIRECT",
        ("character_set_server", "UTF8"): "utf8mb3",
    }
    for (name, value), wanted in pairs.items():
        assert server.settings.part.check({name: value}) == ({name: wanted})
    for name, value in {
        "max_connections": "10M",
        "sort_buffer_size": "16777216T",
        "long_query_time": "NaN",
        "autocommit": "2",
        "collation_server": "utf8mb4_general_ci; x",
        "max_allowed_packet": "-1",
        "wait_timeout": "١٢",
    }.items():
        with pytest.raises(BadInput, match=name):
            server.settings.part.check({name: value})


def test_nothing_but_the_table_may_be_set(server: Manager, variables: dict[str, tuple[object, ...]]) -> None:
    rules = server.settings.part.rules()
    others = {*variables, *server.settings.part.base(), "!include", "plugin_load_add", "wsrep_provider", "user"}
    others -= set(rules)
    assert {"init_connect", "init_file", "plugin_dir", "secure_file_priv", "general_log_file", "datadir"} <= others
    assert len(others) > 500
    for name in others:
        for value in HOSTILE:
            with pytest.raises(BadInput) as caught:
                server.settings.check({name: value})
            assert caught.value.field == name
    for name in rules:
        for value in HOSTILE[2:5]:
            with pytest.raises(BadInput):
                server.settings.check({name: value})


def test_a_collation_never_keeps_the_server_from_starting(server: Manager) -> None:
    with pytest.raises(BadInput, match="not one of character set"):
        server.settings.part.check({"collation_server": "latin1_swedish_ci"})
    both = {"character_set_server": "latin1", "collation_server": "latin1_german1_ci"}
    assert server.settings.part.check(both) == both
    # The character set was dropped and the collation was forgotten.
    left = OptionFile().dump([{}, {"character_set_server": "utf8mb4"}, {"collation_server": "latin1_german1_ci"}])
    assert b"collation" not in left["my.cnf"]
    assert b"collation_server = latin1_german1_ci" in OptionFile().dump([{}, {}, both])["my.cnf"]


def test_paths_of_any_letters_survive_the_option_file(server: Manager) -> None:
    odd = {"socket": "/tmp/a b#c'd\\n\"e/s", "log_error": "/tmp/x;y=z"}
    node = server.node
    folder = node.places.temp / "odd"
    node.host.folder(folder)
    node.host.write(folder / "my.cnf", OptionFile().dump([odd])["my.cnf"])
    part = type(server.settings.part)(node.at(places=node.places.__class__(**{**vars(node.places), "config": folder})))
    assert part.written() == odd
    node.host.remove(folder)
    with pytest.raises(BadInput):
        OptionFile().dump([{"socket": "a\nb"}])


def test_the_design_s_own_settings_hold(server: Manager) -> None:
    running = server.settings.part.effective()
    for name, value in server.settings.part.base().items():
        assert running[name] == value or name == "skip_networking", name
    with session(server.node) as cursor:
        cursor.execute("SELECT @@gtid_domain_id, @@server_id, @@log_bin, @@local_infile, @@innodb_page_size")
        assert cursor.fetchall() == ((1, server.node.server_number, 1, 0, 16384),)


def test_what_the_running_server_refuses_is_bad_input(server: Manager) -> None:
    with pytest.raises(BadInput, match="innodb_log_buffer_size") as caught:
        server.settings.part.apply({"innodb_log_file_size": "8M"})
    assert caught.value.field == "innodb_log_file_size"


def test_the_server_tells_the_default_of_every_dynamic_setting_but_a_collation(server: Manager) -> None:
    rules = server.settings.part.rules()
    dynamic = {name for name, rule in rules.items() if rule.dynamic}
    assert server.settings.part.defaults(dynamic).keys() == {
        each for each in dynamic if rules[each].kind != "collation"
    }
