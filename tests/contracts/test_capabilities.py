"""What a capability promises, for every family that has it: gradients in rows, draws that carry a gradient, scores, respacing,
one encoding for all."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch

from mixtura.contracts import (
    Batch,
    ClosedForm,
    Column,
    Density,
    Energy,
    InputError,
    NoisyDecoder,
    Reparameterised,
    Scored,
    Space,
    Stepwise,
)
from mixtura.families import TABLE
from mixtura.ground.distributions import MixtureDensity
from mixtura.ground.encode import Columns
from mixtura.ground.mcmc import Mala, run
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)
#: two real numbers, one of them with a wall; levels and gaps beside a rounded number
PLAIN = Space.table((Column(), Column(low=0.0)))
MIXED = Space.table((Column(missing=True), Column("levels", 3), Column(resolution=0.5, low=0.0), Column()))
N = 400


def plain_rows() -> torch.Tensor:
    z = torch.randn(N, 2, generator=generator(0), dtype=torch.float64)
    return torch.stack([100 + 3 * z[:, 0], (0.5 * z[:, 0] + 0.5 * z[:, 1]).exp()], 1)


def mixed_rows() -> torch.Tensor:
    z = torch.randn(N, 3, generator=generator(1), dtype=torch.float64)
    level = torch.randint(3, (N,), generator=generator(2)).double()
    return torch.stack([z[:, 0].masked_fill(z[:, 1] > 1, math.nan), level, (z[:, 1].abs() * 4).round() / 2, 50 + z[:, 2]], 1)


@cache
def encoding(space: Space) -> Columns:
    columns = Columns(space)
    columns.prepare(plain_rows() if space is PLAIN else mixed_rows())
    return columns


@cache
def fitted(name: str) -> tuple:
    """A model of the plain table, a context where one is needed, and its rows."""
    family, x = TABLE[name], plain_rows()
    context = 0.3 * torch.ones(N, 1) if family.context == "needs" else None
    shape = None if context is None else (1,)
    model = family.build(
        PLAIN, encoding=encoding(PLAIN), context_shape=shape, config=family.suggest(PLAIN, N), rng=generator(3)
    )
    if isinstance(model, ClosedForm):
        model.fit_closed(x, context, generator(4))
    else:
        recipe = Recipe(steps=150, **{**family.recipe, **model.recipe})
        assert [*fit(model, Batch(x=x, context=context), recipe, rng=generator(4))]
    return model.eval(), None if context is None else context[:1], x


#: those that model numbers
OF_NUMBERS = [name for name in TABLE if name != "boltzmann"]


def of_capability(kind: type) -> list[str]:
    def has(name: str) -> bool:
        family = TABLE[name]
        shape = (1,) if family.context == "needs" else None
        return isinstance(family.build(PLAIN, context_shape=shape, config=family.suggest(PLAIN, N), rng=generator(0)), kind)

    return [name for name in OF_NUMBERS if has(name)]


def test_who_can_do_what():
    """A family that loses a capability, or gains one, says so here."""
    drawn = {"flow", "vae", "diffusion", "mixture_density", "linear_gaussian"}
    assert of_capability(NoisyDecoder) == ["vae"] and of_capability(Energy) == ["energy"]
    assert set(of_capability(Reparameterised)) == drawn and of_capability(Scored) == ["diffusion"] == of_capability(Stepwise)
    for name in drawn - {"mixture_density"}:
        family = TABLE[name]
        shape = (1,) if family.context == "needs" else None
        mixed = family.build(MIXED, context_shape=shape, config=family.suggest(MIXED, N), rng=generator(0))
        assert not isinstance(mixed, Reparameterised)


# ------------------------------------------------------------------------------------------- densities in their rows


@pytest.mark.parametrize("name", [name for name in of_capability(Density) if name != "forest"])  # which jumps from leaf to leaf
def test_a_density_is_differentiable_in_its_rows(name):
    """∇ log p against central differences of log p itself, in data units."""
    model, context, x = fitted(name)
    rows = x[:20].clone().requires_grad_()
    beside = None if context is None else context.expand(20, 1)
    nats = model.log_prob(rows, context=beside)
    gradient = torch.autograd.grad(nats.sum(), rows)[0]
    assert torch.isfinite(gradient).all()
    for j, h in enumerate((1e-3, 1e-4)):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[j] = h
        with torch.no_grad():
            up, down = (model.log_prob(x[:20] + sign * shift, context=beside) for sign in (1, -1))
        slope = (up - down) / (2 * h)
        # float32 networks leave a difference of 1e-3 with an error of their rounding
        near = (gradient[:, j] - slope).abs() <= 0.02 * slope.abs() + (2e-3 / h * 1e-3 + 0.02 * slope.abs().mean())
        assert near.float().mean() >= 0.9, (gradient[:, j], slope)


@pytest.mark.parametrize("name", [name for name in of_capability(Density) if name != "quantile"])
def test_langevin_steps_on_a_density_leave_its_samples_as_they_are(name):
    """A model's samples, moved by Metropolis-adjusted steps on its energy in the encoding, are still its samples."""
    model, context, _ = fitted(name)
    columns, n = model.columns, 1000
    beside = None if context is None else context.expand(n, 1)

    def energy(e: torch.Tensor) -> torch.Tensor:
        x = columns.decode(e)
        return columns.log_jacobian(x) - model.log_prob(x, context=beside)

    start = columns.encode(model.sample(n, context=beside, rng=generator(17)))
    chains = run(Mala(0.5), start, energy, 12, generator(18))
    accepted = float(chains.info.acceptance.mean())
    assert 0.2 < accepted < 0.999
    before, after = curve(start), curve(chains.draws[-1])
    error = math.sqrt(float(before.var() + after.var()) / n)
    assert abs(float(before.mean() - after.mean())) < 4 * error and float((start - chains.draws[-1]).abs().mean()) > 0.1


