"""Variational auto-encoders: the linear one equals probabilistic PCA, bounds are below exact values, masses sum to one."""

from __future__ import annotations

import itertools
import math
from typing import cast

import pytest
import torch
from rounding import assert_same_rows
from torch import Tensor, nn

from mixtura.contracts import ONLY, Batch, Column, InputError, Space, Turn
from mixtura.families import vae
from mixtura.families.vae import Config, Vae
from mixtura.ground.cells import OF_PARTS
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)

CENTRE, SCALE, NOISE = 100.0, 3.0, 0.4
MIXED = Space.table(
    (
        Column(missing=True, resolution=1.0, low=97, high=106, atoms=(100.0,)),
        Column("levels", 3, missing=True),
        Column("levels", 2),
        Column(resolution=0.5, low=0, high=2),
    )
)
SMALL = Space.image(1, 2, 2, high=3)
#: name → space, settings
CASES = {
    "one": (MIXED, {"hidden": (8,), "scale": "one"}),
    "column normal": (MIXED, {"hidden": (8,), "scale": "column", "observation": "normal"}),
    "free": (MIXED, {"hidden": (8,), "scale": "free"}),
    "components": (MIXED, {"hidden": (8,), "components": 3}),
    "normals": (MIXED, {"hidden": (8,), "components": 2, "scale": "column", "observation": "normal"}),
    "image": (SMALL, {"hidden": (8,), "components": 2, "grain": True}),
    "convolutions": (SMALL, {"hidden": (4,), "network": "conv", "grain": True}),
}
every_case = pytest.mark.parametrize("case", CASES)


def shaken(space: Space, *, context_shape: tuple[int, ...] | None = None, size: float = 0.3, **settings) -> Vae:
    """An untrained model whose networks say something of values around 1.5 or 101 with a spread of about 2."""
    model = vae.build(space, context_shape=context_shape, config=Config.model_validate(settings), rng=generator(1)).eval()
    shake = generator(2)
    for p in model.parameters():
        p.data += size * torch.randn(p.shape, generator=shake)
    columns = [space.columns[j] for j in model.columns.numeric]
    model.columns.centre[:] = torch.tensor([101.0 if c.low > 50 else 1.5 for c in columns]).double()
    model.columns.scale[:] = 2.0
    return model


def listed(space: Space) -> tuple[Tensor, Tensor]:
    """Every possible row, and log δ of its cell: nats + log δ is the log of its mass."""

    def values(c: Column) -> list[float]:
        codes = range(c.levels) if c.kind == "levels" else torch.arange(c.low, c.high + 1e-9, c.resolution).tolist()
        return [*map(float, codes), *([math.nan] if c.missing else [])]

    rows = torch.tensor(list(itertools.product(*map(values, space.columns))), dtype=torch.float64)
    log_step = torch.tensor([math.log(c.resolution or 1.0) for c in space.columns], dtype=torch.float64)
    return rows.reshape(-1, *space.shape), torch.where(torch.isnan(rows), 0.0, log_step).sum(1)


@torch.no_grad()
def by_quadrature(model: Vae, x: Tensor) -> Tensor:
    """(n,) log p(x), the integral over a single latent on 161 points of [−8, 8]."""
    nodes = torch.linspace(-8, 8, 161)
    log_weight = (-0.5 * nodes.double().square() - 0.5 * math.log(2 * math.pi)) + math.log(0.1)
    parts = model.columns.split(x)
    given = [model._log_given(z.expand(len(x), 1), parts, None).double() for z in nodes]
    return torch.logsumexp(torch.stack(given) + log_weight[:, None], 0)


# ------------------------------------------------------------------------------------------------------ linear model


