"""Diffusion: formulas equal the textbook's, samplers solve the equation, and the bound is that of the chain that samples."""

from __future__ import annotations

import math

import pytest
import torch
from rounding import assert_same_rows

from mixtura.contracts import Column, InputError, Space
from mixtura.families import diffusion
from mixtura.families.diffusion import Config, Diffusion
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)

MIXED = Space.table((Column(missing=True, resolution=1.0, low=90, high=110), Column("levels", 3), Column("levels", 2), Column()))


def shaken(space, **settings):
    """An untrained model whose network says something."""
    model = diffusion.build(space, config=Config.model_validate({"width": 16, "depth": 1} | settings), rng=generator(1)).eval()
    shake = generator(2)
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape, generator=shake)
    return model


class Known(Diffusion):
    """Rows of N(100, 9 Σ), Σ of unit variances and correlation ρ, with the exact D and V in place of the network's."""

    def __init__(self, correlation, **settings):
        super().__init__(Space.continuous(2), None, Config(width=1, depth=1, **settings), generator(0))
        self.columns.centre[:], self.columns.scale[:] = 100.0, 3.0
        self.covariance = torch.tensor([[1, correlation], [correlation, 1]], dtype=torch.float64)
        self.law = torch.distributions.MultivariateNormal(torch.full((2,), 100.0).double(), 9 * self.covariance)

    def gain(self, s):
        """E[x | y] = gain · y, and Cov[x | y] = s² gain."""
        return self.covariance @ torch.linalg.inv(self.covariance + s**2 * torch.eye(2))

    def _predict(self, y, s, context):
        gain = self.gain(float(s[0, 0])).to(y)
        return [], y @ gain.T, s**2 * gain.diagonal()

    def exact(self, y, s):
        return self._predict(y, torch.full((len(y), 1), s), None)[1:]


# ---------------------------------------------------------------------------------------------------------- formulas

#: what the network predicts, of (x, ε, s), as its paper writes it, with α = 1/√(1 + s²), σ = s/√(1 + s²)
TARGETS = {
    "noise": lambda x, e, s: e,
    "data": lambda x, e, s: x,
    "velocity": lambda x, e, s: (e - s * x) * (1 + s**2).rsqrt(),
    "flow": lambda x, e, s: e - x,
}
#: what it sees
SEEN = {
    "noise": lambda x, e, s: (x + s * e) * (1 + s**2).rsqrt(),
    "data": lambda x, e, s: (x + s * e) * (1 + s**2).rsqrt(),
    "velocity": lambda x, e, s: (x + s * e) * (1 + s**2).rsqrt(),
    "flow": lambda x, e, s: (1 - s / (1 + s)) * x + s / (1 + s) * e,
}


@pytest.mark.parametrize("name", diffusion.PARAMETERISATIONS)
def test_each_parameterisation_is_the_textbook_one(name):
    rng = generator(3)
    x, e = torch.randn(2, 50, generator=rng, dtype=torch.float64)
    s = torch.logspace(-2, 1.5, 50, dtype=torch.float64)
    c_skip, c_out, c_in = diffusion.PARAMETERISATIONS[name](s)
    y = x + s * e
    torch.testing.assert_close(c_skip * y + c_out * TARGETS[name](x, e, s), x)
    torch.testing.assert_close(c_in * y, SEEN[name](x, e, s))


#: of the levels, what the paper spaces evenly; of "linear" ∫β, whose second differences are even
EVEN = {
    "geometric": lambda s: s.log(),
    "karras": lambda s: s ** (1 / 7),
    "cosine": lambda s: (1 / (1 + s**2)).sqrt().acos(),
    "linear": lambda s: (0.1**2 + 2 * 19.9 * (1 + s**2).log()).sqrt(),
    "straight": lambda s: s / (1 + s),
}


