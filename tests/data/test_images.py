"""Images come back in the levels they had; what is no set of images of one size is named in a sentence."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixtura.contracts import InputError
from mixtura.data.files import image_files
from mixtura.data.images import ImageSchema, guess_images, is_images, read_images, write_images
from mixtura.data.source import load

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


# ---------------------------------------------------------------------------------------------- levels of a PNG and back


@pytest.mark.parametrize("target", ["out.zip", "out"])
@pytest.mark.parametrize(
    ("images", "depth"),
    [
        (GREY % 17, np.uint8), (GREY % 6, np.uint8), ((GREY % 6).astype(np.int64), np.uint8), (COLOUR % 6, np.uint8),
        ((COLOUR % 6).astype(np.uint16), np.uint8), ((GREY % 6).astype(np.uint16), np.uint16), (GREY % 6 * 1.0, np.uint8),
        (GREY.astype(np.uint16) * 257, np.uint16), (GREY.astype(np.int32) + 60_000, np.uint16), (GREY > 100, np.uint8),
    ],
    ids=["0..16", "0..5", "int64", "colour", "colour in 16", "few of 16", "whole floats", "16 bits", "int32", "bool"],
)  # fmt: skip
def test_pngs_have_the_levels_of_the_data_whatever_else_was_drawn(tmp_path, images, depth, target):
    write_images(images, tmp_path / target)
    back = read_images(tmp_path / target).pixels
    assert back.dtype == depth and np.array_equal(back if images.ndim == 3 else back.transpose(0, 2, 3, 1), images[:, None]
                                                  if images.ndim == 3 else images)  # fmt: skip
    write_images(images[:1], tmp_path / f"one{target}")
    assert np.array_equal(read_images(tmp_path / f"one{target}").pixels[0], back[0])


@pytest.mark.parametrize("target", ["out.zip", "out"])
@pytest.mark.parametrize(
    ("images", "what"),
    [
        (RNG.random((4, 3, 3)), "real numbers"),
        (RNG.random((4, 3, 3)).astype(np.float32), "real numbers"),
        (GREY.astype(int) - 7, "levels -7 … "),
        (GREY.astype(np.int32) * 1000, "levels 0 … "),
        (COLOUR.astype(np.uint16) * 257, "255 in colour"),
    ],
)
def test_what_a_png_cannot_hold_is_refused_with_formats_that_can(tmp_path, images, what, target):
    with pytest.raises(InputError, match=rf"{what}.*write \.npz or \.npy"):
        write_images(images, tmp_path / target)
    schema = guess_images(read_images(images))
    with pytest.raises(InputError, match=r"write \.npz or \.npy"):
        schema.check_output(tmp_path / target)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("n", "first"), [(3, "00001.png"), (100_002, "000001.png")])
def test_the_names_of_very_many_images_sort_by_their_numbers(n, first):
    names = image_files._png_names(n)
    assert names == sorted(names) and names[0] == first and len(names) == n


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def test_a_zip_of_samples_is_judged_as_their_npz(place, do):
    np.save(place / "few.npy", GREY[RNG.integers(0, 6, 80)] % 17)
    do("run few.npy --steps 2 --families marginals --out r")
    found = []
    for ending in ("zip", "npz"):
        assert do(f"sample r -n 60 -o s.{ending}").code == 0
        judged = json.loads(do(f"evaluate few.npy s.{ending} --json").out)["data"]
        scored = json.loads(do(f"score r s.{ending} --json").out)
        found.append((scored["impossible"], scored["mean_nats"], {row["metric"]: row["value"] for row in judged}))
    assert found[0] == found[1] and found[0][0] == 0


# --------------------------------------------------------------------------------------------------- formats and modes


def saved(image: Image.Image, kind: str, **how) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def read_one(place: Path, name: str, content: bytes) -> np.ndarray:
    (place / name).write_bytes(content)
    return read_images(place).pixels[0]


def tiff(array: np.ndarray, white_is_zero: bool = False) -> bytes:
    """Any depth and sign, in the order of bytes of the array; baseline, one strip."""
    order, mark = ("<", b"II*\0") if array.dtype.str[0] != ">" else (">", b"MM\0*")
    (height, width), kind = array.shape, {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    values = {256: width, 257: height, 258: array.dtype.itemsize * 8, 259: 1, 262: int(not white_is_zero), 273: 134, 277: 1,
              278: height, 279: array.nbytes, 339: kind}  # fmt: skip
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in values.items())
    return mark + struct.pack(f"{order}IH", 8, len(values)) + entries + bytes(4) + array.tobytes()


def deep_png(array: np.ndarray) -> bytes:
    """(H, W, channels) uint16, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


