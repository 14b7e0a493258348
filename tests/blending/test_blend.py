"""Blends of toy models with known distributions, far from zero: densities, samples, conditionals in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from mixtura.blending.blend import BoundBlend, ExactBlend, SampleBlend, SamplesAtHand, blend
from mixtura.blending.fill import condition
from mixtura.blending.gate import PENALTIES, Gate, _loss, choose_gate, fit_gate
from mixtura.contracts import Column, Conditional, Conditioned, Density, InputError, LowerBound, Model, Space
from mixtura.ground.rng import categorical, generator, normal

INF = math.inf


# ------------------------------------------------------------------------------------------- toy models


class Gauss(Density):
    """N(mean + context, cov); with a context of the shape of an observation if ``context_shape`` is given."""

    def __init__(self, mean, cov, space=None, context_shape=None):
        super().__init__(space or Space.continuous(len(mean)), context_shape)
        self.mean = torch.nn.Parameter(torch.tensor(mean, dtype=torch.float64))
        self.cov = torch.tensor(cov, dtype=torch.float64)

    def stages(self):
        return ()

    def _centre(self, context):
        return self.mean if context is None else self.mean + context

    def _sample(self, n, context, rng):
        root = torch.linalg.cholesky(self.cov)
        return self._centre(context) + normal((n, len(self.mean)), rng, self.cov) @ root.T

    def _log_prob(self, x, context):
        return MultivariateNormal(self._centre(context), self.cov).log_prob(x)


class Filler(Gauss, Conditional):
    """A Gauss that fills gaps, in closed form. Remembers the most rows it was asked to hold at once."""

    most = 0

    def _condition(self, x, known, draws, context, rng):
        self.most = max(self.most, draws * len(x))
        values = torch.empty(draws, *x.shape, dtype=x.dtype)
        evidence = torch.zeros(len(x), dtype=x.dtype)
        for i, (row, seen) in enumerate(zip(x, known, strict=True)):
            mean, cov = given(self._centre(None if context is None else context[i]), self.cov, row, seen)
            values[:, i] = row
            if not seen.all():
                noise = normal((draws, len(mean)), rng, x)
                values[:, i, ~seen] = mean + noise @ torch.linalg.cholesky(cov).T
            if seen.any():
                centre = self._centre(None if context is None else context[i])
                evidence[i] = MultivariateNormal(centre[seen], self.cov[seen][:, seen]).log_prob(row[seen])
        return Conditioned(values, evidence, torch.full_like(evidence, INF))


def given(mean, cov, row, seen):
    """Mean and covariance of the unseen entries of N(mean, cov)."""
    gain = cov[~seen][:, seen] @ torch.linalg.inv(cov[seen][:, seen])
    return mean[~seen] + gain @ (row[seen] - mean[seen]), cov[~seen][:, ~seen] - gain @ cov[seen][:, ~seen]


class NoisyBound(LowerBound):
    """log of the mean of ``draws`` values p(x) exp(sz − s²/2), whose mean is p(x)."""

    def __init__(self, exact, spread):
        super().__init__(exact.space, exact.context_shape)
        self.exact, self.spread = exact, spread

    def stages(self):
        return ()

    def _sample(self, n, context, rng):
        return self.exact.sample(n, context=context, rng=rng)

    def _log_prob_bound(self, x, context, draws, rng):
        noise = self.spread * normal((draws, len(x)), rng, x) - self.spread**2 / 2
        return self.exact.log_prob(x, context=context) + torch.logsumexp(noise, 0) - math.log(draws)


class Sampler(Model):
    """A model that can only be sampled."""

    def stages(self):
        return ()

    def _sample(self, n, context, rng):
        return torch.zeros(n, *self.space.shape, dtype=torch.float64)


class Levels(Density):
    """One categorical entry; an open one gives codes it has no number for e^−9."""

    def __init__(self, probs, levels, open_support=False):
        super().__init__(Space.levels(1, levels=levels))
        self.logits = torch.nn.Parameter(torch.tensor(probs, dtype=torch.float64).log())
        self.open_support = open_support

    def stages(self):
        return ()

    def _sample(self, n, context, rng):
        return categorical(self.logits.expand(n, -1), rng).double()[:, None]

    def _log_prob(self, x, context):
        code = x[:, 0].long()
        inside = code < len(self.logits)
        return torch.where(inside, self.logits[code.clamp(max=len(self.logits) - 1)], -9.0)


def near(x, y, atol=1e-10):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), atol=atol, rtol=0)


# 3 entries around 100 with a spread of 3, in two components that disagree
MEANS = ([100.0, 97.0, 103.0], [104.0, 101.0, 98.0])
COVS = ([[9.0, 6.0, 0.0], [6.0, 9.0, 2.0], [0.0, 2.0, 9.0]], [[9.0, -5.0, 3.0], [-5.0, 9.0, 0.0], [3.0, 0.0, 4.0]])
SHARES = (0.7, 0.3)


def pair(kind=Filler):
    return [kind(m, c) for m, c in zip(MEANS, COVS, strict=True)]


# ---------------------------------------------------------------------------------------------- density


def test_density_is_that_of_the_mixture_and_integrates_to_one():
    means, stds, shares = [94.0, 100.0, 110.0], [3.0, 1.0, 0.5], [0.5, 0.3, 0.2]
    model = blend([Gauss([m], [[s**2]]) for m, s in zip(means, stds, strict=True)], shares)
    x = torch.linspace(70, 130, 20_001, dtype=torch.float64)
    found = model.log_prob(x[:, None]).detach()
    double = lambda v: torch.tensor(v, dtype=torch.float64)  # noqa: E731
    near(found, MixtureSameFamily(Categorical(double(shares)), Normal(double(means), double(stds))).log_prob(x))
    near(torch.trapezoid(found.exp(), x), 1.0, atol=1e-9)


def test_levels_sum_to_one_and_a_component_without_the_level_poisons_nothing():
    model = blend([Levels([1.0, 0.0, 0.0, 0.0], 4), Levels([0.5, 0.25, 0.25, 0.0], 4)], [0.4, 0.6])
    found = model.log_prob(torch.arange(5.0)[:, None])
    near(found.detach().exp(), [0.7, 0.15, 0.15, 0.0, 0.0])
    assert found[3] == found[4] == -INF


def test_gradients_are_finite_whatever_is_minus_infinity():
    space = Space.table([Column(resolution=1.0, low=90.0, high=110.0)])
    models = [Gauss([100.0], [[9.0]], space), Gauss([105.0], [[1.0]], space)]
    x = torch.tensor([[100.0], [500.0]], requires_grad=True)
    found = blend(models, SHARES).log_prob(x)
    assert torch.isfinite(found[0]) and found[1] == -INF
    found[:1].sum().backward(retain_graph=True)
    near(x.grad[1], [0.0])
    found.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in (x, models[0].mean, models[1].mean))

    levels = [Levels([1.0, 0.0, 0.0], 3), Levels([0.5, 0.5, 0.0], 3)]
    blend(levels, SHARES).log_prob(torch.tensor([[0.0], [1.0], [2.0]])).sum().backward()
    assert all(torch.isfinite(model.logits.grad).all() for model in levels)


@pytest.mark.parametrize("open_support, unseen", [(False, -INF), (True, math.log(0.1) - 9)])
def test_an_open_floor_opens_the_blend_alone(open_support, unseen):
    """The other model keeps to its support: only the floor answers for the code that neither has seen."""
    model = blend([Levels([0.5, 0.5], 2), Levels([0.9, 0.1], 2, open_support)], [0.9, 0.1])
    near(model.log_prob(torch.tensor([[1.0], [7.0]])).detach(), [math.log(0.46), unseen])


@pytest.mark.parametrize(
    "kinds, weights, expected",
    [
        ("exact exact", (0.5, 0.5), ExactBlend),
        ("exact bound", (0.5, 0.5), BoundBlend),
        ("bound bound", (0.5, 0.5), BoundBlend),
        ("exact bound sampler", (0.4, 0.4, 0.2), SampleBlend),
        ("exact bound exact", (0.5, 0.0, 0.5), ExactBlend),
        ("bound sampler exact", (0.5, 0.0, 0.5), BoundBlend),
        ("exact sampler", (1.0, 0.0), Gauss),
    ],
)
def test_the_kind_is_the_weakest_that_carries_weight(kinds, weights, expected):
    exact = Gauss([100.0], [[9.0]])
    make = {"exact": lambda: exact, "bound": lambda: NoisyBound(exact, 1.0), "sampler": lambda: Sampler(exact.space)}
    models = [make[kind]() for kind in kinds.split()]
    model = blend(models, weights)
    assert type(model) is expected
    assert model.stages() == ()
    assert isinstance(model, Density) == (expected in (ExactBlend, Gauss))
    assert isinstance(model, LowerBound) == (expected is BoundBlend)


def test_a_blend_of_one_is_the_model_itself():
    models = pair()
    assert blend(models, [0.0, 1.0]) is models[1]


def test_bound_blend_lies_below_the_density_and_rises_to_it_with_draws():
    exact, noisy = pair(Gauss), [pair(Gauss)[0], NoisyBound(pair(Gauss)[1], 1.0)]
    truth, model = blend(exact, SHARES), blend(noisy, SHARES)
    x = truth.sample(4000, rng=generator(0))
    target = truth.log_prob(x).mean()
    one, many = (model.log_prob_bound(x, draws=draws, rng=generator(1)).mean() for draws in (1, 100))
    assert one < target - 0.02 < many < target
    assert torch.equal(*(model.log_prob_bound(x, rng=generator(2)) for _ in range(2)))
    model.draws, noisy[1].draws = 100, 2  # at a hundredth of its effort a model of two draws has one still
    assert torch.isfinite(model.log_prob_bound(x, draws=1, rng=generator(1))).all()
    tight = blend([exact[0], NoisyBound(exact[1], 0.0)], SHARES)
    near(tight.log_prob_bound(x, rng=generator(0)), truth.log_prob(x))


# --------------------------------------------------------------------------------------------- sampling


def test_each_model_gets_its_share_in_every_part_of_the_sample():
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    model = blend([Gauss([m], [[9.0]]) for m in (100.0, 200.0, 300.0)], shares.tolist())
    labels = (model.sample(6000, rng=generator(0))[:, 0] / 100).round() - 1
    for part in labels.split(1500):
        counts = torch.bincount(part.long(), minlength=3)
        assert ((counts - 1500 * shares) ** 2 / (1500 * shares)).sum() < 13.8  # 99.9 % of chi-square, 2 degrees
    follows = torch.bincount((3 * labels[:-1] + labels[1:]).long(), minlength=9).reshape(3, 3)
    expected = 5999 * shares[:, None] * shares
    assert ((follows - expected) ** 2 / expected).sum() < 26.1  # 99.9 %, 8 degrees


def test_sample_has_the_moments_of_the_mixture():
    x = blend(pair(), SHARES).sample(20_000, rng=generator(0))
    means, shares = torch.tensor(MEANS).double(), torch.tensor(SHARES).double()
    mean = shares @ means
    cov = sum(w * (torch.tensor(c) + torch.outer(m - mean, m - mean)) for w, m, c in zip(shares, means, COVS, strict=True))
    near(x.mean(0), mean, atol=0.12)
    near(torch.cov(x.T), cov, atol=0.5)


def test_each_row_keeps_its_own_context():
    models = [Gauss([shift], [[1e-6]], context_shape=(1,)) for shift in (0.0, 0.5)]
    model = blend(models, SHARES)
    context = torch.arange(500.0, dtype=torch.float64)[:, None]
    residual = (model.sample(500, context=context, rng=generator(0)) - context)[:, 0]
    assert torch.minimum(residual.abs(), (residual - 0.5).abs()).max() < 0.01
    assert 0.2 < (residual > 0.25).double().mean() < 0.4
    near(model.log_prob(context + 0.25, context=context).std(), 0.0)


def test_same_seed_same_bits_and_the_global_generator_is_left_alone():
    model = blend([*pair(Gauss), Filler(MEANS[0], COVS[1])], [0.5, 0.3, 0.2])
    x = torch.full((4, 3), 100.0, dtype=torch.float64)
    known = torch.tensor([True, False, False]).expand(4, 3)
    before = torch.get_rng_state()
    drawn = [model.sample(50, rng=generator(seed)) for seed in (0, 0, 1)]
    filled = [condition(model, x, known, proposal=Filler(MEANS[0], COVS[0]), rng=generator(seed)).values for seed in (0, 0, 1)]
    for first, again, other in (drawn, filled):
        assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


# ---------------------------------------------------------------------------------------------- gating


def halves(n=600, seed=0):
    """Two experts N(c, 1) and N(c + 4, 1), each right on one half of a context c of two numbers, the second of them idle."""
    rng = generator(seed)
    c = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    centres = c[:, :1] + torch.tensor([0.0, 4.0])
    y = centres.gather(1, (c[:, :1] > 0).long()) + torch.randn(n, 1, generator=rng, dtype=torch.float64)
    return Normal(centres, 1.0).log_prob(y).double().numpy(), c.numpy()


def sigmoidal(n=20_000, seed=0):
    """Experts N(0, 1) and N(100, 1) with a log-odds of 1 + 2 c: their own labels, in effect."""
    rng = generator(seed)
    c = torch.randn(n, 1, generator=rng, dtype=torch.float64)
    second = torch.rand(n, 1, generator=rng) < torch.sigmoid(1 + 2 * c)
    y = 100.0 * second + torch.randn(n, 1, generator=rng, dtype=torch.float64)
    return Normal(torch.tensor([0.0, 100.0]), 1.0).log_prob(y).double().numpy(), c.numpy()


def test_a_gate_finds_the_odds_that_the_experts_were_drawn_by():
    gate = fit_gate(*sigmoidal(), [0.5, 0.5], 1e-9)
    near(gate.slope[1] - gate.slope[0], [2.0], atol=0.1)
    near(gate.offset[1] - gate.offset[0], 1.0, atol=0.06)


def test_experts_of_two_halves_get_a_half_each():
    log_p, c = halves()
    found = choose_gate(log_p, c, [0.5, 0.5])
    assert found.penalty < math.inf and found.gain > 10 * found.error
    assert found.gain == pytest.approx(found.gated - found.constant)
    # as good as knowing the half: the cost of the switch aside
    assert np.where(c[:, 0] > 0, log_p[:, 1], log_p[:, 0]).mean() - 0.1 < found.gated
    left, right = found.gate(2, torch.tensor([[-1.5, 0.0], [1.5, 0.0]])).exp()
    assert left[0] > 0.95 and right[1] > 0.95
    unseen, context = halves(2000, seed=1)
    gated = np.logaddexp.reduce(found.gate(2000, torch.as_tensor(context)).numpy() + unseen, axis=1).mean()
    assert gated == pytest.approx(found.gated, abs=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_where_the_context_says_nothing_the_blend_stays_constant_or_loses_nothing(seed):
    rng = np.random.default_rng(seed)
    y, c = 100 + 3 * rng.standard_normal(500), rng.standard_normal((500, 4))
    log_p = np.stack([-0.5 * ((y - m) / 3) ** 2 for m in (97, 100, 103)], 1)
    found = choose_gate(log_p, c, [0.2, 0.6, 0.2])
    if found.penalty == math.inf:
        near(found.gate(3, torch.ones(3, 4)).exp()[1], [0.2, 0.6, 0.2])
    fresh, context = 100 + 3 * rng.standard_normal(5000), torch.as_tensor(rng.standard_normal((5000, 4)))
    unseen = np.stack([-0.5 * ((fresh - m) / 3) ** 2 for m in (97, 100, 103)], 1)
    mixed = lambda log_w: np.logaddexp.reduce(log_w + unseen, axis=1).mean()  # noqa: E731
    assert mixed(found.gate(5000, context).numpy()) > mixed(np.log([0.2, 0.6, 0.2])) - 0.005


def test_equal_experts_need_no_gate():
    log_p, c = halves()
    found = choose_gate(log_p[:, [0, 0]], c, [0.3, 0.7])
    assert found.penalty == math.inf and found.gate.is_constant and found.gain == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("seed", "least", "most", "taken"), [(1, 0.3, 0.9, False), (3, 1.2, 1.9, True)])
def test_a_gate_is_taken_from_one_standard_error_on(seed, least, most, taken):
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((120, 1))
    y = rng.standard_normal(120) + 0.35 * c[:, 0]
    found = choose_gate(np.stack([-0.5 * (y - m) ** 2 for m in (-0.7, 0.7)], 1), c, [0.5, 0.5])
    assert least < found.gain / found.error < most
    assert (found.penalty < math.inf) == taken == (not found.gate.is_constant)


def test_the_gain_of_a_gate_is_that_of_rows_left_out_of_its_fit():
    """By hand: both fitted anew without every fifth row, and the error that of a mean of so few differences."""
    log_p, c = halves(15)
    found = choose_gate(log_p, c, [0.5, 0.5])
    nats = {penalty: np.empty(15) for penalty in (1e9, *PENALTIES)}  # so strong a penalty leaves the weights constant
    for k in range(5):
        out = np.arange(15) % 5 == k
        for penalty, row in nats.items():
            log_w = fit_gate(log_p[~out], c[~out], [0.5, 0.5], penalty)(int(out.sum()), torch.as_tensor(c[out])).numpy()
            row[out] = np.logaddexp.reduce(log_w + log_p[out], axis=1)
    alone = nats.pop(1e9)
    best = max(nats.values(), key=lambda row: row.mean())
    assert (found.gated, found.constant) == pytest.approx((best.mean(), alone.mean()), rel=1e-3)
    assert found.error == pytest.approx((best - alone).std(ddof=1) / math.sqrt(15), rel=5e-3)


@pytest.mark.parametrize("penalty", [0.0, 3.0])
def test_the_gradient_is_that_of_the_loss(penalty):
    rng = np.random.default_rng(0)
    log_p = rng.standard_normal((40, 3)) * 5
    log_p[:10, 0] = -np.inf
    c, at = rng.standard_normal((40, 2)), rng.standard_normal(9)
    loss = lambda theta: _loss(theta, log_p, c, penalty)  # noqa: E731
    assert check_grad(lambda theta: loss(theta)[0], lambda theta: loss(theta)[1], at) < 1e-6
    A, b = torch.as_tensor(at[:6].reshape(3, 2)), torch.as_tensor(at[6:])
    mixed = torch.logsumexp(Gate(A, b)(40, torch.as_tensor(c)) + torch.as_tensor(log_p), 1)
    assert loss(at)[0] == pytest.approx(-float(mixed.mean()) + penalty / 80 * float((A * A).sum()))


def test_a_stronger_penalty_is_nearer_to_the_constant_blend():
    slopes = [float(fit_gate(*halves(), [0.5, 0.5], penalty).slope.norm()) for penalty in (1, 100, 1e4, math.inf)]
    assert slopes[0] > 2 * slopes[1] > 4 * slopes[2] > 0 == slopes[3]


def test_models_in_another_order_get_the_same_gate():
    log_p, c = halves()
    log_p = np.column_stack([log_p, log_p.mean(1)])
    order = [2, 0, 1]
    one, other = (choose_gate(p, c, w) for p, w in ((log_p, [0.5, 0.3, 0.2]), (log_p[:, order], [0.2, 0.5, 0.3])))
    assert one.penalty == other.penalty
    near(one.gate(600, torch.as_tensor(c))[:, order], other.gate(600, torch.as_tensor(c)), atol=1e-3)


def test_a_model_without_weight_or_that_rules_rows_out_poisons_nothing():
    log_p, c = halves()
    log_p[c[:, 0] < 0, 1] = -np.inf
    found = choose_gate(log_p, c, [1.0, 0.0])
    assert found.gain > 10 * found.error and torch.isfinite(found.gate.slope).all()


def test_a_model_that_no_context_wants_is_left_out():
    log_p, c = halves()
    log_p = np.column_stack([log_p[:, 0], log_p.mean(1) - 20, log_p[:, 1]])
    kept, dropped = (choose_gate(log_p, c, w).gate for w in ([0.5, 0.01, 0.49], [0.5, 0.0, 0.5]))
    assert torch.isfinite(kept.offset).all()
    assert torch.equal(dropped.offset == -INF, torch.tensor([False, True, False])) and dropped.slope[1].norm() == 0
    near(Gate.of(dropped.plain())(600, torch.as_tensor(c)).exp(), dropped(600, torch.as_tensor(c)).exp())
    models = [Gauss([m], [[1.0]], context_shape=(2,)) for m in (0.0, 1.0, 4.0)]
    assert [*blend(models, dropped).models] == [models[0], models[2]]
    # unless a row is possible under it alone
    log_p[0, [0, 2]] = -INF
    assert torch.isfinite(choose_gate(log_p, c, [0.5, 0.0, 0.5]).gate.offset).all()


def test_a_model_without_constant_weight_is_kept_where_the_context_wants_it():
    log_p, c = halves()
    left, right = choose_gate(log_p, c, [1.0, 0.0]).gate(2, torch.tensor([[-1.5, 0.0], [1.5, 0.0]])).exp()
    assert left[0] > 0.95 and right[1] > 0.95


def test_models_that_stay_have_the_best_gate_without_the_one_that_goes():
    """It had four rows of six hundred to itself, which the others see on the wrong side."""
    log_p, c = halves()
    log_p = np.column_stack([log_p, log_p.mean(1) - 20])
    log_p[np.flatnonzero(c[:, 0] > 0)[:4]] = [0.0, -6.0, 8.0]
    found = choose_gate(log_p, c, [0.5, 0.5, 0.0])
    gate, alone = found.gate, fit_gate(log_p[:, :2], c, [0.5, 0.5], found.penalty)
    assert gate.offset[2] == -INF
    near(gate(600, torch.as_tensor(c))[:, :2], alone(600, torch.as_tensor(c)), atol=0.02)
    at = np.concatenate([gate.slope[:2].numpy().ravel(), gate.offset[:2].numpy()])
    assert np.abs(_loss(at, log_p[:, :2], c, found.penalty)[1]).max() < 1e-4


def test_where_the_blend_stays_constant_the_floor_gets_what_it_was_given():
    log_p, c = halves()
    log_p = np.column_stack([log_p[:, 0], log_p[:, 0], np.full(len(log_p), -30.0)])
    gate = choose_gate(log_p, c, [0.3, 0.7, 0.0], floor=2).gate
    assert gate.is_constant and gate.used.tolist() == [True, True, False] and gate.least.sum() == 0


def gated(kind="exact"):
    """N(c, 1) with weight σ(2c − 1)', N(c + 4, 1) with σ(2c − 1)."""
    models = [Gauss([shift], [[1.0]], context_shape=(1,)) for shift in (0.0, 4.0)]
    models[1] = {"exact": models[1], "bound": NoisyBound(models[1], 0.0)}[kind]
    return blend(models, Gate(torch.tensor([[0.0], [2.0]]), torch.tensor([0.0, -1.0])))


