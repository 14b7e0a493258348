"""Gaussian mixtures against torch's own distributions, quadrature, closed forms and frequencies of draws."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from mixtura.contracts import InputError
from mixtura.ground.distributions import MixtureDensity
from mixtura.ground.noise import Noise
from mixtura.ground.rng import generator

KINDS = ("diagonal", "full", "isotropic", "shared", "fixed", "low_rank")
every_kind = pytest.mark.parametrize("kind", KINDS)


def told(kind, *batch, components=3, targets=2, seed=0, dtype=torch.float64, **options):
    noise = Noise(kind, components, targets, **options)
    return noise.law(torch.randn(*batch, noise.width, generator=generator(seed, kind), dtype=dtype))


def line(*components):
    """A mixture on the line from (weight, mean, deviation)."""
    w, m, s = torch.tensor(components, dtype=torch.float64).T
    return MixtureDensity(w.log(), m[:, None], scale=s[:, None])


def whole(law):
    """torch's mixture of the same parameters."""
    return MixtureSameFamily(Categorical(logits=law.log_weights), MultivariateNormal(law.means, law.covariances))


# --------------------------------------------------------------------------------------------------- density


@every_kind
def test_density_and_moments_are_those_of_torchs_mixture(kind):
    law = told(kind, 4, 5)
    y = law.sample((7,), rng=generator(1))
    assert y.shape == (7, 4, 5, 2)
    assert torch.allclose(law.log_prob(y), whole(law).log_prob(y))
    assert torch.allclose(law.mean, whole(law).mean) and torch.allclose(law.variance, whole(law).variance)
    assert torch.allclose(law.covariance_matrix.diagonal(dim1=-2, dim2=-1), law.variance)


@every_kind
def test_marginal_times_conditional_is_the_joint(kind):
    law = told(kind, 6, targets=3)
    y = law.sample(rng=generator(1))
    for entries in ([1], [0, 2], [2, 0]):
        rest = [i for i in range(3) if i not in entries]
        joint = law.marginal(entries).log_prob(y[:, entries]) + law.conditional(entries, y[:, entries]).log_prob(y[:, rest])
        assert torch.allclose(joint, law.log_prob(y))


def steep(kind, long, short):
    """One Gaussian of three entries in float32, far along one direction and short across."""
    if kind == "low_rank":
        spread = {"scale": torch.full((1, 3), short), "factor": torch.tensor([[[long], [long], [-long]]])}
    else:
        spread = {"scale_tril": torch.tensor([[[long, 0, 0], [long, short, 0], [-long, 0, short]]])}
    return MixtureDensity(torch.zeros(1), torch.zeros(1, 3), **spread)


@pytest.mark.parametrize("kind", ["full", "low_rank"])
@pytest.mark.parametrize(("long", "short"), [(4.0, 1e-3), (11.0, 1e-3), (121.0, 1e-3)])
def test_a_thin_gaussian_keeps_its_digits_in_float32(kind, long, short):
    law = steep(kind, long, short)
    exact = law.double()
    y = exact.sample((50,), rng=generator(0))
    close = {"rtol": 1e-2, "atol": 5e-2}  # what rounding y itself to float32 does
    assert torch.allclose(law.log_prob(y.float()).double(), whole(exact).log_prob(y.float().double()), **close)
    for entries in ([1], [2, 0]):
        part, seen = law.marginal(entries), y[:, entries]
        assert torch.allclose(part.log_prob(seen.float()).double(), whole(exact.marginal(entries)).log_prob(seen), **close)
        given = law.expand((50,)).conditional(entries, seen.float())
        wanted = exact.expand((50,)).conditional(entries, seen)
        assert torch.allclose(given.deviations.double(), wanted.deviations, rtol=1e-2)
    assert torch.isfinite(law.rsample((5,), rng=generator(0))).all()