G, C = Image.fromarray(GREY[0]), Image.fromarray(COLOUR[0])
DEEP = RNG.integers(0, 65_536, (5, 4), dtype=np.uint16)


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif", "ppm", "tga", "jp2", "ico", "qoi", "pcx", "webp"])
def test_every_format_without_loss_gives_its_pixels(tmp_path, ending):
    kind = {"tif": "TIFF", "jp2": "JPEG2000"}.get(ending, ending.upper())
    colours = [G.convert("RGB") if ending == "gif" else C]
    content = saved(colours[0], kind, **({"lossless": True} if ending == "webp" else {}))
    pixels = read_one(tmp_path, f"a.{ending}", content)
    assert np.array_equal(np.broadcast_to(pixels, (3, 5, 4)), np.asarray(colours[0]).transpose(2, 0, 1))


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif", "pgm", "tga", "jp2", "pcx"])
def test_grey_files_stay_grey(tmp_path, ending):
    kind = {"tif": "TIFF", "jp2": "JPEG2000", "pgm": "PPM"}.get(ending, ending.upper())
    assert np.array_equal(read_one(tmp_path, f"a.{ending}", saved(G, kind))[0], GREY[0])


@pytest.mark.parametrize("ending", ["jpg", "avif", "mpo"])
def test_formats_with_loss_are_read(tmp_path, ending):
    smooth = Image.fromarray(np.linspace(0, 200, 96).reshape(8, 12).astype(np.uint8)).convert("RGB")
    pixels = read_one(tmp_path, f"a.{ending}", saved(smooth, {"jpg": "JPEG"}.get(ending, ending.upper()), quality=95))
    assert pixels.shape == (3, 8, 12) and np.abs(pixels.astype(int) - np.asarray(smooth).transpose(2, 0, 1)).max() < 9


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "u8"])
def test_tiffs_keep_their_values_or_are_refused(tmp_path, kind, order):
    if kind[0] == "f":
        array = RNG.normal(size=(5, 4)).astype(kind)
    else:
        array = RNG.integers(np.iinfo(kind).min, np.iinfo(kind).max, (5, 4), dtype=kind, endpoint=True)
    array = array.astype(order + kind)
    if kind in ("f2", "f8", "u8") or order + kind == ">u4":
        with pytest.raises(InputError, match=r"a\.tif: not an image of a kind that is read, as 64 bits"):
            read_one(tmp_path, "a.tif", tiff(array))
    else:
        pixels = read_one(tmp_path, "a.tif", tiff(array))
        assert pixels.dtype == np.dtype(kind) and np.array_equal(pixels[0], array)


def test_zero_may_be_white_in_eight_bits_alone(tmp_path):
    assert np.array_equal(read_one(tmp_path, "a.tif", tiff(GREY[0], white_is_zero=True))[0], 255 - GREY[0])
    with pytest.raises(InputError, match="of which 0 is white"):
        read_one(tmp_path, "a.tif", tiff(DEEP, white_is_zero=True))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", saved(Image.fromarray(DEEP), "PNG")),
        ("a.pgm", saved(Image.fromarray(DEEP), "PPM")),
        ("a.jp2", saved(Image.fromarray(DEEP), "JPEG2000")),
        ("a.tif", saved(Image.frombytes("I;16B", (4, 5), DEEP.astype(">u2").tobytes()), "TIFF")),
    ],
)
def test_sixteen_bits_of_grey_are_kept(tmp_path, name, content):
    pixels = read_one(tmp_path, name, content)
    assert pixels.dtype == np.uint16 and np.array_equal(pixels[0], DEEP)


