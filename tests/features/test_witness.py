"""MMD² of what boosted trees make of rows: 0 of equal laws, and far from 0 where a kernel on columns sees nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mixtura.contracts import Column, Space
from mixtura.features.space import plain_features
from mixtura.features.witness import TreeFeatures
from mixtura.ground.encode import Columns
from mixtura.ground.kernels import Gaussian, median_bandwidth, sums
from mixtura.ground.rng import generator

SPACE = Space.table([Column("levels", levels=12), Column("levels", levels=12, missing=True), Column(resolution=0.5)])


def linked(n, seed, noise):
    """Two columns of 12 levels, the second a function of the first but for a share ``noise`` of the rows, and one of numbers in
    steps. A kernel on one column at a time sees no difference between shares of noise."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 12, n)
    b = np.where(rng.random(n) < noise, rng.integers(0, 12, n), (5 * a) % 12).astype(float)
    b[rng.random(n) < 0.1] = np.nan
    return torch.tensor(np.stack([a, b, (100 + 3 * rng.normal(size=n) * 2).round() / 2], 1))


def apart(features, kernel, sets, real):
    found = sums([*map(features, sets), features(real)], kernel)
    return [found.mmd2(corner, len(sets)) for corner in np.eye(len(sets))]


def test_trees_see_what_a_kernel_on_columns_does_not():
    learnt = [linked(800, seed, noise) for seed, noise in ((1, 0.0), (2, 0.0), (3, 0.25))]
    fresh = [linked(1_000, seed, noise) for seed, noise in ((4, 0.0), (5, 0.25))]
    trees = TreeFeatures(SPACE, learnt[0], learnt[1:], generator(0))
    real = linked(1_000, 6, 0.0)
    same, noisy = apart(trees, trees.kernel(real, generator(1)), fresh, real)
    assert abs(same.value) < 3 * same.error and noisy.value > 4 * noisy.error
    columns = Columns(SPACE)
    columns.prepare(real)
    kernel = Gaussian(median_bandwidth(plain_features(real, columns), generator(1)))
    _, blind = apart(lambda x: plain_features(x, columns).float(), kernel, fresh, real)
    assert noisy.value / noisy.error > 2 * blind.value / blind.error


def test_the_features_are_probabilities_of_where_a_row_came_from():
    sets = [torch.full((40, 1), value, dtype=torch.float64) + torch.rand(40, 1, dtype=torch.float64) for value in (0.0, 5.0, 9.0)]
    trees = TreeFeatures(Space.continuous(1), sets[0], sets[1:], generator(0))
    found = trees(torch.tensor([[0.5], [5.5], [9.5]], dtype=torch.float64))
    assert found.shape == (3, 3) and found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), torch.ones(3))
    assert found.argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("odd", [-1.0, 12.0, 3.5, 400.0, torch.nan])
def test_levels_that_no_real_row_has_are_no_error(odd):
    learnt = [linked(60, seed, 0.1) for seed in range(2)]
    trees = TreeFeatures(SPACE, learnt[0], learnt[1:], generator(0))
    row = linked(1, 9, 0.0)
    row[0, 0] = odd
    assert trees(row).isfinite().all()


def test_a_column_of_many_levels_is_taken_as_numbers():
    space = Space.table([Column("levels", levels=1_000)])
    learnt = [torch.randint(1_000, (200, 1), generator=generator(seed)).double() for seed in range(2)]
    assert TreeFeatures(space, learnt[0], learnt[1:], generator(0))(learnt[0]).shape == (200, 2)


def test_a_column_without_a_value_tells_nothing():
    space = Space.table([Column(missing=True), Column()])
    rows = torch.stack([torch.full((120,), torch.nan), torch.rand(120, generator=generator(0))], 1).double()
    sets = rows.split(60)
    trees = TreeFeatures(space, sets[0], sets[1:], generator(0))
    assert trees(torch.tensor([[4.0, 0.5]], dtype=torch.float64)).isfinite().all()
