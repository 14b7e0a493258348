"""One door to each kind of file: what it writes it reads, and what its library raises is one sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mixtura.contracts import InputError
from mixtura.data.files import DOORS
from mixtura.data.files.door import reading
from mixtura.data.images import guess_images, is_images, read_images, write_images
from mixtura.data.tables import read, write

NUMBERS = pd.DataFrame({"x0": np.arange(30.0), "x1": np.arange(30.0) ** 2})
PIXELS = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
TABLES = [ending for ending, door in DOORS.items() if door.open_table is not None]
#: the beginnings of other formats, and of files that were cut short
DAMAGED = [b"\x89PNG\r\n\x1a\n\0\0", b"PK\x03\x04\0\0\0", b"PAR1\xff\xff\xff\xffPAR1", b'{"a": [', b"\xff\xfe\0"]
IMAGES = [ending for ending, door in DOORS.items() if door.read_images is not None]


def needed(ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow")


def test_what_can_be_read_can_be_written():
    for door in DOORS.values():
        assert (door.open_table is None) == (door.write_table is None)
        assert (door.read_images is None) == (door.write_images is None) == (door.holds_images is None)


@pytest.mark.parametrize("ending", TABLES)
def test_a_table_comes_back(tmp_path, ending):
    needed(ending)
    write(NUMBERS, path := tmp_path / f"t{ending}")
    assert not is_images(path)
    table = read(path)
    assert table.frame.astype(float).equals(NUMBERS) and table.rows_total == 30


@pytest.mark.parametrize("ending", IMAGES)
def test_images_come_back(tmp_path, ending):
    write_images(PIXELS, path := tmp_path / f"i{ending}")
    assert is_images(path)
    found = read_images(path)
    assert np.array_equal(found.pixels[:, 0], PIXELS) and found.rows_total == 5


@pytest.mark.parametrize("ending", TABLES)
@pytest.mark.parametrize("content", DAMAGED)
def test_whatever_a_library_raises_is_one_sentence_that_names_the_file(tmp_path, ending, content):
    needed(ending)
    (path := tmp_path / f"t{ending}").write_bytes(content)
    with pytest.raises(InputError, match=f"t{ending}"):
        read(path)


@pytest.mark.parametrize("ending", [ending for ending in IMAGES if ending])
def test_damaged_images_are_one_sentence_that_names_the_file(tmp_path, ending):
    (path := tmp_path / f"i{ending}").write_bytes(b"\x93NUMPY\x01\0\xff")
    with pytest.raises(InputError, match=f"i{ending}"):
        read_images(path)


def test_a_file_is_not_called_damaged_where_the_machine_or_the_account_is_at_fault(tmp_path):
    with pytest.raises(MemoryError), reading(tmp_path / "t.csv", "a table"):
        raise MemoryError
    with pytest.raises(InputError, match="t.csv: this account may not read it; change its permissions"):
        with reading(tmp_path / "t.csv", "a table"):
            raise PermissionError(13, "Permission denied")


def test_other_endings_have_no_door(tmp_path):
    (path := tmp_path / "t.xlsx").write_bytes(b"0")
    with pytest.raises(InputError, match=r"\.xlsx is not read here, expected \.csv \.tsv \.parquet \.json \.jsonl \.npy \.npz;"):
        read(path)
    with pytest.raises(InputError, match=r"\.xlsx is not written here, expected \.csv"):
        write(NUMBERS, path)
    with pytest.raises(InputError, match=r"\.xlsx is not read as images, expected a folder, \.zip, \.npy or \.npz"):
        read_images(path)


def test_a_kind_refuses_a_file_that_cannot_hold_its_samples(tmp_path):
    fractions = guess_images(read_images(np.random.default_rng(0).random((5, 4, 3))))
    fractions.check_output(tmp_path / "i.npz")
    for name in ("i.zip", "folder"):
        with pytest.raises(InputError, match=r"a PNG holds whole levels.*write \.npz or \.npy"):
            fractions.check_output(tmp_path / name)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(InputError, match="would be lost"):
        guess_images(read_images(PIXELS)).check_output(tmp_path / "mine")
