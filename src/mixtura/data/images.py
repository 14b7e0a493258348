"""Images in and out: folders, zips and arrays ↔ (n, C, H, W) in the file's own levels.

Arrays are understood as (n, H, W), (n, H, W, 1 or 3) and (n, 1 or 3, H, W); where both ends could be channels, the last axis
is. A folder or a zip is read by file name, subfolders included; grey files stay grey unless a colour one is among them,
transparency is laid on white, palettes are resolved.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from mixtura.contracts import Column, InputError, Space
from mixtura.data import examples
from mixtura.machine import drafted

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
#: what Pillow may take a file for; some other formats start programs
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
#: pixels and channels kept in all, and in one image
MOST_VALUES, MOST_IN_ONE = 200_000_000, 50_000_000
#: levels of floats are looked for up to this many steps between lowest and highest
MOST_STEPS = 65_535
#: what Pillow raises on a file that is no image, or a damaged or hostile one
BROKEN = (
    UnidentifiedImageError, OSError, SyntaxError, ValueError, struct.error, zlib.error, EOFError,
    Image.DecompressionBombError, Image.DecompressionBombWarning, zipfile.BadZipFile, RuntimeError, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """Images that were read. pixels: (n, C, H, W) in the levels and dtype of the file. rows_total: how many there were.
    skipped: "file: why" for each that was left out."""

    pixels: np.ndarray
    name: str
    rows_total: int
    fingerprint: str
    skipped: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------ is it images


def is_images(source: Any) -> bool:
    """Whether ``source`` names or holds images: decided by names and headers, nothing is decoded."""
    if isinstance(source, np.ndarray | Tensor):
        return source.ndim in (3, 4)
    if not isinstance(source, str | Path):
        return False
    path, key = _split_key(source)
    if path.is_dir():
        return next(_files_in(path), None) is not None
    if not path.is_file():
        return False
    if path.suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return any(_is_image_name(name) for name in archive.namelist())
        except (zipfile.BadZipFile, OSError):
            return False
    if path.suffix.lower() not in (".npy", ".npz"):
        return False
    try:
        return bool(_image_keys(path, key))
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError, zlib.error, RuntimeError):
        return False  # the reader of tables says what is wrong with it


def _split_key(source: str | Path) -> tuple[Path, str | None]:
    text = str(source)
    if text in examples.names():
        return examples.path(text), None
    if ".npz:" in text:
        front, _, key = text.rpartition(".npz:")
        return Path(front + ".npz"), key
    return Path(text), None


def _image_keys(path: Path, key: str | None) -> list[str]:
    """Names of the arrays in a .npy (one, "") or .npz file that have 3 or 4 axes; headers only."""
    if path.suffix.lower() == ".npy":
        with open(path, "rb") as file:
            return [""] if len(_header(file)) in (3, 4) else []
    found = []
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            if member.endswith(".npy") and key in (None, name):
                with archive.open(member) as file:
                    if len(_header(file)) in (3, 4):
                        found.append(name)
    return found


def _header(file: Any) -> tuple[int, ...]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(file)[0]


def _is_image_name(name: str) -> bool:
    parts = Path(name).parts
    hidden = any(part.startswith(".") and part != ".." or part == "__MACOSX" for part in parts)
    return bool(parts) and not hidden and Path(name).suffix.lower() in ENDINGS


def _files_in(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and _is_image_name(str(path.relative_to(folder))):
            yield path


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
        array = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
        return _from_array(array, "array", _hash(np.ascontiguousarray(array).tobytes()), rows, seed, size)
    path, key = _split_key(source)
    if path.is_dir():
        files = list(_files_in(path))
        return _from_files([(str(f.relative_to(path)), f) for f in files], path.name, rows, seed, skip_broken, size)
    if path.suffix.lower() == ".zip":
        return _from_zip(path, rows, seed, skip_broken, size)
    keys = _image_keys(path, key)
    if len(keys) > 1:
        raise InputError(f"{path.name}: holds several arrays of images, {', '.join(keys)}; name one, as in {path.name}:{keys[0]}")
    try:
        loaded = np.load(path, allow_pickle=False)
        array = loaded[keys[0]] if path.suffix.lower() == ".npz" else loaded
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path.name}: cannot be read ({type(error).__name__}: {error}); write the file again") from error
    name = path.name if key is None else f"{path.name}:{key}"
    return _from_array(array, name, _hash(path.read_bytes(), (key or "").encode()), rows, seed, size)


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\x1f".join(parts)).hexdigest()


def _from_array(array: np.ndarray, name: str, fingerprint: str, rows: int, seed: int, size: int | None) -> Pictures:
    if array.dtype.kind not in "uifb":
        raise InputError(f"{name}: images of dtype {array.dtype}, expected whole or real numbers; convert the array")
    pixels = _channels_first(array, name)
    if pixels.size == 0:
        raise InputError(f"{name}: the array has shape {array.shape}, so it holds no pixels; give one image or more")
    chosen = _choose(len(pixels), _keep(rows, pixels[0].size), seed)
    pixels = pixels[chosen]
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    if pixels.dtype == np.float16:
        pixels = pixels.astype(np.float32)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(pixels))[0]]
        raise InputError(f"{name}: image {chosen[at[0]]} has a pixel of {pixels[tuple(at)]}, expected finite numbers; mend it")
    if size is not None:
        pixels = np.stack([_resized(image, size) for image in pixels])
    return Pictures(np.ascontiguousarray(pixels), name, len(array), fingerprint)


def _channels_first(array: np.ndarray, name: str) -> np.ndarray:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4 and array.shape[3] in (1, 3):
        return array.transpose(0, 3, 1, 2)
    if array.ndim == 4 and array.shape[1] in (1, 3):
        return array
    raise InputError(
        f"{name}: an array of shape {array.shape}, expected images (n, H, W), (n, H, W, 1 or 3) or (n, 1 or 3, H, W); reshape it"
    )


def _keep(rows: int, values: int) -> int:
    return min(rows, max(1, MOST_VALUES // max(values, 1)))


def _choose(total: int, keep: int, seed: int) -> np.ndarray:
    if total <= keep:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, keep, replace=False))


def _from_zip(path: Path, rows: int, seed: int, skip_broken: bool, size: int | None) -> Pictures:
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted((m for m in archive.infolist() if _is_image_name(m.filename)), key=lambda m: m.filename)
            files = [(m.filename, (archive, m)) for m in members]
            return _from_files(files, path.name, rows, seed, skip_broken, size)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path.name}: not a readable zip ({error}); pack it again") from error


def _bytes_of(where: Any) -> bytes:
    if isinstance(where, Path):
        return where.read_bytes()
    archive, member = where
    if member.flag_bits & 1:
        raise ValueError("it is encrypted")
    if member.file_size > 4 * MOST_IN_ONE:
        raise ValueError(f"it unpacks to {member.file_size:,} bytes")
    return archive.read(member)


def _from_files(
    files: Sequence[tuple[str, Any]], name: str, rows: int, seed: int, skip_broken: bool, size: int | None
) -> Pictures:
    if not files:
        raise InputError(f"{name}: no image files in it (png, jpg, bmp, gif, webp, tif); give a folder that holds some")
    digest = hashlib.sha256(str(size).encode())
    images: list[np.ndarray] = []
    names: list[str] = []
    skipped: list[str] = []
    for index in _choose(len(files), rows, seed):
        label, where = files[index]
        try:
            content = _bytes_of(where)
            image = _decoded(content)
        except BROKEN as error:
            reason = f"{label}: {_reason(error)}"
            if not skip_broken:
                raise InputError(f"{name}: {reason}; repair or remove it, or leave such files out with --skip-broken") from error
            skipped.append(reason)
            continue
        digest.update(label.encode() + hashlib.sha256(content).digest())
        image = image if size is None else _resized(image, size)
        if images and image.shape[1:] != images[0].shape[1:]:
            first, second = ("{1}×{0}".format(*i.shape[1:]) for i in (images[0], image))
            raise InputError(
                f"{name}: {names[0]} has {first} pixels and {label} has {second}, expected one size; "
                "resize them with --size N, which makes all N×N"
            )
        images.append(image)
        names.append(label)
        if len(images) * image.size * (3 // image.shape[0]) > MOST_VALUES:
            raise InputError(f"{name}: more than {MOST_VALUES:,} values in all; give fewer images, or smaller ones with --size N")
    if not images:
        raise InputError(f"{name}: none of its {len(files):,} image files can be read ({skipped[0]}); repair them")
    if len({len(image) for image in images}) > 1:
        images = [np.repeat(image, 3, 0) if len(image) == 1 else image for image in images]
    if len({image.dtype for image in images}) > 1:
        raise InputError(f"{name}: files of 8 and of 16 bits are mixed, expected one depth; convert them")
    return Pictures(np.stack(images), name, len(files), digest.hexdigest(), tuple(skipped))


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 120 else text[:117] + "…"


def _decoded(content: bytes) -> np.ndarray:
    """(1 or 3, H, W) uint8, or (1, H, W) uint16 of 16-bit grey."""
    if not content:
        raise ValueError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height * 3 > MOST_IN_ONE:
                raise ValueError(f"{image.width}×{image.height} pixels are more than one image may have")
            image.load()
            if image.mode in ("I;16", "I;16B", "I;16L", "I"):
                return np.asarray(image, dtype=np.uint16)[None]
            if image.mode in ("1", "L", "F"):
                return np.asarray(image.convert("L"))[None]
            if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
                clear = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
            rgb = np.asarray(image.convert("RGB"))
            return rgb.transpose(2, 0, 1)


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    """(C, H, W) → (C, size, size), in the same levels."""
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC, reducing_gap=None)
        for plane in image
    ]
    resized = np.stack([np.asarray(plane) for plane in planes])
    if image.dtype.kind == "f":
        return resized.clip(image.min(), image.max()).astype(image.dtype)
    top = 255 if image.dtype == np.uint8 else np.iinfo(image.dtype).max
    return resized.round().clip(0, top).astype(image.dtype)


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

    def encode(self, data: np.ndarray | Tensor, *, name: str = "data") -> Tensor:
        """Images in any understood layout → (n, C, H, W) float64. Raises InputError on another size or other levels."""
        array = data.detach().cpu().numpy() if isinstance(data, Tensor) else np.asarray(data)
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
    if x.dtype.kind in "ui":
        low, high, step = min(0.0, low), 255.0 if x.dtype == np.uint8 and high > 16 else high, 1.0
    else:
        step = _step_of(x, low, high)
    return ImageSchema(channels, height, width, low, high, step, x.dtype.str[1:] if x.dtype.kind != "b" else "u1")


def _step_of(x: np.ndarray, low: float, high: float) -> float:
    """1/m if all floats are whole multiples of it in their own precision, else 0."""
    values = np.unique(x.ravel()[:1_000_000])
    if len(values) > MOST_STEPS:
        return 0.0
    apart = float(np.diff(values.astype(np.float64)).min())
    m = round(1 / apart) if 0 < apart <= 1 else 0
    if not 1 <= m <= MOST_STEPS or (high - low) * m > MOST_STEPS:
        return 0.0
    unique = np.unique(x)
    whole = np.rint(unique.astype(np.float64) * m)
    return 1 / m if (np.abs(whole / m - unique) <= 4 * np.finfo(x.dtype).eps * max(abs(low), abs(high))).all() else 0.0


# ----------------------------------------------------------------------------------------------------------- writing


def write_images(images: np.ndarray, path: str | Path) -> None:
    """(n, H, W) or (n, H, W, 3) → .npz (key "images") or .npy, exactly; a .zip or a folder of PNGs, 00001.png and so on.

    All of it or nothing: what was there is replaced when everything is written. PNGs of uint8 that reaches beyond 16 keep
    their levels; any others are stretched to 0 … 255. Raises InputError where the folder to write to is not there, where one
    of PNGs holds anything else, and where the disk refuses.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}; make it first")
    kind = target.suffix.lower()
    if kind not in (".npz", ".npy", ".zip"):
        check_folder(target)
        with drafted(target) as draft:
            draft.mkdir()
            for name, content in _as_pngs(images):
                (draft / name).write_bytes(content)
        return
    with drafted(target) as draft, draft.open("wb") as file:
        if kind == ".npz":
            np.savez_compressed(file, images=images)
        elif kind == ".npy":
            np.save(file, images, allow_pickle=False)
        else:
            with zipfile.ZipFile(file, "w") as archive:
                for name, content in _as_pngs(images):
                    archive.writestr(name, content)


def check_folder(path: Path) -> None:
    """InputError where a folder of images cannot take the place of what is there: it is replaced as a whole."""
    there = {p.name for p in path.iterdir()} if path.is_dir() else set()
    if there != {_png_name(i) for i in range(1, len(there) + 1)}:
        raise InputError(f"{path}: the folder holds other files than images written here, which would be lost; give another")


def _png_name(i: int) -> str:
    return f"{i:05d}.png"


def _as_pngs(images: np.ndarray) -> Iterator[tuple[str, bytes]]:
    levels = images
    if images.dtype != np.uint8 or images.max() <= 16:
        low, high = float(images.min()), float(images.max())
        levels = np.rint((images.astype(np.float64) - low) * (255 / max(high - low, 1e-300))).astype(np.uint8)
    for i, image in enumerate(levels, 1):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        yield _png_name(i), buffer.getvalue()
