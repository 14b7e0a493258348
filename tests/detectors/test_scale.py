"""Scale: units, rare levels, gaps and levels never seen."""

from __future__ import annotations

import math

import pytest
import torch

from mixtura.contracts import Column, Space
from mixtura.detectors.scale import FURTHEST, Scale


def space(*columns: Column) -> Space:
    return Space((len(columns),), columns)


def rows(*columns) -> torch.Tensor:
    return torch.tensor(list(zip(*columns, strict=True)), dtype=torch.float64)


def test_numbers_are_standardised_whatever_recurs():
    x = 100 + 3 * torch.randn(500, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:200] = 101.0
    found = Scale(space(Column(atoms=(101.0,), resolution=0.5)), x)(x)
    assert found.shape == (500, 1) and torch.allclose(found[:, 0], (x[:, 0] - x.mean()) / x.std(correction=0))


def test_two_levels_count_as_one_standardised_number():
    codes = torch.tensor([0.0] * 90 + [1.0] * 10, dtype=torch.float64)[:, None]
    found = Scale(space(Column("levels", levels=2)), codes)(codes)
    assert float((found[0] - found[-1]).norm()) == pytest.approx(1 / math.sqrt(0.9 * 0.1))


def test_a_rarer_level_is_further_and_one_never_seen_as_far_as_one_seen_once():
    column = Column("levels", levels=4, unseen=0.01)
    x = torch.tensor([0.0] * 60 + [1.0] * 38 + [2.0, 3.0], dtype=torch.float64)[:, None]
    scale = Scale(space(column), x)
    common, second, once, new = scale(torch.tensor([[0.0], [1.0], [2.0], [4.0]], dtype=torch.float64))
    assert (common - once).norm() > (common - second).norm()
    assert float(new.square().sum()) == pytest.approx(1 / (2 * 0.02 * 0.98))  # two of a hundred levels were seen once


def test_a_gap_is_a_level_beside_the_mean():
    x = rows([1.0, 2.0, 3.0, math.nan])
    found = Scale(space(Column(missing=True)), x)(x)
    assert found.shape == (4, 3) and found[3, 0] == 0
    assert float((found[3, 1:] - found[0, 1:]).norm()) == pytest.approx(1 / math.sqrt(0.75 * 0.25))


def test_a_column_that_never_varied_has_a_unit_and_far_is_far():
    scale = Scale(space(Column(), Column(resolution=0.5)), rows([5.0] * 4, [2.0] * 4))
    found = scale(torch.tensor([[5.0, 2.0], [10.0, 3.0], [1e300, -1e300]], dtype=torch.float64))
    assert found.tolist() == [[0, 0], [1, 2], [FURTHEST, -FURTHEST]]
