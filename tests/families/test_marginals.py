"""Marginals: smoothed frequencies, and finite nats for every row."""

from __future__ import annotations

import math

import pytest
import torch

from mixtura.contracts import Column, Space
from mixtura.families import marginals
from mixtura.ground.rng import generator

torch.set_num_threads(1)


def fitted(space, x):
    model = marginals.build(space, config=marginals.Config(), rng=generator(0))
    model.fit_closed(x, None, generator(1))
    return model


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_levels_have_laplace_frequencies_beside_the_unseen():
    model = fitted(Space.table((Column("levels", 3, missing=True),)), rows(0, 0, 0, 1, 1, math.nan))
    seen = 6 / 7
    want = [seen * 4 / 10, seen * 3 / 10, seen * 1 / 10, seen * 2 / 10, 1 / 7, 1 / 7]
    got = model.log_prob(rows(0, 1, 2, math.nan, 3, 40)).exp()
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))


def test_columns_are_independent():
    x = torch.randn(200, 3, generator=generator(2), dtype=torch.float64)
    space = Space.continuous(3)
    alone = sum(fitted(Space.continuous(1), x[:, [j]]).log_prob(x[:, [j]]).mean() for j in range(3))
    assert float(fitted(space, x).log_prob(x).mean()) == pytest.approx(float(alone), abs=0.1)


def test_all_lattice_points_inside_and_out_weigh_no_more_than_one():
    """Beyond the support the mass falls off; with what is inside it must not exceed 1."""
    x = torch.randint(0, 10, (50, 1), generator=generator(3)).double()
    model = fitted(Space.table((Column(resolution=1.0, low=0, high=9),)), x)
    everything = model.log_prob(torch.arange(-500, 500, dtype=torch.float64)[:, None]).exp()
    assert 0.95 < float(everything.sum()) <= 1 + 1e-9
    assert (everything[510:600].diff() < 0).all() and (everything[400:500].diff() > 0).all()


@pytest.mark.parametrize("x", [-1e12, -1.0, 0.0, 10.0, 1e12])
@pytest.mark.parametrize(
    "column",
    [
        Column(),
        Column(low=0.01),
        Column(resolution=1.0, low=0, high=9),
        Column(resolution=1.0, low=0),
        Column(atoms=(3.0,), missing=True),
    ],
    ids=["plain", "positive", "whole", "whole, no top", "atom, gaps"],
)
def test_no_finite_row_is_impossible(x, column):
    """Nor where the fit rows are skewed enough for a logarithm, which ends at zero."""
    data = torch.randn(60, 1, generator=generator(4), dtype=torch.float64).mul(2).exp()
    data = 1 + data.round().clamp(0, 8) if column.resolution else 0.01 + data
    model = fitted(Space.table((column,)), data)
    assert torch.isfinite(model.log_prob(rows(x))).all()