@pytest.mark.parametrize("entries", [[3], [-4], [0, 0], [0, -3], []])
def test_entries_that_are_not_there_or_there_twice_are_refused(entries):
    law = told("full", 2, targets=3)
    for ask in (law.marginal, lambda e: law.conditional(e, torch.zeros(2, len(e)))):
        with pytest.raises(InputError, match="entries: expected some of 0 to 2, each once"):
            ask(entries)


@every_kind
def test_entries_may_count_from_the_back(kind):
    law, v = told(kind, 4, targets=3), torch.zeros(4, 1, dtype=torch.float64)
    assert torch.equal(law.marginal([-1]).means, law.means[..., [2]])
    assert law.conditional([-1], v).event_shape == (2,)
    assert torch.allclose(law.conditional([-1], v).mean, law.conditional([2], v).mean)


@every_kind
def test_a_component_is_one_gaussian_of_the_mixture(kind):
    law = told(kind, 4, 5)
    i, k = torch.tensor([3, 0, 1]), torch.tensor([2, 1, 0])
    one = law.component(i, torch.tensor(2), k)
    assert one.batch_shape == (3,)
    assert torch.allclose(one.mean, law.means[i, 2, k]) and torch.allclose(one.covariance_matrix, law.covariances[i, 2, k])


@every_kind
def test_responsibilities_are_of_the_entries_that_are_there(kind):
    law, y = told(kind, 5), torch.zeros(5, 2, dtype=torch.float64)
    y[:, 1] = math.nan
    assert torch.allclose(law.responsibilities(y), law.marginal([0]).responsibilities(y[:, :1]))
    y[:, 0] = math.nan
    assert torch.allclose(law.responsibilities(y), law.weights)


@every_kind
def test_a_missing_entry_is_integrated_out(kind):
    law = told(kind, 5)
    y = law.sample((3,), rng=generator(1))
    gaps = y.clone()
    gaps[0, :, 0] = gaps[1] = math.nan
    expected = torch.stack([law.marginal([1]).log_prob(y[0, :, 1:]), torch.zeros(5), law.log_prob(y[2])])
    assert torch.allclose(law.log_prob(gaps), expected)
    grid = torch.linspace(-60, 60, 20_001, dtype=torch.float64)
    first = law[:1].expand((len(grid),))
    along = first.log_prob(torch.stack([grid, y[0, 0, 1].expand(len(grid))], 1)).exp()
    assert float(torch.trapezoid(along, grid).log()) == pytest.approx(float(expected[0, 0]), abs=1e-6)


def test_a_pool_is_the_mixture_of_its_members():
    law = told("full", 4, 5)
    y = law.sample(rng=generator(1))[:, :1]
    apart = law.log_prob(y)
    assert torch.allclose(law.pooled(1).log_prob(y[:, 0]), apart.logsumexp(1) - math.log(5))
    log_w = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    mixed = law.pooled(0, log_w).log_prob(y[0])
    assert torch.allclose(mixed, (law.log_prob(y[0]) + log_w[:, None]).logsumexp(0))


def rows_with_gaps(n):
    y = torch.randn(n, 2, generator=generator(1), dtype=torch.float64)
    y[0, 0] = y[1, 1] = y[2] = math.nan
    y[3, 0] = math.inf
    return y


@every_kind
def test_without_gaps_nothing_is_looked_for(kind):
    law = told(kind, 4, 5)
    y = law.sample((7,), rng=generator(1))
    assert torch.allclose(law.log_prob(y, gaps=False), law.log_prob(y), rtol=1e-10, atol=1e-10)
    assert torch.allclose(law.responsibilities(y, gaps=False), law.responsibilities(y))
    y[0, 0, 0, 0] = math.nan
    assert torch.equal(law.log_prob(y, gaps=False).isnan().nonzero(), torch.tensor([[0, 0, 0]]))