DEEP_COLOUR = RNG.integers(0, 65_536, (5, 4, 4), dtype=np.uint16)


@pytest.mark.parametrize(
    ("name", "content"),
    [(f"{c}.png", deep_png(DEEP_COLOUR[..., :c])) for c in (2, 3, 4)]
    + [("a.ppm", b"P6 4 5 65535\n" + DEEP_COLOUR[..., :3].astype(">u2").tobytes())],
)
def test_sixteen_bits_of_colour_are_refused_by_name(tmp_path, name, content):
    with pytest.raises(InputError, match=rf"{name}: 16 bits a channel .*expected 8"):
        read_one(tmp_path, name, content)


@pytest.mark.parametrize("top", [5, 16, 100, 255, 1000, 4095, 65_535])
@pytest.mark.parametrize("plain", [False, True], ids=["bytes", "text"])
def test_portable_maps_keep_their_own_highest_level(tmp_path, top, plain):
    levels = RNG.integers(0, top + 1, (5, 4))
    rest = " ".join(map(str, levels.ravel())).encode() if plain else levels.astype(">u2" if top > 255 else "u1").tobytes()
    pixels = read_one(tmp_path, "a.pgm", b"P%d 4 5 %d\n" % (2 if plain else 5, top) + rest)
    assert np.array_equal(pixels[0], levels) and pixels.dtype == (np.uint16 if top > 255 else np.uint8)


def test_modes_become_their_greys_and_colours(tmp_path):
    opaque, clear = (Image.new("L", G.size, a) for a in (255, 0))
    white = np.full((1, 5, 4), 255, np.uint8)
    bits = G.point(lambda v: 255 * (v > 100)).convert("1")
    black_and_white = np.where(GREY[:1] > 100, 255, 0)
    for name, image, expected in (
        ("LA.png", Image.merge("LA", (G, opaque)), GREY[:1]),
        ("LA.tif", Image.merge("LA", (G, opaque)), GREY[:1]),
        ("clear.png", Image.merge("LA", (G, clear)), white),
        ("P.png", G.convert("P"), GREY[:1]),
        ("colour P.png", C.convert("P", palette=Image.Palette.ADAPTIVE), COLOUR[0].transpose(2, 0, 1)),
        ("RGBA.png", Image.merge("RGBA", (*C.split(), opaque)), COLOUR[0].transpose(2, 0, 1)),
        ("clear.tga", Image.merge("RGBA", (*C.split(), clear)), white.repeat(3, 0)),
        ("1.png", bits, black_and_white),
        ("1.pbm", bits, black_and_white),
        ("CMYK.tif", C.convert("CMYK"), COLOUR[0].transpose(2, 0, 1)),
    ):
        place = tmp_path / name.replace(".", " ")
        place.mkdir()
        kind = {"tif": "TIFF", "pbm": "PPM"}.get(name[-3:], name[-3:].upper())
        assert np.array_equal(read_one(place, name, saved(image, kind)), expected), name


