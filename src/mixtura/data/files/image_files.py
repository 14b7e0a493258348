"""Folders and zips of image files, such as PNGs, each in the levels and the depth of its file.

They are read by file name, subfolders included; grey files stay grey unless a colour one is among them, transparency is laid
on white, palettes are resolved, orientation tags are applied. What Pillow would round, wrap or stretch is read with its own
levels or refused. They are written as PNGs.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mixtura.contracts import InputError
from mixtura.data import dtypes
from mixtura.data.files.arrays import check_unpacked
from mixtura.data.files.door import Door, reading
from mixtura.data.files.pixels import MOST_IN_ONE, MOST_VALUES, HowImages, Images, even_sample, resized
from mixtura.data.files.text_files import printable
from mixtura.ground.machine import drafted

#: formats that Pillow may read, with their endings; some of the others start programs
FORMATS = {
    "PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "BMP": (".bmp",), "GIF": (".gif",),
    "WEBP": (".webp",), "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf"), "AVIF": (".avif",), "ICO": (".ico",), "QOI": (".qoi",),
    "PCX": (".pcx",), "TGA": (".tga", ".icb", ".vda", ".vst"),
}  # fmt: skip

ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)

_FEW = 3


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != ".." or part == "__MACOSX" for part in Path(name).parts)


def _divided(files: Sequence[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], list[str]]:
    """Files by name, without hidden ones: those that are read, and the names of the others."""
    seen = [(name, where) for name, where in files if not _is_hidden(name)]
    others = [name for name, _ in seen if Path(name).suffix.lower() not in ENDINGS]
    return [(name, where) for name, where in seen if Path(name).suffix.lower() in ENDINGS], others


def _read_folder(path: Path, _: str | None, how: HowImages) -> Images:
    with reading(path, "a folder"):
        files = [(str(file.relative_to(path)), file) for file in sorted(path.rglob("*")) if not file.is_dir()]
    return _read_files(files, printable(path.name), how)


def _read_zip(path: Path, _: str | None, how: HowImages) -> Images:
    with reading(path, "a zip"):
        archive = zipfile.ZipFile(path)
    with archive:
        members = [(m.filename, (archive, m)) for m in archive.infolist() if not m.is_dir()]
        members.sort(key=lambda member: member[0])
        check_unpacked(sum(m.file_size for _, (_, m) in members), path.stat().st_size, path.name)
        return _read_files(members, printable(path.name), how)


def _bytes_of(where: Any) -> bytes:
    if isinstance(where, Path):
        if not where.is_file():
            _refuse("it leads to no file" if where.is_symlink() else "it is no regular file")
        size = where.stat().st_size
        return where.read_bytes() if size <= 4 * MOST_IN_ONE else _refuse(f"it has {size:,} bytes, more than an image may")
    archive, member = where
    if member.flag_bits & 1:
        _refuse("it is encrypted")
    if member.file_size > 4 * MOST_IN_ONE:
        _refuse(f"it unpacks to {member.file_size:,} bytes, more than an image may")
    return archive.read(member)


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)


def _read_files(found: Sequence[tuple[str, Any]], name: str, how: HowImages) -> Images:
    files, others = _divided(found)
    if not files:
        beside = f", but {len(others):,} of other formats ({_few(others)})" if others else ""
        raise InputError(f"{name}: no image files in it{beside}; give a folder or zip that holds some: {' '.join(ENDINGS)}")
    digest = hashlib.sha256(str(how.size).encode())
    images: list[np.ndarray] = []
    names: list[str] = []
    skipped: list[str] = []
    more: dict[str, int] = {}
    for index in even_sample(len(files), how.rows, how.seed):
        label, where = files[index]
        try:
            content = _bytes_of(where)
            image, beyond = _decoded(content, label)
        except Exception as error:  # fuzzed files make Pillow and zipfile raise some twenty types
            reason = f"{label}: {_reason(error, Path(label).suffix.lower())}"
            if not how.skip_broken:
                raise InputError(f"{name}: {reason}; repair or remove it, or leave such files out with --skip-broken") from error
            skipped.append(reason)
            continue
        if beyond:
            more[label] = beyond
        digest.update(label.encode(errors="surrogateescape") + hashlib.sha256(content).digest())
        image = image if how.size is None else resized(image, how.size)
        if images and image.shape[1:] != images[0].shape[1:]:
            first, second = ("{1}×{0}".format(*i.shape[1:]) for i in (images[0], image))
            raise InputError(
                f"{name}: {names[0]} has {first} pixels and {label} has {second}, expected one size; "
                "resize them with --size N, which makes all N×N"
            )
        if images and image.dtype != images[0].dtype:
            first, second = (_depth(i.dtype) for i in (images[0], image))
            raise InputError(
                f"{name}: {names[0]} has pixels of {first} and {label} of {second}, expected one depth; convert them, "
                "or put them in folders of their own"
            )
        images.append(image)
        names.append(label)
        if len(images) * image.size * (3 // image.shape[0]) > MOST_VALUES:
            raise InputError(f"{name}: more than {MOST_VALUES:,} values in all; give fewer images, or smaller ones with --size N")
    if not images:
        raise InputError(f"{name}: none of its {len(files):,} image files can be read ({skipped[0]}); repair them")
    if len({len(image) for image in images}) > 1:
        images = [np.repeat(image, 3, 0) if len(image) == 1 else image for image in images]
    if more:
        said = f"{sum(more.values()):,} pages, frames or sizes beyond the first of {len(more):,} files ({_few(list(more))})"
        skipped.insert(0, said)
    skipped += [f"{other}: {Path(other).suffix or 'a file without ending'} is none of the formats read" for other in others]
    return Images(np.stack(images), name, len(files), digest.hexdigest(), tuple(skipped))


def _few(names: list[str]) -> str:
    return ", ".join(names[:_FEW]) + ", …" * (len(names) > _FEW)


def _depth(dtype: np.dtype) -> str:
    signed = "" if dtype.kind == "u" else "signed " if dtype.kind == "i" else "floating "
    return f"{signed}{8 * dtype.itemsize} bits"


def _reason(error: Exception, ending: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        some = ", as 64 bits, or several channels of 32, which a .npy can hold" if ending in FORMATS["TIFF"] else ""
        return f"not an image of a kind that is read{some}"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 120 else text[:117] + "…"


@cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow was built with, except TGA, which is tried only by its ending: its files have no signature."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN and name != "TGA")


def _decoded(content: bytes, name: str) -> tuple[np.ndarray, int]:
    """(1 or 3, H, W) in the levels and the depth of the file, turned as its orientation tag says; and how many pages, frames
    or sizes it has beyond the first (the largest of an icon). Raises whatever Pillow does, and ValueError."""
    if not content:
        _refuse("the file is empty")
    formats = (*_formats(), "TGA") if Path(name).suffix.lower() in FORMATS["TGA"] else _formats()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tags that make no difference to the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=formats) as image:
            if image.width * image.height * 3 > MOST_IN_ONE:
                _refuse(f"{image.width}×{image.height} pixels are more than one image may have")
            top, signed = _top(image, content)
            deep = image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")
            if top > 255 and (not deep or "transparency" in image.info):
                _refuse(f"{top.bit_length()} bits a channel beside others, expected 8; convert it or give a .npy")
            beyond = max(getattr(image, "n_frames", 1), len(image.info.get("sizes", ()))) - 1
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if not deep:
                pixels = _in_eight_bits(image)
                return _unstretched(pixels, 255, top, image.format).astype(np.int8 if signed else np.uint8), beyond
            pixels = np.asarray(image)[None]
            if image.mode == "F":
                if not np.isfinite(pixels).all():
                    _refuse(f"it has a pixel of {pixels[~np.isfinite(pixels)][0]}, expected finite numbers")
                return dtypes.native(pixels), beyond
            if signed or top > 65_535:  # 32 bits without a sign arrive as the same bits with one
                pixels = pixels.astype(np.int32)
                return (pixels.view(np.uint32) if not signed else pixels if top > 65_535 else pixels.astype(np.int16)), beyond
            return _unstretched(pixels.astype(np.uint16), 65_535, top, image.format), beyond


def _in_eight_bits(image: Image.Image) -> np.ndarray:
    """(1 or 3, H, W) uint8: one channel if the image is not stored as colour and all its colours are greys."""
    clear = image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info
    if image.mode in ("1", "L") and not clear:
        return np.asarray(image.convert("L"))[None]
    may_be_grey = image.mode in ("1", "L", "LA", "La", "P", "PA")
    if clear:
        image = image.convert("LA") if image.mode == "La" else image
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
    rgb = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return rgb[:1] if may_be_grey and (rgb == rgb[:1]).all() else rgb


def _top(image: Image.Image, content: bytes) -> tuple[int, bool]:
    """(the highest level that the file can store, whether its levels are signed), read from the header, as Pillow tells
    neither. Must be called before the image is loaded."""
    top, signed = (65_535 if image.mode.startswith("I") else 255), False
    if image.format == "PNG" and content[12:16] == b"IHDR":
        top = max(255, 2 ** content[24] - 1)  # fewer bits are spread over 0 … 255, as every reader does
    elif image.format == "TIFF":
        tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
        top = max(255, 2 ** max(tags.get(258, (1,))) - 1)
        top = 65_535 if top == 4_095 else top  # 12 bits are stored in 16 as they are
        signed = 2 in tags.get(339, (1,))
        if top > 255 and tags.get(262) == 0:
            _refuse("more than 8 bits of which 0 is white, expected 0 to be black; convert it, or give a .npy")
    elif image.format == "PPM" and image.mode not in ("1", "F"):
        # the mode, with the highest level unless it is the usual one
        how = image.tile[0][3]  # pyright: ignore[reportAttributeAccessIssue]
        top = how[1] if isinstance(how, tuple) else top
    elif image.format == "JPEG2000":
        top = 2 ** ((content[content.index(b"\xff\x4f\xff\x51") + 42] & 127) + 1) - 1
    elif image.format == "AVIF":
        top = 1_023 if content[content.index(b"av1C") + 6] & 64 else 255
    return int(top), signed


def _unstretched(pixels: np.ndarray, full: int, top: int, kind: str | None) -> np.ndarray:
    """The original levels 0 … top, which Pillow scales to 0 … full: of JPEG 2000 by powers of two, of others by proportion."""
    if top >= full:
        return pixels
    return (pixels // ((full + 1) // (top + 1)) if kind == "JPEG2000" else np.rint(pixels * (top / full))).astype(pixels.dtype)


def fits_png(low: float, high: float, step: float, channels: int) -> bool:
    """Whether PNGs hold levels ``low`` … ``high`` in such steps."""
    whole = step >= 1 and low == round(low) and step == round(step)
    return whole and low >= 0 and high <= (65_535 if channels == 1 else 255)


def _no_png(path: Path, what: str, channels: int) -> InputError:
    top = "65,535" if channels == 1 else "255 in colour"
    return InputError(
        f"{path}: these images have {what}, but a PNG holds whole levels 0 … {top}; write .npz or .npy, which hold any"
    )


def _png_levels(images: np.ndarray, path: Path) -> np.ndarray:
    """The same levels as uint8 or uint16."""
    channels = 1 if images.ndim == 3 else 3
    if images.dtype == np.uint8 or images.dtype == np.bool_:
        return images.astype(np.uint8)
    low, high = images.min(), images.max()
    if images.dtype.kind == "f" and not (images == np.rint(images)).all():
        raise _no_png(path, "real numbers", channels)
    if not fits_png(float(low), float(high), 1, channels):
        raise _no_png(path, f"levels {low:g} … {high:g}", channels)
    return images.astype(np.uint16 if high > 255 or images.dtype == np.uint16 and channels == 1 else np.uint8)


def _check_folder(path: Path) -> None:
    """InputError where a folder of images cannot take the place of what is there: it is replaced as a whole."""
    there = {p.name for p in path.iterdir()} if path.is_dir() else set()
    if there != set(_png_names(len(there))):
        raise InputError(f"{path}: the folder holds other files than images written here, which would be lost; give another")


def _png_names(n: int) -> list[str]:
    """The names of n files, whose alphabetical order is that of their numbers."""
    return [f"{i:0{max(5, len(str(n)))}d}.png" for i in range(1, n + 1)]


def _as_pngs(levels: np.ndarray) -> Iterator[tuple[str, bytes]]:
    for name, image in zip(_png_names(len(levels)), levels, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        yield name, buffer.getvalue()


def _check_png(low: float, high: float, step: float, channels: int, path: Path) -> None:
    if not fits_png(low, high, step, channels):
        raise _no_png(path, f"levels {low:g} … {high:g} in steps of {step:g}" if step else "real numbers", channels)


def _check_replaced(low: float, high: float, step: float, channels: int, path: Path) -> None:
    _check_folder(path)
    _check_png(low, high, step, channels, path)


def _write_folder(images: np.ndarray, path: Path) -> None:
    _check_folder(path)
    levels = _png_levels(images, path)
    with drafted(path) as draft:
        draft.mkdir()
        for name, content in _as_pngs(levels):
            (draft / name).write_bytes(content)


def _write_zip(images: np.ndarray, path: Path) -> None:
    levels = _png_levels(images, path)
    with drafted(path) as draft, draft.open("wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in _as_pngs(levels):
            archive.writestr(name, content)


def _always(path: Path, key: str | None) -> bool:
    return True


ZIP = Door(holds_images=_always, read_images=_read_zip, write_images=_write_zip, check_images=_check_png)
FOLDER = Door(holds_images=_always, read_images=_read_folder, write_images=_write_folder, check_images=_check_replaced)