@pytest.mark.parametrize("name", diffusion.SCHEDULES)
def test_each_schedule_is_even_in_its_own_time(name):
    s = diffusion.SCHEDULES[name](40, 0.01, 40.0)
    assert len(s) == 41 and float(s[0]) == pytest.approx(0.01) and float(s[-1]) == pytest.approx(40)
    gaps = EVEN[name](s).diff()
    assert float(gaps.min()) > 0
    torch.testing.assert_close(gaps, gaps.mean().expand(40), rtol=1e-4, atol=0)


# ---------------------------------------------------------------------------------------------------------- samplers


def _root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.sqrt() @ vectors.T


@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("heun", 2)])
def test_the_equation_is_solved_and_at_its_order(sampler, order):
    """Of Gaussian rows y(s) = (Σ + s²)^½ (Σ + S²)^−½ y(S)."""
    known = Known(0.8)
    y = 10 * torch.randn(20, 2, generator=generator(4), dtype=torch.float64)
    low, high, one = 0.05, 10.0, torch.eye(2, dtype=torch.float64)
    truth = y @ (_root(known.covariance + low**2 * one) @ torch.linalg.inv(_root(known.covariance + high**2 * one))).T
    walk = lambda steps: diffusion.SAMPLERS[sampler](  # noqa: E731
        known.exact, y, diffusion.geometric(steps, low, high).tolist(), lambda: pytest.fail("drew noise")
    )
    coarse, fine = (float((walk(steps) - truth).norm() / truth.norm()) for steps in (100, 200))
    assert fine < {1: 0.02, 2: 2e-4}[order]
    assert coarse / fine == pytest.approx(2**order, rel=0.15)


def _law_of_the_chain(known, steps, low=0.05, high=40.0):
    """Covariance of y₀, by the recursion of the linear Gaussian steps."""
    one = torch.eye(2, dtype=torch.float64)
    covariance = (1 + high**2) * one
    levels = diffusion.geometric(steps, low, high).tolist()
    for s, lower in zip(levels[:0:-1], levels[-2::-1], strict=True):
        mean, variance = diffusion.reverse_step(known.exact, one, s, lower)
        covariance = mean.T @ covariance @ mean + variance[0].diag()
    return covariance - known.covariance - low**2 * one