@every_kind
def test_gradients_past_a_missing_entry_are_those_of_the_marginal(kind):
    noise = Noise(kind, 3, 3)
    raw = torch.randn(noise.width, generator=generator(2, kind), dtype=torch.float64).requires_grad_()
    law, y = noise.law(raw), torch.tensor([0.3, math.nan, -0.7], dtype=torch.float64)
    both = law.log_prob(y), law.marginal([0, 2]).log_prob(y[[0, 2]])
    ours, marginal = (torch.autograd.grad(f, raw, retain_graph=True) for f in both)
    assert torch.allclose(ours[0], marginal[0], atol=1e-10) and ours[0].isfinite().all()


@every_kind
def test_a_density_is_mapped_row_by_row(kind):
    noise, y = Noise(kind, 3, 2), rows_with_gaps(5)
    raw = torch.randn(5, noise.width, generator=generator(2, kind), dtype=torch.float64)
    law = noise.law(raw)
    for ask in (MixtureDensity.log_prob, MixtureDensity.responsibilities, MixtureDensity.cdf):
        mapped = torch.func.vmap(lambda r, v, ask=ask: ask(noise.law(r), v))(raw, y)
        assert torch.allclose(mapped, ask(law, y), equal_nan=True)
    part = torch.func.vmap(lambda r, v: noise.law(r).marginal([1]).log_prob(v))(raw, y[:, 1:])
    assert torch.allclose(part, law.marginal([1]).log_prob(y[:, 1:]))