@pytest.mark.parametrize("kind", ["exact", "bound"])
def test_a_gated_blend_is_its_formula(kind):
    model, c = gated(kind), torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    x = c + 1.5
    second = torch.sigmoid(2 * c - 1)
    want = ((1 - second) * Normal(c, 1.0).log_prob(x).exp() + second * Normal(c + 4, 1.0).log_prob(x).exp()).log()
    if kind == "exact":
        assert isinstance(model, ExactBlend)
        found = model.log_prob(x, context=c)
        grid = torch.linspace(-30, 30, 6001, dtype=torch.float64)[:, None]
        near(torch.trapezoid(model.log_prob(grid, context=torch.full_like(grid, 0.7)).exp(), grid[:, 0]).detach(), 1.0, atol=1e-9)
    else:
        assert isinstance(model, BoundBlend)
        found = model.log_prob_bound(x, context=c, rng=generator(0))
    near(found.detach(), want[:, 0])


def test_shares_of_samples_follow_the_gate():
    c = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64).repeat(8000)[:, None]
    second = (gated().sample(24_000, context=c, rng=generator(0)) - c > 2).double()
    miss = 0.02275  # of either expert, at the middle
    for i, at in enumerate((-1.0, 0.5, 2.0)):
        share = 1 / (1 + math.exp(1 - 2 * at))
        want = share * (1 - miss) + (1 - share) * miss
        assert float(second[i::3].mean()) == pytest.approx(want, abs=4 * math.sqrt(want * (1 - want) / 8000))