# ------------------------------------------------------------------------------------------------------------ draws


def curve(e: torch.Tensor) -> torch.Tensor:
    """A bounded function of encoded rows that no law's mean or spread alone decides."""
    return torch.sin(e).sum(1) + torch.tanh(e[:, 0] * e[:, 1])


@pytest.mark.parametrize("name", of_capability(Reparameterised))
def test_a_draw_has_the_law_of_a_sample(name):
    model, context, _ = fitted(name)
    beside = None if context is None else context.expand(4000, 1)
    drawn = curve(model.draw(4000, context=beside, rng=generator(5)).double().detach())
    made = curve(model.columns.encode(model.sample(4000, context=beside, rng=generator(6))))
    error = math.sqrt((drawn.var() + made.var()) / 4000)
    assert abs(float(drawn.mean() - made.mean())) < 4 * error and error < 0.05


@pytest.mark.parametrize("name", of_capability(Reparameterised))
def test_the_gradient_of_a_mean_over_draws_is_that_of_the_mean(name):
    """Along one direction of all parameters: the mean of d curve(draw) against the difference of means of samples drawn apart,
    at both ends of a step. Weights of mixtures move with the others."""
    model, context, _ = fitted(name)
    parts = [*model.parameters()] or [model.slopes, model.deviation]
    held = [p.requires_grad for p in parts]
    for p in parts:
        p.requires_grad_()
    direction = [torch.randn(p.shape, generator=generator(7), dtype=torch.float64).to(p) for p in parts]
    length = math.sqrt(sum(float((d * d).sum()) for d in direction))
    direction, n, h = [d / length for d in direction], 1000 if name == "diffusion" else 4000, 0.25
    means = []
    for k in range(10):
        beside = None if context is None else context.expand(n, 1)
        loss = curve(model.draw(n, context=beside, rng=generator(8, k)).double()).mean()
        gradients = torch.autograd.grad(loss, parts, allow_unused=True)
        means.append(sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True) if g is not None))
    slope = torch.tensor(means)

    def moved(sign: int, k: int) -> float:
        with torch.no_grad():
            for p, d in zip(parts, direction, strict=True):
                p += sign * h * d
            beside = None if context is None else context.expand(n, 1)
            value = float(curve(model.draw(n, context=beside, rng=generator(9, sign, k)).double()).mean())
            for p, d in zip(parts, direction, strict=True):
                p -= sign * h * d
        return value

    apart = torch.tensor([(moved(1, k) - moved(-1, k)) / (2 * h) for k in range(10)])
    for p, wanted in zip(parts, held, strict=True):
        p.requires_grad_(wanted)
    error = math.sqrt(float(slope.var() + apart.var()) / 10)
    # the difference over a step is off the slope by its third derivative
    assert abs(float(slope.mean() - apart.mean())) < 4 * error + 0.1 * abs(float(slope.mean()))


