"""Arrays in files are read as what numpy wrote, in any byte order; headers and damage are answered with one sentence."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from tracemalloc import get_traced_memory, start, stop

import numpy as np
import pandas as pd
import pytest
from numpy.lib import format as npy

from mixtura.contracts import InputError
from mixtura.data import source
from mixtura.data.files import arrays
from mixtura.data.images import guess_images, read_images
from mixtura.data.tables import read

RNG = np.random.default_rng(0)
TABLE = (RNG.normal(size=(24, 3)) * 100).round()
IMAGES = RNG.integers(0, 200, (24, 4, 5))
BIG, LITTLE = ">", "<"


def header(descr, shape, *, fortran=False, rest=bytes(64)) -> bytes:
    buffer = io.BytesIO()
    npy.write_array_header_2_0(buffer, {"descr": descr, "fortran_order": fortran, "shape": shape})  # type: ignore[arg-type]
    return buffer.getvalue() + rest


def as_text(text: str) -> bytes:
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() + bytes(64)


def packed(place: Path, content: bytes, name="x.npy") -> Path:
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return place


# ------------------------------------------------------------------------------------------------------- byte orders


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "f16", "i2", "i4", "i8", "u2", "u8", "U4", "M8[s]"])
@pytest.mark.parametrize("order", [BIG, LITTLE])
def test_tables_of_either_byte_order_are_twins(tmp_path, kind, order):
    plain = np.abs(TABLE)
    native = plain.astype(np.int64).astype("M8[s]") if kind == "M8[s]" else plain.astype(kind if kind != "f16" else "f8")
    other = native.astype(order + kind)
    np.save(tmp_path / "a.npy", other)
    np.savez_compressed(tmp_path / "a.npz", x=np.asfortranarray(other))
    np.savez(tmp_path / "b.npz", x=other)
    for given in (tmp_path / "a.npy", tmp_path / "a.npz", tmp_path / "b.npz", other, pd.DataFrame(other)):
        frame = read(given).frame
        assert all(np.array_equal(frame.iloc[:, j].to_numpy().astype(native.dtype), native[:, j]) for j in range(3))
        schema = source.learn(read(given))
        assert len(schema.encode(frame)) == 24


@pytest.mark.parametrize("kind", ["f4", "f8", "i2", "i8", "u4"])
def test_images_of_either_byte_order_are_twins(tmp_path, kind):
    np.save(tmp_path / "a.npy", IMAGES.astype(BIG + kind))
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(IMAGES.astype(BIG + kind)))
    for given in (tmp_path / "a.npy", tmp_path / "a.npz", IMAGES.astype(BIG + kind)):
        pictures = read_images(given)
        schema = guess_images(pictures)
        assert pictures.pixels.dtype == np.dtype(kind) and np.array_equal(pictures.pixels[:, 0], IMAGES)
        assert schema.decode(schema.encode(pictures.pixels)).dtype == np.dtype(kind)


def test_a_sample_of_rows_is_the_same_from_every_kind_of_file(tmp_path):
    x = RNG.normal(size=(3_000, 7))
    np.save(tmp_path / "a.npy", x)
    np.save(tmp_path / "f.npy", np.asfortranarray(x))
    np.savez_compressed(tmp_path / "a.npz", x=x)
    np.savez(tmp_path / "f.npz", x=np.asfortranarray(x))
    first, *others = (read(tmp_path / name, rows=50).frame for name in ("a.npy", "f.npy", "a.npz", "f.npz"))
    assert len(first) == 50 and all(np.array_equal(first, other) for other in others)


def test_an_archive_is_unpacked_block_by_block(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.ones((1_000_000, 8)))
    start()
    assert read(tmp_path / "a.npz", rows=10).frame.to_numpy().tolist() == [[1.0] * 8] * 10
    peak = get_traced_memory()[1]
    stop()
    assert peak < 40e6  # of 64 MB, and of 12 MB of random keys


# --------------------------------------------------------------------------------------------------------- refusals

HEADERS = {
    "huge": (header("<f8", (10**12, 3)), "its header says float64 of shape .* but 64 bytes follow"),
    "beyond any integer": (header("<f8", (10**30,)), "64 bytes follow"),
    "huge images": (header("<f8", (10**9, 30, 30)), "64 bytes follow"),
    "negative": (header("<f8", (-3, 3)), "64 bytes follow"),
    "text of no letters": (header("<U0", (10**12,)), "64 bytes follow"),
    "no columns": (header("<f8", (10**13, 0)), "no rows of data"),
    "a header of 1.7 GB": (b"\x93NUMPY\x02\x00" + b"_ne." * 30, "its header claims 778,399,327 bytes"),
    "no axis": (header("<f8", ()), r"got shape \(\)"),
    "records": (header([("a", "<f8"), ("b", "<i4")], (4,)), "holds records of a, b, expected numbers or text"),
    "blocks": (header("|V4", (4,)), "expected numbers or text"),
    "complex": (header("<c16", (2, 2)), "array of complex128; convert it"),
    "complex images": (header("<c16", (2, 1, 2)), "dtype complex128"),
    "bytes": (header("|S4", (4,)), "convert it"),
    "durations": (header("<m8[s]", (4,)), "convert it"),
    "objects": (header("|O", (3,)), "Python objects, which are never loaded"),
    "times without a unit": (header("<M8", (8,)), "cannot be read .*; write them as text"),
    "far times": (header("<M8[Y]", (2,), rest=struct.pack("<qq", 10**15, 5)), "cannot be read .*; write them as text"),
    "no Unicode": (header("<U4", (4,), rest=struct.pack("<16I", *[0xD800] * 16)), "holds text that is no Unicode"),
    "beyond Unicode": (header("<U4", (4,), rest=b"\xf0" * 64), "holds text that is no Unicode"),
    "nested": (as_text("(" * 3000), "cannot be read as a numpy file"),
    "open quote": (as_text("{'descr': '''"), "cannot be read as a numpy file"),
    "odd type": (as_text("{'descr': 'M8[foo]', 'fortran_order': False, 'shape': (1,), }"), "cannot be read as a numpy file"),
    "a pickle": (pickle.dumps([1.0, 2.0]), "Python objects, which are never loaded"),
    "cut in the mark": (b"\x93NUMPY\x01", "cannot be read as a numpy file"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_odd_headers_are_answered_before_anything_is_allocated(tmp_path, kind):
    content, said = HEADERS[kind]
    (tmp_path / "a.npy").write_bytes(content)
    paths = [tmp_path / "a.npy"] if kind == "a pickle" else [tmp_path / "a.npy", packed(tmp_path / "a.npz", content)]
    for path in paths:
        with pytest.raises(InputError, match=said):
            source.load(path)


def test_what_an_archive_says_it_unpacks_to_is_bounded(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header("<f8", (10**12, 3), rest=b""))
        archive.filelist[0].file_size += 24 * 10**12  # a size that agrees with the shape
    with pytest.raises(InputError, match=r"says it unpacks to 24,000,000,000,\d+, more than"):
        read(tmp_path / "a.npz")


def test_archives_without_arrays_or_beside_objects(tmp_path):
    np.savez(tmp_path / "none.npz")
    for path in (tmp_path / "none.npz", packed(tmp_path / "text.npz", b"hello", "readme.txt")):
        with pytest.raises(InputError, match="holds 0 arrays"):
            source.load(path)
    np.savez(tmp_path / "mixed.npz", images=IMAGES, labels=np.array([{}], object))
    assert np.array_equal(source.load(tmp_path / "mixed.npz").pixels[:, 0], IMAGES)  # type: ignore[union-attr]
    with pytest.raises(InputError, match="labels holds Python objects"):
        source.load(f"{tmp_path}/mixed.npz:labels")


@pytest.mark.parametrize("scale", [1e-320, 1e-12])
def test_the_smallest_numbers_are_read_in_tables_and_named_in_images(tmp_path, scale):
    np.save(tmp_path / "t.npy", TABLE * scale)
    table = read(tmp_path / "t.npy")
    schema = source.learn(table)
    assert np.array_equal(schema.decode(schema.encode(table.frame)), TABLE * scale)
    images = RNG.random((9, 4, 5))
    if scale < 1e-300:
        with pytest.raises(InputError, match="multiply them all by one number"):
            guess_images(read_images(images * scale))
    else:
        assert guess_images(read_images(images * 2 * scale)).step == 0


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Cut, or with a few bytes changed, mostly among the first."""
    data = bytearray(content)
    if rng.random() < 0.2:
        return bytes(data[: rng.integers(len(data))])
    for _ in range(rng.choice([1, 2, 8])):
        data[rng.integers(min(len(data), rng.choice([40, 200, 10**6])))] = rng.choice([0, 255, rng.integers(256)])
    return bytes(data)


@pytest.mark.parametrize("kind", ["f8.npy", "U3.npy", "M8[D].npy", "f8.npz"])
def test_damaged_arrays_are_read_or_refused(tmp_path, kind):
    dtype, ending = kind.split(".")
    buffer, rng = io.BytesIO(), np.random.default_rng(1)
    x = np.arange(48).reshape(24, 2).astype(dtype)
    np.save(buffer, x) if ending == "npy" else np.savez(buffer, x=x)
    path, refused = tmp_path / f"a.{ending}", 0
    for _ in range(60):
        path.write_bytes(damaged(buffer.getvalue(), rng))
        try:
            data = source.load(path)
            source.learn(data).encode(source.rows_of(data))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 400
    assert 0 < refused < 60
    path.write_bytes(buffer.getvalue())
    assert len(read(path).frame) == 24 and arrays.stored(path, None).shape == (24, 2)