def test_gaps_are_filled_by_the_weights_of_their_own_context():
    models = [Filler([m, m], [[1.0, 0.0], [0.0, 1.0]], context_shape=(2,)) for m in (0.0, 10.0)]
    model = blend(models, Gate(torch.tensor([[0.0, 0.0], [50.0, 0.0]]), torch.zeros(2)))
    c = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]).double()
    filled = condition(model, torch.zeros(2, 2).double(), torch.zeros(2, 2).bool(), draws=400, context=c, rng=generator(0))
    near(filled.values.mean(0), [[-1.0, 0.0], [11.0, 10.0]], atol=0.3)


def test_a_gate_goes_through_json_and_back():
    gate = fit_gate(*halves(), [0.5, 0.5], 1.0)
    again = Gate.of(gate.plain())
    assert torch.equal(again.slope, gate.slope) and torch.equal(again.offset, gate.offset)


@pytest.mark.parametrize(
    ("slope", "offset", "least", "says"),
    [
        ([[math.nan], [0.0]], [0.0, 0.0], [0.0, 0.0], "finite"),
        ([[1.0], [0.0]], [0.0, INF], [0.0, 0.0], "finite"),
        ([[1.0], [0.0]], [None, None], [0.0, 0.0], "finite"),
        ([[1.0], [0.0]], [0.0, math.nan], [0.0, 0.0], "finite"),
        ([[1.0], [0.0]], [0.0, 0.0], [0.5, 0.5], "least weights"),
        ([[1.0], [0.0]], [0.0, 0.0], [0.5, -0.1], "least weights"),
        ([[1.0], [0.0]], [0.0, 0.0], [math.nan, 0.0], "least weights"),
    ],
)
def test_numbers_that_are_no_gate_are_refused(slope, offset, least, says):
    with pytest.raises(ValueError, match=says):
        Gate.of({"slope": slope, "offset": offset, "least": least})