@pytest.mark.parametrize("ending", ["png", "webp", "tif"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_orientation_is_applied_before_sizes_are_compared(tmp_path, ending, tag):
    turn = [None, *(Image.Transpose(i) for i in (0, 3, 1, 5, 2, 6, 4))][tag - 1]  # the inverse of what the tag asks for
    image = C if turn is None else C.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = tag
    (tmp_path / "b.png").write_bytes(saved(C, "PNG"))
    kind = {"tif": "TIFF"}.get(ending, ending.upper())
    pixels = read_one(tmp_path, f"a.{ending}", saved(image, kind, exif=exif, **({"lossless": True} if ending == "webp" else {})))
    assert np.array_equal(pixels, COLOUR[0].transpose(2, 0, 1))


def test_depths_that_differ_name_their_files(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(G, "PNG"))
    (tmp_path / "b.png").write_bytes(saved(Image.fromarray(DEEP), "PNG"))
    with pytest.raises(InputError, match=r"a\.png has pixels of 8 bits and b\.png of 16 bits, expected one depth"):
        read_images(tmp_path)


def test_pixels_that_are_not_finite_are_named(tmp_path):
    with pytest.raises(InputError, match=r"a\.tif: it has a pixel of nan"):
        read_one(tmp_path, "a.tif", tiff(np.full((5, 4), np.nan, np.float32)))


def test_resizing_keeps_within_few_levels_and_deep_ones():
    few = np.zeros((1, 9, 9), np.uint8)
    few[:, 3:6] = 16
    assert read_images(few, size=7).pixels.max() == 16
    deep = RNG.integers(-(2**31), 2**31, (1, 9, 9)).astype(np.int32)
    small = read_images(deep, size=5).pixels
    assert small.dtype == np.int32 and deep.min() <= small.min() and small.max() <= deep.max() and len(np.unique(small)) == 25


# ------------------------------------------------------------------------------------------------------ what is left out


def test_other_files_and_further_pages_are_said(place, do):
    (place / "set").mkdir()
    for i in range(24):
        (place / "set" / f"{i:02d}.gif").write_bytes(saved(G.point(lambda v, i=i: (v + i) % 256), "GIF", save_all=True,
                                                           append_images=[C, G]))  # fmt: skip
    for name in ("a.psd", "notes.txt", "without"):
        (place / "set" / name).write_bytes(b"?")
    planned = json.loads(do("run set --families marginals --steps 1 --dry-run --json").out)
    assert planned["skipped"] == [
        "48 pages, frames or sizes beyond the first of 24 files (00.gif, 01.gif, 02.gif, …)",
        "a.psd: .psd is none of the formats read",
        "notes.txt: .txt is none of the formats read",
        "without: a file without ending is none of the formats read",
    ]
    assert "left out 48 pages" in do("run set --families marginals --steps 1 --dry-run").out
    do("run set --families marginals --steps 1 --out r")
    shutil.copytree(place / "set", place / "other")
    for line in ("score r set -o s.csv", "evaluate set other", "mix set other"):
        assert "note: set: left out 48 pages" in do(line).err


def test_a_folder_or_zip_without_images_names_what_it_holds(tmp_path):
    (tmp_path / "a.psd").write_bytes(b"8BPS")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("table.csv", "a,b\n1,2\n")
    with pytest.raises(InputError, match=r"no image files in it, but 2 of other formats \(a\.psd, a\.zip\)"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"no image files in it, but 1 of other formats \(table\.csv\)"):
        load(tmp_path / "a.zip")


def test_zips_that_unpack_to_far_more_are_refused_unread(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(50):
            archive.writestr(f"{i}.png", saved(G, "PNG"))
            archive.filelist[-1].file_size = 190_000_000
    with pytest.raises(InputError, match="says it unpacks to 9,500,000,000, more than"):
        read_images(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "PPM", "JPEG", "zip"])
def test_damaged_images_are_read_or_refused(tmp_path, kind, capfd):
    rng, refused = np.random.default_rng(2), 0
    whole = saved(C, "PNG" if kind == "zip" else kind)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr("a.png", whole)
        whole = (tmp_path / "a.zip").read_bytes()
    path = tmp_path / ("a.zip" if kind == "zip" else "a.png")
    for _ in range(40):
        data = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.choice([1, 4])):
            data[rng.integers(len(data))] = rng.choice([0, 255, rng.integers(256)])
        path.write_bytes(data)
        try:
            read_images(path if kind == "zip" else tmp_path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 500
    assert refused > 0
    path.write_bytes(whole)
    assert read_images(path if kind == "zip" else tmp_path).pixels.shape == (1, 3, 5, 4)


def test_what_looks_like_an_image_and_is_no_file_is_named(tmp_path):
    write_images(np.zeros((3, 4, 4), dtype=np.uint8), tmp_path / "set")
    (tmp_path / "set/gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"gone.png: it leads to no file; repair or remove it, or .* --skip-broken"):
        read_images(tmp_path / "set")
    (tmp_path / "set/gone.png").unlink()
    os.mkfifo(tmp_path / "set/pipe.png")
    assert "pipe.png: it is no regular file" in read_images(tmp_path / "set", skip_broken=True).skipped[0]