class Linear:
    """The linear model of 5 columns and 2 latents with known weights, its exact density N(100, 9 (WWᵀ + σ²)), and the exact
    posterior in q, moved by ``off`` of its own deviations."""

    def __init__(self, off: float = 0.0) -> None:
        config = Config(latent=2, hidden=(), observation="normal", scale="one")
        self.model = vae.build(Space.continuous(5), config=config, rng=generator(0)).eval()
        size = torch.tensor([0.9, 0.5]).double()
        W = torch.linalg.qr(torch.randn(5, 2, generator=generator(3), dtype=torch.float64))[0] * size
        variance = 1 / (1 + size**2 / NOISE**2)
        to_mean = variance[:, None] * W.T / NOISE**2
        encoder, decoder = (cast(nn.Linear, cast(nn.Sequential, m)[0]) for m in (self.model.encoder, self.model.decoder))
        encoder.weight.data, encoder.bias.data = (
            torch.cat([to_mean, 0 * to_mean]).float(),
            torch.cat([off * variance.sqrt(), 0.5 * variance.log()]).float(),
        )
        decoder.weight.data, decoder.bias.data = W.float(), torch.zeros(5)
        cast(nn.Parameter, self.model.log_scale).data[:] = math.log(NOISE)
        self.model.columns.centre[:], self.model.columns.scale[:] = CENTRE, SCALE
        self.W, self.deviation = W, variance.sqrt()
        self.law = torch.distributions.MultivariateNormal(
            torch.full((5,), CENTRE).double(), SCALE**2 * (W @ W.T + NOISE**2 * torch.eye(5))
        )

    def rows(self, n: int) -> Tensor:
        return CENTRE + (torch.randn(n, 5, generator=generator(4), dtype=torch.float64)) @ self.law.scale_tril.T


@pytest.mark.parametrize("draws", [1, 3])
@torch.no_grad()
def test_with_the_exact_posterior_every_draw_is_the_likelihood(draws):
    linear, x = Linear(), Linear().rows(200)
    bound = linear.model.log_prob_bound(x, draws=draws, rng=generator(5))
    torch.testing.assert_close(bound, linear.law.log_prob(x), rtol=0, atol=2e-5)


@torch.no_grad()
def test_with_another_posterior_more_draws_are_nearer_and_none_is_above():
    linear = Linear(off=1.0)
    x, n = linear.rows(8_000), 8_000
    exact = linear.law.log_prob(x)
    short = {k: exact - linear.model.log_prob_bound(x, draws=k, rng=generator(6)) for k in (1, 5, 50)}
    # KL of q from the posterior: half the square of one deviation, in each of two latents
    assert float(short[1].mean()) == pytest.approx(1.0, abs=5 * float(short[1].std()) / n**0.5)
    assert float(short[1].mean()) > float(short[5].mean()) + 0.3 and float(short[5].mean()) > float(short[50].mean()) + 0.1
    assert float(short[50].mean()) > -3 * float(short[50].std()) / n**0.5
    ratio = (-short[50]).exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / n**0.5)


@torch.no_grad()
def test_rate_and_distortion_are_those_of_the_formulas_and_sum_to_the_bound():
    linear = Linear(off=0.5)
    x = linear.rows(20_000)
    found = linear.model.diagnose(x, None, generator(7))
    mean, standard = linear.model.encode(x).double(), torch.distributions.Normal(0.0, 1.0)
    rate = torch.distributions.kl_divergence(torch.distributions.Normal(mean, linear.deviation), standard).sum(1).mean()
    # E_q |y − Wz|² = |y − Wμ|² + Σ variance of each latent, seen through W
    residual = (x - CENTRE) / SCALE - mean @ linear.W.T
    squares = residual.square().sum(1).mean() + (linear.W.square().sum(0) * linear.deviation.square()).sum()
    distortion = squares / (2 * NOISE**2) + 5 * math.log(NOISE * SCALE * math.sqrt(2 * math.pi))
    assert found["rate"] == pytest.approx(float(rate), abs=1e-4)
    assert found["distortion"] == pytest.approx(float(distortion), abs=0.05)
    bound = linear.model.log_prob_bound(x, draws=1, rng=generator(8)).mean()
    assert found["rate"] + found["distortion"] == pytest.approx(-float(bound), abs=0.05)
    assert (found["active"], found["latents"]) == (2, 2)


@torch.no_grad()
def test_codes_and_rows_go_both_ways_in_data_units():
    linear = Linear()
    x = linear.rows(4_000)
    z = torch.tensor([[1.5, -2.0]])
    drawn = linear.model.decode(z.expand(4_000, 2), rng=generator(9))
    expected = CENTRE + SCALE * (linear.W @ z[0].double())
    assert float((drawn.mean(0) - expected).abs().max()) < 4 * SCALE * NOISE / 4_000**0.5
    assert float(drawn.std()) > SCALE * NOISE
    torch.testing.assert_close(drawn.std(0), torch.full((5,), SCALE * NOISE).double(), rtol=0.05, atol=0)
    codes = linear.model.encode(x)
    posterior = torch.linalg.inv(linear.W.T @ linear.W + NOISE**2 * torch.eye(2)) @ linear.W.T @ ((x - CENTRE) / SCALE).T
    torch.testing.assert_close(codes.double(), posterior.T, rtol=0, atol=1e-4)