def test_the_floor_keeps_its_part_in_every_row():
    log_p, c = halves()
    log_p = np.column_stack([log_p, np.full(len(log_p), -30.0)])
    gate = choose_gate(log_p, c, [0.5, 0.5, 0.0], floor=2).gate
    assert gate.offset[2] == -INF and gate.used.all()
    weights = Gate.of(gate.plain())(len(c), torch.as_tensor(c)).exp()
    near(weights[:, 2], torch.full((len(c),), 1 / (len(c) + 1)))
    near(weights.sum(1), torch.ones(len(c)))
    models = [Gauss([m], [[1.0]], context_shape=(2,)) for m in (0.0, 1.0, 4.0)]
    assert len(blend(models, gate).models) == 3


def test_a_constant_gate_is_the_blend_of_its_weights():
    models = pair(Gauss)
    x = torch.tensor([[100.0, 99.0, 101.0]]).double()
    near(blend(models, Gate.constant(SHARES)).log_prob(x).detach(), blend(models, SHARES).log_prob(x).detach())
    assert blend(models, Gate.constant([1.0, 0.0])) is models[0]
    near(Gate.constant([2.0, 6.0, 0.0])(1, None).exp(), [[0.25, 0.75, 0.0]])


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda p, c: fit_gate(p, c[:-1], [0.5, 0.5], 1.0), r"expected \(n, 2\) and \(n, f\)"),
        (lambda p, c: fit_gate(p, c, [0.5, 0.3, 0.2], 1.0), r"expected \(n, 3\)"),
        (lambda p, c: fit_gate(p + math.nan, c, [0.5, 0.5], 1.0), "got NaN or inf"),
        (lambda p, c: fit_gate(p - INF, c, [0.5, 0.5], 1.0), "row 0 is -inf under every model"),
        (lambda p, c: fit_gate(p, c, [0.5, 0.5], -1.0), "penalty: expected"),
        (lambda p, c: choose_gate(p[:9], c[:9], [0.5, 0.5]), "9 rows are too few"),
        (lambda p, c: blend(pair(), Gate(torch.zeros(2, 3), torch.zeros(2))), "the gate has 3 features, expected 0"),
        (lambda p, c: blend(pair(), Gate(torch.zeros(3, 1), torch.zeros(3))), "got 3 for 2 models"),
    ],
)
def test_wrong_gates_are_named(call, named):
    with pytest.raises(InputError, match=named):
        call(*halves(20))


