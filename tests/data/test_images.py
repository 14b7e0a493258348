"""Images come back in the levels they had; what is no set of images of one size is named in a sentence."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.contracts import InputError
from mixtura.data.images import ImageSchema, guess_images, is_images, read_images, write_images

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)


def png(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def folder(place: Path, images, ending="png") -> Path:
    for i, image in enumerate(images):
        (place / f"{i:02d}.{ending}").write_bytes(png(image, "PNG" if ending == "png" else ending.upper()))
    return place


# ------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("images", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("target", ["out.npz", "out.npy", "out.zip", "out"])
def test_written_images_are_read_back_exactly(tmp_path, images, target):
    write_images(images, tmp_path / target)
    assert is_images(tmp_path / target)
    pictures = read_images(tmp_path / target)
    assert pictures.pixels.shape == (6, 1 if images.ndim == 3 else 3, 5, 4) and pictures.rows_total == 6 and not pictures.skipped
    schema = guess_images(pictures)
    x = schema.encode(pictures.pixels)
    assert (schema.low, schema.high, schema.step) == (0, 255, 1) and schema.space.is_image
    back = schema.decode(x)
    assert back.dtype == np.uint8 and np.array_equal(back, images)
    assert ImageSchema.from_json(schema.to_json()) == schema


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (GREY, (6, 1, 5, 4)),
        (GREY[..., None], (6, 1, 5, 4)),
        (COLOUR, (6, 3, 5, 4)),
        (COLOUR.transpose(0, 3, 1, 2), (6, 3, 5, 4)),
        (torch.from_numpy(GREY), (6, 1, 5, 4)),
        (GREY[:, ::2, ::-1], (6, 1, 3, 4)),
        (GREY > 100, (6, 1, 5, 4)),
        (GREY.astype(np.float16), (6, 1, 5, 4)),
    ],
    ids=["nhw", "nhw1", "nhwc", "nchw", "tensor", "strided", "bool", "float16"],
)
def test_layouts_and_types(array, shape):
    assert is_images(array)
    pictures = read_images(array)
    assert pictures.pixels.shape == shape
    assert pictures.pixels[2, -1, 2, 1] == (COLOUR[2, 2, 1, 2] if shape[1] == 3 else np.asarray(array).reshape(shape)[2, 0, 2, 1])
    assert guess_images(pictures).encode(array).shape == shape


@pytest.mark.parametrize(
    ("pixels", "low", "high", "step"),
    [
        (GREY, 0, 255, 1),
        (GREY % 17, 0, 16, 1),
        (GREY.astype(np.int32) - 7, -7, None, 1),
        ((GREY / 255).astype(np.float32), None, None, 1 / 255),
        (GREY / 16.0, None, None, 1 / 16),
        (RNG.random((6, 5, 4)), None, None, 0),
        ((GREY > 9).astype(np.uint8), 0, 1, 1),
    ],
)
def test_levels_are_the_files_own(pixels, low, high, step):
    schema = guess_images(read_images(pixels))
    assert low in (None, schema.low) and high in (None, schema.high) and schema.step == pytest.approx(step, rel=1e-9)
    back = schema.decode(schema.encode(pixels))
    assert back.dtype == pixels.dtype and np.allclose(back, pixels, atol=1e-7)


def test_digits_come_with_the_package():
    pictures = read_images("digits")
    assert pictures.pixels.shape == (1797, 1, 8, 8) and pictures.pixels.max() == 16
    assert guess_images(pictures).describe()[0]["detail"] == "images 8x8, levels 0..16"


def test_many_images_are_sampled_evenly_and_repeatably():
    x = np.arange(1000, dtype=np.int64)[:, None, None].repeat(2, 1).repeat(2, 2)
    first, again, other = (read_images(x, rows=100, seed=s).pixels[:, 0, 0, 0] for s in (0, 0, 1))
    assert len(first) == 100 and (np.diff(first) > 0).all() and np.array_equal(first, again) and not np.array_equal(first, other)
    assert abs(first.mean() - 500) < 120


# ----------------------------------------------------------------------------------------------------------- folders


def test_folders_are_read_by_name_and_below_hidden_files_ignored(tmp_path):
    (tmp_path / "b").mkdir()
    folder(tmp_path / "b", GREY[3:])
    folder(tmp_path, GREY[:3])
    (tmp_path / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "x.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no image")
    assert np.array_equal(read_images(tmp_path).pixels[:, 0], GREY)


def test_grey_beside_colour_is_colour_and_transparency_is_white(tmp_path):
    clear = np.zeros((5, 4, 4), np.uint8)
    clear[..., :3], clear[2:, :, 3] = 200, 255
    folder(tmp_path, [GREY[0], COLOUR[1], clear])
    pixels = read_images(tmp_path).pixels
    assert np.array_equal(pixels[0], GREY[0][None].repeat(3, 0)) and np.array_equal(pixels[1], COLOUR[1].transpose(2, 0, 1))
    assert (pixels[2, :, :2] == 255).all() and (pixels[2, :, 2:] == 200).all()


def test_sizes_must_agree_or_are_made_to(tmp_path):
    folder(tmp_path, [GREY[0], GREY[1, :, :3]])
    with pytest.raises(InputError, match=r"00.png has 4×5 pixels and 01.png has 3×5.*--size N"):
        read_images(tmp_path)
    assert read_images(tmp_path, size=3).pixels.shape == (2, 1, 3, 3)


def test_resizing_keeps_flat_images_flat_and_smooths_without_aliases():
    assert (read_images(np.full((2, 9, 9), 77, np.uint8), size=4).pixels == 77).all()
    stripes = np.zeros((1, 64, 64), np.uint8)
    stripes[:, :, ::2] = 200
    small = read_images(stripes, size=8).pixels
    assert abs(float(small.mean()) - 100) < 3 and small.std() < 8


BROKEN = {
    "empty": b"",
    "cut": png(RNG.integers(0, 256, (40, 40), dtype=np.uint8))[:200],
    "text": b"hello, I am no image",
    "program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "headed": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
    "huge": b"BM" + (10**6).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    + (10**6).to_bytes(4, "little") * 2 + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
def test_a_broken_file_is_named_and_can_be_left_out(tmp_path, kind, packed):
    place = tmp_path / "set"
    place.mkdir()
    folder(place, GREY)
    (place / "02.png").write_bytes(BROKEN[kind])
    if packed:
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for path in sorted(place.iterdir()):
                archive.write(path, path.name)
        place = tmp_path / "set.zip"
    with pytest.raises(InputError, match=r"02\.png: .*--skip-broken"):
        read_images(place)
    pictures = read_images(place, skip_broken=True)
    assert len(pictures.skipped) == 1 and pictures.skipped[0].startswith("02.png: ")
    assert np.array_equal(pictures.pixels[:, 0], np.delete(GREY, 2, 0))


def test_names_in_a_zip_lead_nowhere(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../../outside.png", png(GREY[0]))
        archive.writestr("/etc/inside.png", png(GREY[1]))
    assert len(read_images(tmp_path / "x.zip").pixels) == 2 and [p.name for p in tmp_path.iterdir()] == ["x.zip"]


# ------------------------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((3, 2, 2), complex), "dtype complex128"),
        (np.array([[["a"]]]), "dtype <U1"),
        (np.zeros((0, 2, 2)), "holds no pixels"),
        (np.zeros((3, 2, 2, 5)), r"shape \(3, 2, 2, 5\), expected images"),
        (np.where(np.arange(12).reshape(3, 2, 2) == 5, np.nan, 1.0), "image 1 has a pixel of nan"),
        (np.full((3, 2, 2), 9), "every pixel is 9"),
    ],
)
def test_arrays_that_are_no_images_are_named(array, said):
    with pytest.raises(InputError, match=said):
        guess_images(read_images(array))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (GREY[:, :4], r"images of shape \(1, 4, 4\), expected \(1, 5, 4\)"),
        (COLOUR, r"images of shape \(3, 5, 4\)"),
        (GREY[0], r"images of shape"),
        (GREY.astype(float) * np.nan, "image 0 has a pixel that is not finite"),
        (GREY.astype(complex), "dtype complex128"),
    ],
)
def test_other_images_are_not_encoded(data, said):
    with pytest.raises(InputError, match=said):
        guess_images(read_images(GREY)).encode(data)


def test_files_that_only_look_like_sets_of_images(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and nothing")
    np.savez(tmp_path / "two.npz", a=GREY, b=GREY, c=np.zeros((3, 2)))
    np.savez(tmp_path / "table.npz", c=np.zeros((3, 2)))
    assert not is_images(tmp_path / "table.npz")
    assert not is_images("nowhere") and not is_images(np.zeros((3, 2))) and not is_images(3)
    with pytest.raises(InputError, match=r"bad\.zip cannot be read as a zip"):
        read_images(tmp_path / "bad.zip")
    with pytest.raises(InputError, match=r"no image files in it, but 3 of other formats \(bad\.zip, table\.npz, two\.npz\)"):
        read_images(tmp_path)
    with pytest.raises(InputError, match="several arrays of images, a, b; name one"):
        read_images(tmp_path / "two.npz")
    assert is_images(f"{tmp_path}/two.npz:a") and not is_images(f"{tmp_path}/two.npz:c")
    assert np.array_equal(read_images(f"{tmp_path}/two.npz:b").pixels[:, 0], GREY)
    (tmp_path / "cut.npy").write_bytes(png(GREY[0]))
    assert not is_images(tmp_path / "cut.npy")
    np.save(tmp_path / "short.npy", GREY)
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-20])
    with pytest.raises(InputError, match=r"short\.npy cannot be read"):
        read_images(tmp_path / "short.npy")


@pytest.mark.parametrize("damage", [{"dtype": "O"}, {"width": "x"}, {"step": None}, {"extra": 1}])
def test_a_damaged_schema_is_named(damage):
    good = guess_images(read_images(GREY)).to_json()
    with pytest.raises(InputError, match="ImageSchema.to_json"):
        ImageSchema.from_json(good | damage)
