"""What ``make test-portable`` relies on: another rounding moves last bits and no more; rows are told apart by more."""

from __future__ import annotations

import numpy as np
import pandas as pd
import portable
import pytest
import torch
from rounding import AnotherRounding, assert_same_rows

from mixtura.ground.rng import generator

X = torch.randn(40, 7, generator=generator(0))


def rounded_elsewhere(x):
    with AnotherRounding():
        return x @ x.T, x.double() @ x.double().T, x[:9] @ x.T, x @ x.T, torch.arange(8.0).sum()


def test_another_rounding_moves_last_bits_by_shape_and_layout_alone():
    single, double, part, again, counts = rounded_elsewhere(X)
    for ours, theirs in ((single, X @ X.T), (double, X.double() @ X.double().T)):
        assert not torch.equal(ours, theirs)
        torch.testing.assert_close(ours, theirs, rtol=3 * torch.finfo(ours.dtype).eps, atol=1e-6 if ours is single else 1e-15)
    assert torch.equal(single, again) and not torch.equal(part, single[:9])
    assert float(counts) == 28


def test_the_same_rows_are_told_from_others():
    rows = 100 + 3 * X.double()
    assert_same_rows(rows, rows.float())
    frame = pd.DataFrame({"x": rows[:, 0], "kind": ["a", "b"] * 20})
    assert_same_rows(frame, frame.copy())
    for other in (rows + 0.01, rows.flip(0), torch.where(rows > 100, rows, np.nan), rows[:39]):
        with pytest.raises(AssertionError):
            assert_same_rows(rows, other)
    with pytest.raises(AssertionError, match="40 of 40 rows differ"):
        assert_same_rows(frame, frame.assign(kind=["b", "a"] * 20))
    edge = rows.clone()
    edge[3] += 1  # one row on the other side of an edge
    assert_same_rows(rows, edge)
    edge[4] += 1
    with pytest.raises(AssertionError, match="2 of 40 rows differ, first row 3"):
        assert_same_rows(rows, edge)


@pytest.mark.parametrize(
    ("features", "asked"), [(["X86_V3", "X86_V4"], ["X86_V3 X86_V4"] * 2 + ["X86_V4"]), (["A"], ["A", "A"]), ([], [])]
)
def test_numpy_is_asked_to_do_without_what_it_has(features, asked):
    named = [s["NPY_DISABLE_CPU_FEATURES"] for s in portable.settings(features) if "NPY_DISABLE_CPU_FEATURES" in s]
    assert named == asked
