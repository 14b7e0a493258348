"""What every metric on rows of features asks of its arrays."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mixtura.contracts import InputError


def rows(x: ArrayLike | Tensor, name: str) -> Tensor:
    """``x`` as a contiguous CPU tensor (n, d), float32 if it was, else float64; InputError if it is not (rows, features)
    of finite numbers, with one of each or more."""
    array = torch.as_tensor(x if isinstance(x, Tensor) else np.ascontiguousarray(x)).detach().cpu()
    if array.dim() != 2 or array.numel() == 0 or array.is_complex():
        raise InputError(
            f"{name}: expected shape (rows, features) with one of each or more, got {tuple(array.shape)}; "
            "flatten each row to features"
        )
    array = array.contiguous() if array.dtype == torch.float32 else array.to(torch.float64).contiguous()
    bad = (~torch.isfinite(array)).nonzero()
    if len(bad):
        row, column = (int(i) for i in bad[0])
        raise InputError(
            f"{name}: row {row}, column {column} is {float(array[row, column])}, expected a finite number; "
            "encode missing values first"
        )
    return array


def pair(real: ArrayLike | Tensor, generated: ArrayLike | Tensor, *, least: int = 1) -> tuple[Tensor, Tensor]:
    """Both sets as :func:`rows` with one number of features, one dtype, and ``least`` rows or more in each."""
    x, y = rows(real, "real"), rows(generated, "generated")
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"generated: expected {x.shape[1]} features as in real, got {y.shape[1]}; give the same features of each"
        )
    for name, part in (("real", x), ("generated", y)):
        if len(part) < least:
            raise InputError(f"{name}: expected {least} rows or more, got {len(part)}; give more rows")
    return (x, y) if x.dtype == y.dtype else (x.double(), y.double())