def test_draws_move_the_weights_of_a_mixture():
    """The mean of ½ N(−3, 1) + ½ N(3, 1) moves with the logits, which a draw that only moves components would not show."""
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    means, scale = torch.tensor([[[-3.0], [3.0]]]).double(), torch.ones(1, 2, 1).double()
    mean = MixtureDensity(logits, means, scale=scale).rsample((20_000,), rng=generator(10)).mean()
    # d/da of (−3 e^a + 3 e^b) / (e^a + e^b) at a = b is −1.5
    assert torch.autograd.grad(mean, logits)[0].flatten().tolist() == pytest.approx([-1.5, 1.5], abs=0.15)
    family, space = TABLE["vae"], Space.continuous(1)
    model = family.build(space, config=family.config(components=2, latent=1), rng=generator(0))
    drawn = model.draw(4000, rng=generator(11)).mean()
    weights = torch.autograd.grad(drawn, model.level)[0][:2]
    assert (weights.abs() > 1e-3).all() and float(weights.sum()) == pytest.approx(0, abs=1e-3)


# ------------------------------------------------------------------------------------------------ scores and chains


@pytest.fixture(scope="module")
def normal_diffusion():
    """Diffusion of a standard normal column, whose scores are known at every level."""
    family, space = TABLE["diffusion"], Space.continuous(1)
    x = torch.randn(4000, 1, generator=generator(11), dtype=torch.float64)
    model = family.build(space, config=family.suggest(space, 400), rng=generator(12))
    assert [*fit(model, x, Recipe(steps=500, **family.recipe), rng=generator(12))]
    return model


@pytest.mark.parametrize("level", [0.2, 1.0, 5.0])
def test_a_score_is_the_slope_of_the_noised_density(level, normal_diffusion):
    y = torch.linspace(-1.5, 1.5, 9)[:, None] * math.sqrt(1 + level**2)
    with torch.no_grad():
        found = normal_diffusion.score(y, level)
    torch.testing.assert_close(found, -y / (1 + level**2), atol=0.25 / math.sqrt(1 + level**2), rtol=0.1)
    assert normal_diffusion.score(y.double(), level).shape == y.shape  # as the encoding gives them
    with pytest.raises(InputError, match="level: expected the deviation of the noise, above 0, got 0"):
        normal_diffusion.score(y, 0)


@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("unit_variance", [False, True])
def test_a_respaced_chain_is_the_same_model(steps, unit_variance, normal_diffusion):
    """The chain is exact for Gaussian rows however few its steps; its states have the deviations they should."""
    chain, states = normal_diffusion.respaced(steps, "karras", unit_variance=unit_variance), []
    rng = generator(13)
    with torch.no_grad():
        y = chain.first(4000, None, rng)
        for k in range(steps, 0, -1):
            states.append(float(y.std()))
            mean, deviation = chain.transition(y, k, None)
            y = mean + deviation * torch.randn(y.shape, generator=rng)
        x = chain.finish(y, None, rng)
    levels = chain.levels(steps)[:0:-1]
    expected = [1.0 if unit_variance else math.sqrt(1 + s * s) for s in levels]
    assert states == pytest.approx(expected, rel=0.08)
    assert float(x.mean()) == pytest.approx(0, abs=0.1) and float(x.std()) == pytest.approx(1, abs=0.1)
    assert float(chain.sample(4000, rng=generator(14)).std()) == pytest.approx(1, abs=0.1)
    assert len(chain.levels(steps)) == steps + 1 and normal_diffusion.steps != steps


