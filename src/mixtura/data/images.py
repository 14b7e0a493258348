"""Images: what their pixels mean, and how they are read and written, (n, C, H, W) in the file's own levels.

Arrays are understood as (n, H, W), (n, H, W, 1 or 3) and (n, 1 or 3, H, W); where both ends could be channels, the last axis is.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from mixtura.contracts import ON_STEPS, Column, InputError, Space
from mixtura.data.files import DOORS
from mixtura.data.files.door import Door
from mixtura.data.files.image_files import fits_png
from mixtura.data.files.pixels import FEW_LEVELS, HowImages, Images, channels_first, images_of_array
from mixtura.data.kind import DataKind, Made
from mixtura.data.memory import to_numpy
from mixtura.data.paths import named_path

#: levels of floats are looked for up to this many steps between lowest and highest
MOST_STEPS = 65_535

#: between the lowest and the highest level: networks and kernels compute in float32
LEAST_SPAN, MOST_SPAN = 1e-12, 1e16


def is_images(source: Any) -> bool:
    """Whether ``source`` names or holds images: decided by names and headers, nothing is decoded. A folder and a .zip are
    read as images or not at all."""
    if isinstance(source, np.ndarray | Tensor):
        return source.ndim in (3, 4)
    if not isinstance(source, str | Path):
        return False
    path, key = named_path(str(source))
    door = _door(path)
    there = path.is_dir() or path.is_file()
    return there and door is not None and door.holds_images is not None and door.holds_images(path, key)


def read_images(
    source: Any, *, rows: int = 50_000, seed: int = 0, skip_broken: bool = False, size: int | None = None, name: str | None = None
) -> Images:
    """Images of a folder, a .zip, a .npy or .npz[:key] file, an example ("digits"), an array or a tensor.

    Of more than ``rows`` images, or 200 million values, an even random sample is kept, in order. ``size`` resizes files to
    size × size pixels (bicubic with antialiasing, a channel at a time in float32, rounded back to levels: Parmar et al. 2022).
    Raises InputError for anything but images of one size. A file that cannot be read is an error that names it; with
    ``skip_broken`` it is left out and listed. ``name``: what an array is called in messages.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise InputError(f"rows: expected a whole number of images to keep, 1 or more, got {rows!r}")
    how = HowImages(rows, seed, skip_broken, size)
    if isinstance(source, np.ndarray | Tensor):
        called = name or "array"
        array = to_numpy(source, called) if isinstance(source, Tensor) else source
        fingerprint = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return images_of_array(array.shape, array.dtype, lambda chosen: array[chosen], called, fingerprint, how)
    path, key = named_path(str(source))
    door = _door(path)
    if door is None or door.read_images is None:
        raise InputError(f"{path.name}: {path.suffix or 'a file without ending'} is not read as images, expected a folder, "
                         ".zip, .npy or .npz; save them as one of these")
    return door.read_images(path, key, how)


def _door(path: Path) -> Door | None:
    return DOORS[""] if path.is_dir() else DOORS.get(path.suffix.lower()) if path.suffix else None


@dataclass(frozen=True)
class ImageSchema(DataKind):
    """What the pixels mean. low … high in steps of ``step`` (0: real numbers without steps); dtype is what the person has."""

    name = "images"
    nouns = "images"
    features = "pca:64"
    pictured = True
    judged_by_samples = True
    fillable = False
    block = 64
    examples = 64
    more = "more.npz"
    gallery_dtype = torch.float32
    held_a_second, least_held, most_held = 5, 100, 1_000
    samples = 0

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
        return ".zip" if fits_png(self.low, self.high, self.step, self.channels) else ".npz"

    def encode(self, data: Any, *, holes: bool = False, name: str = "data") -> Tensor:
        """Images in any understood layout → (n, C, H, W) float64. Raises InputError on another size or other levels."""
        array = to_numpy(data, name) if isinstance(data, Tensor) else np.asarray(data)
        if array.shape[:1] == (0,):
            raise InputError(f"{name}: holds no images; give one or more")
        if array.ndim == 4 and array.shape[1:] == (self.channels, self.height, self.width):
            pixels = array
        else:
            pixels = channels_first(array, name) if array.ndim in (3, 4) else array
        expected = (self.channels, self.height, self.width)
        if pixels.shape[1:] != expected:
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

    def summary(self, n: int) -> str:
        """As :meth:`DataKind.summary`."""
        return f"{n:,} {self.describe()[0]['detail']}"

    def check_output(self, path: Path) -> None:
        """InputError where PNGs are asked for that cannot hold the levels, or a folder that holds something else."""
        door = DOORS.get(path.suffix.lower())
        if door is not None and door.check_images is not None:
            door.check_images(self.low, self.high, self.step, self.channels, path)

    def as_made(self, rows: Any, *, name: str = "data", holes: bool = False) -> Made:
        """As :meth:`DataKind.as_made`: pixels between their levels and beyond them."""
        x, found = self.encode(rows, name=name), []
        if self.step:
            raw = replace(self, step=0.0).encode(rows, name=name)
            x = torch.where((raw - x).abs() > ON_STEPS * (self.step + raw.abs()), raw, x)
            off, half = (x - self.encode(rows, name=name)).abs() > 0, self.step / 2
            beyond = (x < self.low - half) | (x > self.high + half)
            levels = f"{self.low:g}..{self.high:g}"
            for where, said in ((beyond, f"pixels beyond their levels {levels}"), (off, f"pixels between their levels {levels}")):
                if where.any():
                    found.append((said, where.flatten(1).any(1).numpy()))
        return Made.of(x, found)

    def strict(self, rows: Any, *, name: str = "data") -> ImageSchema:
        """Itself: pixels have no constant columns."""
        return self

    def wrong_constant(self, rows: Any, *, name: str = "data") -> None:
        """None: pixels have no constant columns."""


def guess_images(pictures: Images) -> ImageSchema:
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


def write_images(images: np.ndarray, path: str | Path) -> None:
    """(n, H, W) or (n, H, W, 3) → .npz (key "images") or .npy, exactly; a .zip or a folder of PNGs, 00001.png and so on.

    All of it or nothing: what was there is replaced when everything is written. PNGs have the very levels, in 8 bits or, grey
    and beyond 255, in 16. Raises InputError for what a PNG cannot hold, where the folder to write to is not there, where one of
    PNGs holds anything else, and where the disk refuses.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}; make it first")
    door = DOORS.get(target.suffix.lower(), DOORS[""])
    (door.write_images or cast(Any, DOORS[""].write_images))(images, target)
