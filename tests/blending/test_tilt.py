"""Reweighting against closed forms: a Gaussian tilted by a line is a Gaussian moved."""

import math

import pytest
import torch

from mixtura.blending.tilt import Tilt, by_chains, importance_resample, log_mean_exp, reject
from mixtura.contracts import ONLY, Batch, InputError, Latent, Model, Space
from mixtura.families import autoregressive, circuit, gaussian_mixture
from mixtura.ground.rng import generator


def draw(rng):
    return lambda n: 100 + 3 * torch.randn(n, 1, generator=rng, dtype=torch.float64)


def line(a):
    """exp(a (x − 100)) moves N(100, 9) to N(100 + 9 a, 9); log Z = 9 a²/2."""
    return lambda x: a * (x[:, 0] - 100)


@pytest.mark.parametrize("how", [importance_resample, reject])
def test_a_line_moves_a_gaussian(how):
    rng = generator(0)
    found = how(draw(rng), line(0.2), 2_000, rng)
    assert abs(float(found.x.mean()) - 101.8) < 0.25 and abs(float(found.x.std()) - 3) < 0.25 and len(found.x) == 2_000
    assert abs(found.log_z.value - 0.18) < 4 * found.log_z.error and found.log_z.error < 0.02


def test_the_effective_sample_size_is_that_of_the_weights():
    """n exp(−σ²) with σ² = 9 a² the variance of f."""
    rng = generator(1)
    found = importance_resample(draw(rng), line(0.2), 2_000, rng)
    assert found.drawn == 20_000 and found.effective == pytest.approx(20_000 * math.exp(-0.36), rel=0.1)


def test_rejection_repeats_no_row_and_a_flat_f_rejects_none():
    rng = generator(2)
    assert len(reject(draw(rng), line(0.1), 500, rng).x.unique()) == 500
    flat = reject(draw(rng), line(0.0), 700, rng)
    assert flat.drawn == 1_000 and flat.log_z.value == pytest.approx(0)


@pytest.mark.parametrize("how", [importance_resample, reject])
def test_too_steep_a_function_is_refused(how):
    rng = generator(3)
    with pytest.raises(InputError, match="f is too steep for this model"):
        how(draw(rng), line(30.0), 3_000, rng)


def test_values_that_are_no_numbers_are_named():
    rng = generator(4)
    with pytest.raises(InputError, match="f of row 0 is nan"):
        importance_resample(draw(rng), lambda x: x[:, 0] * math.nan, 10, rng)
    found = importance_resample(draw(rng), lambda x: torch.where(x[:, 0] > 100, 0.0, -math.inf), 100, rng)
    assert (found.x > 100).all() and found.log_z.value == pytest.approx(-math.log(2), abs=0.1)


def test_what_is_lost_above_a_bound_is_said():
    rng = generator(8)
    assert reject(draw(rng), line(0.3), 500, rng, most=4.0).lost < 1e-3
    assert reject(draw(rng), line(0.3), 500, rng, most=-2.0).lost > 0.5


@pytest.mark.parametrize("most", [-1000.0, math.inf, math.nan, "a"])
def test_a_bound_that_tilts_nothing_is_refused(most):
    rng = generator(8)
    with pytest.raises(InputError, match="most: "):
        reject(draw(rng), line(0.3), 500, rng, most=most)


@pytest.mark.parametrize("how", [importance_resample, reject])
def test_numbers_of_rows_and_draws_are_checked(how):
    rng = generator(8)
    for n in (-1, 0, 2.5, "a", None, True):
        with pytest.raises(InputError, match="n: expected a whole number of rows"):
            how(draw(rng), line(0.1), n, rng)
    with pytest.raises(InputError, match=r"expected 1,000 rows of draw, a tensor \(1000, …\), got \(5, 1\)"):
        how(lambda n: torch.zeros(5, 1), line(0.1), 50, rng)
    with pytest.raises(InputError, match="f is −∞ for every row"):
        how(draw(rng), lambda x: x[:, 0] * 0 - math.inf, 50, rng)


@pytest.mark.parametrize("f", [lambda x: x, lambda x: x[:5, 0], lambda x: x[:, 0].numpy(), lambda x: x[:, 0] * 0 - math.inf])
def test_a_function_of_another_shape_or_of_nothing_is_refused(f):
    rng = generator(9)
    with pytest.raises(InputError, match="tilt: "):
        importance_resample(draw(rng), f, 50, rng)