def structured(n: int) -> Tensor:
    """n rows of 4 columns around 100 whose covariance is exactly that of two strong factors and equal noise."""
    W = torch.tensor([[1.0, 0.6], [1.0, -0.6], [-1.0, 0.6], [1.0, 0.6]]).double()
    covariance = W @ W.T + 0.2 * torch.eye(4)
    white = torch.randn(n, 4, generator=generator(10), dtype=torch.float64)
    white = (white - white.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(white.T.cov(correction=0))).T
    return CENTRE + SCALE * white @ torch.linalg.cholesky(covariance).T


def probabilistic_pca(y: Tensor, latent: int) -> float:
    """The greatest mean log-likelihood of rows y (Tipping & Bishop 1999, section 3.2), nats a row: the noise is the mean of
    the eigenvalues that are left."""
    values = torch.linalg.eigvalsh(y.T.cov(correction=0)).flip(0)
    rest = values[latent:].mean()
    d = len(values)
    log_det = values[:latent].log().sum() + (d - latent) * rest.log()
    return -0.5 * float(d * math.log(2 * math.pi) + log_det + d)


def trained(x: Tensor, steps: int, **settings) -> Vae:
    rng = generator(11)
    config = Config.model_validate({"hidden": (), "observation": "normal", "scale": "one"} | settings)
    model = vae.build(Space.continuous(x.shape[1]), config=config, rng=rng)
    for _ in fit(model, x, Recipe(steps=steps, **{**vae.RECIPE, "rate": 1e-2}), rng=rng):
        pass
    return model


@torch.no_grad()
def test_the_linear_model_learns_probabilistic_pca():
    x = structured(8_000)
    with torch.enable_grad():
        model = trained(x, 600, latent=2)
    y = (x - model.columns.centre) / model.columns.scale
    truth = probabilistic_pca(y, 2) - float(model.columns.scale.log().sum())
    bounds = [float(model.log_prob_bound(x, draws=k, rng=generator(12)).mean()) for k in (1, 16)]
    assert truth - 0.02 < bounds[0] <= bounds[1] + 2e-3 <= truth + 4e-3
    assert model.diagnose(x, None, generator(13))["active"] == 2


@pytest.mark.parametrize(("beta", "active"), [(1.0, 2), (50.0, 0)])
@torch.no_grad()
def test_collapse_shows(beta, active):
    """Three latents for two factors: two are used; where the rate is too dear, none."""
    x = structured(8_000)
    with torch.enable_grad():
        model = trained(x, 400, latent=3, beta=beta)
    found = model.diagnose(x, None, generator(14))
    assert (found["active"], found["latents"]) == (active, 3)
    assert found["rate"] < 0.01 if active == 0 else found["rate"] > 1


# ------------------------------------------------------------------------------------------------- masses and bounds


@every_case
def test_masses_of_all_rows_sum_to_one(case):
    """Cells with their open ends, atoms and what overlaps them, missing values, levels."""
    space, settings = CASES[case]
    x, log_step = listed(space)
    mass = (by_quadrature(shaken(space, latent=1, **settings), x) + log_step).exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-4)
    assert float(mass.max()) < 0.5, "the test sees a spread"


@every_case
@torch.no_grad()
def test_the_bound_is_unbiased_and_below_the_integral(case):
    space, settings = CASES[case]
    model = shaken(space, latent=1, **settings)
    x = listed(space)[0][:: 37 if space is MIXED else 11]
    exact, n = by_quadrature(model, x), 200
    rows = x.repeat_interleave(n, 0)
    means = {}
    for k in (1, 20):
        short = model.log_prob_bound(rows, draws=k, rng=generator(15)).reshape(-1, n) - exact[:, None]
        means[k], error = float(short.mean()), float(short.std(1).square().sum().sqrt() / len(x) / n**0.5)
        assert means[k] < 4 * error
    assert means[1] <= means[20] + 4 * error
    ratio = short.exp()
    off = (ratio.mean(1) - 1) / (ratio.std(1) / n**0.5 + 1e-4)
    assert float(off.abs().max()) < 5


@every_case
def test_samples_fall_into_cells_as_their_masses_say(case):
    space, settings = CASES[case]
    model, n = shaken(space, latent=1, **settings), 20_000
    x, log_step = listed(space)
    mass = (by_quadrature(model, x) + log_step).exp()
    where = {tuple(row): i for i, row in enumerate(space.flat(x).nan_to_num(-1).tolist())}
    drawn = space.flat(model.sample(n, rng=generator(16))).nan_to_num(-1).tolist()
    share = torch.bincount(torch.tensor([where[tuple(row)] for row in drawn]), minlength=len(x)) / n
    assert ((share - mass).abs() <= 5 * (mass / n).sqrt() + 5 / n).all()


