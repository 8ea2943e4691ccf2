"""Files written past the page cache hold what was written, whatever the sizes and the file system."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastores.direct import ALIGNMENT, WINDOW, DirectFile

PLACES = ("/tmp", "/dev/shm")
SIZES = st.integers(0, 3 * WINDOW) | st.sampled_from([0, 1, ALIGNMENT, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW])


@pytest.mark.parametrize("place", PLACES)
@settings(deadline=None, max_examples=60)
@given(size=SIZES, cuts=st.lists(st.integers(0, 3 * WINDOW), max_size=6))
def test_the_file_holds_what_was_written(place: str, size: int, cuts: list[int]) -> None:
    data = os.urandom(size)
    edges = [0, *sorted(min(cut, size) for cut in cuts), size]
    with tempfile.TemporaryDirectory(dir=place) as folder:
        path = Path(folder) / "file"
        with DirectFile(path, 0o640, size) as target:
            for start, end in zip(edges, edges[1:], strict=False):
                target.write(data[start:end])
        assert target.size == size
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        DirectFile(tmp_path / "file", 0o600, 2 * WINDOW)
    assert (tmp_path / "file").read_bytes() == b"old"


def test_an_error_closes_the_file(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ValueError, match="broken"), DirectFile(tmp_path / "file", 0o600, 2 * WINDOW) as target:
        target.write(b"x" * 10)
        raise ValueError("broken")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
