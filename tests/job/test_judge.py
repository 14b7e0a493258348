"""Scores of models whose law is known."""

from __future__ import annotations

import math

import pytest
import torch

from mixtura.blending.nats import REPEATS, TILE, log_probs, sound
from mixtura.contracts import Column, Density, Estimate, LowerBound, Model, Space
from mixtura.features.space import FeatureSpace, plain_features
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator, normal
from mixtura.job.scoring import SampleJudge, bits_per_dimension
from mixtura.metrics.compare import MOST_COMPARED, memorised


class Samples(Model):
    """N(100 + context, 9) on the line, of which only samples are known."""

    def __init__(self, context_shape=None):
        super().__init__(Space.continuous(1), context_shape)
        self.sizes = []

    def stages(self):
        return ()

    def _sample(self, n, context, rng):
        self.sizes.append(n)
        return 100 + 3 * normal((n, 1), rng, torch.empty(0, dtype=torch.float64))

    def law(self, x, context):
        self.sizes.append(len(x))
        return torch.distributions.Normal(100 + (0 if context is None else context.double()), 3.0).log_prob(x).sum(1)


class Exact(Samples, Density):
    def _log_prob(self, x, context):
        return self.law(x, context)


class Bound(Samples, LowerBound):
    """log of the mean of ``draws`` estimates p·exp(sz − s²/2), which are unbiased; all rows share z."""

    spread = 0.3

    def _log_prob_bound(self, x, context, draws, rng):
        z = normal((draws, 1), rng, x)
        return self.law(x, context) + torch.logsumexp(self.spread * z - self.spread**2 / 2, 0) - math.log(draws)


def lines(n, seed=0):
    return 100 + 3 * torch.randn(n, 1, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 5, TILE, 2 * TILE + 3])
@pytest.mark.parametrize("with_context", [False, True])
def test_exact_nats_come_tile_by_tile_without_error(n, with_context):
    x, context = lines(n), torch.randn(n, 1, generator=generator(1)) if with_context else None
    model = Exact((1,) if with_context else None)
    nats, error = log_probs(model, x, context=context, rng=generator(2))
    assert max(model.sizes) <= TILE and error == 0
    torch.testing.assert_close(nats, model.law(x, context))


def test_a_bound_is_the_log_of_the_mean_of_all_draws():
    """REPEATS × draws estimates of one number: the result is repeatable, and near and mostly below the truth."""
    x, model = lines(1), Bound()
    runs = torch.stack([log_probs(model, x, rng=generator(3, i))[0] for i in range(400)]) - model.law(x, None)
    variance = math.expm1(model.spread**2) / (REPEATS * Bound.draws)  # of the mean estimate over its expectation
    assert float(runs.exp().mean()) == pytest.approx(1, abs=5 * math.sqrt(variance / 400))
    assert float(runs.mean()) == pytest.approx(-variance / 2, abs=5 * math.sqrt(variance / 400))
    assert torch.equal(log_probs(model, x, rng=generator(3))[0], log_probs(model, x, rng=generator(3))[0])


def test_the_sampling_error_of_a_bound_is_that_of_its_mean():
    errors = torch.tensor([log_probs(Bound(), lines(50), rng=generator(4, i))[1] for i in range(300)], dtype=torch.float64)
    variance = math.expm1(Bound.spread**2) / (REPEATS * Bound.draws)
    assert float(errors.square().mean().sqrt()) == pytest.approx(math.sqrt(variance), rel=0.15)


def test_a_bound_tells_the_share_of_all_its_estimates():
    shares = []
    log_probs(Bound(), lines(TILE + 5), rng=generator(4), watch=shares.append)
    assert shares == [(k + 1) / (2 * REPEATS) for k in range(2 * REPEATS)]


def test_an_impossible_row_makes_the_error_unknown_and_spoils_no_other():
    class Half(Bound):
        def _log_prob_bound(self, x, context, draws, rng):
            return super()._log_prob_bound(x, context, draws, rng).masked_fill(x[:, 0] > 100, -math.inf)

    nats, error = log_probs(Half(), torch.tensor([[99.0], [101.0]], dtype=torch.float64), rng=generator(5))
    assert math.isnan(error) and torch.isfinite(nats[0]) and nats[1] == -math.inf


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_nats_that_are_no_numbers_are_the_models_fault(broken):
    nats = torch.tensor([-1.0, -math.inf, broken, broken])
    assert torch.equal(sound(nats[:2], Bound()), nats[:2])
    with pytest.raises(FloatingPointError, match=f"Bound gives row 2 a log-density of {broken}"):
        sound(nats, Bound())


def test_a_model_without_a_density_has_no_nats():
    with pytest.raises(TypeError, match="Samples has no density"):
        log_probs(Samples(), lines(3), rng=generator(0))