@torch.no_grad()
def test_the_reported_bound_knows_nothing_of_beta():
    x = listed(MIXED)[0][::7]
    plain, dear = (shaken(MIXED, hidden=(8,), beta=beta) for beta in (1.0, 50.0))
    assert torch.equal(*(m.log_prob_bound(x, draws=2, rng=generator(17)) for m in (plain, dear)))


@every_case
@torch.no_grad()
def test_the_loss_is_the_bound_or_distortion_and_so_much_of_the_rate(case):
    space, settings = CASES[case]
    x = listed(space)[0][::7][:250]

    def loss(**more) -> float:
        model = shaken(space, **settings, **more)
        turn = Turn({ONLY: Batch(x=model._encode_for_training(x))}, lambda *_: generator(18))
        return float(model.stages()[0].phases[0].loss(turn))

    model = shaken(space, **settings)
    assert loss(samples=5) == pytest.approx(-float(model.log_prob_bound(x, draws=5, rng=generator(18)).mean()), rel=1e-4)
    found = model.diagnose(x, None, generator(18))
    assert loss(beta=3.0) == pytest.approx(3 * found["rate"] + found["distortion"], rel=1e-4)


def test_pixels_are_the_parts_that_columns_make():
    model, space = shaken(Space.image(3, 2, 4, high=15), hidden=(8,)), Space.image(3, 2, 4, high=15)
    model.columns.prepare(torch.randint(16, (50, *space.shape), generator=generator(19)).double())
    x = torch.randint(16, (40, *space.shape), generator=generator(20)).double()
    mine, theirs = model._pixels(model._encode_for_training(x)), model.columns.split(x)
    for name in OF_PARTS:
        got, expected = getattr(mine, name), getattr(theirs, name)
        torch.testing.assert_close(got.double().expand(expected.shape), expected.double(), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- grain


@torch.no_grad()
@pytest.mark.parametrize("settings", [{}, {"components": 2}, {"observation": "normal", "scale": "column"}])
def test_images_have_the_mean_of_their_pixels_given_z_and_the_likelihood_of_the_noise(settings):
    space = Space.image(3, 2, 4, high=255)
    smooth, grainy = (shaken(space, hidden=(8,), grain=grain, **settings) for grain in (False, True))
    for model in (smooth, grainy):
        model.columns.centre[:], model.columns.scale[:] = 128.0, 3.0
    z = torch.randn(5, 8, generator=generator(30))
    decoded = smooth.decode(z, rng=generator(31))
    assert torch.equal(decoded, smooth.decode(z, rng=generator(32)))
    drawn = torch.stack([grainy.decode(z, rng=generator(33, i)) for i in range(2_000)])
    assert float((drawn.mean(0) - decoded).abs().max()) < 4 * float(drawn.std(0).max()) / 2_000**0.5 + 0.5
    # what the images leave out is said, and is what draws have
    assert float(smooth._deviation(z, None).mean()) == pytest.approx(float(drawn.std(0).mean()), rel=0.1)
    x = smooth.sample(200, rng=generator(34))
    told, drawn_so = (m.diagnose(x, None, generator(35)) for m in (smooth, grainy))
    assert told.pop("grain") > 0 and told == drawn_so
    assert torch.equal(*(m.log_prob_bound(x, draws=2, rng=generator(36)) for m in (smooth, grainy)))


def test_images_have_no_grain_unless_it_is_asked_for_and_tables_are_always_drawn():
    assert not vae.suggest(Space.image(1, 28, 28), 1_000).grain
    table = shaken(MIXED, hidden=(8,))
    z = torch.zeros(50, 8)
    assert len(table.decode(z, rng=generator(37)).nan_to_num(-1).unique(dim=0)) > 10


# -------------------------------------------------------------------------------------------------- drawing in parts


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize(
    ("space", "settings"),
    [
        (MIXED, {"hidden": (64, 64), "components": 3}),
        (Space.continuous(3), {"hidden": (33,), "observation": "normal"}),
        (Space.image(1, 8, 8, high=16), {"hidden": (128, 128), "components": 2}),
        (Space.image(3, 8, 12), {"hidden": (16, 32), "network": "conv"}),
    ],
    ids=["mixed", "numbers", "mlp", "conv"],
)
def test_at_once_or_in_parts_the_rows_are_the_same(space, settings, context):
    model = shaken(space, context_shape=(2,) if context else None, size=0.05, **settings)
    beside = torch.randn(600, 2, generator=generator(21)) if context else None
    whole = model.sample(600, context=beside, rng=generator(22))
    one_after_the_other, made, begin = generator(22), [], 0
    for n in (1, 7, 300, 33, 259):
        mine = None if beside is None else beside[begin : begin + n]
        made.append(model.sample(n, context=mine, rng=one_after_the_other))
        begin += n
    assert_same_rows(torch.cat(made), whole)
    assert len(torch.unique(space.flat(whole).nan_to_num(-1), dim=0)) > 50


# -------------------------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("space", "settings", "named"),
    [
        (MIXED, {"network": "conv"}, "vae: 2 convolutions need images"),
        (Space.image(1, 6, 8), {"network": "conv", "hidden": (4, 4)}, r"multiples of 4, but the shape is \(1, 6, 8\)"),
        (Space.image(1, 8, 8), {"network": "conv", "hidden": ()}, "vae: 0 convolutions"),
        (MIXED, {"beta": 2.0, "samples": 3}, "beta is 2 and samples 3"),
        (Space.image(3, 256, 256), {}, "196,608 entries are more than the 50,000"),
    ],
)
def test_what_cannot_be_built_is_said(space, settings, named):
    with pytest.raises(InputError, match=named):
        vae.build(space, config=Config.model_validate(settings), rng=generator(0))


