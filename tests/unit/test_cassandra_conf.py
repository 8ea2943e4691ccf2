"""The configuration of a Cassandra node, its units and its management's allow-list, without a server."""

import re
import xml.etree.ElementTree as tree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastores.cassandra import jolokia, jvm
from datastores.cassandra.conf import CONFIG, CassandraConf, document, flat, read
from datastores.cassandra.rules import BEANS, table, writable
from datastores.cassandra.units import UNITS, parse, spell
from datastores.contract import BadInput, Mismatch

BASE = {"jvm.heap": "256MiB", "place.dc": "dc1", "place.rack": "r 1"}
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufeff"), max_size=40)


def written(folder: Path, *layers: dict[str, str]) -> dict[str, str]:
    """Write one generation and read it back."""
    for name, content in CassandraConf().dump([BASE, *layers]).items():
        (folder / name).write_bytes(content)
    return read(folder)


def test_what_was_written_is_read_as_it_was_and_later_layers_win(tmp_path: Path) -> None:
    values = {
        "cluster_name": "ostler",
        "num_tokens": "16",
        "auto_snapshot": "false",
        "phi_convict_threshold": "8.5",
        "read_request_timeout": "5s",
        "data_file_directories": '["/a b/data"]',
        "seed_provider": '[{"class_name": "x", "parameters": [{"seeds": "127.0.0.2,127.0.0.3"}]}]',
        "sai_options.segment_write_buffer_size": "64MiB",
        "property.cassandra.ring_delay_ms": "0",
        "log.level": "WARN",
    }
    assert written(tmp_path, {**values, "num_tokens": "4"}, {"num_tokens": "16"}) == {**BASE, **values}


@given(TEXT)
def test_any_text_comes_back_as_text(value: str) -> None:
    made = CassandraConf().dump([BASE, {"cluster_name": value or "x"}])[CONFIG]
    assert flat(document(made)) == {"cluster_name": value or "x"}


@pytest.mark.parametrize("word", ["on", "yes", "010", "0x10", "1_000", "null", "~", "1e3", "12:30", "=", "- x", "a: b"])
def test_a_word_that_yaml_would_take_for_something_else_is_in_quotes(word: str) -> None:
    assert CassandraConf().dump([BASE, {"cluster_name": word}])[CONFIG] == f'cluster_name: "{word}"\n'.encode()


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: 2\na: 3\n",
        "a:\n  b: 1\n  b: 2\n",
        "a: &x 1\nb: *x\n",
        "a: &x 1\n",
        "a: !!java.io.File /etc/passwd\n",
        "a: !own 1\n",
        "- a\n",
        "a: [\n",
        "a\n",
    ],
)
def test_a_document_that_can_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(Mismatch):
        document(text.encode())


def test_a_file_of_the_image_keeps_its_comments_and_what_no_layer_says(tmp_path: Path) -> None:
    image = tmp_path / "image.yaml"
    image.write_text(
        "# The site's own.\nnum_tokens: 8  # ours\n\n# Half.\nconcurrent_reads: 64\nsai_options:\n  x: 1\n"
    )
    found = CassandraConf().dump([BASE, {"image.file": str(image), "num_tokens": "16", "sai_options.y": "2"}])[CONFIG]
    assert found.decode() == (
        "# The site's own.\nnum_tokens: 16 # ours\n\n# Half.\nconcurrent_reads: 64\nsai_options:\n  x: 1\n  y: 2\n"
    )
    image.write_text("num_tokens: 8\nnum_tokens: 9\n")
    with pytest.raises(Mismatch):
        CassandraConf().dump([BASE, {"image.file": str(image)}])


def test_a_list_of_the_images_file_stays_one_when_it_is_read_and_written_again(tmp_path: Path) -> None:
    image = tmp_path / "image.yaml"
    image.write_text("crypto_provider:\n- class_name: a.B\n  parameters:\n  - fail: 'false'\n")
    for name, content in CassandraConf().dump([BASE, {"image.file": str(image)}]).items():
        (tmp_path / name).write_bytes(content)
    again = document(CassandraConf().dump([read(tmp_path)])[CONFIG])
    assert again["crypto_provider"] == [{"class_name": "a.B", "parameters": [{"fail": "false"}]}]