# ---------------------------------------------------------------------------------------------- memorisation

MIXED = Space.table((Column(), Column("levels", 3), Column(missing=True, resolution=1.0, low=90, high=110, atoms=(100.0,))))


def mixed(n, seed):
    rng = generator(seed)
    number = lines(n, seed)
    level = torch.randint(3, (n, 1), generator=rng).double()
    whole = lines(n, seed + 1000).round().clamp(90, 110).masked_fill(torch.rand(n, 1, generator=rng) < 0.2, math.nan)
    return torch.cat([number, level, whole], 1)


@pytest.mark.parametrize(("copied", "want"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_copies_are_found_out(copied, want):
    train, unseen, samples = mixed(600, 1), mixed(600, 2), mixed(400, 3)
    samples[: round(copied * 400)] = train[: round(copied * 400)]
    columns = Columns(MIXED)
    columns.prepare(train)
    look = lambda x: plain_features(x, columns)  # noqa: E731
    found = memorised(look(samples), train, look(unseen), look, rng=generator(6))
    assert found.n == 400 and abs(found.value - want) < 4 * found.error + 1e-9 and 0 < found.error < 0.06


def test_rows_off_the_support_can_be_compared():
    columns = Columns(MIXED)
    train = mixed(100, 1)
    columns.prepare(train)
    samples = torch.tensor([[1e9, 7.0, -5.0], [-1e9, 0.0, math.nan]], dtype=torch.float64)
    look = lambda x: plain_features(x, columns)  # noqa: E731
    assert 0 <= memorised(look(samples), train, look(mixed(100, 2)), look, rng=generator(7)).value <= 1


def test_of_many_training_rows_only_those_compared_are_looked_at():
    """Of 200,000 rows with 4,096 levels the features alone would take gigabytes."""
    looked = []

    def look(x):
        looked.append(len(x))
        return x.float()

    rows = torch.randn(3 * MOST_COMPARED, 2, generator=generator(8), dtype=torch.float64)
    memorised(rows[:50].float(), rows, rows[50:100].float(), look, rng=generator(9))
    assert looked == [MOST_COMPARED]


def test_the_cost_of_sampling_counts_the_asked_rows():
    model, rows = Samples(), torch.randn(40, 1, generator=generator(8), dtype=torch.float64)
    features = FeatureSpace.of_samples(rows, None)
    sampled = SampleJudge(rows[:20], rows[20:], features, features.kernel, 50, seed=0).of_model("own", model)
    assert model.sizes == [50] and sampled.rows.shape == (50, 1) and 0 < sampled.cost < 10_000
    assert sampled.score.name == "own" and sampled.score.rows == 20 and sampled.features.equal(features(sampled.rows))


# ------------------------------------------------------------------------------------------------- bits of images


@pytest.mark.parametrize("step", [1.0, 1 / 255])
def test_uniform_levels_are_eight_bits_whatever_their_unit(step):
    space = Space.image(3, 4, 4, low=0, high=255 * step, resolution=step)
    nats = -48 * math.log(256) - 48 * math.log(step)  # log(mass / δ) of every pixel
    bits = bits_per_dimension(Estimate(nats, 48 * math.log(2), 10), space)
    assert bits.value == pytest.approx(8) and bits.error == pytest.approx(1) and bits.n == 10


@pytest.mark.parametrize("space", [Space.continuous(3), Space.continuous(1, 4, 4)])
def test_what_has_no_levels_has_no_bits(space):
    assert bits_per_dimension(Estimate(-1.0, 0.1, 10), space) is None


def test_impossible_values_are_as_far_away_as_they_are_wrong():
    space = Space.table([Column("levels", 3), Column(low=0.0), Column("levels", 1)])
    rng = generator(0)
    x = torch.stack([torch.arange(300) % 3, torch.rand(300, generator=rng) + 1, torch.zeros(300)], 1).double()
    columns = Columns(space)
    columns.prepare(x)
    asked = torch.tensor([[0, 1.5, 0], [1, 1.5, 0], [3, 1.5, 0], [0, 1.5, 1], [0, 0, 0], [0, -1, 0], [0, -2, 0], [0, -1e300, 0]])
    seen = plain_features(asked.double(), columns)
    apart = torch.cdist(seen, seen)
    # two levels, two levels of which one was never seen, and another constant
    assert torch.allclose(apart[[0, 0, 1, 0], [1, 2, 2, 3]], torch.ones(4, dtype=torch.float64))
    # beyond the wall a step is a step, and there is an end to it
    assert float(apart[4, 5]) == pytest.approx(float(apart[5, 6])) and 2 < float(apart[5, 6]) < 5
    assert torch.isfinite(seen.float()).all() and float(apart[0, 7]) > 1e5