def test_independent_entries_need_no_steps_and_others_many():
    assert float(_law_of_the_chain(Known(0.0), 1).abs().max()) < 1e-9
    errors = [float(_law_of_the_chain(Known(0.8), steps).abs().max()) for steps in (8, 32, 128)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.02


@pytest.mark.parametrize("sampler", diffusion.SAMPLERS)
@pytest.mark.parametrize("space", [MIXED, Space.image(1, 5, 5)], ids=["table", "image"])
def test_rows_at_once_or_in_parts_are_the_same(space, sampler):
    model = shaken(space, steps=4, sampler=sampler, sampler_steps=3)
    rng = generator(5)
    parts = torch.cat([model.sample(n, rng=rng) for n in (1, 60, diffusion.TILE)])
    whole = model.sample(61 + diffusion.TILE, rng=generator(5))
    assert_same_rows(parts, whole)
    assert len(parts.flatten(1).nan_to_num(-1).unique(dim=0)) > 50


class Doubtful(Known):
    """The same with variances a hundred times as large."""

    def _predict(self, y, s, context):
        logits, D, V = super()._predict(y, s, context)
        return logits, D, 100 * V


@pytest.mark.parametrize(("sampler", "noisy"), [("ancestral", True), ("ddim", False), ("heun", False)])
def test_the_probability_flow_adds_no_noise_at_any_step(sampler, noisy):
    """Its draws follow from the first noise and the means alone, so larger variances change nothing."""
    sure, doubtful = (kind(0.5, sampler=sampler).sample(100, rng=generator(40)) for kind in (Known, Doubtful))
    assert torch.equal(sure, doubtful) is not noisy


def test_heun_draws_from_the_law_and_few_steps_are_enough():
    known, n = Known(0.8, sampler="heun", sampler_steps=24), 20_000
    drawn = (known.sample(n, rng=generator(41)) - 100) / 3
    assert float((drawn.T.cov() - known.covariance).abs().max()) < 0.04


def test_images_follow_the_probability_flow_by_heun_and_tables_the_chain():
    for space in (Space.image(1, 8, 8), Space.image(3, 28, 28)):
        config = diffusion.suggest(space, 1_000, 60.0)
        assert (config.network, config.sampler) == ("unet", "heun")
    assert diffusion.suggest(MIXED, 1_000, 60.0).sampler == "ancestral"


def test_steps_one_by_one_follow_the_law_of_sample():
    model, n = shaken(Space.levels(2, levels=3), steps=6), 6000
    rng = generator(6)
    y = model.first(n, None, rng)
    with torch.no_grad():
        for k in range(model.steps, 0, -1):
            mean, deviation = model.transition(y, k, None)
            y = mean + deviation * torch.randn(y.shape, generator=rng)
        walked = model.finish(y, None, rng)
    share = [torch.bincount((3 * x[:, 0] + x[:, 1]).long(), minlength=9) / n for x in (walked, model.sample(n, rng=rng))]
    assert float((share[0] - share[1]).abs().max()) < 5 * math.sqrt(0.5 / n)


# ------------------------------------------------------------------------------------------------------------- bound


def test_the_bound_of_independent_gaussians_is_exact_in_two_steps():
    known = Known(0.0, steps=2)
    x = known.law.sample((50,))
    torch.testing.assert_close(known.log_prob_bound(x, draws=1, rng=generator(7)), known.law.log_prob(x), rtol=0, atol=1e-3)


def test_the_bound_is_below_and_closes_with_steps_and_is_unbiased():
    rows = 2000
    gaps = []
    for steps in (8, 32, 128):
        known = Known(0.8, steps=steps)
        x = known.law.sample((rows,))
        short = known.law.log_prob(x) - known.log_prob_bound(x, draws=1, rng=generator(8))
        assert float(short.mean()) > -4 * float(short.std()) / math.sqrt(rows)
        gaps.append(float(short.mean()))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] and gaps[2] < 0.02
    # exp of a path is unbiased for the density of the chain, a Gaussian of known covariance
    known = Known(0.8, steps=8)
    known.lowest.fill_(0.05)
    start = torch.tensor([[101.0, 98.0]], dtype=torch.float64)
    gain = known.gain(0.05)
    last = known.covariance + 0.05**2 * torch.eye(2) + _law_of_the_chain(known, 8)
    law = torch.distributions.MultivariateNormal(
        torch.full((2,), 100.0).double(), 9 * (gain @ last @ gain.T + (0.05**2 * gain.diagonal()).diag())
    )
    draws = torch.exp(known.log_prob_bound(start.expand(20_000, 2), draws=1, rng=generator(9)) - law.log_prob(start))
    assert float(draws.mean()) == pytest.approx(1, abs=5 * float(draws.std()) / math.sqrt(20_000))
    assert float(draws.std()) < 5


def test_the_bound_of_codes_is_that_of_their_frequencies():
    """All six rows of two codes: exp of a path is on average how often the sampler makes the row."""
    # many steps: of few, the weight of a path has such a tail that its mean is never seen
    model, n = shaken(Space.table((Column("levels", 2), Column("levels", 3))), steps=80), 2_500
    listed = torch.cartesian_prod(torch.arange(2.0), torch.arange(3.0)).double()
    draws = model.log_prob_bound(listed.repeat_interleave(n, 0), draws=1, rng=generator(10)).exp().reshape(6, n)
    made = model.sample(n, rng=generator(11))
    share = torch.stack([(made == row).all(1).double().mean() for row in listed])
    error = (draws.var(1) / n + share * (1 - share) / n).sqrt()
    assert ((draws.mean(1) - share).abs() < 5 * error).all() and float(error.max()) < 0.02
    assert float(draws.mean(1).sum()) == pytest.approx(1, abs=0.05)
    assert float(share.max() / share.min()) > 1.2  # the network does say something


