"""Families on samples of known distributions."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from mixtura.contracts import ClosedForm, Column, Density, Space
from mixtura.families import TABLE
from mixtura.ground.rng import categorical, generator, normal
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)


def learn(name, space, x, steps=400, rate=5e-3, **settings):
    family, rng = TABLE[name], generator(7, name)
    config = family.suggest(space, len(x)).model_copy(update=settings)
    model = family.build(space, config=config, rng=rng)
    if isinstance(model, ClosedForm):
        model.fit_closed(x, None, rng)
        return model.eval()
    for _ in fit(model, x, Recipe(**{"steps": steps, "rate": rate, **family.recipe}), rng=rng):
        pass
    return model


@torch.no_grad()
def mean_nats(model, x):
    if isinstance(model, Density):
        return float(model.log_prob(x).mean())
    return float(model.log_prob_bound(x, draws=32, rng=generator(8)).mean())


# ---------------------------------------------------------------------------------------------- three Gaussians


def _three_gaussians():
    """Of mean 100 and standard deviation 3 in both columns."""
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    means = torch.tensor([[-1.0, -0.8], [1.2, -0.2], [0.1, 1.4]], dtype=torch.float64)
    covariance = torch.tensor(
        [[[0.25, 0.15], [0.15, 0.2]], [[0.1, -0.05], [-0.05, 0.3]], [[0.3, 0.0], [0.0, 0.05]]], dtype=torch.float64
    )
    away = means - weights @ means
    total = (weights[:, None, None] * (covariance + away[:, :, None] * away[:, None, :])).sum(0)
    scale = 3 / total.diagonal().sqrt()
    return weights, 100 + away * scale, covariance * scale[:, None] * scale


def _draw(n, seed):
    weights, means, covariance = _three_gaussians()
    rng = generator(seed)
    label = categorical(weights.log().expand(n, -1), rng)
    noise = normal((n, 2, 1), rng, means)
    return means[label] + (torch.linalg.cholesky(covariance)[label] @ noise).squeeze(2)


@cache
def three_gaussians():
    """4,000 rows to learn from, 4,000 others, and the mean log-density of these under their law."""
    weights, means, covariance = _three_gaussians()
    law = MixtureSameFamily(Categorical(weights), MultivariateNormal(means, covariance))
    unseen = _draw(4000, 2)
    return _draw(4000, 1), unseen, float(law.log_prob(unseen).mean())


@pytest.mark.parametrize(
    ("name", "within"), [("gaussian_mixture", 0.02), ("kde", 0.06), ("flow", 0.05), ("autoregressive", 0.05)]
)
def test_three_gaussians_are_learnt(name, within):
    x, unseen, entropy = three_gaussians()
    assert entropy - within < mean_nats(learn(name, Space.continuous(2), x), unseen) < entropy + 0.005


def test_independent_columns_cannot_learn_them():
    """The floor misses the mutual information, by the same amount as the true marginals do."""
    x, unseen, entropy = three_gaussians()
    weights, means, covariance = _three_gaussians()
    marginal = [
        MixtureSameFamily(Categorical(weights), torch.distributions.Normal(means[:, j], covariance[:, j, j].sqrt()))
        for j in (0, 1)
    ]
    best = float(sum(marginal[j].log_prob(unseen[:, j]) for j in (0, 1)).mean())
    assert best < entropy - 0.3
    assert mean_nats(learn("marginals", Space.continuous(2), x), unseen) == pytest.approx(best, abs=0.03)


# ---------------------------------------------------------------------------------------------- the base measure


@pytest.mark.parametrize("name", ["marginals", "gaussian_mixture", "kde", "flow", "autoregressive"])
def test_fine_steps_cost_nothing(name):
    """Rows written in steps of a hundredth of their spread have the nats of the rows themselves: mass/δ is a density."""
    x, unseen, entropy = three_gaussians()
    space = Space.table((Column(resolution=0.03),) * 2)
    round_ = lambda t: (t / 0.03).round() * 0.03  # noqa: E731
    plain = mean_nats(learn(name, Space.continuous(2), x), unseen)
    assert mean_nats(learn(name, space, round_(x)), round_(unseen)) == pytest.approx(plain, abs=0.03)


def _hours(n, seed):
    """Whole hours, most of them 40, many 0; and pay that is 0 for most."""
    rng = generator(seed)
    u, z = torch.rand(n, 2, generator=rng, dtype=torch.float64), normal((n, 2), rng, torch.empty(0, dtype=torch.float64))
    hours = torch.where(u[:, 0] < 0.5, 40.0, torch.where(u[:, 0] < 0.7, 0.0, (40 + 10 * z[:, 0]).round().clamp(0, 99)))
    pay = torch.where(u[:, 1] < 0.8, 0.0, (6 + z[:, 1]).exp().round().clamp(0, 9999))
    return torch.stack([hours, pay], 1)


HOURS = Space.table(
    (Column(resolution=1.0, low=0, high=99, atoms=(0.0, 40.0)), Column(resolution=1.0, low=0, high=9999, atoms=(0.0,)))
)


def test_the_ridge_decides_nothing_on_rounded_columns_with_atoms():
    x, unseen = _hours(2000, 1), _hours(2000, 2)
    small, large = (mean_nats(learn("gaussian_mixture", HOURS, x, ridge=ridge), unseen) for ridge in (1e-6, 1e-2))
    assert abs(small - large) < 0.1


@pytest.mark.parametrize("name", ["marginals", "gaussian_mixture", "kde", "autoregressive"])
def test_atoms_and_steps_are_learnt(name):
    """The columns are independent and their masses known: nobody is above the entropy, and all are near it."""
    x, unseen = _hours(4000, 1), _hours(4000, 2)
    assert _true_nats(unseen) - 0.1 < mean_nats(learn(name, HOURS, x), unseen) < _true_nats(unseen) + 0.01


def _true_nats(x):
    normal_mass = lambda low, high, mean, sd: torch.special.ndtr((high - mean) / sd) - torch.special.ndtr((low - mean) / sd)  # noqa: E731
    edge = lambda t, low, high: (  # noqa: E731
        torch.where(t == low, -math.inf, t - 0.5),
        torch.where(t == high, math.inf, t + 0.5),
    )
    low, high = edge(x[:, 0], 0, 99)
    hours = 0.5 * (x[:, 0] == 40) + 0.2 * (x[:, 0] == 0) + 0.3 * normal_mass(low, high, 40.0, 10.0)
    low, high = edge(x[:, 1], 0, 9999)
    pay = 0.8 * (x[:, 1] == 0) + 0.2 * normal_mass(low.clamp(min=0).log(), high.log(), 6.0, 1.0)
    return float((hours.log() + pay.log()).mean())


# ---------------------------------------------------------------------------------------------- filling gaps

MEAN = torch.tensor([100.0, -5.0, 2.0], dtype=torch.float64)
ROOT = torch.tensor([[3.0, 0.0, 0.0], [1.2, 0.5, 0.0], [-0.6, 0.9, 0.7]], dtype=torch.float64)
COVARIANCE = ROOT @ ROOT.T


@cache
def gaussian(name):
    x = MEAN + normal((4000, 3), generator(3), MEAN) @ ROOT.T
    settings = {"components": 1, "covariance": "full"} if name == "gaussian_mixture" else {}
    return learn(name, Space.continuous(3), x, steps=600, **settings)


@pytest.mark.parametrize(("name", "close"), [("gaussian_mixture", 0.06), ("autoregressive", 0.2)])
@pytest.mark.parametrize("known", [(0,), (1,), (0, 2), (1, 2), ()])
def test_gaps_of_a_gaussian_are_filled_from_its_conditional(name, close, known):
    """Mean and covariance in units of the conditional's own spread, for a row one deviation out."""
    o, u = list(known), [j for j in range(3) if j not in known]
    row = MEAN + COVARIANCE.diagonal().sqrt() * torch.tensor([1.0, 1.0, -0.5], dtype=torch.float64)
    gain = COVARIANCE[u][:, o] @ torch.linalg.inv(COVARIANCE[o][:, o]) if o else torch.zeros(len(u), 0, dtype=torch.float64)
    mean = MEAN[u] + gain @ (row - MEAN)[o]
    whiten = torch.linalg.inv(torch.linalg.cholesky(COVARIANCE[u][:, u] - gain @ COVARIANCE[o][:, u]))
    mask = torch.tensor([j in known for j in range(3)])
    got = gaussian(name).condition(row.expand(50, 3), mask.expand(50, 3), draws=100, rng=generator(4))
    z = (got.values.reshape(-1, 3)[:, u] - mean) @ whiten.T
    assert float(z.mean(0).abs().max()) < close + 0.05
    assert float((torch.cov(z.T).reshape(len(u), len(u)) - torch.eye(len(u))).abs().max()) < 2 * close + 0.08
    if o:
        want = MultivariateNormal(MEAN[o], COVARIANCE[o][:, o]).log_prob(row[o])
        assert float(got.log_evidence.exp().mean().log()) == pytest.approx(float(want), abs=close + 0.1)
