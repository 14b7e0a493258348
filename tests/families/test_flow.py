"""Flows: an exact density of plain numbers, and a bound for cells that agrees with the integral."""

from __future__ import annotations

import math

import pytest
import torch

from mixtura.contracts import Column, Density, InputError, LowerBound, Space
from mixtura.families import flow
from mixtura.ground.rng import generator

torch.set_num_threads(1)


def pair(resolution, **settings):
    """The same network as an exact flow of plain numbers and as a bounded one of rounded numbers, not at the identity."""
    config = flow.Config(**settings)
    models = []
    for column in (Column(), Column(resolution=resolution)):
        model = flow.build(Space.table((column,) * 2), config=config, rng=generator(1)).eval()
        shake = generator(2)
        for p in model.parameters():
            p.data += 0.1 * torch.randn(p.shape, generator=shake)
        model.columns.centre[:], model.columns.scale[:] = 100.0, 3.0
        models.append(model)
    return models


EVERY = [(t, o) for t in ("affine", "spline") for o in ("autoregressive", "coupling")]


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ((Column(), Column("levels", 3)), Density),
        ((Column(), Column("levels", 3, missing=True)), Density),
        ((Column(), Column(missing=True)), LowerBound),
        ((Column(), Column(atoms=(0.0,))), LowerBound),
        ((Column(), Column(resolution=0.1)), LowerBound),
    ],
)
def test_the_kind_follows_the_columns(columns, kind):
    model = flow.build(Space.table(columns), config=flow.Config(), rng=generator(0))
    assert isinstance(model, kind) and isinstance(model, Density) != isinstance(model, LowerBound)


@pytest.mark.parametrize(("transform", "order"), EVERY)
@torch.no_grad()
def test_the_density_is_a_density_for_every_setting(transform, order):
    exact, _ = pair(1.0, transform=transform, order=order, transforms=2, hidden=(16,))
    axis = torch.linspace(70, 130, 301, dtype=torch.float64)
    density = exact.log_prob(torch.cartesian_prod(axis, axis)).exp().reshape(301, 301)
    assert float(torch.trapezoid(torch.trapezoid(density, axis), axis)) == pytest.approx(1, abs=2e-3)
    x = exact.sample(4000, rng=generator(3))
    weight = density / density.sum()
    mean = torch.stack([(weight.sum(1) * axis).sum(), (weight.sum(0) * axis).sum()])
    assert float((x.mean(0) - mean).abs().max()) < 0.3


@pytest.mark.parametrize(("transform", "order"), EVERY)
@torch.no_grad()
def test_in_tiny_cells_the_bound_is_the_density(transform, order):
    exact, bounded = pair(1e-4, transform=transform, order=order, transforms=2, hidden=(16,))
    x = exact.sample(50, rng=generator(4)).mul(1e4).round() / 1e4
    torch.testing.assert_close(bounded.log_prob_bound(x, draws=1, rng=generator(5)), exact.log_prob(x), rtol=0, atol=5e-3)


@torch.no_grad()
def test_in_wide_cells_the_bound_is_below_the_mass_and_reaches_it():
    """The exact mass of a cell is the integral of the flow's density over it."""
    exact, bounded = pair(3.0, transform="affine", transforms=2, hidden=(16,))
    x = torch.cartesian_prod(*[torch.tensor([93.0, 96, 99, 102, 105], dtype=torch.float64)] * 2)
    inside = (torch.arange(40) + 0.5).double() / 40 * 3 - 1.5
    points = x[:, None] + torch.cartesian_prod(inside, inside)
    mass = torch.logsumexp(exact.log_prob(points.reshape(-1, 2)).reshape(len(x), -1), 1) - math.log(1600)
    by_draws = {
        k: torch.stack([bounded.log_prob_bound(x, draws=k, rng=generator(6, i)) for i in range(20)]).mean(0) for k in (1, 200)
    }
    assert (by_draws[1] < mass).float().mean() > 0.9 and float((mass - by_draws[1]).mean()) > 0.01
    torch.testing.assert_close(by_draws[200], mass, rtol=0, atol=0.08)


def test_too_many_columns_are_refused():
    with pytest.raises(InputError, match="flow: 513 continuous columns are more than the 512"):
        flow.build(Space.continuous(513), config=flow.Config(), rng=generator(0))