def test_a_respaced_chain_shares_its_parameters_and_scaled_states_are_the_plain_ones(normal_diffusion):
    plain, scaled = (normal_diffusion.respaced(6, unit_variance=unit) for unit in (False, True))
    assert next(plain.parameters()) is next(normal_diffusion.parameters())
    y = torch.linspace(-3, 3, 7)[:, None]
    levels = plain.levels(6)
    for k in (6, 3, 1):
        here, there = (math.sqrt(1 + levels[i] ** 2) for i in (k, k - 1))
        with torch.no_grad():
            (mean, deviation), (theirs, spread) = plain.transition(here * y, k, None), scaled.transition(y, k, None)
        torch.testing.assert_close(mean / there, theirs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(deviation / there, spread, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="respaced: expected 1 to 10,000 steps and one of geometric, .*, got 0 and None"):
        normal_diffusion.respaced(0)
    with pytest.raises(InputError, match="got 3 and sinus"):
        normal_diffusion.respaced(3, "sinus")


# ------------------------------------------------------------------------------------------------------ the encoding


@pytest.mark.parametrize("space", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_rows_come_back_from_their_encoding(space):
    x, columns = plain_rows() if space is PLAIN else mixed_rows(), encoding(space)
    encoded = columns.encode(x)
    assert encoded.shape == (N, columns.width)
    torch.testing.assert_close(columns.decode(encoded), x, rtol=1e-9, atol=1e-9, equal_nan=True)
    values = encoded[:, columns.width - columns.continuous :]
    assert values.abs().max() < 12 and (values.std(0) > 0.3).all()


def test_the_jacobian_of_an_encoding():
    x, columns = plain_rows()[:5].requires_grad_(), encoding(PLAIN)
    encoded = columns.encode(x)
    slopes = torch.stack([torch.autograd.grad(encoded[:, j].sum(), x, retain_graph=True)[0][:, j] for j in range(2)], 1)
    torch.testing.assert_close(columns.log_jacobian(x.detach()), slopes.log().sum(1), rtol=1e-9, atol=1e-9)
    gaps = mixed_rows()
    missing = encoding(MIXED).log_jacobian(gaps)
    assert torch.isfinite(missing).all() and missing[gaps[:, 0].isnan()].mean() != missing[~gaps[:, 0].isnan()].mean()


@pytest.mark.parametrize("name", [name for name in OF_NUMBERS if name != "quantile"])
def test_families_share_the_encoding_they_are_handed(name):
    """So one reads what another draws: all models of a run meet in the same units."""
    model, _, x = fitted(name)
    torch.testing.assert_close(model.columns.encode(x), encoding(PLAIN).encode(x), rtol=0, atol=0)


def test_a_density_reads_what_another_family_draws():
    """Mean nats of the flow's draws, decoded, are those of its samples, in its own eyes and in a Gaussian mixture's."""
    flow, _, _ = fitted("flow")
    mixture, _, _ = fitted("gaussian_mixture")
    with torch.no_grad():
        drawn = flow.columns.decode(flow.draw(3000, rng=generator(15)).double())
        made = flow.sample(3000, rng=generator(16))
        own, theirs = (torch.stack([m.log_prob(rows).mean() for rows in (drawn, made)]) for m in (flow, mixture))
    assert float(own[0] - own[1]) == pytest.approx(0, abs=0.15) and float(theirs[0] - theirs[1]) == pytest.approx(0, abs=0.3)
    assert own.mean() > theirs.mean() - 0.1
