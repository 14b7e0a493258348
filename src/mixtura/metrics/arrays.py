"""Checks and conversions of the arrays that metrics take."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mixtura.contracts import InputError

#: range of numbers whose sixth power (the cubic kernel of two rows) and its square (for the error) fit float64
LEAST, MOST = 1e-25, 1e25
#: range in which float32 rows stay float32: the sixth power fits float32 (errors are computed in float64)
LEAST_SINGLE, MOST_SINGLE = 1e-5, 1e5


def numbers(x: ArrayLike | Tensor, name: str) -> NDArray[np.floating]:
    """``x`` as an array on the CPU: float32 stays, all else becomes float64. Raises InputError if it does not hold numbers."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    try:
        array: NDArray[Any] = np.asarray(x)
        array = array.astype(np.float64) if array.dtype.kind == "O" else array
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected an array of numbers, got other values ({error}); encode them as numbers") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected an array of numbers, got {array.dtype}; encode it as numbers")
    return array if array.dtype == np.float32 else array.astype(np.float64)


def rows(x: ArrayLike | Tensor, name: str) -> Tensor:
    """``x`` as a contiguous CPU tensor (n, d): float32 stays if products of its numbers fit float32, all else becomes float64.
    Raises InputError if it is not (rows, features) of finite numbers, with at least one of each, between ``LEAST`` and
    ``MOST``."""
    array = torch.from_numpy(np.ascontiguousarray(numbers(x, name)))
    if array.dim() != 2 or array.numel() == 0:
        raise InputError(
            f"{name}: expected shape (rows, features) with one of each or more, got {tuple(array.shape)}; "
            "flatten each row to features"
        )
    bad = (~torch.isfinite(array)).nonzero()
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise InputError(
            f"{name}: row {row}, column {column} is {float(array[row, column])}, expected a finite number; "
            "encode missing values first"
        )
    largest = float(array.abs().max())
    if largest != 0 and not LEAST <= largest <= MOST:
        raise InputError(
            f"{name}: the largest number is {largest:.3g}, expected between {LEAST:g} and {MOST:g}, where products of features "
            "neither overflow nor vanish; standardise the features"
        )
    return array if largest == 0 or LEAST_SINGLE <= largest <= MOST_SINGLE else array.double()


def pair(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, least: int = 1) -> tuple[Tensor, Tensor]:
    """Both sets as :func:`rows`, with the same number of features and one dtype. Raises InputError on fewer than ``least``
    rows."""
    x, y = rows(real, "real"), rows(generated, "generated")
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"generated: expected {x.shape[1]} features as in real, got {y.shape[1]}; give the same features of each"
        )
    for name, part in (("real", x), ("generated", y)):
        if len(part) < least:
            raise InputError(f"{name}: expected {least} rows or more, got {len(part)}; give more rows")
    return (x, y) if x.dtype == y.dtype else (x.double(), y.double())
