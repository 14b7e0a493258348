"""Annealed nats of decoders against closed forms: a linear VAE is probabilistic principal component analysis."""

import math

import pytest
import torch

from mixtura.blending.annealed import annealed_nats
from mixtura.blending.nats import log_probs
from mixtura.contracts import Column, NoisyDecoder, Space
from mixtura.families import vae
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

D, LATENT = 4, 2


@pytest.fixture(scope="module")
def linear():
    """A linear VAE, trained on a Gaussian of low rank plus noise, mean 100 and deviations about 3."""
    rng = generator(0)
    mixing = torch.randn(LATENT, D, generator=rng, dtype=torch.float64)
    x = 100 + 3 * (torch.randn(2_000, LATENT, generator=rng, dtype=torch.float64) @ mixing)
    x = x + torch.randn(2_000, D, generator=rng, dtype=torch.float64)
    config = vae.Config(latent=LATENT, hidden=(), observation="normal", scale="one")
    model = vae.build(Space.continuous(D), config=config, rng=rng)
    for _ in fit(model, x, Recipe(**{**vae.RECIPE, "steps": 600, "rate": 1e-2}), rng=rng):
        pass
    return model, x[:60]


def exact(model: vae.Vae, x: torch.Tensor) -> torch.Tensor:
    """log N(x; b, W Wᵀ + s² I) in data units."""
    zero = torch.zeros(1, LATENT)
    with torch.no_grad():
        _, _, b, log_s = model._parameters_of(zero, None)
        columns = [model._parameters_of(unit[None], None)[2] - b for unit in torch.eye(LATENT)]
    weights = torch.cat([c.flatten()[None] for c in columns]).double()
    covariance = weights.T @ weights + (2 * log_s.double()).exp() * torch.eye(D, dtype=torch.float64)
    law = torch.distributions.MultivariateNormal(b.flatten().double(), covariance)
    y = model.columns.encode(x)
    return law.log_prob(y) + model.columns.log_jacobian(x)


def test_annealed_nats_are_those_of_ppca(linear):
    model, x = linear
    found = annealed_nats(model, x, chains=16, temperatures=200, rng=generator(1))
    truth = exact(model, x)
    assert abs(found.mean.value - float(truth.mean())) < 0.02
    assert float((found.nats - truth).abs().max()) < 0.6 and len(found.effective) == 60
    assert found.mean.error > float(found.nats.std()) / math.sqrt(60) - 1e-9
    assert (found.effective >= 1).all() and (found.effective <= 16).all()


def test_the_error_counts_rows_and_chains(linear):
    """Of one row many times, whose nats differ by the chains alone: both terms of the error are the same."""
    model, x = linear
    found = annealed_nats(model, x[:1].repeat(60, 1), chains=16, temperatures=60, rng=generator(1))
    assert 1.15 < found.mean.error / (float(found.nats.std()) / math.sqrt(60)) < 1.7


def test_the_bound_is_below_and_few_temperatures_are_lower(linear):
    model, x = linear
    truth = float(exact(model, x).mean())
    bound, error = log_probs(model, x, rng=generator(2))
    assert float(bound.mean()) < truth + 3 * error + 0.02
    assert annealed_nats(model, x, chains=2, temperatures=2, rng=generator(1)).mean.value < truth - 0.3


def test_rate_and_distortion_add_up_to_the_evidence_bound(linear):
    """On the same draws, to float32 rounding."""
    model, x = linear
    told = model.diagnose(x, None, generator(3))
    # a single draw of the bound has the rate as a difference of log densities instead of in closed form
    with torch.no_grad():
        many = float(torch.stack([model._log_prob_bound(x, None, 1, generator(s)) for s in range(300)]).mean())
    assert told["rate"] + told["distortion"] == pytest.approx(-many, abs=0.1)


@pytest.mark.parametrize(("beta", "deviation"), [(1.0, 0.5), (2.0, 0.4)])
def test_the_rate_and_distortion_of_a_gaussian(beta, deviation):
    """N(0, 1) with noise s fixed: a code of rate ½ log(1/d) with d = β s² (reverse water-filling), distortion ½ log 2πs² +
    d/2s²."""
    rng = generator(0)
    x = torch.randn(4_000, 1, generator=rng, dtype=torch.float64)
    x = (x - x.mean()) / x.std(correction=0)
    config = vae.Config(latent=1, hidden=(), observation="normal", scale="one", beta=beta)
    model = vae.build(Space.continuous(1), config=config, rng=rng)
    model.log_scale.data.fill_(math.log(deviation))
    model.log_scale.requires_grad_(False)
    for _ in fit(model, x, Recipe(**{**vae.RECIPE, "steps": 800, "rate": 1e-2, "patience": 50}), rng=rng):
        pass
    told, d = model.diagnose(x, None, generator(1)), beta * deviation**2
    assert told["rate"] == pytest.approx(0.5 * math.log(1 / d), abs=0.02)
    assert told["distortion"] == pytest.approx(0.5 * math.log(2 * math.pi * deviation**2) + d / (2 * deviation**2), abs=0.03)


def test_codes_and_steps_have_the_same_measure():
    """On a table that can be listed, annealed probabilities add up to one."""
    space = Space.table((Column("levels", 3), Column(resolution=1.0, low=0, high=4)))
    rng = generator(0)
    x = torch.stack([torch.randint(3, (500,), generator=rng), torch.randint(5, (500,), generator=rng)], 1).double()
    model = vae.build(space, config=vae.Config(latent=1, hidden=(8,)), rng=rng)
    for _ in fit(model, x, Recipe(**{**vae.RECIPE, "steps": 100}), rng=rng):
        pass
    assert isinstance(model, NoisyDecoder)
    every = torch.cartesian_prod(torch.arange(3.0), torch.arange(5.0)).double()
    found = annealed_nats(model, every, chains=64, temperatures=60, rng=generator(1))
    assert float(found.nats.exp().sum()) == pytest.approx(1, abs=0.03)