# ----------------------------------------------------------------------------------------- filling gaps

X = torch.tensor([[101.0, math.nan, math.nan], [math.nan, 96.0, 104.0], [106.0, 99.0, math.nan]], dtype=torch.float64)
KNOWN = ~torch.isnan(X)


def exact_answer(row, seen):
    """Log evidence, and mean and covariance of the unseen entries, under the mixture of :func:`pair`."""
    joint, means, covs = [], [], []
    for w, m, c in zip(SHARES, MEANS, COVS, strict=True):
        m, c = torch.tensor(m, dtype=torch.float64), torch.tensor(c, dtype=torch.float64)
        joint.append(math.log(w) + MultivariateNormal(m[seen], c[seen][:, seen]).log_prob(row[seen]))
        mean, cov = given(m, c, row, seen)
        means.append(mean), covs.append(cov)
    joint, means, covs = torch.stack(joint), torch.stack(means), torch.stack(covs)
    share = torch.softmax(joint, 0)
    mean = share @ means
    spread = torch.einsum("k,ki,kj->ij", share, means - mean, means - mean)
    return torch.logsumexp(joint, 0), mean, torch.einsum("k,kij->ij", share, covs) + spread


def answers_of(filled, i):
    drawn = filled.values[:, i][:, ~KNOWN[i]]
    return filled.log_evidence[i], drawn.mean(0), torch.cov(drawn.T).reshape(drawn.shape[1], -1)


