"""Data keys wrapped by a key of this machine."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectstore.keys import KEY_BYTES, LocalKeys
from objectstore.store import BadRequest, Corrupt, split

KEK = bytes(range(KEY_BYTES))
KEY_ID = "b2bbb31c77e20ad3"
VECTOR = "99c55f4624c792fd5f0af6283ad39d7f5994963d3502938c57f1e7af314f9885ae3891f488423299d0b8d07356be285d"


def key_file(path: Path, data: bytes = KEK, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_file_opens_what_it_wrapped(tmp_path: Path, mode: int) -> None:
    keys = LocalKeys.from_file(key_file(tmp_path / "kek", mode=mode))
    plain, wrapped = keys.new(b"attempt")
    assert len(plain) == KEY_BYTES
    assert LocalKeys.from_file(tmp_path / "kek").open(wrapped, b"attempt") == plain


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o700, 0o4600, 0o200, 0o000, 0o1600])
def test_a_key_file_of_another_mode_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(BadRequest) as caught:
        LocalKeys.from_file(key_file(tmp_path / "kek", mode=mode))
    assert caught.value.field == "key_file"
    assert str(tmp_path / "kek") in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", KEK[:-1], KEK + b"\n", KEK * 2, b"x" * 100_000])
def test_a_key_file_of_another_size_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        LocalKeys.from_file(key_file(tmp_path / "kek", data))
    assert caught.value.field == "key_file"
    assert repr(KEK) not in str(caught.value)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("none", ".", "fifo", "loop"):
        with pytest.raises(BadRequest) as caught:
            LocalKeys.from_file(tmp_path / name)
        assert caught.value.field == "key_file"


def test_the_id_tells_keys_apart_and_fits_a_name() -> None:
    one, other = LocalKeys(KEK), LocalKeys(KEK[::-1])
    assert one.key_id == LocalKeys(KEK).key_id != other.key_id
    assert split(f"r-keys/attempt.{one.key_id}")
    assert one.key_id not in KEK.hex()


def test_vectors() -> None:
    """The bytes of the format, made with ``hmac`` alone for HKDF."""
    wrapped = bytes.fromhex("01" + "aa" * 32 + VECTOR)
    assert LocalKeys(KEK).open(wrapped, b"attempt") == bytes([7]) * KEY_BYTES
    assert LocalKeys(KEK).key_id == KEY_ID


@given(context=st.binary(max_size=100))
def test_every_wrapping_is_another(context: bytes) -> None:
    keys = LocalKeys(KEK)
    (one, wrapped), (other, again) = keys.new(context), keys.new(context)
    assert one != other
    assert wrapped[1:33] != again[1:33]
    assert one not in wrapped


@given(data=st.data())
def test_what_was_changed_does_not_open(data: st.DataObject) -> None:
    keys = LocalKeys(KEK)
    _, wrapped = keys.new(b"attempt")
    bit = data.draw(st.integers(0, len(wrapped) * 8 - 1))
    spoiled = bytearray(wrapped)
    spoiled[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Corrupt):
        keys.open(bytes(spoiled), b"attempt")


@given(size=st.integers(0, 80) | st.integers(82, 200))
def test_what_is_of_another_size_does_not_open(size: int) -> None:
    keys = LocalKeys(KEK)
    _, wrapped = keys.new(b"attempt")
    with pytest.raises(Corrupt):
        keys.open((wrapped * 3)[:size], b"attempt")


def test_another_context_or_key_does_not_open() -> None:
    _, wrapped = LocalKeys(KEK).new(b"attempt")
    for keys, context in ((LocalKeys(KEK), b"attempt2"), (LocalKeys(KEK), b""), (LocalKeys(KEK[::-1]), b"attempt")):
        with pytest.raises(Corrupt):
            keys.open(wrapped, context)


def test_no_message_shows_the_key() -> None:
    keys = LocalKeys(KEK)
    plain, wrapped = keys.new(b"a")
    with pytest.raises(Corrupt) as caught:
        keys.open(wrapped, b"b")
    for secret in (KEK, plain):
        for shown in (repr(keys), str(keys), str(caught.value), repr(caught.value), str(caught.value.hint)):
            assert secret.hex() not in shown
            assert repr(secret)[2:-1] not in shown