def test_its_parts_make_up_the_bound():
    model = shaken(MIXED, steps=5)
    x = model.sample(200, rng=generator(12))
    assert torch.isnan(x).any()
    parts = model.diagnose(x, None, generator(13))
    assert set(parts) == {"prior", "path", "reconstruction"}
    assert sum(parts.values()) == pytest.approx(float(model.log_prob_bound(x, draws=1, rng=generator(13)).mean()), abs=1e-9)


# ---------------------------------------------------------------------------------------------------------- learning


@pytest.mark.slow
def test_the_score_of_gaussian_rows_is_learned():
    """Within 2 % of (D − y)/s², in the norm of the noised law at levels where there is something to learn."""
    known = Known(0.8)
    draw = lambda n, seed: 100 + 3 * torch.randn(n, 2, generator=generator(seed), dtype=torch.float64) @ _root(known.covariance)  # noqa: E731
    model = diffusion.build(Space.continuous(2), config=Config(width=64, depth=2, steps=100), rng=generator(14))
    recipe = Recipe(**diffusion.RECIPE | {"steps": 4000, "batch": 512, "patience": 100})
    *_, _ = fit(model, draw(50_000, 15), recipe, rng=generator(16))
    unseen = draw(4000, 17)
    error = size = 0.0
    rng = generator(18)
    with torch.no_grad():
        for s in torch.logspace(-1, 1, 9).tolist():
            y = (unseen - 100) / 3 + s * torch.randn(unseen.shape, generator=rng, dtype=torch.float64)
            # the model standardises by the fit rows' own moments, a part in a hundred away from 100 and 3
            centre, scale = (model.columns.centre - 100) / 3, model.columns.scale / 3
            D, _ = model.denoiser()(((y - centre) / scale).float(), s / float(scale.mean()))
            truth, _ = known.exact(y, s)
            error += float((D.double() * scale + centre - truth).square().sum() / s**2)
            size += float((truth - y).square().sum() / s**2)
    assert math.sqrt(error / size) < 0.02
    short = known.law.log_prob(unseen) - model.log_prob_bound(unseen, draws=1, rng=rng)
    assert -4 * float(short.std()) / math.sqrt(len(short)) < float(short.mean()) < 0.05


@pytest.mark.parametrize("space", [Space.image(2, 5, 7, high=16), Space.image(3, 9, 19, high=16)], ids=["grey", "colour"])
def test_images_are_levels_in_range_and_follow_the_rows(space):
    """Odd sizes, a U-Net, pixels alone or in squares of four: of level 3 on the left and 12 on the right."""
    base = torch.full(space.shape, 3.0, dtype=torch.float64)
    base[..., 4:] = 12
    x = (base + 1.5 * torch.randn(60, *space.shape, generator=generator(19), dtype=torch.float64)).round().clamp(0, 16)
    model = diffusion.build(space, config=Config(network="unet", width=32, depth=1, channels=8, steps=20), rng=generator(20))
    for _ in fit(model, x, Recipe(**diffusion.RECIPE | {"steps": 60, "batch": 32}), rng=generator(21)):
        pass
    made = model.sample(40, rng=generator(22))
    assert torch.equal(made, made.round()) and float(made.min()) >= 0 and float(made.max()) <= 16
    assert float((made.mean((0, 1, 2)) - base[0, 0]).abs().max()) < 1.5
    assert torch.isfinite(model.log_prob_bound(x, draws=1, rng=generator(23))).all()


def test_what_cannot_be_served_is_refused():
    with pytest.raises(InputError, match="a U-Net is for images"):
        diffusion.build(MIXED, config=Config(network="unet"), rng=generator(0))
    with pytest.raises(InputError, match="60,000 entries are more than the 50,000"):
        diffusion.build(Space.image(3, 100, 200), config=Config(), rng=generator(0))