def wide():
    return Filler([102.0, 99.0, 100.0], (torch.tensor(COVS[0]) + 16 * torch.eye(3)).tolist())


CASES = {
    "blend of conditionals": (lambda: blend(pair(), SHARES), None, 1e-10),
    "importance": (lambda: Opaque(blend(pair(Gauss), SHARES)), wide, 0.05),
    "importance in one component": (lambda: blend([pair()[0], pair(Gauss)[1]], SHARES), wide, 0.05),
    "blend in a blend": (lambda: blend([blend(pair(), [0.9, 0.1]), blend(pair(), [0.2, 0.8])], [5 / 7, 2 / 7]), None, 1e-10),
    "importance under a bound": (lambda: blend([pair()[0], NoisyBound(pair(Gauss)[1], 0.5)], SHARES), wide, 0.05),
}


class Opaque(Density):
    """A density whose inside is not to be seen: no blend, no Conditional."""

    def __init__(self, model):
        super().__init__(model.space)
        self.model = model

    def stages(self):
        return ()

    def _sample(self, n, context, rng):
        return self.model.sample(n, rng=rng)

    def _log_prob(self, x, context):
        return self.model.log_prob(x)


@pytest.mark.parametrize("case", CASES)
def test_completions_follow_the_closed_form(case):
    build, proposal, evidence_atol = CASES[case]
    filled = condition(build(), X, KNOWN, draws=5000, proposal=proposal and proposal(), particles=10_000, rng=generator(0))
    assert torch.equal(filled.values[:, KNOWN], X[KNOWN].expand(5000, -1))
    for i in range(len(X)):
        evidence, mean, cov = exact_answer(X[i], KNOWN[i])
        found_evidence, found_mean, found_cov = answers_of(filled, i)
        near(found_evidence, evidence, atol=evidence_atol)
        near(found_mean, mean, atol=0.25)
        near(found_cov, cov, atol=0.1 * float(cov.diagonal().max()))
    exact = proposal is None
    assert (filled.ess == INF).all() if exact else ((filled.ess > 1000) & (filled.ess < INF)).all()


