"""Rounding: what another processor, batch size or memory layout may change, and nothing else.

As a plugin (``pytest -p rounding``, one of the settings of ``portable.py``) it stands for a machine that rounds in another
way: results of products, sums and transcendental functions move by the last bit, up, down or not, decided by the shapes and
the layout of what went in. The same call has the same bits; the same rows in another batch or layout do not.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = "mm addmm bmm baddbmm mv addmv dot convolution convolution_backward mkldnn_convolution"
SUMS = "sum mean var std logsumexp _softmax _log_softmax linalg_vector_norm"
FUNCTIONS = "exp log log1p tanh sigmoid erf softplus gelu silu"
ROUNDED = {f"aten::{name}" for name in f"{PRODUCTS} {SUMS} {FUNCTIONS}".split()}


def assert_same_rows(ours: Any, theirs: Any) -> None:
    """Rows (n, …) of numbers, arrays or frames that are the same up to float32 rounding: entries within 1e-4 of the spread of
    their column, labels equal. Where a rounding falls on an edge (of a cell of a rounded column, between two categories) a
    row is another one altogether: one in a hundred may be, and at least one."""
    left, right = (_table(rows) for rows in (ours, theirs))
    assert left.shape == right.shape and list(left) == list(right), f"{left.shape} and {right.shape}"
    other = np.zeros(len(left), dtype=bool)
    for name in left:
        a, b = left[name], right[name]
        if pd.api.types.is_numeric_dtype(a):
            x, y = (c.to_numpy(dtype=np.float64, na_value=np.nan) for c in (a, b))
            spread = np.nanstd(x) if np.isfinite(x).any() else 0.0
            other |= ~np.isclose(x, y, rtol=1e-7, atol=1e-4 * spread, equal_nan=True)
        else:
            other |= ~((a == b) | (a.isna() & b.isna())).to_numpy(dtype=bool)
    assert other.sum() <= max(1, len(other) // 100), f"{other.sum()} of {len(other)} rows differ, first row {other.argmax()}"


def _table(rows: Any) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        return rows.reset_index(drop=True).infer_objects()
    values = np.asarray(rows.detach() if isinstance(rows, Tensor) else rows)
    return pd.DataFrame(values.reshape(len(values), -1))


class AnotherRounding(TorchDispatchMode):
    """Within it, the operations of ``ROUNDED`` differ from those of this machine in the last bit."""

    moved = 0  # numbers, in all

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._schema.name not in ROUNDED or "out" in (kwargs or {}):
            return out
        inputs = [(a.shape, a.stride()) for a in args if isinstance(a, Tensor) and a.layout == torch.strided]
        rng = torch.Generator().manual_seed(zlib.crc32(repr((func._schema.name, inputs)).encode()))
        return tuple(self._move(o, rng) for o in out) if isinstance(out, tuple) else self._move(out, rng)

    @classmethod
    def _move(cls, out: Any, rng: torch.Generator) -> Any:
        if not isinstance(out, Tensor) or out.dtype not in (torch.float32, torch.float64) or out.device.type != "cpu":
            return out
        sign = torch.randint(-1, 2, out.shape, generator=rng).to(out.dtype)
        # short binary fractions (counts, 0, 1) are exact in every order of summation
        moves = torch.isfinite(out) & ((out * 1024).round() != out * 1024) & (sign != 0)
        cls.moved += int(moves.sum())
        return torch.where(moves, out + sign * torch.finfo(out.dtype).eps * out, out)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    with AnotherRounding():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, Any, Any]:
    with AnotherRounding():
        return (yield)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"another rounding: {AnotherRounding.moved:,} numbers were moved by their last bit")
