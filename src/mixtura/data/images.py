"""Images in and out: folders, zips and arrays ↔ (n, C, H, W) in the file's own levels.

Arrays are understood as (n, H, W), (n, H, W, 1 or 3) and (n, 1 or 3, H, W); where both ends could be channels, the last axis
is. A folder or a zip is read by file name, subfolders included; grey files stay grey unless a colour one is among them,
transparency is laid on white, palettes are resolved, orientation tags are applied. What Pillow would round, wrap or stretch
is read with its own levels or refused.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from mixtura.contracts import Column, InputError, Space
from mixtura.data import arrays
from mixtura.data.read import named_path, to_numpy
from mixtura.data.texts import printable
from mixtura.ground.machine import drafted

#: what Pillow may take a file for, with the endings; some other formats start programs
FORMATS = {
    "PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "BMP": (".bmp",), "GIF": (".gif",),
    "WEBP": (".webp",), "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf"), "AVIF": (".avif",), "ICO": (".ico",), "QOI": (".qoi",),
    "PCX": (".pcx",), "TGA": (".tga", ".icb", ".vda", ".vst"),
}  # fmt: skip
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)
#: pixels and channels kept in all, and in one image
MOST_VALUES, MOST_IN_ONE = 200_000_000, 50_000_000
#: levels of floats are looked for up to this many steps between lowest and highest
MOST_STEPS = 65_535
#: float64 tells whole numbers apart up to here
MOST_WHOLE = 2**53
#: between the lowest and the highest level: networks and kernels compute in float32
LEAST_SPAN, MOST_SPAN = 1e-12, 1e16
#: uint8 that stays within 0 … this has so many levels, not 256
FEW_LEVELS = 16
_FEW = 3


@dataclass(frozen=True)
class Pictures:
    """Images that were read. pixels: (n, C, H, W) in the levels and dtype of the file. rows_total: how many there were.
    skipped: "file: why" for each that was left out, and a line on pages and frames beyond the first."""

    pixels: np.ndarray
    name: str
    rows_total: int
    fingerprint: str
    skipped: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------ is it images


def is_images(source: Any) -> bool:
    """Whether ``source`` names or holds images: decided by names and headers, nothing is decoded. A folder and a .zip are
    read as images or not at all."""
    if isinstance(source, np.ndarray | Tensor):
        return source.ndim in (3, 4)
    if not isinstance(source, str | Path):
        return False
    path, key = named_path(str(source))
    if path.is_dir():
        return True
    if not path.is_file():
        return False
    if path.suffix.lower() in arrays.ENDINGS:
        try:
            return bool(_image_keys(path, key))
        except InputError:
            return False  # the reader of tables says what is wrong with it
    return path.suffix.lower() == ".zip"


def _image_keys(path: Path, key: str | None) -> list[str]:
    """Names of the arrays in a .npy (one, "") or .npz file that have 3 or 4 axes."""
    found = arrays.keys(path)
    return [name for name in (found if key is None else [key]) if _axes(path, name) in (3, 4)]


def _axes(path: Path, key: str) -> int:
    try:
        return len(arrays.stored(path, key).shape)
    except InputError:
        return 0  # another array of the file may hold the images


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != ".." or part == "__MACOSX" for part in Path(name).parts)


def _divided(files: Sequence[tuple[str, Any]]) -> tuple[list[tuple[str, Any]], list[str]]:
    """Files by name, hidden ones apart: those that are read, and the names of the others."""
    seen = [(name, where) for name, where in files if not _is_hidden(name)]
    others = [name for name, _ in seen if Path(name).suffix.lower() not in ENDINGS]
    return [(name, where) for name, where in seen if Path(name).suffix.lower() in ENDINGS], others


# ----------------------------------------------------------------------------------------------------------- reading


def read_images(
    source: Any, *, rows: int = 50_000, seed: int = 0, skip_broken: bool = False, size: int | None = None
) -> Pictures:
    """Images of a folder, a .zip, a .npy or .npz[:key] file, an example ("digits"), an array or a tensor.

    Of more than ``rows`` images, or 200 million values, an even random sample is kept, in order. ``size`` resizes files to
    size × size pixels (bicubic with antialiasing, a channel at a time in float32, rounded back to levels: Parmar et al. 2022).
    Raises InputError for anything that is no set of images of one size; a file that cannot be read is named, and with
    ``skip_broken`` left out and listed.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise InputError(f"rows: expected a whole number of images to keep, 1 or more, got {rows!r}")
    if isinstance(source, np.ndarray | Tensor):
        array = to_numpy(source) if isinstance(source, Tensor) else source
        fingerprint = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return _from_array(array.shape, array.dtype, lambda chosen: array[chosen], "array", fingerprint, rows, seed, size)
    path, key = named_path(str(source))
    if path.is_dir():
        with arrays.opened(path, "a folder"):
            files = [(str(file.relative_to(path)), file) for file in sorted(path.rglob("*")) if not file.is_dir()]
        return _from_files(files, printable(path.name), rows, seed, skip_broken, size)
    if path.suffix.lower() == ".zip":
        return _from_zip(path, rows, seed, skip_broken, size)
    keys = _image_keys(path, key)
    if len(keys) > 1:
        raise InputError(f"{path.name}: holds several arrays of images, {', '.join(keys)}; name one, as in {path.name}:{keys[0]}")
    array = arrays.stored(path, keys[0] if keys else key)  # without images: what is wrong with the only one is said
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(b"\x1f" + (key or "").encode())
    name = printable(path.name if key is None else f"{path.name}:{key}")
    return _from_array(array.shape, array.dtype, array.take, name, digest.hexdigest(), rows, seed, size)