def test_a_small_heap_starts_quickly_and_a_large_one_runs_well() -> None:
    small, large = (jvm.words(jvm.options(size << 20, []).decode()) for size in (256, 4096))
    assert {"-Xmx268435456", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"} <= set(small)
    assert {"-Xmx4294967296", "-XX:+UseG1GC"} <= set(large)
    assert "-XX:TieredStopAtLevel=1" not in large
    for each in (small, large):
        assert "-XX:+ExitOnOutOfMemoryError" in each
        assert not [word for word in each if "jmx" in word and "Dcassandra" in word], "a port without a password"


@pytest.mark.parametrize("value", ["/a b/c", 'x"y', "back\\slash", "# no comment", "plain", "it's"])
def test_an_option_of_any_kind_is_one_word(value: str) -> None:
    assert f"-Dx={value}" in jvm.words(jvm.options(1 << 28, [("x", value)]).decode())


@given(st.sampled_from(sorted(UNITS)), st.integers(0, 10**15))
def test_a_quantity_is_spelled_in_its_largest_whole_unit(kind: str, value: int) -> None:
    finest = next(iter(UNITS[kind]))
    text = spell(kind, value, finest)
    assert parse(kind, text) == value
    number, unit = re.fullmatch(r"(\d+)(\D+)", text).groups()  # type: ignore[union-attr]
    larger = [each for each in UNITS[kind].values() if each > UNITS[kind][unit]]
    assert not value or all(value % each for each in larger), (number, unit)


@pytest.mark.parametrize(
    "text", ["5000", "5 s", "64MB", "64mb", "-5s", "5.5s", "", "s", "٣s", "5s\n", "64MB/s", "1e3ms"]
)
def test_what_the_server_would_not_start_with_is_refused(text: str) -> None:
    for kind in UNITS:
        with pytest.raises(ValueError, match="whole number"):
            parse(kind, text)


def test_values_are_whole_numbers_of_the_unit_that_the_server_takes() -> None:
    rules = table()
    assert rules["read_request_timeout"].canonical("5000ms") == "5s"
    assert rules["read_request_timeout"].managed("5s") == 5000
    assert rules["compaction_throughput"].canonical("0MiB/s") == "0MiB/s"
    assert rules["compaction_throughput"].managed("64MiB/s") == 64
    assert rules["jvm.heap"].canonical("1024MiB") == "1GiB"
    for name, value in [
        ("read_request_timeout", "1500us"),
        ("compaction_throughput", "1KiB/s"),
        ("jvm.heap", "127MiB"),
        ("jvm.heap", "268435456"),
        ("hinted_handoff_enabled", "perhaps"),
        ("concurrent_reads", "32.0"),
        ("concurrent_reads", "9" * 40),
        ("phi_convict_threshold", "nan"),
        ("log.level", "info"),
    ]:
        with pytest.raises(BadInput, match=name) as caught:
            rules[name].canonical(value)
        assert caught.value.field == name


def test_the_table_opens_nothing_of_the_server() -> None:
    names = set(table())
    assert len(names) >= 40
    shut = (
        "_address|_port$|director|seed|token$|tokens|snitch|partitioner|authenticat|authoriz|role_manager|cluster_name|"
        "udf|threads_enabled|scripted|jmx|archive|encryption|compatibility|selected_format|uuid|auto_snapshot|cdc|place|"
        "property|image|audit|startup_checks"
    )
    assert not [name for name in names if re.search(shut, name)]


def test_the_policy_lets_through_what_is_listed_and_by_post_alone() -> None:
    policy = tree.fromstring(jolokia.policy(writable()))
    assert [each.text for each in policy.findall("./http/method")] == ["post"]
    assert [each.text for each in policy.findall("./commands/command")] == ["read"]
    beans = {each.findtext("name"): each for each in policy.findall("./allow/mbean")}
    assert set(beans) == set(jolokia.ALLOWED) | set(writable())
    operations = {each.text for each in policy.findall("./allow/mbean/operation")}
    assert operations == {each for listed in jolokia.ALLOWED.values() for each in listed}
    assert not [each for each in operations if each and re.search("stopDaemon|exec|Diagnostic|rebuild|bootstrap", each)]
    attributes = {each.text for each in policy.findall("./allow/mbean/attribute")}
    assert attributes == {way.attribute for way in table().values() if way.bean in BEANS.values()}


def test_every_guest_has_an_address_of_this_machine_for_itself() -> None:
    numbers = [1, 2, 254, 255, 65023, 65024, 65025, 2**31 - 1]
    found = [jolokia.address_of(each) for each in numbers]
    assert len(set(found)) == len(numbers)
    for each in found:
        first, second, third, last = map(int, each.split("."))
        assert first == 127
        assert 1 <= second <= 254
        assert 0 <= third <= 255
        assert 1 <= last <= 254
