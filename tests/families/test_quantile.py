"""Quantile forests against scikit-learn, their density against their own quantiles, and both against the truth."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sklearn.ensemble import RandomForestRegressor
from torch.distributions import Normal

from mixtura.contracts import Column, InputError, Space
from mixtura.families import quantile
from mixtura.ground.cells import Parts
from mixtura.ground.rng import generator

torch.set_num_threads(1)
CONFIG = quantile.Config(trees=30)


def fitted(space, x, context, config=CONFIG):
    model = quantile.build(space, context_shape=tuple(context.shape[1:]), config=config, rng=generator(0))
    model.fit_closed(x, context, generator(1))
    return model


def fan(n, seed=0):
    """y = 100 + 6 sin c + noise of deviation 1 + |c|, c in (−3, 3)."""
    rng = generator(seed)
    c = 6 * torch.rand(n, 1, generator=rng, dtype=torch.float64) - 3
    law = Normal(100 + 6 * c.sin(), 1 + c.abs())
    return c, law.mean + law.stddev * torch.randn(n, 1, generator=rng, dtype=torch.float64), law


@cache
def fan_model():
    c, y, _ = fan(3000)
    return fitted(Space.continuous(1), y, c)


# ------------------------------------------------------------------------------------------------- the forest


def test_a_leaf_keeps_the_order_statistics_of_the_targets_that_the_library_sends_to_it():
    rng, config = generator(0), quantile.Config(trees=7, points=4)
    X, new = (torch.randn(n, 3, generator=rng, dtype=torch.float64) for n in (500, 200))
    y, seed = torch.randn(500, generator=rng, dtype=torch.float64), int(torch.randint(2**31, (), generator=generator(1)))
    forest, leaves, unseen = quantile._grow(X, y, 9, config, generator(1))
    found = forest.values(new).numpy()
    grown = RandomForestRegressor(7, min_samples_leaf=9, random_state=seed).fit(X.float(), y)
    there, here = grown.apply(X.float()), grown.apply(new.float())
    assert torch.equal(leaves, forest.leaves(X))
    for t, bag in enumerate(grown.estimators_samples_):
        assert sorted(set(bag.tolist())) == (~unseen[:, t]).nonzero().squeeze(1).tolist()
        for i in range(200):
            members = np.sort(y.numpy()[bag][there[bag, t] == here[i, t]])
            at = ((np.arange(4) + (t + 0.5) / 7) / 4 * len(members)).astype(int)
            np.testing.assert_array_equal(found[i, t], members[at])


def test_trees_of_a_single_leaf_keep_every_quantile_between_them():
    y = np.random.default_rng(0).permutation(240).astype(float)
    kept = [quantile._points(y, np.zeros(240, dtype=np.int64), (t + 0.5) / 30, 8)[1] for t in range(30)]
    assert sorted(np.concatenate(kept, 1)[0].tolist()) == list(range(240))


# ---------------------------------------------------------------------------------------- from quantiles to a law

KNOTS, LEVELS = torch.tensor([[-1.5, -0.2, 0.1, 2.0]]).double(), torch.tensor([0.1, 0.4, 0.7, 0.95]).double()


def parts(low, width, open_low=False, open_high=False):
    n = len(low)
    flag = lambda v: torch.full((n, 1), v)  # noqa: E731
    column = lambda v: torch.as_tensor(v).double().reshape(n, 1)  # noqa: E731
    width = column(width).expand(n, 1)
    value, yes, no = column(low), flag(True), flag(False)
    return Parts(flag(0)[:, :0], value, yes, no, value, width, flag(open_low), flag(open_high), 0 * width)


def mass(low, width, **ends):
    n = len(low)
    return quantile._log_mass(parts(low, width if len(width) == n else width * n, **ends), 0, KNOTS.expand(n, -1), LEVELS)


def test_the_law_has_the_quantiles_it_was_made_of_and_a_density_without_a_jump_at_its_ends():
    u = torch.linspace(1e-6, 1 - 1e-6, 1001, dtype=torch.float64)
    knots = KNOTS.expand(1001, -1)
    y = quantile._inverse(u, knots, LEVELS)
    assert (y.diff() > 0).all()
    torch.testing.assert_close(quantile._inverse(LEVELS, KNOTS.expand(4, -1), LEVELS), KNOTS[0])
    torch.testing.assert_close(quantile._interpolate(y, knots, LEVELS), u, atol=1e-12, rtol=0)
    for end in KNOTS[0, [0, -1]].tolist():
        before, after = mass([end - 1e-9, end + 1e-9], [0.0])
        assert float(before) == pytest.approx(float(after), abs=1e-6)


def test_the_density_is_the_slope_of_the_distribution_function_and_integrates_to_one():
    grid = torch.linspace(-9, 12, 210_001, dtype=torch.float64)
    density = mass(grid, [0.0]).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-4)
    y = torch.tensor([-3.0, -1.0, 0.0, 1.0, 4.0]).double()
    step = 1e-6
    rise = [quantile._interpolate(y + d, KNOTS.expand(5, -1), LEVELS) for d in (-step, step)]
    torch.testing.assert_close(mass(y, [0.0]).exp(), (rise[1] - rise[0]) / (2 * step), rtol=1e-5, atol=1e-9)


def test_cells_side_by_side_weigh_one_and_far_ones_keep_their_logarithm():
    edges = torch.linspace(-60, 60, 481, dtype=torch.float64)
    inner = mass(edges[:-1], [0.25])
    ends = mass([edges[0] - 0.25], [0.25], open_low=True), mass([edges[-1]], [0.25], open_high=True)
    assert float(inner.exp().sum() + ends[0].exp() + ends[1].exp()) == pytest.approx(1, abs=1e-12)
    # an exponential tail loses as much from cell to cell, however far
    far = mass([-1e4, -1e4 + 0.25, 1e4, 1e4 + 0.25], [0.25])
    assert torch.isfinite(far).all()
    decay = 0.1 * 1.3 / 0.3, 0.05 * 1.9 / 0.25
    assert float(far[1] - far[0]) == pytest.approx(0.25 / decay[0], rel=1e-6)
    assert float(far[2] - far[3]) == pytest.approx(0.25 / decay[1], rel=1e-6)


# ------------------------------------------------------------------------------------------------- regression


def test_a_spread_that_grows_with_the_input_is_learnt():
    c, y, law = fan(3000, seed=1)
    loss = law.log_prob(y)[:, 0] - fan_model().log_prob(y, context=c)
    assert 0 < float(loss.mean()) < 0.15
    # the best line with one deviation for all is far behind
    design = torch.cat([torch.ones(3000, 1), c], 1)
    residual = y - design @ torch.linalg.lstsq(design, y).solution
    line = Normal(0.0, float(residual.std())).log_prob(residual)[:, 0]
    assert float(line.mean()) < float((law.log_prob(y)[:, 0] - loss).mean()) - 0.2


def test_samples_follow_the_distribution_function_and_the_inputs():
    model, n = fan_model(), 4000
    here = torch.full((n, 1), 1.2, dtype=torch.float64)
    x = model.sample(n, context=here, rng=generator(2))
    standardised = (x[:, 0] - model.columns.centre) / model.columns.scale
    u = quantile._interpolate(standardised, model._knots(here, 0), model.levels)
    assert kstest(u.numpy(), "uniform").pvalue > 0.01
    ends = model.sample(2000, context=torch.tensor([0.0, 3.0]).repeat(1000)[:, None], rng=generator(3))
    assert float(ends[1::2].std()) > 2 * float(ends[::2].std())


def test_targets_are_chained():
    """y₂ = y₁ + little: given the context alone both are wide."""
    rng = generator(4)
    c = torch.randn(2000, 1, generator=rng, dtype=torch.float64)
    first = 100 + 3 * torch.randn(2000, 1, generator=rng, dtype=torch.float64)
    y = torch.cat([first, first + 0.3 * torch.randn(2000, 1, generator=rng, dtype=torch.float64)], 1)
    x = fitted(Space.continuous(2), y, c).sample(2000, context=c, rng=generator(5))
    assert float(torch.corrcoef(x.T)[0, 1]) > 0.95
    assert float((x[:, 1] - x[:, 0]).std()) < 1.0


def test_rounded_targets_with_atoms_weigh_one_and_their_samples_stand_on_the_lattice():
    c, y, _ = fan(1500)
    y = y.round().clamp(90, 110)
    space = Space.table((Column(resolution=1.0, low=90, high=110, atoms=(100.0, 90.0)),))
    model = fitted(space, y, c)
    cells = torch.arange(90.0, 111.0, dtype=torch.float64)[:, None]
    weights = model.log_prob(cells, context=torch.full((21, 1), 0.5)).exp()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    x = model.sample(5000, context=torch.full((5000, 1), 0.5), rng=generator(6))
    share = torch.bincount((x[:, 0] - 90).long(), minlength=21) / 5000
    assert torch.equal(x, x.round()) and ((share - weights).abs() < 5 * (weights / 5000).sqrt() + 1e-3).all()


def test_an_input_that_says_nothing_leaves_the_law_of_all_rows():
    """The leaves chosen are large enough not to mistake chance for knowledge."""
    rng = generator(7)
    y, c = (torch.randn(1500, 1, generator=rng, dtype=torch.float64) for _ in range(2))
    nats = fitted(Space.continuous(1), 100 + 3 * y[:1000], c[:1000]).log_prob(100 + 3 * y[1000:], context=c[1000:])
    assert float((Normal(100.0, 3.0).log_prob(100 + 3 * y[1000:])[:, 0] - nats).mean()) < 0.15


@pytest.mark.parametrize(
    ("space", "shape", "named"),
    [
        (Space.continuous(1), None, "no context was given"),
        (Space.levels(1, levels=3), (2,), "the target is not a number"),
        (Space.table((Column(), Column(missing=True))), (2,), "target 2 of 2 may be missing"),
        (Space.table((Column(atoms=(0.0,)),)), (2,), "has atoms"),
        (Space.image(1, 8, 8), (2,), "64 targets are more than the 32"),
    ],
)
def test_what_has_no_quantiles_is_refused(space, shape, named):
    with pytest.raises(InputError, match=f"^quantile: .*{named}"):
        quantile.build(space, context_shape=shape, config=CONFIG, rng=generator(0))


def test_levels_must_ascend():
    with pytest.raises(ValueError, match="ascend"):
        quantile.Config(levels=(0.5, 0.1))


def test_the_time_decides_how_many_rows_are_fitted():
    sizes = [quantile.suggest(Space.continuous(2), 50_000, seconds).rows for seconds in (1, 60, 600, None)]
    assert sizes == sorted(sizes) and sizes[0] == 2_000 and sizes[1] == 4_500 and math.isfinite(sizes[-1])