def _from_array(
    shape: tuple[int, ...], dtype: np.dtype, take: Callable[[np.ndarray], np.ndarray], name: str, fingerprint: str,
    rows: int, seed: int, size: int | None,
) -> Pictures:  # fmt: skip
    if dtype.kind not in "uifb":
        raise InputError(f"{name}: images of dtype {dtype}, expected whole or real numbers; convert the array")
    if math.prod(shape) == 0:
        raise InputError(f"{name}: the array has shape {shape}, so it holds no pixels; give one image or more")
    _check_axes(shape, name)
    chosen = _choose(shape[0], _keep(rows, math.prod(shape[1:])), seed)
    pixels = arrays.native(_channels_first(take(chosen), name))
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype == np.float16:
        pixels = pixels.astype(np.float32)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(pixels))[0]]
        raise InputError(f"{name}: image {chosen[at[0]]} has a pixel of {pixels[tuple(at)]}, expected finite numbers; mend it")
    if pixels.dtype.itemsize == 8 and pixels.dtype.kind in "ui":
        far = np.argwhere((pixels > MOST_WHOLE) | (pixels < -MOST_WHOLE) if pixels.dtype.kind == "i" else pixels > MOST_WHOLE)
        if len(far):
            raise InputError(
                f"{name}: image {chosen[far[0][0]]} has a level of {pixels[tuple(far[0])]}, expected whole numbers up to 2^53, "
                "which float64 tells apart; subtract or divide"
            )
    if size is not None:
        pixels = np.stack([_resized(image, size) for image in pixels])
    return Pictures(np.ascontiguousarray(pixels), name, shape[0], fingerprint)


def _check_axes(shape: tuple[int, ...], name: str) -> None:
    if not (len(shape) == 3 or len(shape) == 4 and (shape[3] in (1, 3) or shape[1] in (1, 3))):
        raise InputError(
            f"{name}: an array of shape {shape}, expected images (n, H, W), (n, H, W, 1 or 3) or (n, 1 or 3, H, W); reshape it"
        )


def _channels_first(array: np.ndarray, name: str) -> np.ndarray:
    _check_axes(array.shape, name)
    if array.ndim == 3:
        return array[:, None]
    return array.transpose(0, 3, 1, 2) if array.shape[3] in (1, 3) else array


def _keep(rows: int, values: int) -> int:
    return min(rows, max(1, MOST_VALUES // max(values, 1)))


def _choose(total: int, keep: int, seed: int) -> np.ndarray:
    if total <= keep:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, keep, replace=False))


