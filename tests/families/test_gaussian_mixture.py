"""Gaussian mixtures: scikit-learn's fit where it is used, cells with exact masses, and EM that finds the components."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from mixtura.contracts import Column, InputError, Space
from mixtura.families import gaussian_mixture
from mixtura.ground.rng import categorical, generator, normal

torch.set_num_threads(1)
CORRELATED = torch.tensor([[9.0, 6.0], [6.0, 5.0]], dtype=torch.float64)


def fitted(space, x, **settings):
    config = gaussian_mixture.Config(**settings)
    model = gaussian_mixture.build(space, config=config, rng=generator(0))
    model.fit_closed(x, None, generator(1))
    return model


def correlated(n, seed):
    return 100 + normal((n, 2), generator(seed), CORRELATED) @ torch.linalg.cholesky(CORRELATED).T


def test_one_component_is_the_sample_mean_and_covariance():
    x = correlated(500, 2)
    model = fitted(Space.continuous(2), x, components=1, covariance="full")
    want = MultivariateNormal(x.mean(0), torch.cov(x.T, correction=0)).log_prob(x)
    torch.testing.assert_close(model.log_prob(x), want, rtol=0, atol=1e-3)


def test_a_full_cell_is_a_mass_under_the_chain():
    """Coarse cells of a correlated Gaussian: near the true masses, with correlations kept (the chain conditions on
    the rounded value, which is not quite the truth), and summing to one."""
    space = Space.table((Column(resolution=1.0, low=85, high=115), Column(resolution=1.0, low=90, high=110)))
    x = correlated(4000, 3).round()
    x = space.clamp(x)
    model = fitted(space, x, components=1, covariance="full")
    grid = torch.cartesian_prod(torch.arange(85.0, 116), torch.arange(90.0, 111)).double()
    mass = model.log_prob(grid).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-9)
    fine = MultivariateNormal(torch.full((2,), 100.0, dtype=torch.float64), CORRELATED)
    inside = ((torch.arange(20) + 0.5) / 20 - 0.5).double()
    points = grid[:, None] + torch.cartesian_prod(inside, inside)
    truth = fine.log_prob(points).exp().mean(1)
    assert float((truth * (truth.clamp(min=1e-300).log() - mass.log())).sum()) < 0.05


def test_the_covariance_that_serves_is_chosen():
    assert fitted(Space.continuous(2), correlated(800, 4)).covariance.dim() == 3
    assert fitted(Space.continuous(1), correlated(800, 4)[:, :1]).covariance.dim() == 2


def test_full_covariance_says_where_it_cannot_serve():
    column = Column(resolution=1.0, low=0, high=99, atoms=(0.0,))
    x = torch.randint(0, 99, (60, 2), generator=generator(5)).double()
    with pytest.raises(InputError, match="full covariance is not possible here .rounded columns with atoms"):
        fitted(Space.table((column, column)), x, covariance="full")


def test_components_are_as_many_as_the_data_want():
    rng = generator(6)
    centre = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [50.0, 50.0]], dtype=torch.float64)
    x = centre[torch.randint(4, (800,), generator=rng)] + normal((800, 2), rng, centre)
    assert len(fitted(Space.continuous(2), x).weights) in (4, 8)
    assert len(fitted(Space.continuous(2), normal((800, 2), rng, centre)).weights) <= 2


def test_em_finds_a_mixture_of_codes_and_numbers_with_gaps():
    """Two groups differ in codes, mean and correlation; a fifth of each number is missing at random."""
    rng, n = generator(7), 6000
    group = torch.randint(2, (n,), generator=rng)
    noise = normal((n, 2), rng, CORRELATED)
    sign = torch.where(group == 0, 1.0, -1.0).double()
    first = 100 + 20 * group + 3 * noise[:, 0]
    second = 50 + sign * 2 * noise[:, 0] + noise[:, 1]
    table = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], dtype=torch.float64)
    code = categorical(table[group].log(), rng).double()
    numbers = torch.stack([first, second], 1).masked_fill(torch.rand(n, 2, generator=rng) < 0.2, math.nan)
    x = torch.cat([numbers, code[:, None]], 1)
    space = Space.table((Column(missing=True), Column(missing=True), Column("levels", 3)))
    model, unseen = fitted(space, x[:4000]), x[4000:]
    truth = torch.zeros(2, len(unseen), dtype=torch.float64)
    for g in (0, 1):
        s = 1.0 if g == 0 else -1.0
        law = MultivariateNormal(
            torch.tensor([100.0 + 20 * g, 50.0], dtype=torch.float64),
            torch.tensor([[9.0, 6 * s], [6 * s, 5.0]], dtype=torch.float64),
        )
        gone = torch.isnan(unseen[:, :2])
        one = [torch.distributions.Normal(law.mean[j], law.covariance_matrix[j, j].sqrt()).log_prob(unseen[:, j]) for j in (0, 1)]
        both = law.log_prob(torch.where(gone, law.mean, unseen[:, :2]))
        number = torch.where(~gone.any(1), both, torch.where(gone[:, 0], one[1].nan_to_num(0), one[0].nan_to_num(0)))
        number = torch.where(gone.all(1), 0.0, number)
        masks = torch.where(gone, math.log(0.2), math.log(0.8)).sum(1)
        truth[g] = math.log(0.5) + number + masks + table[g].log()[unseen[:, 2].long()]
    best = float(torch.logsumexp(truth, 0).mean())
    assert best - 0.03 < float(model.log_prob(unseen).mean()) < best + 0.005