def test_a_model_that_is_tilted_samples():
    x = draw(generator(5))(500)
    base = gaussian_mixture.build(Space.continuous(1), config=gaussian_mixture.Config(components=1), rng=generator(0))
    base.fit_closed(x, None, generator(0))
    tilted = Tilt(base, line(0.2))
    made = tilted.sample(1_000, rng=generator(6))
    assert abs(float(made.mean()) - 101.8) < 0.4 and torch.equal(made, tilted.sample(1_000, rng=generator(6)))


def test_the_error_of_a_log_mean():
    values = torch.stack([_log_mean(seed) for seed in range(200)])
    assert float(values[:, 1].mean()) == pytest.approx(float(values[:, 0].std()), rel=0.25)


def _log_mean(seed):
    found = log_mean_exp(0.5 * torch.randn(400, generator=generator(seed), dtype=torch.float64))
    return torch.tensor([found.value, found.error])


# ------------------------------------------------------------------------------------------------------ by chains


class Linear(Latent):
    """x = 100 + 3 z: a code that says all of the row."""

    latent = 1

    def __init__(self):
        super().__init__(Space.continuous(1))

    def stages(self):
        return ()

    def encode(self, x, *, context=None):
        return (x - 100) / 3

    def decode(self, z, *, context=None, rng):
        return 100 + 3 * z.double()

    def _sample(self, n, context, rng):
        return self.decode(torch.randn(n, 1, generator=rng), rng=rng)


def gaussian():
    model = gaussian_mixture.build(Space.continuous(16), config=gaussian_mixture.Config(components=1), rng=generator(0))
    model.fit_closed(100 + 3 * torch.randn(20_000, 16, generator=generator(5), dtype=torch.float64), None, generator(0))
    return model


@pytest.mark.parametrize("model", [Linear(), gaussian()], ids=["by codes", "by columns"])
def test_chains_go_where_nothing_is_drawn(model):
    """f = 2 √d (mean of d columns − 100) has a deviation of 6: the mean moves by 18/√d, and log Z = 18."""
    root = math.sqrt(model.space.dims)

    def f(x):
        return 2 * root * (x.mean(1) - 100)

    found = by_chains(model, f, 1_000, generator(7))
    assert abs(float(found.x.mean()) - 100 - 18 / root) < 0.6 and abs(float(found.x.std()) - 3) < 0.5 and len(found.x) == 1_000
    assert abs(found.log_z.value - 18) < 1.0 and found.log_z.error < 0.5 and found.effective > 500
    with pytest.raises(InputError, match="too steep"):
        importance_resample(lambda n: model.sample(n, rng=generator(8)), f, 2_000, generator(8))


def test_chains_that_stick_are_refused():
    """They move at first, and not at last."""
    with pytest.raises(InputError, match="the chains stick, .* rows moved at last"):
        by_chains(Linear(), lambda x: 1e6 * torch.sin(1e6 * x[:, 0]), 1_000, generator(11))


def test_chains_keep_levels_that_hang_together():
    """Two equal levels, tilted towards the rarer pair."""
    space = Space.levels(2, levels=2)
    x = (torch.rand(4_000, 1, generator=generator(9)) < 0.1).double().expand(-1, 2)
    model = circuit.build(space, config=circuit.suggest(space, len(x)), rng=generator(0))
    model.fit_closed(x.contiguous(), None, generator(0))
    found = by_chains(model, lambda x: math.log(9) * x[:, 0], 2_000, generator(10), steps=20)
    assert abs(float(found.x[:, 0].mean()) - 0.5) < 0.06 and float((found.x[:, 0] == found.x[:, 1]).double().mean()) > 0.97
    assert found.log_z.value == pytest.approx(math.log(1.8), abs=0.06)


def test_chains_need_codes_or_exact_conditionals():
    space = Space.continuous(2)

    class Draws(Model):
        def stages(self):
            return ()

        def _sample(self, n, context, rng):
            return torch.randn(n, 2, generator=rng, dtype=torch.float64)

    inexact = autoregressive.build(space, config=autoregressive.suggest(space, 100), rng=generator(0))
    inexact.prepare({ONLY: Batch(x=torch.randn(100, 2, generator=generator(0), dtype=torch.float64))}, generator(0))
    for model in (Draws(space), inexact):
        with pytest.raises(InputError, match=f"{type(model).__name__} is neither: use importance_resample"):
            by_chains(model, lambda x: x[:, 0], 20, generator(0))