def _from_zip(path: Path, rows: int, seed: int, skip_broken: bool, size: int | None) -> Pictures:
    with arrays.opened(path, "a zip"):
        archive = zipfile.ZipFile(path)
    with archive:
        members = [(m.filename, (archive, m)) for m in archive.infolist() if not m.is_dir()]
        members.sort(key=lambda member: member[0])
        arrays.check_unpacked(sum(m.file_size for _, (_, m) in members), path.stat().st_size, path.name)
        return _from_files(members, printable(path.name), rows, seed, skip_broken, size)


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


def _from_files(
    found: Sequence[tuple[str, Any]], name: str, rows: int, seed: int, skip_broken: bool, size: int | None
) -> Pictures:
    files, others = _divided(found)
    if not files:
        beside = f", but {len(others):,} of other formats ({_few(others)})" if others else ""
        raise InputError(f"{name}: no image files in it{beside}; give a folder or zip that holds some: {' '.join(ENDINGS)}")
    digest = hashlib.sha256(str(size).encode())
    images: list[np.ndarray] = []
    names: list[str] = []
    skipped: list[str] = []
    more: dict[str, int] = {}
    for index in _choose(len(files), rows, seed):
        label, where = files[index]
        try:
            content = _bytes_of(where)
            image, beyond = _decoded(content, label)
        except Exception as error:  # fuzzed files make Pillow and zipfile raise some twenty types
            reason = f"{label}: {_reason(error, Path(label).suffix.lower())}"
            if not skip_broken:
                raise InputError(f"{name}: {reason}; repair or remove it, or leave such files out with --skip-broken") from error
            skipped.append(reason)
            continue
        if beyond:
            more[label] = beyond
        digest.update(label.encode(errors="surrogateescape") + hashlib.sha256(content).digest())
        image = image if size is None else _resized(image, size)
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
    return Pictures(np.stack(images), name, len(files), digest.hexdigest(), tuple(skipped))


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


# ----------------------------------------------------------------------------------------------------------- one file


@cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with. TGA comes last and only by its ending, for its files have no mark."""
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
                return arrays.native(pixels), beyond
            if signed or top > 65_535:  # 32 bits without a sign arrive as the same bits with one
                pixels = pixels.astype(np.int32)
                return (pixels.view(np.uint32) if not signed else pixels if top > 65_535 else pixels.astype(np.int16)), beyond
            return _unstretched(pixels.astype(np.uint16), 65_535, top, image.format), beyond


def _in_eight_bits(image: Image.Image) -> np.ndarray:
    """(1 or 3, H, W) uint8: one channel of what holds greys alone and is not stored as colour."""
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
    """The highest level that the file can store, and whether it stores signs. Asked before it is loaded; Pillow shows neither."""
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
    """Levels 0 … top that Pillow spread over 0 … full, as they were: JPEG 2000 by doubling, others by proportion."""
    if top >= full:
        return pixels
    return (pixels // ((full + 1) // (top + 1)) if kind == "JPEG2000" else np.rint(pixels * (top / full))).astype(pixels.dtype)


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    """(C, H, W) → (C, size, size), in the same levels."""
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC, reducing_gap=None)
        for plane in image
    ]
    resized = np.stack([np.asarray(plane) for plane in planes])
    if image.dtype.kind == "f":
        return resized.clip(image.min(), image.max()).astype(image.dtype)
    # what is sharpened at an edge goes beyond neither the depth nor the few levels of an image
    full = image.dtype in (np.uint8, np.uint16) and image.max() > FEW_LEVELS
    low, high = (0, np.iinfo(image.dtype).max) if full else (int(image.min()), int(image.max()))
    return resized.astype(np.float64).round().clip(low, high).astype(image.dtype)


# ------------------------------------------------------------------------------------------------------------ schema


@dataclass(frozen=True)
class ImageSchema:
    """What the pixels mean. low … high in steps of ``step`` (0: real numbers without steps); dtype is what the person has."""

    channels: int
    height: int
    width: int
    low: float
    high: float
    step: float
    dtype: str

    @property
    def space(self) -> Space:
        """Rounded pixels, or real ones."""
        shape = (self.channels, self.height, self.width)
        if self.step == 0:
            return Space(shape, (Column(),) * math.prod(shape))
        return Space.image(*shape, low=self.low, high=self.high, resolution=self.step)

    @property
    def written(self) -> str:
        """The ending of a file that holds such images and that people look into: .zip (of PNGs), or .npz where PNGs cannot."""
        return ".zip" if _fits_png(self.low, self.high, self.step, self.channels) else ".npz"

    def encode(self, data: np.ndarray | Tensor, *, name: str = "data") -> Tensor:
        """Images in any understood layout → (n, C, H, W) float64. Raises InputError on another size or other levels."""
        array = to_numpy(data) if isinstance(data, Tensor) else np.asarray(data)
        if array.ndim == 4 and array.shape[1:] == (self.channels, self.height, self.width):
            pixels = array
        else:
            pixels = _channels_first(array, name) if array.ndim in (3, 4) else array
        expected = (self.channels, self.height, self.width)
        if pixels.shape[1:] != expected or len(pixels) == 0:
            raise InputError(
                f"{name}: images of shape {tuple(pixels.shape[1:])}, expected {expected} (channels, height, width); "
                "resize them, or give those of the same set"
            )
        if pixels.dtype.kind not in "uifb":
            raise InputError(f"{name}: images of dtype {pixels.dtype}, expected whole or real numbers; convert the array")
        x = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float64))
        bad = ~torch.isfinite(x).flatten(1).all(1)
        if bad.any():
            raise InputError(f"{name}: image {int(bad.nonzero()[0])} has a pixel that is not finite; repair it")
        if self.step:
            x = self.low + ((x - self.low) / self.step).round() * self.step
        return x

    def decode(self, x: Tensor) -> np.ndarray:
        """(n, C, H, W) → (n, H, W) or (n, H, W, 3) in the person's dtype."""
        pixels = x.detach().cpu().numpy()
        pixels = pixels[:, 0] if self.channels == 1 else pixels.transpose(0, 2, 3, 1)
        dtype = np.dtype(self.dtype)
        return (np.rint(pixels) if dtype.kind in "ui" else pixels).astype(dtype)

    def describe(self) -> list[dict[str, str]]:
        """One row to show a person: column, kind, detail."""
        colour = "" if self.channels == 1 else "colour "
        levels = f"levels {self.low:g}..{self.high:g}" + (f" in steps of {self.step:.6g}" if self.step not in (0, 1) else "")
        values = levels if self.step else f"real numbers {self.low:g}..{self.high:g}"
        return [{"column": "pixels", "kind": "images", "detail": f"{colour}images {self.width}x{self.height}, {values}"}]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": "images", **asdict(self)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> ImageSchema:
        """The inverse of :meth:`to_json`. Raises InputError if ``data`` is something else."""
        try:
            schema = ImageSchema(**{k: v for k, v in data.items() if k != "kind"})
            finite = all(math.isfinite(v) for v in (schema.low, schema.high, schema.step))
            if np.dtype(schema.dtype).kind not in "uif" or not finite:
                raise ValueError("levels of no kind")
            _ = schema.space
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"schema: expected what ImageSchema.to_json wrote, got data that does not fit ({error}); write it again"
            ) from error
        return schema


def guess_images(pictures: Pictures) -> ImageSchema:
    """Levels of the pixels: 0 … 255 for uint8 that goes beyond 16, otherwise whole numbers from 0 (or the lowest) to the highest
    seen; floats that are k / m for one m up to 65,535 have steps of 1 / m; other floats are real numbers."""
    x = pictures.pixels
    _, channels, height, width = x.shape
    low, high = float(x.min()), float(x.max())
    if low == high:
        raise InputError(f"{pictures.name}: every pixel is {low:g}, so there is nothing to learn; give other images")
    if not LEAST_SPAN <= high - low <= MOST_SPAN:
        raise InputError(
            f"{pictures.name}: levels {low:g} … {high:g}, expected a span of {LEAST_SPAN:g} to {MOST_SPAN:g}, whose squares "
            "float32 holds; multiply them all by one number"
        )
    if x.dtype.kind in "ui":
        low, high, step = min(0.0, low), 255.0 if x.dtype == np.uint8 and high > FEW_LEVELS else high, 1.0
    else:
        step = _step_of(x, low, high)
    return ImageSchema(channels, height, width, low, high, step, x.dtype.str[1:] if x.dtype.kind != "b" else "u1")