@pytest.mark.parametrize("z", [torch.zeros(3), torch.zeros(3, 5)])
def test_codes_of_another_shape_are_named(z):
    with pytest.raises(InputError, match=r"z: expected shape \(n, 8\)"):
        shaken(MIXED, hidden=(8,)).decode(z, rng=generator(0))


# ---------------------------------------------------------------------------------------------------- bottleneck


@pytest.mark.parametrize("beta", [0.2, 0.9])
def test_a_bottleneck_keeps_what_the_gaussian_bottleneck_keeps(beta):
    """Of a row and a context that correlate by ρ, with ρ² = .8, the least β I(c; z) − I(z; x) has exp(−2 I(c; z)) =
    β (1 − ρ²) / (ρ² (1 − β)), and keeps nothing from β = ρ² on (Chechik et al. 2005, theorem 3.1)."""
    rng, ρ2, n = generator(30), 0.8, 6_000
    c = torch.randn(n, 1, generator=rng, dtype=torch.float64)
    x = 100 + 3 * (math.sqrt(ρ2) * c + math.sqrt(1 - ρ2) * torch.randn(n, 1, generator=rng, dtype=torch.float64))
    settings = Config(latent=1, hidden=(), observation="normal", scale="one", beta=beta, bottleneck=True)
    model = vae.build(Space.continuous(1), context_shape=(1,), config=settings, rng=generator(31))
    for _ in fit(model, Batch(x=x[:4_000], context=c[:4_000]), Recipe(steps=800, rate=1e-2), rng=generator(32)):
        pass
    x, c = x[4_000:], c[4_000:]
    kept = min(1.0, beta * (1 - ρ2) / (ρ2 * (1 - beta)))
    entropy = 0.5 * math.log(2 * math.pi * math.e) + math.log(3)
    with torch.no_grad():
        found, bound = model.diagnose(x, c, generator(33)), model.log_prob_bound(x, context=c, draws=256, rng=generator(34))
    assert found["rate"] == pytest.approx(-0.5 * math.log(kept), abs=0.1)
    assert found["distortion"] == pytest.approx(entropy + 0.5 * math.log(1 - ρ2 * (1 - kept)), abs=0.06)
    assert -found["distortion"] <= float(bound.mean()) + 0.02 and found["latents"] == 1
    made = model.sample(2_000, context=torch.ones(2_000, 1, dtype=torch.float64), rng=generator(35))
    assert float(made.mean()) == pytest.approx(100 + 3 * math.sqrt(ρ2) * (1 - kept), abs=0.4)


@pytest.mark.parametrize("settings", [{"samples": 2}, {"network": "conv"}, {}])
def test_a_bottleneck_of_nothing_is_refused(settings):
    space, shape = (Space.image(1, 4, 4), (1,)) if "network" in settings else (Space.continuous(1), (1,) if settings else None)
    with pytest.raises(InputError, match="vae: bottleneck is for rows given a context"):
        vae.build(space, context_shape=shape, config=Config(hidden=(8,), bottleneck=True, **settings), rng=generator(0))