class Told(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.noise = Noise(kind, 3, 2)

    def forward(self, raw, y):
        return self.noise.law(raw).log_prob(y)


@pytest.fixture
def torchs_default():
    """torch.compile switches the validation of distributions off, in the whole process."""
    before = torch.distributions.Distribution._validate_args
    yield
    torch.distributions.Distribution.set_default_validate_args(before)


SLOWLY = [pytest.param(kind, marks=() if kind == "full" else pytest.mark.slow) for kind in KINDS]


@pytest.mark.parametrize("kind", SLOWLY)
def test_a_density_is_exported_for_any_number_of_rows(kind, torchs_default):
    model, y = Told(kind), rows_with_gaps(5)
    raw = torch.randn(5, model.noise.width, generator=generator(2, kind), dtype=torch.float64)
    whole = torch.cat([torch.zeros_like(raw), raw]), torch.cat([torch.zeros_like(y), torch.zeros_like(y)])
    rows = torch.export.Dim("rows")
    exported = torch.export.export(model, whole, dynamic_shapes=({0: rows}, {0: rows})).module()
    assert torch.allclose(exported(raw, y), model(raw, y))


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", SLOWLY)
def test_a_density_is_compiled_whole(kind, backend, torchs_default):
    model, y = Told(kind), rows_with_gaps(5)
    raw = torch.randn(5, model.noise.width, generator=generator(2, kind), dtype=torch.float64).requires_grad_()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    said, expected = compiled(raw, y), model(raw, y)
    assert torch.allclose(said, expected)
    ours, theirs = (torch.autograd.grad(f.where(f.isfinite(), 0.0).sum(), raw)[0] for f in (said, expected))
    assert torch.allclose(ours, theirs)


# --------------------------------------------------------------------------------------------------- no rows, wrong numbers


@every_kind
@pytest.mark.parametrize("batch", [(0,), (2, 0), (0, 3)])
def test_no_rows_are_no_answers(kind, batch):
    law, y = told(kind, *batch), torch.zeros(*batch, 2, dtype=torch.float64)
    assert law.log_prob(y).shape == law.log_prob(y, gaps=False).shape == law.entropy(4, rng=generator(0)).shape == batch
    assert told(kind, *batch, components=1).entropy().shape == batch
    assert law.cdf(y).shape == law.icdf(0.5).shape == law.mode.shape == law.mean.shape == (*batch, 2)
    assert law.rsample((3,), rng=generator(0)).shape == (3, *batch, 2)
    assert law.conditional([1], y[..., :1]).batch_shape == law.tempered(0.5).reshape(-1).reshape(*batch).batch_shape == batch


@every_kind
def test_no_draws_are_no_draws(kind):
    law = told(kind, 4)
    y = law.sample((0,), rng=generator(0))
    assert y.shape == law.rsample((0,), rng=generator(0)).shape == (0, 4, 2) and law.log_prob(y).shape == (0, 4)


NAN, INF = math.nan, math.inf
ONE, TWO = torch.ones(2, 2), torch.zeros(2, 2)
WRONG = {
    "logits NaN": ((torch.tensor([NAN, 0.0]), TWO), {"scale": ONE}, "logits at"),
    "no weight at all": ((torch.tensor([-INF, -INF]), TWO), {"scale": ONE}, "logits at"),
    "logits inf": ((torch.tensor([INF, 0.0]), TWO), {"scale": ONE}, "logits at"),
    "means NaN": ((torch.zeros(2), torch.tensor([[0.0, 0.0], [0.0, NAN]])), {"scale": ONE}, r"means at \(1,\) is \[0.0, nan\]"),
    "scale negative": ((torch.zeros(2), TWO), {"scale": torch.tensor([[1.0, 1.0], [-1.0, 1.0]])}, r"scale at \(1,\)"),
    "scale 0": ((torch.zeros(2), TWO), {"scale": 0 * ONE}, "deviations above 0"),
    "scale NaN": ((torch.zeros(2), TWO), {"scale": NAN * ONE}, "deviations above 0"),
    "upper triangle": ((torch.zeros(2), TWO), {"scale_tril": torch.ones(2, 2, 2)}, "lower triangle"),
    "diagonal negative": ((torch.zeros(2), TWO), {"scale_tril": -torch.eye(2).repeat(2, 1, 1)}, "lower triangle"),
    "factor NaN": ((torch.zeros(2), TWO), {"scale": ONE, "factor": torch.full((2, 2, 1), NAN)}, "factor at"),
}


@pytest.mark.parametrize("name", WRONG)
def test_numbers_that_are_no_parameters_are_named_unless_that_is_off(name, torchs_default):
    given, spread, says = WRONG[name]
    with pytest.raises(InputError, match=says):
        MixtureDensity(*given, **spread, validate_args=True)
    MixtureDensity(*given, **spread, validate_args=False)
    for default in (True, False):
        torch.distributions.Distribution.set_default_validate_args(default)
        if default:
            with pytest.raises(InputError, match=says):
                MixtureDensity(*given, **spread)
        else:
            MixtureDensity(*given, **spread)


def test_a_component_without_weight_is_a_parameter():
    law = MixtureDensity(torch.tensor([0.0, -INF]), torch.tensor([[0.0], [9.0]]), scale=torch.ones(2, 1), validate_args=True)
    assert float(law.log_prob(torch.zeros(1))) == pytest.approx(-0.5 * math.log(2 * math.pi)) and law.logits[1] == -INF


# --------------------------------------------------------------------------------------------------- quantiles


@pytest.mark.parametrize(
    "law",
    [
        line((1, 100, 3)),
        line((0.5, -5, 1e-3), (0.5, 5, 1e-3)),
        line((1e-9, 0, 1), (1, 1e6, 10)),
        line((0.3, 0, 1e-6), (0.3, 1e-5, 1e-6), (0.4, 1e3, 100)),
    ],
    ids=["one", "far apart", "hardly there", "many scales"],
)
def test_quantiles_invert_the_distribution_function(law):
    q = torch.linspace(1e-9, 1 - 1e-9, 2_001, dtype=torch.float64)[:, None]
    y = law.icdf(q)
    assert float((law.cdf(y) - q).abs().max()) < 1e-6
    assert bool((y.diff(dim=0) >= 0).all())


@every_kind
def test_quantiles_of_every_entry_follow_its_marginal(kind):
    law = told(kind, 4, 5)
    q = torch.rand(3, 4, 5, 2, generator=generator(2), dtype=torch.float64)
    y = law.icdf(q)
    assert float((law.cdf(y) - q).abs().max()) < 1e-12
    one = MixtureSameFamily(Categorical(logits=law.log_weights), Normal(law.means[..., 1], law.deviations[..., 1]))
    assert torch.allclose(one.cdf(y[..., 1]), q[..., 1])


def test_a_single_probability_is_asked_of_every_law():
    law = told("full", 4, 5)
    for q in (0.3, torch.tensor(0.3), torch.tensor([0.3, 0.3], dtype=torch.float64)):
        y = law.icdf(q)
        assert y.shape == (4, 5, 2) and float((law.cdf(y) - 0.3).abs().max()) < 1e-6


def test_the_ends_and_what_is_no_probability():
    law = line((0.5, 0, 1), (0.5, 9, 1))
    assert law.icdf(torch.tensor([0.0])) == -math.inf and law.icdf(torch.tensor([1.0])) == math.inf
    with pytest.raises(InputError, match="between 0 and 1"):
        law.icdf(torch.tensor([5.0]))


def test_quantiles_far_out_keep_their_digits():
    law = line((0.5, 0.0, 1.0), (0.5, 5.0, 1.0))
    for q in (1e-16, 1e-20, 1e-100):
        assert float(law.icdf(q)) == pytest.approx(float(torch.special.ndtri(torch.tensor(2 * q, dtype=torch.float64))), rel=1e-9)


@every_kind
def test_an_index_is_into_the_batch(kind):
    law = told(kind, 4, 12, targets=3)
    for index in ((..., -1), (slice(None), -1), (1, ...), (torch.tensor([0, 3]),), (torch.arange(4) > 1, 2), (None, 2)):
        some = law[index]
        assert some.event_shape == (3,) and some.batch_shape == torch.zeros(4, 12)[index].shape
        assert torch.equal(some.means[..., 0, 0], law.means[..., 0, 0][index])
    with pytest.raises(InputError, match="has fewer axes"):
        law[0, 0, 0]


@pytest.mark.parametrize("kind", ["diagonal", "full", "low_rank"])
def test_nothing_is_at_infinity_and_nan_is_not_given(kind):
    law, y = told(kind, 3), torch.tensor([math.inf, 0.0], dtype=torch.float64)
    assert torch.isneginf(law.log_prob(y)).all()
    with pytest.raises(InputError, match="got a NaN"):
        law.conditional([0], torch.full((3, 1), math.nan, dtype=torch.float64))


def test_gradients_of_a_quantile_are_differences():
    noise = Noise("full", 3, 2)
    raw = torch.randn(noise.width, generator=generator(3), dtype=torch.float64).requires_grad_()
    q = torch.tensor([0.2, 0.9], dtype=torch.float64)
    [gradient] = torch.autograd.grad(noise.law(raw).icdf(q).sum(), raw)
    for i in range(noise.width):
        step = torch.zeros_like(raw).index_fill(0, torch.tensor(i), 1e-6)
        up, down = (noise.law(raw.detach() + sign * step).icdf(q).sum() for sign in (1, -1))
        assert float(gradient[i]) == pytest.approx(float(up - down) / 2e-6, abs=1e-6)


# --------------------------------------------------------------------------------------------------- draws


@every_kind
def test_draws_have_the_moments(kind):
    n = 200_000
    for law in (told(kind), told(kind).tempered(0.3)):
        y = law.sample((n,), rng=generator(4))
        assert bool(((y.mean(0) - law.mean).abs() < 5 * (law.variance / n).sqrt()).all())
        assert torch.allclose(y.T.cov(), law.covariance_matrix, rtol=0.05, atol=0.05)


@every_kind
def test_gradients_flow_through_draws(kind):
    """Of E[y₀ y₁ + y₀²], whose gradient has a closed form (Figurnov et al. 2018)."""
    noise = Noise(kind, 3, 2)
    raw = torch.randn(noise.width, generator=generator(5, kind), dtype=torch.float64).requires_grad_()
    law = noise.law(raw)
    y = law.rsample((100_000,), rng=generator(6))
    torch.testing.assert_close(y.detach(), law.sample((100_000,), rng=generator(6)))
    [drawn] = torch.autograd.grad((y[:, 0] * y[:, 1] + y[:, 0].square()).mean(), raw, retain_graph=True)
    exact = law.covariance_matrix[0, 1] + law.mean[0] * law.mean[1] + law.variance[0] + law.mean[0].square()
    [closed] = torch.autograd.grad(exact, raw)
    assert float((drawn - closed).abs().max()) < 0.04 * max(1.0, float(closed.abs().max()))


def test_draws_take_a_generator_or_torchs_own():
    law = told("low_rank", 5)
    before = torch.random.get_rng_state()
    a, b = (law.rsample((2,), rng=generator(7)) for _ in range(2))
    law.entropy(64, rng=generator(7))
    assert torch.equal(a, b) and torch.equal(torch.random.get_rng_state(), before)
    with torch.random.fork_rng():
        assert law.sample().shape == (5, 2)
        assert not torch.equal(torch.random.get_rng_state(), before)


def test_temperature_divides_logits_and_multiplies_variances():
    law = line((0.8, 0, 2), (0.2, 10, 1))
    cold = law.tempered(0.25)
    odds = (0.8 / 0.2) ** 4
    assert float(cold.weights[0]) == pytest.approx(odds / (1 + odds))
    assert torch.allclose(cold.deviations, law.deviations / 2)
    with pytest.raises(InputError, match="temperature"):
        law.tempered(0)


# --------------------------------------------------------------------------------------------------- modes, entropy


def test_modes_are_where_the_gradient_vanishes_and_the_highest_is_first():
    law = line((0.3, 0, 1), (0.5, 6, 1), (0.2, 6.5, 1))
    y, height = law.modes()
    found = y[~torch.isnan(y)]
    assert len(found) == 2 and float(found[0]) == pytest.approx(6.1, abs=0.1) and float(found[1]) == pytest.approx(0, abs=0.01)
    at = found[:, None].clone().requires_grad_()
    [slope] = torch.autograd.grad(law.log_prob(at).sum(), at)
    assert float(slope.abs().max()) < 1e-6
    assert torch.equal(law.mode, y[0]) and float(height[0]) == pytest.approx(float(law.log_prob(y[0])))


@every_kind
def test_no_point_near_a_mode_is_higher(kind):
    law = told(kind, 20)
    y, height = law.modes()
    there = torch.isfinite(height)
    assert bool(there[:, 0].all()) and torch.equal(torch.isnan(y).any(-1), ~there)
    for k in range(int(there.sum(1).max())):
        rows = there[:, k].nonzero().squeeze(1)
        near = y[rows, k] + 0.01 * torch.randn(50, len(rows), 2, generator=generator(8), dtype=torch.float64)
        assert bool((law[rows].log_prob(near) <= height[rows, k] + 1e-9).all())


def test_a_valley_and_a_saddle_are_no_modes():
    modes, height = line((0.3, -2, 1), (0.02, 0, 1), (0.3, 2, 1)).modes()  # the mean shift stays at 0, a local minimum
    assert torch.isneginf(height[2]) and modes[2].isnan() and (modes[:2].abs() > 1.5).all()
    means = torch.tensor([[-3.0, 0], [3.0, 0], [0.0, 0]], dtype=torch.float64)
    cross = MixtureDensity(torch.tensor([0.5, 0.5, 1e-9]).double().log(), means, scale=torch.ones(3, 2, dtype=torch.float64))
    assert (~cross.modes()[0].isnan()).all(-1).sum() == 2


@every_kind
def test_the_highest_mode_is_always_told(kind):
    assert torch.isfinite(told(kind, 200, components=4, seed=3).mode).all()


def test_gradients_of_a_probability_reach_its_quantile():
    q = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    law = line((0.3, -1, 1), (0.7, 2, 0.5))
    y = law.icdf(q)
    (slope,) = torch.autograd.grad(y.sum(), q)
    assert slope == pytest.approx(float((-law.log_prob(y.detach())).exp()), rel=1e-6)


def test_entropy_is_exact_for_one_component_and_close_for_more():
    single = told("full", 3, components=1)
    assert torch.allclose(single.entropy(), MultivariateNormal(single.means[:, 0], single.covariances[:, 0]).entropy())
    apart = line((0.5, -50, 1), (0.5, 50, 1))
    exact = math.log(2) + 0.5 * math.log(2 * math.pi * math.e)
    assert float(apart.entropy(20_000, rng=generator(9))) == pytest.approx(exact, abs=0.03)


# --------------------------------------------------------------------------------------------------- told by a network


@every_kind
def test_a_network_may_start_where_the_data_are(kind):
    noise = Noise(kind, 4, 2, scale=0.3)
    means = torch.arange(8.0).reshape(4, 2)
    law = noise.law(noise.start(means, 0.3))
    assert torch.allclose(law.means, means) and torch.allclose(law.weights, torch.full((4,), 0.25))
    assert bool(((law.deviations - 0.3).abs() < 0.04).all())


@every_kind
@pytest.mark.parametrize("raw", [-120.0, -30.0, 120.0, 1e6])
def test_no_raw_number_breaks_loss_or_gradient(kind, raw):
    noise = Noise(kind, 3, 2)
    numbers = torch.full((5, noise.width), raw).requires_grad_()
    law = noise.law(numbers)
    loss = -law.log_prob(torch.tensor([[0.0, 1.0]]).expand(5, 2)).mean()
    [gradient] = torch.autograd.grad(loss, numbers)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    assert float(law.deviations.detach().min()) >= 1e-3 * 0.999


def test_isotropic_is_one_deviation_for_every_entry():
    """The scrambled reshape of the first public code gave component k the deviations of others."""
    law = told("isotropic", 2, components=3, targets=2)
    assert torch.equal(law.deviations[..., 0], law.deviations[..., 1])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: MixtureDensity(torch.zeros(3), torch.zeros(2, 1), scale=torch.ones(2, 1)), "logits"),
        (lambda: MixtureDensity(torch.zeros(2), torch.zeros(2, 1)), "give one of them"),
        (lambda: MixtureDensity(torch.zeros(0), torch.zeros(0, 1), scale=torch.ones(0, 1)), "K and d of 1 or more"),
        (lambda: MixtureDensity(torch.zeros(()), torch.zeros(1), scale=torch.ones(1)), "an axis of components"),
        (lambda: told("full", 2).log_prob(torch.zeros(2)[:1]), "last axis"),
        (lambda: told("full", 2).log_prob(torch.zeros(3, 2)), "does not broadcast with a batch"),
        (lambda: told("full", 2).conditional([0, 1], torch.zeros(2, 2)), "to be left"),
        (lambda: Noise("round", 2, 1), "noise"),  # type: ignore[arg-type]
        (lambda: Noise("full", 0, 1), "components"),
        (lambda: Noise("fixed", 2, 1, scale=-1.0), "scale"),
    ],
)
def test_what_does_not_fit_is_said(wrong, words):
    with pytest.raises(InputError, match=words):
        wrong()


@pytest.mark.parametrize("batch", [(0,), (3, 0)])
def test_an_empty_batch_is_a_batch(batch):
    law = MixtureDensity(torch.zeros(*batch, 2), torch.zeros(*batch, 2, 3), scale=torch.ones(*batch, 2, 3))
    assert law.batch_shape == batch and law.log_prob(torch.zeros(*batch, 3)).shape == batch
    assert law.sample((4,)).shape == (4, *batch, 3)


def test_a_law_shows_its_shapes():
    law = MixtureDensity(torch.zeros(4, 2), torch.zeros(4, 2, 3), scale=torch.ones(4, 2, 3))
    assert repr(law) == "MixtureDensity(batch (4,), 2 components of 3 entries)"
