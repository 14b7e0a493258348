"""Recurring values in every family with an exact density: totals, draws, conditionals, and what they are worth."""

import itertools
import math
from functools import cache
from typing import cast

import pytest
import torch

from mixtura.contracts import Batch, ClosedForm, Column, Conditional, Density, Space
from mixtura.families import TABLE
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator, normal, uniform
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

ROWS, STEPS = 800, 60
#: a lattice of 241 steps of .25, half of the values at multiples of 5; with a wall, an atom and gaps; and levels that shift it
HIGH = 60.0
SPACE = Space.table([Column(resolution=0.25, low=0.0, high=HIGH, atoms=(0.0,), missing=True), Column("levels", 2)])
#: the same without what some families do not serve
PLAIN = Space.table([Column(resolution=0.25, low=0.0, high=HIGH)])
#: the exact families of tables, with the settings that are not their default
TWO = Space.table([Column(resolution=0.25, low=0.0, high=HIGH), Column(resolution=1.0)])
EXACT = {
    "marginals": (SPACE, {}),
    "gaussian_mixture": (SPACE, {"components": 4}),
    "gaussian_mixture, full": (TWO, {"components": 2, "covariance": "full"}),
    "kde": (SPACE, {}),
    "autoregressive": (SPACE, {"hidden": (32,), "components": 3, "orderings": 2}),
    "mixture_density": (SPACE, {"members": 1, "components": 3}),
    "mixture_density, full": (TWO, {"members": 1, "components": 2, "noise": "full"}),
    "linear_gaussian": (SPACE, {}),
    "quantile": (PLAIN, {"trees": 10}),
}


def rows_of(space, n=ROWS, seed=1):
    rng, like = generator(seed), torch.zeros(0, dtype=torch.float64)
    level = (uniform((n,), rng, like) < 0.4).double()
    value = ((30 + 8 * level + 7 * normal((n,), rng, like)) * 4).round() / 4
    value = torch.where(uniform((n,), rng, like) < 0.5, (value / 5).round() * 5, value).clamp(0.25, HIGH)
    if space is PLAIN:
        return value.unsqueeze(1)
    if space is not SPACE:
        return torch.stack([value, (value / 20 + normal((n,), rng, like)).round().clamp(-3, 6)], 1)
    value = torch.where(uniform((n,), rng, like) < 0.2, 0.0, value).masked_fill(uniform((n,), rng, like) < 0.1, math.nan)
    return torch.stack([value, level], 1)


@cache
def fitted(name):
    space, settings = EXACT[name]
    row, rng, x = TABLE[name.split(",")[0]], generator(2, name), rows_of(EXACT[name][0])
    context = torch.zeros(len(x), 1) if row.context == "needs" else None
    config = row.config(**settings)
    model = row.build(space, context_shape=None if context is None else (1,), config=config, rng=rng)
    if isinstance(model, ClosedForm):
        model.fit_closed(x, context, rng)
        model.eval()
    else:
        for _ in fit(model, Batch(x=x, context=context), Recipe(steps=STEPS, **dict(row.recipe)), rng=rng):
            pass
    assert bins_of(model).recurring.tables()
    return cast(Density, model)


def bins_of(model):
    return next(module for module in model.modules() if isinstance(module, Columns))


def given(model, n):
    return None if model.context_shape is None else torch.zeros(n, 1)


def nats(model, x):
    with torch.no_grad():
        return model.log_prob(x, context=given(model, len(x)))


def cells(space):
    """Every row, with the lattice of a column without walls from −60 to 60, and the volume of its cell."""

    def values(c):
        steps = torch.arange(max(c.low, -60.0), min(c.high, 60.0) + c.resolution / 2, c.resolution or 1.0).tolist()
        return [*range(c.levels)] if c.kind == "levels" else [*steps, *[math.nan] * c.missing]

    listed = torch.tensor([*itertools.product(*map(values, space.columns))], dtype=torch.float64)
    step = torch.tensor([c.resolution or 1.0 for c in space.columns], dtype=torch.float64)
    return listed, torch.where(listed.isnan(), 1.0, step).prod(1)


@pytest.mark.parametrize("name", EXACT)
def test_all_cells_have_probability_one_and_draws_follow_them(name):
    model, n = fitted(name), 20_000
    listed, volume = cells(model.space)
    mass = nats(model, listed).exp() * volume
    floor = 3 / (ROWS + 1) if model.open_support else 0.0
    assert float(mass.sum()) == pytest.approx(1, abs=1e-6 + floor)
    drawn = model.sample(n, context=given(model, n), rng=generator(3))
    where = {tuple(row): i for i, row in enumerate(listed.nan_to_num(-1).tolist())}
    hits = torch.tensor([where.get(tuple(row), -1) for row in drawn.nan_to_num(-1).tolist()])
    assert (hits < 0).double().mean() <= floor
    count, expected = torch.bincount(hits[hits >= 0], minlength=len(listed)).double(), n * mass
    often = expected > 10
    χ2, m = float(((count - expected).square() / expected)[often].sum()), int(often.sum())
    assert abs(χ2 - m) < 6 * math.sqrt(2 * m) + n * floor / 10


@pytest.mark.parametrize("name", EXACT)
def test_unseen_rows_are_likelier_and_fives_are_drawn_as_often_as_they_come(name):
    """Half of the values are multiples of 5, which a smooth law gives a twentieth."""
    model = fitted(name)
    unseen = rows_of(model.space, 2_000, 4)
    drawn = model.sample(4_000, context=given(model, 4_000), rng=generator(5))

    def fives(x):
        here = x[:, 0] > 0
        return float((x[here, 0] % 5 == 0).double().mean())

    assert fives(drawn) == pytest.approx(fives(unseen), abs=0.12)
    columns = bins_of(model)
    with_bins, tables = nats(model, unseen).mean(), columns.recurring.state_dict()
    columns.recurring.hold([None] * columns.continuous)
    without = nats(model, unseen).mean()
    columns.recurring.load_state_dict(tables)
    assert float(with_bins - without) > 0.1


@pytest.mark.parametrize("name", ["marginals", "gaussian_mixture", "kde", "autoregressive"])
def test_conditionals_are_those_of_the_density(name):
    """The value given the level, and the level given a value that recurs, against the sum over all cells."""
    model, draws = fitted(name), 4_000
    assert isinstance(model, Conditional)
    listed, volume = cells(SPACE)
    floor = 3 / (ROWS + 1) if model.open_support else 0.0
    slack = 0.2 if name == "autoregressive" else 0.0
    for row, known in (([0.0, 1.0], [False, True]), ([35.0, 0.0], [True, False])):
        x, mask = torch.tensor([row], dtype=torch.float64), torch.tensor([known])
        got = model.condition(x.expand(40, 2), mask.expand(40, 2), draws=draws // 40, rng=generator(6))
        fits = ((listed == x) | ~mask).all(1) & ~listed.isnan().any(1)
        log_mass = (nats(model, listed) + (volume.log() if known[1] else 0.0))[fits]
        tolerance = 0.1 if name == "autoregressive" else 1e-6 + floor
        assert got.log_evidence.exp().mean().log().item() == pytest.approx(float(torch.logsumexp(log_mass, 0)), abs=tolerance)
        free = 0 if known[1] else 1
        share = torch.softmax(log_mass, 0)
        count = torch.stack([(got.values[..., free].flatten() == v).double().mean() for v in listed[fits][:, free]])
        assert ((count - share).abs() <= 5 * (share / draws).sqrt() + 5 / draws + (slack + floor) * share).all()