def test_a_conditional_answers_itself():
    model = pair()[0]
    ours = condition(model, X, KNOWN, draws=3, rng=generator(0))
    theirs = model.condition(torch.nan_to_num(X), KNOWN, draws=3, rng=generator(0))
    for name in ("values", "log_evidence", "ess"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_the_model_as_its_own_proposal_wastes_no_particle():
    filled = condition(pair(Gauss)[0], X, KNOWN, proposal=pair()[0], particles=64, rng=generator(0))
    near(filled.ess, [64.0] * 3, atol=1e-8)
    near(filled.log_evidence, pair()[0].condition(torch.nan_to_num(X), KNOWN, rng=generator(0)).log_evidence)


def test_each_row_is_weighed_in_its_own_context():
    """The proposal is wider than the model, so that its particles have different weights."""
    contexts = torch.tensor([-60.0, 0.0, 60.0], dtype=torch.float64)[:, None].expand(3, 3)
    x, wider = X + contexts, (torch.tensor(COVS[0]) + 4 * torch.eye(3)).tolist()
    model, exact, proposal = (
        kind(MEANS[0], cov, context_shape=(3,)) for kind, cov in ((Gauss, COVS[0]), (Filler, COVS[0]), (Filler, wider))
    )
    filled = condition(model, x, KNOWN, proposal=proposal, particles=4000, context=contexts, rng=generator(0))
    near(filled.log_evidence, condition(exact, x, KNOWN, context=contexts, rng=generator(0)).log_evidence, atol=0.1)
    assert (filled.ess > 1000).all()


def test_the_effective_sample_size_of_weights_of_two_sizes():
    """Half of the proposals weigh 1.8 and half 0.2: (Σ w)² / Σ w² is 1 / 1.64 of them."""
    nothing = torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool)
    filled = condition(Levels([0.9, 0.1], 2), *nothing, proposal=Cell([0.5, 0.5], 2), particles=20_000, rng=generator(0))
    assert float(filled.ess) == pytest.approx(20_000 / 1.64, rel=0.03)


def test_a_poor_proposal_shows_in_the_effective_sample_size():
    poor = Filler([130.0, 130.0, 130.0], (16 * torch.eye(3)).tolist())
    good, bad = (condition(pair(Gauss)[0], X, KNOWN, proposal=p, rng=generator(0)).ess for p in (wide(), poor))
    assert (bad < 8).all() and (bad < good).all() and (bad >= 1 - 1e-9).all()


class Nowhere(Gauss):
    """Rules every row out."""

    def _log_prob(self, x, context):
        return torch.full((len(x),), -INF, dtype=x.dtype)


@pytest.mark.parametrize("other", [Gauss([500.0, 500.0, 500.0], COVS[0]), Nowhere(MEANS[0], COVS[0])])
def test_a_model_without_a_claim_on_the_row_changes_only_the_evidence(other):
    filled = condition(blend([pair()[0], other], [0.5, 0.5]), X, KNOWN, proposal=pair()[0], particles=16, rng=generator(0))
    assert (filled.ess == INF).all()
    near(filled.log_evidence, math.log(0.5) + condition(pair()[0], X, KNOWN, rng=generator(0)).log_evidence)


def test_tiles_keep_the_rows_apart_and_the_memory_flat(monkeypatch):
    monkeypatch.setattr("mixtura.blending.fill.TILE_ENTRIES", 1000)
    context = 10.0 * torch.arange(101.0, dtype=torch.float64)[:, None].expand(101, 2)
    cov = [[1.0, 0.999], [0.999, 1.0]]
    target, proposal = (kind([100.0, 100.0], cov, context_shape=(2,)) for kind in (Gauss, Filler))
    x = context + 100.0
    known = torch.tensor([True, False]).expand(101, 2)
    filled = condition(target, x, known, draws=2, proposal=proposal, particles=20, context=context, rng=generator(0))
    near(filled.values, x.expand(2, -1, -1), atol=0.3)
    assert filled.log_evidence.shape == filled.ess.shape == (101,)
    assert 20 <= proposal.most <= 500  # of the 2020 particles that all rows need


def test_nothing_known_and_everything_known():
    model, x = blend(pair(), SHARES), torch.tensor([MEANS[0]], dtype=torch.float64)
    nothing = condition(model, x, torch.zeros(1, 3, dtype=torch.bool), draws=4000, rng=generator(0))
    near(nothing.log_evidence, [0.0])
    near(nothing.values.mean((0, 1)), (torch.tensor(SHARES) @ torch.tensor(MEANS)).tolist(), atol=0.25)
    everything = condition(model, x, torch.ones(1, 3, dtype=torch.bool), rng=generator(0))
    assert torch.equal(everything.values[0], x)
    near(everything.log_evidence, model.log_prob(x).detach())