def _step_of(x: np.ndarray, low: float, high: float) -> float:
    """1/m if all floats are whole multiples of it in their own precision, else 0."""
    values = np.unique(x.ravel()[:1_000_000])
    if len(values) > MOST_STEPS:
        return 0.0
    apart = float(np.diff(values.astype(np.float64)).min(initial=math.inf))
    m = round(1 / apart) if 1 / (MOST_STEPS + 1) < apart <= 1 else 0
    if not 1 <= m <= MOST_STEPS or (high - low) * m > MOST_STEPS:
        return 0.0
    unique = np.unique(x)
    whole = np.rint(unique.astype(np.float64) * m)
    return 1 / m if (np.abs(whole / m - unique) <= 4 * np.finfo(x.dtype).eps * max(abs(low), abs(high))).all() else 0.0


# ----------------------------------------------------------------------------------------------------------- writing


def write_images(images: np.ndarray, path: str | Path) -> None:
    """(n, H, W) or (n, H, W, 3) → .npz (key "images") or .npy, exactly; a .zip or a folder of PNGs, 00001.png and so on.

    All of it or nothing: what was there is replaced when everything is written. PNGs have the very levels, in 8 bits or, grey
    and beyond 255, in 16. Raises InputError for what a PNG cannot hold, where the folder to write to is not there, where one of
    PNGs holds anything else, and where the disk refuses.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}; make it first")
    kind = target.suffix.lower()
    if kind not in (".npz", ".npy", ".zip"):
        check_folder(target)
        levels = _png_levels(images, target)
        with drafted(target) as draft:
            draft.mkdir()
            for name, content in _as_pngs(levels):
                (draft / name).write_bytes(content)
        return
    levels = _png_levels(images, target) if kind == ".zip" else images
    with drafted(target) as draft, draft.open("wb") as file:
        if kind == ".npz":
            np.savez_compressed(file, images=images)
        elif kind == ".npy":
            np.save(file, images, allow_pickle=False)
        else:
            with zipfile.ZipFile(file, "w") as archive:
                for name, content in _as_pngs(levels):
                    archive.writestr(name, content)


def check_png(schema: ImageSchema, path: Path) -> None:
    """InputError where PNGs cannot hold images of ``schema``."""
    if schema.written != ".zip":
        what = f"levels {schema.low:g} … {schema.high:g} in steps of {schema.step:g}" if schema.step else "real numbers"
        raise _no_png(path, what, schema.channels)


def _fits_png(low: float, high: float, step: float, channels: int) -> bool:
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
    if not _fits_png(float(low), float(high), 1, channels):
        raise _no_png(path, f"levels {low:g} … {high:g}", channels)
    return images.astype(np.uint16 if high > 255 or images.dtype == np.uint16 and channels == 1 else np.uint8)


def check_folder(path: Path) -> None:
    """InputError where a folder of images cannot take the place of what is there: it is replaced as a whole."""
    there = {p.name for p in path.iterdir()} if path.is_dir() else set()
    if there != set(_png_names(len(there))):
        raise InputError(f"{path}: the folder holds other files than images written here, which would be lost; give another")


def _png_names(n: int) -> list[str]:
    """In the order of their numbers, which is that of their names."""
    return [f"{i:0{max(5, len(str(n)))}d}.png" for i in range(1, n + 1)]


def _as_pngs(levels: np.ndarray) -> Iterator[tuple[str, bytes]]:
    for name, image in zip(_png_names(len(levels)), levels, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        yield name, buffer.getvalue()
