"""Images as arrays: their layouts, their levels, how many are kept, resizing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mixtura.contracts import InputError
from mixtura.data import dtypes

#: pixels and channels kept in all, and in one image
MOST_VALUES, MOST_IN_ONE = 200_000_000, 50_000_000

#: float64 tells whole numbers apart up to here
MOST_WHOLE = 2**53

#: uint8 that stays within 0 … this has so many levels, not 256
FEW_LEVELS = 16


@dataclass(frozen=True)
class HowImages:
    """How images are read: at most so many ``rows``, chosen by ``seed``; whether files that cannot be read are left out; the side
    in pixels to which they are resized, None to leave them as they are."""

    rows: int
    seed: int
    skip_broken: bool
    size: int | None


@dataclass(frozen=True)
class Images:
    """Images that were read. pixels: (n, C, H, W) in the levels and dtype of the file. rows_total: how many there were.
    skipped: "file: why" for each that was left out, and a line on pages and frames beyond the first."""

    pixels: np.ndarray
    name: str
    rows_total: int
    fingerprint: str
    skipped: tuple[str, ...] = ()


def images_of_array(
    shape: tuple[int, ...], dtype: np.dtype, take: Callable[[np.ndarray], np.ndarray], name: str, fingerprint: str,
    how: HowImages,
) -> Images:  # fmt: skip
    """Images of an array of this shape and dtype, of which ``take`` gives those at sorted positions. InputError for other axes
    and for pixels that are no finite numbers which float64 holds."""
    if dtype.kind not in "uifb":
        raise InputError(f"{name}: images of dtype {dtype}, expected whole or real numbers; convert the array")
    if math.prod(shape) == 0:
        raise InputError(f"{name}: the array has shape {shape}, so it holds no pixels; give one image or more")
    _check_axes(shape, name)
    chosen = even_sample(shape[0], min(how.rows, max(1, MOST_VALUES // max(math.prod(shape[1:]), 1))), how.seed)
    pixels = dtypes.native(channels_first(take(chosen), name))
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
    if how.size is not None:
        pixels = np.stack([resized(image, how.size) for image in pixels])
    return Images(np.ascontiguousarray(pixels), name, shape[0], fingerprint)


def _check_axes(shape: tuple[int, ...], name: str) -> None:
    if not (len(shape) == 3 or len(shape) == 4 and (shape[3] in (1, 3) or shape[1] in (1, 3))):
        raise InputError(
            f"{name}: an array of shape {shape}, expected images (n, H, W), (n, H, W, 1 or 3) or (n, 1 or 3, H, W); reshape it"
        )


def channels_first(array: np.ndarray, name: str) -> np.ndarray:
    """Images in any understood layout as (n, C, H, W)."""
    _check_axes(array.shape, name)
    if array.ndim == 3:
        return array[:, None]
    return array.transpose(0, 3, 1, 2) if array.shape[3] in (1, 3) else array


def even_sample(total: int, keep: int, seed: int) -> np.ndarray:
    """Sorted positions of ``keep`` of ``total`` images, chosen at random."""
    if total <= keep:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, keep, replace=False))


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """(C, H, W) → (C, size, size), in the same levels."""
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC, reducing_gap=None)
        for plane in image
    ]
    resized = np.stack([np.asarray(plane) for plane in planes])
    if image.dtype.kind == "f":
        return resized.clip(image.min(), image.max()).astype(image.dtype)
    # overshoot at edges is clipped to the depth, or to the few levels, of the image
    full = image.dtype in (np.uint8, np.uint16) and image.max() > FEW_LEVELS
    low, high = (0, np.iinfo(image.dtype).max) if full else (int(image.min()), int(image.max()))
    return resized.astype(np.float64).round().clip(low, high).astype(image.dtype)