class Cell(Levels, Conditional):
    """A categorical that fills its only gap."""

    def _condition(self, x, known, draws, context, rng):
        drawn = torch.stack([self._sample(len(x), None, rng) for _ in range(draws)])
        evidence = torch.where(known[:, 0], self.log_prob(x), 0.0)
        return Conditioned(torch.where(known, x, drawn), evidence, torch.full_like(evidence, INF))


def test_a_row_that_one_model_rules_out_is_claimed_by_the_other():
    model = blend([Cell([1.0, 0.0, 0.0], 3), Cell([0.5, 0.5, 0.0], 3)], SHARES)
    filled = condition(model, torch.tensor([[1.0], [0.0]]), torch.ones(2, 1, dtype=torch.bool), rng=generator(0))
    near(filled.log_evidence, [math.log(0.15), math.log(0.85)])


# --------------------------------------------------------------------------------------------- refusals

ROW = torch.full((2, 3), 100.0, dtype=torch.float64)
SEEN = torch.tensor([True, False, True]).expand(2, 3)


def ask(model, x=ROW, known=SEEN, **options):
    return lambda: condition(model, x, known, rng=generator(0), **options)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: blend([], []), "one or more models"),
        (lambda: blend(pair(), [1.0]), "got 1 for 2 models"),
        (lambda: blend(pair(), [0.5, 0.4]), "add up to 1"),
        (lambda: blend(pair(), [1.5, -0.5]), "0 or more"),
        (lambda: blend(pair(), [math.nan, 1.0]), "0 or more"),
        (lambda: blend([Gauss([1.0], [[1.0]]), pair()[0]], SHARES), "model 1 has another space"),
        (lambda: blend([pair()[0], Gauss(MEANS[0], COVS[0], context_shape=(3,))], SHARES), "model 1 has context"),
        (ask(pair()[0], draws=0), "draws: expected a whole number"),
        (ask(pair()[0], particles=True), "particles: expected a whole number"),
        (ask(pair()[0], known=SEEN.double()), "known: expected a bool tensor"),
        (ask(pair()[0], known=SEEN[:1]), "known: expected a bool tensor"),
        (ask(pair()[0], x=ROW[:0], known=SEEN[:0]), "one row or more"),
        (ask(pair()[0], x=ROW.masked_fill(SEEN, math.nan)), "row 0, column 0 is nan"),
        (ask(pair()[0], context=ROW), "built without a context"),
        (ask(pair(Gauss)[0]), "Gauss cannot fill gaps by itself, no model here can"),
        (ask(blend([pair()[0], pair(Gauss)[1]], SHARES)), "Gauss cannot fill gaps by itself, Filler can"),
        (ask(Sampler(Space.continuous(3)), proposal=pair()[0]), "Sampler can only be sampled"),
        (ask(pair(Gauss)[0], proposal=pair(Gauss)[1]), "expected a Conditional with an exact density, got Gauss"),
        (ask(pair(Gauss)[0], proposal=Filler([1.0], [[1.0]])), "Filler has another space"),
        (ask(pair(Gauss)[0], proposal=Filler(MEANS[0], COVS[0], context_shape=(3,))), "Filler has another space or context"),
    ],
)
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()


def test_known_entries_of_probability_zero_have_no_evidence():
    ruled_out = blend([Cell([1.0, 0.0], 2), Cell([1.0, 0.0], 2)], SHARES)
    filled = condition(ruled_out, torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool), rng=generator(0))
    assert filled.log_evidence.tolist() == [-math.inf] and filled.values.flatten().tolist() == [1.0]
    everything = torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    by_proposal = condition(Levels([1.0, 0.0], 2), *everything, proposal=Cell([1.0, 0.0], 2), rng=generator(0))
    assert by_proposal.log_evidence.tolist() == [-math.inf]


def test_a_proposal_that_rules_the_row_out_is_named():
    class Blind(Filler):
        def condition(self, x, known, **options):
            filled = super().condition(x, known, **options)
            return Conditioned(filled.values, torch.full_like(filled.log_evidence, math.nan), filled.ess)

    class Denying(Filler):
        """Holds what it draws impossible."""

        def _log_prob(self, x, context):
            return torch.full((len(x),), -INF, dtype=x.dtype)

    for kind, evidence in ((Blind, "nan"), (Denying, "inf")):
        with pytest.raises(FloatingPointError, match=f"evidence {evidence} at row 0"):
            condition(pair(Gauss)[0], ROW, SEEN, proposal=kind(MEANS[0], COVS[0]), rng=generator(0))


def test_rows_of_an_outside_generator_are_drawn_with_replacement():
    rows = torch.arange(100.0, 200.0, dtype=torch.float64)[:, None]
    drawn = SamplesAtHand(Space.continuous(1), rows).sample(10_000, rng=generator(0))[:, 0].long() - 100
    counts = torch.bincount(drawn, minlength=100).double()
    assert len(counts) == 100 and 60 < float(((counts - 100) ** 2 / 100).sum()) < 150  # 99.9 % of chi-square, 99 degrees
