"""Image facts: what a file must say, what it may not, and what the machine lacks."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from datastores.contract import Installation
from guestagent import image as room
from guestagent.errors import ImageMismatch, Refused
from guestagent.host import LocalHost
from guestagent.image import Image, checks, held, installation, packages, prove, read_image
from tests.guests import Guests

TABLE = """
[thing."1.2"]
packages = ["thing-server", "thing-tools"]
unit = "thing.service"
owner = "nobody"
group = "nogroup"
config = "/etc/thing.conf"
data = "/var/lib/thing"
log = "/var/log/thing"
socket = "/run/thing.sock"
tools = {server = "thingd", client = "cat"}
"""


@pytest.fixture
def folder(inn: Guests) -> Iterator[Path]:
    path = inn.folder / os.urandom(4).hex()
    path.mkdir()
    path.chmod(0o755)
    yield path


def written(folder: Path, text: str = TABLE) -> str:
    path = folder / "house.toml"
    path.write_text(text)
    return str(path)


def program(folder: Path, says: str, mode: int = 0o755) -> Path:
    path = folder / "usr" / "sbin" / "thingd"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(mode)
    return path


def facts(folder: Path) -> Installation:
    return installation(read_image(written(folder)), "thing", "1.2", folder)


def test_our_image_is_well_formed_and_has_the_same_keys_everywhere() -> None:
    image = read_image("debian-12")
    for versions in image.tables.values():
        for table in versions.values():
            assert room.KEYS <= table.keys() <= room.KEYS | room.OPTIONAL


def test_packages_are_listed_once() -> None:
    for datastore in read_image("debian-12").tables:
        every = packages("debian-12", datastore)
        assert len(set(every)) == len(every)
    assert packages("debian-12", "redis", "7.0") == ("redis-server", "redis-tools")


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ('unit = "thing.service"\n', "", "unit"),
        ('unit = "thing.service"\n', 'unit = ""\n', "unit"),
        ('unit = "thing.service"\n', "unit = 7\n", "unit"),
        ('owner = "nobody"', 'owner = "root"', "owner"),
        ("packages = [", "packages = [7, ", "packages"),
        ('packages = ["thing-server", "thing-tools"]\n', "", "packages"),
        ('unit = "thing.service"\n', 'unit = "thing.service"\nversion = "-v"\n', "version"),
        ('{server = "thingd", ', "{", "tools"),
        ('{server = "thingd"', "{server = 7", "tools"),
        ('socket = "', 'colour = "red"\nsocket = "', "colour"),
        ('[thing."1.2"]', "[thing]", "thing"),
        ("[thing", "[[thing", "image"),
    ],
)
def test_a_wrong_file_is_refused_by_the_name_of_what_is_wrong(
    folder: Path, before: str, after: str, field: str
) -> None:
    assert before in TABLE
    with pytest.raises(ImageMismatch) as caught:
        installation(read_image(written(folder, TABLE.replace(before, after))), "thing", "1.2")
    assert field in (caught.value.field, "image") or field in str(caught.value)
    assert "house.toml" in str(caught.value)


def test_what_the_image_has_not_is_said_with_what_it_has(folder: Path) -> None:
    image = read_image(written(folder))
    with pytest.raises(Refused, match="no other"):
        image.facts("other", "1.2")
    with pytest.raises(Refused, match="thing 1.2, not 1.3"):
        image.facts("thing", "1.3")
    with pytest.raises(Refused, match="no image file windows-95"):
        read_image("windows-95")
    with pytest.raises(Refused, match="no other"):
        checks(written(folder), datastore="other")


def test_an_installed_datastore_brings_its_own_table(folder: Path) -> None:
    image = read_image("debian-12")
    brought = [
        each for each in image.tables if each not in room._read(Path(room.__file__).parent / "images/debian-12.toml")
    ]
    assert brought, "the toy datastore is not installed"
    for each in brought:
        tools = installation(image, each, image.versions(each)[0]).tools
        assert all(path.is_file() for path in tools.values())


def test_tools_below_the_prefix_come_first(folder: Path) -> None:
    server = program(folder, "thingd 1.2.3")
    (folder / "usr" / "lib").mkdir()
    found = facts(folder)
    assert found.tools == {"server": server, "client": Path("/usr/bin/cat")}
    assert found.basedir == folder / "usr"
    assert folder / "usr" / "lib" in found.libraries
    plain = installation(Image("x", read_image(written(folder)).tables), "thing", "1.2")
    assert (plain.basedir, plain.libraries) == (Path("/usr"), ())


def test_a_tool_with_a_folder_is_found_in_either_tree(folder: Path) -> None:
    program(folder, "thingd 1.2.3")
    jar = folder / "usr" / "local" / "share" / "thing" / "thing.jar"
    jar.parent.mkdir(parents=True)
    jar.touch(mode=0o755)
    text = TABLE.replace('client = "cat"', 'library = "share/thing/thing.jar"')
    assert installation(read_image(written(folder, text)), "thing", "1.2", folder).tools["library"] == jar


def test_a_program_is_asked_for_its_version_in_its_own_words(folder: Path) -> None:
    server = program(folder, "")
    server.write_text('#!/bin/sh\n[ "$*" = "-cp /usr/bin/* /usr/bin/cat Version" ] && echo 1.2.3\n')
    text = TABLE.replace("tools =", 'version = ["-cp", "{client.parent}/*", "{client}", "Version"]\ntools =')
    found = installation(read_image(written(folder, text)), "thing", "1.2", folder)
    host = LocalHost("nobody", "nogroup", temp=folder, within=[])
    prove(found, host)
    with pytest.raises(ImageMismatch, match="status 1"):
        prove(replace(found, version_words=("-v",)), host)


def test_an_absolute_tool_is_found_below_the_prefix_too(folder: Path) -> None:
    server = program(folder, "thingd 1.2.3")
    text = TABLE.replace('"thingd"', '"/usr/sbin/thingd"')
    assert installation(read_image(written(folder, text)), "thing", "1.2", folder).tools["server"] == server


def test_root_uses_the_images_owner_and_others_themselves(folder: Path) -> None:
    program(folder, "thingd 1.2.3")
    assert facts(folder).owner == ("nobody" if os.geteuid() == 0 else room._ourselves()[0])


def test_a_missing_tool_is_named(folder: Path) -> None:
    with pytest.raises(ImageMismatch, match=r"thingd \(server\) is missing") as caught:
        prove(facts(folder))
    assert "thing-server" in (caught.value.hint or "")
    assert ("thing 1.2 tool server", "the program thingd (server) is missing") in checks(written(folder))


def test_a_tool_without_permission_is_named(folder: Path) -> None:
    program(folder, "thingd 1.2.3", mode=0o644)
    with pytest.raises(ImageMismatch, match=r"thingd \(server\) is not executable"):
        prove(facts(folder))


@pytest.mark.parametrize(
    ("says", "right"),
    [("thingd Ver 1.2.3-x", True), ("thing v=1.2", True), ("thing 1.20", False), ("11.2", False), ("0.1.2", False)],
)
def test_another_version_is_named(folder: Path, says: str, right: bool) -> None:
    program(folder, says)
    host = LocalHost("nobody", "nogroup", temp=folder, within=[])
    rows = {each.name: each.ok for each in held(facts(folder), host)}
    assert rows["version"] is right
    if not right:
        with pytest.raises(ImageMismatch, match=r"is not 1\.2"):
            prove(facts(folder), host)


def test_a_missing_owner_is_named_where_it_matters(folder: Path) -> None:
    program(folder, "thingd 1.2.3")
    image = read_image(written(folder, TABLE.replace('owner = "nobody"', 'owner = "no-such-user"')))
    rows = {each.name: each for each in held(installation(image, "thing", "1.2", folder))}
    assert rows["owner"].ok is (os.geteuid() != 0)
    assert os.geteuid() != 0 or "no account no-such-user" in rows["owner"].message
