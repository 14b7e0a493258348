"""Linear regression against least squares, enumeration and the distribution of the data."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from mixtura.contracts import Column, InputError, Space
from mixtura.families import linear_gaussian
from mixtura.ground.rng import generator

torch.set_num_threads(1)


def fitted(space, x, context=None, **settings):
    shape = None if context is None else tuple(context.shape[1:])
    model = linear_gaussian.build(space, context_shape=shape, config=linear_gaussian.Config(**settings), rng=generator(0))
    model.fit_closed(x, context, generator(1))
    return model


def plane(n, seed=0):
    """y = (100, 50) + A c + correlated noise of deviation 3 and 1; c (n, 3) of mean 10."""
    rng = generator(seed)
    c = 10 + 2 * torch.randn(n, 3, generator=rng, dtype=torch.float64)
    A = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]], dtype=torch.float64)
    root = torch.tensor([[3.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    return c, torch.tensor([100.0, 50.0]) + c @ A.T + torch.randn(n, 2, generator=rng, dtype=torch.float64) @ root.T, A, root


def test_it_is_least_squares_of_all_targets_with_a_full_residual_covariance():
    c, y, _, _ = plane(3000)
    design = torch.cat([torch.ones(3000, 1), c], 1)
    coefficients = torch.linalg.lstsq(design, y).solution
    residual = y - design @ coefficients
    law = MultivariateNormal(design @ coefficients, residual.T @ residual / 3000)
    found = fitted(Space.continuous(2), y, c, ridges=(1e-9,)).log_prob(y, context=c)
    # variances are those of left-out rows, (n + p)/(n − p) wider
    torch.testing.assert_close(found, law.log_prob(y), atol=0.03, rtol=0)
    assert float(found.mean() - law.log_prob(y).mean()) == pytest.approx(0, abs=1e-4)


def test_the_law_of_a_line_is_found():
    c, y, A, root = plane(3000)
    unseen = plane(5000, seed=1)
    truth = MultivariateNormal(torch.tensor([100.0, 50.0]) + unseen[0] @ A.T, root @ root.T).log_prob(unseen[1])
    loss = truth - fitted(Space.continuous(2), y, c).log_prob(unseen[1], context=unseen[0])
    assert 0 < float(loss.mean()) < 0.01  # 11 numbers learnt from 3,000 rows cost 11 / 6,000


def test_samples_keep_the_covariance_given_the_context():
    c, y, A, root = plane(3000)
    here = torch.tensor([[10.0, 8.0, 12.0]], dtype=torch.float64)
    x = fitted(Space.continuous(2), y, c).sample(20_000, context=here.expand(20_000, -1), rng=generator(3))
    torch.testing.assert_close(x.mean(0), torch.tensor([100.0, 50.0]) + (here @ A.T)[0], atol=0.35, rtol=0)
    torch.testing.assert_close(torch.cov(x.T), root @ root.T, atol=0.5, rtol=0)


def test_without_a_context_it_is_a_gaussian():
    x = torch.randn(2000, 2, generator=generator(2), dtype=torch.float64) @ torch.tensor([[3.0, 2.0], [0.0, 1.0]]).double() + 100
    found = fitted(Space.continuous(2), x).log_prob(x)
    torch.testing.assert_close(found, MultivariateNormal(x.mean(0), torch.cov(x.T)).log_prob(x), atol=0.03, rtol=0)


@pytest.mark.parametrize("noise", [1e-3, 1.0])
def test_more_inputs_than_rows_are_shrunk_not_believed(noise):
    """40 inputs, 30 rows, one input that matters: unseen rows get what leave-one-out promised."""
    rng = generator(5)
    c = torch.randn(2030, 40, generator=rng, dtype=torch.float64)
    y = 100 + 3 * (c[:, :1] + noise * torch.randn(2030, 1, generator=rng, dtype=torch.float64))
    model = fitted(Space.continuous(1), y[:30], c[:30])
    nats = model.log_prob(y[30:], context=c[30:])
    alone = Normal(float(y[:30].mean()), float(y[:30].std())).log_prob(y[30:, 0])
    assert float(nats.mean()) > float(alone.mean()) - 0.3


def test_a_rounded_line_has_the_mass_of_its_cells():
    rng = generator(6)
    c = torch.randn(4000, 1, generator=rng, dtype=torch.float64)
    y = (100 + 3 * c + 2 * torch.randn(4000, 1, generator=rng, dtype=torch.float64)).round().clamp(90, 110)
    space = Space.table((Column(resolution=1.0, low=90, high=110),))
    model = fitted(space, y, c)
    cells = torch.arange(90.0, 111.0, dtype=torch.float64)[:, None]
    mass = model.log_prob(cells, context=torch.full((21, 1), 0.5)).exp()
    law = Normal(101.5, 2.0)
    edges = torch.cat([torch.tensor([-1e9]), torch.arange(90.5, 110), torch.tensor([1e9])])
    assert float(mass.sum()) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(mass, law.cdf(edges).diff().double(), atol=0.01, rtol=0)


MIXED = Space.table(
    (
        Column("levels", 3, missing=True),
        Column(resolution=1.0, low=0, high=6, atoms=(0.0,)),
        Column(resolution=0.5, low=0, high=2, missing=True),
        Column("levels", 2),
    )
)


def mixed(n, seed=0):
    rng = generator(seed)
    c = torch.randn(n, 1, generator=rng, dtype=torch.float64)
    kind = (c[:, 0] + torch.randn(n, generator=rng)).round().clamp(-1, 1) + 1
    count = (3 + kind - 1 + torch.randn(n, generator=rng)).round().clamp(0, 6)
    count = count.masked_fill(torch.rand(n, generator=rng) < 0.3, 0)
    half = (1 + 0.3 * c[:, 0] + 0.4 * torch.randn(n, generator=rng)).div(0.5).round().mul(0.5).clamp(0, 2)
    half = half.masked_fill(torch.rand(n, generator=rng) < 0.2, math.nan)
    last = (torch.rand(n, generator=rng) < torch.sigmoid(2 * (count - 2))).double()
    return c, torch.stack([kind.masked_fill(torch.rand(n, generator=rng) < 0.1, math.nan), count, half, last.double()], 1)


def test_every_cell_of_a_mixed_table_is_drawn_as_often_as_it_weighs():
    c, x = mixed(1000)
    model = fitted(MIXED, x, c)
    listed = torch.tensor([*itertools.product([0, 1, 2, math.nan], range(7), [0, 0.5, 1, 1.5, 2, math.nan], [0, 1])]).double()
    # only a value that is there is measured by its step
    volume = torch.where(torch.isnan(listed[:, 2]), 1.0, 0.5)
    mass = model.log_prob(listed, context=torch.full((len(listed), 1), 0.4)).exp() * volume
    assert float(mass.sum()) == pytest.approx(1, abs=1e-9)
    n = 20_000
    drawn = model.sample(n, context=torch.full((n, 1), 0.4), rng=generator(4))
    where = {tuple(row): i for i, row in enumerate(listed.nan_to_num(-1).tolist())}
    share = torch.bincount(torch.tensor([where[tuple(row)] for row in drawn.nan_to_num(-1).tolist()]), minlength=len(listed)) / n
    assert ((share - mass).abs() < 5 * (mass * (1 - mass) / n).sqrt() + 5 / n).all()


def test_codes_follow_the_context_and_the_columns_before():
    (c, x), unseen = mixed(3000), mixed(2000, seed=9)
    nats = fitted(MIXED, x, c).log_prob(unseen[1], context=unseen[0])
    alone = fitted(MIXED, x).log_prob(unseen[1])
    gain = nats - alone
    assert float(gain.mean()) > 0.2 > 5 * float(gain.std()) / math.sqrt(2000)


def test_a_level_that_no_row_has_keeps_a_pseudo_row():
    x = torch.tensor([[0.0], [1.0]]).repeat(50, 1).double()
    model = fitted(Space.levels(1, levels=3), x, torch.zeros(100, 1))
    found = model.log_prob(torch.arange(3.0)[:, None], context=torch.zeros(3, 1)).exp()
    np.testing.assert_allclose(found, [51 / 103, 51 / 103, 1 / 103], rtol=1e-3)


def test_units_do_not_matter():
    c, y, _, _ = plane(500)
    one = fitted(Space.continuous(2), y, c).log_prob(y, context=c)
    moved = fitted(Space.continuous(2), 1e6 * y - 3e8, 1e-4 * c + 7).log_prob(1e6 * y - 3e8, context=1e-4 * c + 7)
    torch.testing.assert_close(moved + 2 * math.log(1e6), one, atol=1e-5, rtol=0)


def test_too_wide_a_row_is_refused():
    with pytest.raises(InputError, match="linear_gaussian: 129 columns"):
        linear_gaussian.build(Space.continuous(129), config=linear_gaussian.Config(), rng=generator(0))
