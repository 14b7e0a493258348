"""Objectives: what is written is what is asked, values agree with brute force and with the metrics, errors are honest."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from mixtura.contracts import Estimate, InputError
from mixtura.ground.kernels import Gaussian
from mixtura.ground.rng import generator
from mixtura.metrics.diversity import mode_count
from mixtura.metrics.kernel import kid, mmd2
from mixtura.metrics.neighbours import manifold
from mixtura.objectives.expression import Objective
from mixtura.objectives.terms import (
    FLD,
    KID,
    MMD,
    RKE,
    TERMS,
    Cost,
    Frechet,
    LogLikelihood,
    NeighbourDensity,
    Precision,
    Vendi,
    parse,
)
from mixtura.simplex.quadratic import minimise_quadratic
from mixtura.simplex.sparse import minimise_sparse

#: eight Gaussians of deviation SIGMA, and a kernel exp(−|x − y|² / 2H²)
MEANS = np.array([[-3, -2], [-2, 1.5], [-0.8, -1.2], [0, 2.4], [1.2, 0.2], [2.2, -1.8], [3, 1.4], [0.9, 3.2]])
SIGMA, H = 0.4, 1.25


def normals(seed, *shape):
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape))


def expected_kernel(means, variance, h=H):
    """E exp(−|X − Y|² / 2h²) of Gaussians that differ with ``variance`` in every direction."""
    squares = np.square(means[:, None] - means[None]).sum(-1)
    return (h**2 / (h**2 + variance)) ** (means.shape[1] / 2) * np.exp(-squares / (2 * (h**2 + variance)))


K8 = expected_kernel(MEANS, 2 * SIGMA**2)


def draws(rng, sizes, means=MEANS, sigma=SIGMA):
    return [torch.as_tensor(mean + sigma * rng.normal(size=(n, 2))) for mean, n in zip(means, sizes, strict=True)]


def of(objective, samples):
    """The quadratic of all terms on samples."""
    parts = [term.on(samples) * scale for scale, term in Objective(objective.parts).terms]
    found = parts[0]
    for part in parts[1:]:
        found = found + part
    return found


# ------------------------------------------------------------------------------------------------------- exact cases


def points(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def corners(*which):
    """Points that are all as far apart, √2. A kernel of bandwidth 0.15 sees them as equal or not: exp(−2 / 0.15²) = 3e-39."""
    return torch.eye(8, dtype=torch.float64)[list(which)]


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize(
    "arms, weights, loss",
    [
        ([[0], [1, 2], [3, 4, 5, 6, 7]], [1 / 8, 1 / 4, 5 / 8], 1 / 8),
        ([[1, 2], [2, 3, 4]], [1 / 3, 2 / 3], 5 / 18),
        ([[0], [1], [2], [3]], [1 / 4] * 4, 1 / 4),
    ],
    ids=["disjoint", "overlap", "equicorrelated"],
)
def test_points_that_see_only_themselves(arms, weights, loss, copies):
    """Arms that are uniform on points: with every point as often, the V-form is that of the arms themselves."""
    q = RKE(0.15).on([corners(*(arm * copies)) for arm in arms])
    K, f = q.form(unbiased=False)
    exact = [[len(set(a) & set(b)) / (len(a) * len(b)) for b in arms] for a in arms]
    assert pytest.approx(np.array(exact), abs=2e-5) == K
    assert not f.any()
    found = minimise_quadratic(K, -f / 2)
    assert found.weights == pytest.approx(weights, abs=2e-5)
    assert found.value == pytest.approx(loss, abs=2e-5)
    assert RKE(0.15).own(Estimate(found.value, 0, 0)).value == pytest.approx(1 / loss, rel=1e-4)


def test_the_u_form_leaves_out_a_sample_itself():
    """r copies of each of s points: (r − 1) / (rs − 1) of the other samples are equal to one."""
    K, _ = RKE(0.15).on([corners(*([1, 2, 3] * 4)), corners(1, 2, 2)]).form(unbiased=True)
    assert pytest.approx(np.array([[3 / 11, 1 / 3], [1 / 3, 1 / 3]]), abs=2e-5) == K


@pytest.mark.parametrize("seed", range(5))
def test_two_arms_by_hand(seed):
    rng = np.random.default_rng(seed)
    q = of(RKE(1.0) + Cost(tuple(rng.uniform(0, 0.3, 2))), [normals(seed, 30, 2), 0.5 * normals(seed + 50, 40, 2)])
    K, f = q.form(unbiased=False)
    by_hand = (K[1, 1] - K[0, 1] + (f[1] - f[0]) / 2) / (K[0, 0] + K[1, 1] - 2 * K[0, 1])
    assert minimise_quadratic(K, -f / 2).weights[0] == pytest.approx(np.clip(by_hand, 0, 1), abs=1e-12)


def test_eight_gaussians():
    found = minimise_quadratic(K8, np.zeros(8))
    assert found.value == pytest.approx(0.1655059053745318, abs=1e-15)
    assert 1 / found.value == pytest.approx(6.04208, abs=5e-6)
    assert found.weights == pytest.approx((0.1672, 0.1652, 0.1158, 0.0275, 0.0630, 0.1643, 0.1503, 0.1467), abs=5e-5)
    sparse = minimise_sparse(K8, np.zeros(8), 3)
    assert sparse.value == pytest.approx(0.2770, abs=5e-5)
    assert sparse.exact
    assert [i + 1 for i, w in enumerate(sparse.weights) if w > 0] == [1, 6, 8]
    every = [1 / np.linalg.inv(K8[np.ix_(s, s)]).sum() for s in map(list, combinations(range(8), 3))]
    assert sparse.value == pytest.approx(min(every), abs=1e-14)


def test_the_closed_form_is_what_samples_tend_to():
    q = RKE(H * math.sqrt(2)).on(draws(np.random.default_rng(0), [400] * 8))
    K, _ = q.form(unbiased=True)
    # the deviation of a mean similarity is at most a fortieth of its range here
    assert np.abs(K - K8).max() < 4 * 2 * 0.35 / math.sqrt(400)
    assert np.abs(K - K8).mean() < 0.01
    a = np.full(8, 1 / 8)
    loss = q.loss(a)
    assert abs(loss.value - a @ K8 @ a) < 4 * loss.error


def test_mmd_finds_a_known_mixture():
    target = np.array([0, 0, 0.45, 0, 0.35, 0, 0.20, 0])
    found = minimise_quadratic(K8, K8 @ target)
    assert found.weights == pytest.approx(target, abs=1e-12)
    assert found.value + target @ K8 @ target == pytest.approx(0, abs=1e-15)


def test_mmd_finds_the_shares_of_its_own_samples():
    """Of reference rows that are those of the arms, 9 : 7 : 4, the V-form is nought at these weights and nowhere else."""
    arms = draws(np.random.default_rng(1), [20, 20, 20], MEANS[[2, 4, 6]])
    real = torch.cat([arms[0].repeat(9, 1), arms[1].repeat(7, 1), arms[2].repeat(4, 1)])
    term = MMD(real, bandwidth=H)
    K, f = term.on(arms).form(unbiased=False)
    found = minimise_quadratic(K, -f / 2)
    assert found.weights == pytest.approx((0.45, 0.35, 0.20), abs=1e-5)
    whole = float(Gaussian(H)(real, real).mean())
    assert found.value + whole == pytest.approx(0, abs=1e-6)


def test_frechet_of_two_gaussians():
    """N(±1, ½) beside N(0, 1), by samples that have these moments."""
    plus_minus = lambda mean, variance: mean + math.sqrt(variance / 2) * points(-1.0, 1.0)  # noqa: E731
    loss = Frechet(plus_minus(0.0, 1.0)).on([plus_minus(1.0, 0.5), plus_minus(-1.0, 0.5)], generator(0))
    for weights, value in (((1, 0), 1.085786), ((0, 1), 1.085786), ((0.5, 0.5), 0.050510)):
        assert loss.value(weights) == pytest.approx(value, abs=1e-6)


def test_a_duplicated_arm_changes_nothing():
    arms = draws(np.random.default_rng(2), [50] * 3, MEANS[:3])
    for objective in (RKE(2.0), MMD(torch.cat(arms)[::2], bandwidth=1.0)):
        values = []
        for given in (arms, [*arms, arms[1], arms[1]]):
            K, f = objective.on(given).form(unbiased=False)
            found = minimise_quadratic(K, -f / 2)
            assert found.gap <= 1e-12 * np.abs(K).max()
            values.append(found.value)
        assert values[1] == pytest.approx(values[0], abs=1e-7)


# -------------------------------------------------------------------------------------------------------- the grammar


REAL = normals(0, 12, 2)


@pytest.mark.parametrize(
    "text, name, unit, higher",
    [
        ("rke", "rke", "modes", True),
        (" rke + 0.20*precision ", "rke+0.2*precision", "sum of losses", False),
        ("mmd", "mmd", "MMD²", False),
        ("2*mmd", "2*mmd", "MMD²", False),
        ("1e-2*cost+kid", "0.01*cost+kid", "sum of losses", False),
        (".5 * density", "0.5*density", "balls / k", True),
        ("loglik", "loglik", "nats", True),
        ("frechet", "frechet", "Fréchet distance", False),
        ("vendi", "vendi", "modes", True),
        ("fld", "fld", "nats", False),
        ("precision", "precision", "share", True),
    ],
)
def test_parse(text, name, unit, higher):
    found = parse(text, reference=REAL, bandwidth=1.5, costs=[1, 2])
    assert (found.name, found.unit, found.higher) == (name, unit, higher)
    assert parse(found.name, reference=REAL, bandwidth=1.5, costs=[1, 2]).name == name


def test_every_term_can_be_written():
    found = parse("+".join(TERMS), reference=REAL, bandwidth=1.5, costs=[1, 2])
    assert [type(term) for _, term in found.terms] == [kind for kind, _ in TERMS.values()]
    assert [term.name for _, term in found.terms] == list(TERMS)
    rke, mmd = found.terms[0][1], found.terms[1][1]
    assert (rke.bandwidth, mmd.kernel) == (1.5, Gaussian(1.5))
    assert not found.quadratic
    assert parse("rke+kid", reference=REAL).quadratic


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: parse("fid"), "'fid' is no term; write terms of rke, mmd, kid"),
        (lambda: parse("rke+"), "'' is no term"),
        (lambda: parse("rke-precision"), "'rke-precision' is no term"),
        (lambda: parse("-1*rke"), "no term"),
        (lambda: parse("rke*2"), "no term"),
        (lambda: parse("1.2.3*rke"), r"'1.2.3' is not a number; write for example 0.2\*rke"),
        (lambda: parse("0*rke"), "a finite scale above 0 for a term, got 0.0"),
        (lambda: parse("1e999*rke"), "a finite scale above 0 for a term, got inf"),
        *[(lambda t=t: parse(t), f"{t} compares with real rows; give --reference") for t, (_, needed) in TERMS.items() if needed],
        (lambda: parse("cost"), "cost needs what a sample of each arm costs; give --costs"),
        (lambda: -1 * RKE(1.0), "a finite scale above 0 for a term, got -1"),
        (lambda: RKE(1.0) * math.nan, "got nan"),
        (lambda: RKE(1.0) * True, "got True"),
        (lambda: RKE(0.0).on([REAL]), "bandwidth: expected a number from 1e-19 to 1e.150, got 0.0"),
        (lambda: MMD(REAL[:, 0], 1.0), r"reference: expected shape \(rows, features\) with one of each or more, got \(12,\)"),
        (lambda: KID(REAL[:0]), r"got \(0, 2\)"),
        (lambda: Precision(REAL / torch.arange(12)[:, None]), "reference: row 0 is not finite"),
        (lambda: Precision(REAL[:5]), "5 rows have no 5 neighbours each; give 6 or more"),
        (lambda: LogLikelihood(), "expected a reference or log_prob, got both or neither"),
        (lambda: LogLikelihood(REAL, log_prob=lambda x: x[:, 0]), "expected a reference or log_prob, got both or neither"),
        (lambda: LogLikelihood(REAL[:2]), "2 rows are too few for a density; give 3 or more"),
        (lambda: Cost((1.0,)).on([REAL, REAL]), "1 costs were given, but there are more arms"),
        (lambda: Vendi().on([REAL], generator(0)), "it has no bandwidth yet; call ready first, or give one"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for(make, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_only_terms_can_be_added():
    with pytest.raises(TypeError):
        RKE(1.0) + 2  # type: ignore[operator]


def test_own_units():
    """An RKE loss of L is 1 / L modes, with the error of that; of a scaled term the scale is taken out; a sum stays a loss."""
    loss = Estimate(0.2, 0.01, 7)
    assert Objective(RKE(1.0).parts).own(loss) == Estimate(5.0, pytest.approx(0.25), 7)
    assert (2 * RKE(1.0)).own(Estimate(0.4, 0.02, 7)) == Estimate(5.0, pytest.approx(0.25), 7)
    assert (RKE(1.0) + Cost((1.0,))).own(loss) == loss
    assert Objective(Precision(REAL).parts).own(Estimate(-0.7, 0.01, 7)) == Estimate(0.7, 0.01, 7)
    assert Objective(MMD(REAL, 1.0).parts).own(loss) == loss
    assert Objective(Vendi(1.0).parts).own(Estimate(-math.log(4), 0.01, 7)).value == pytest.approx(4)
    assert Objective(RKE(1.0).parts).own(Estimate(-1e-9, 0.01, 7)).value == math.inf


def test_an_open_bandwidth_is_the_median_distance():
    x = points(0, 1, 3)
    assert RKE().ready([x[:1], x[1:]], generator(0)).bandwidth == pytest.approx(2)
    assert RKE(reference=10 * x).ready([x], generator(0)).bandwidth == pytest.approx(20)
    assert Vendi().ready([x], generator(0)).bandwidth == pytest.approx(2)
    assert MMD(10 * x).ready([x], generator(0)).kernel.bandwidth == pytest.approx(20)
    assert (RKE() + 2 * MMD(x)).ready([x], generator(0)).terms[1][1].kernel.bandwidth == pytest.approx(2)
    assert RKE(7.0).ready([x], generator(0)).bandwidth == 7


# ------------------------------------------------------------------------------------------------------------- values


def pairwise(x, y):
    return (x[:, None] - y[None]).square().sum(-1).sqrt()


def brute(term, arms, a, unbiased):
    """L(a) by loops over pairs, in float64."""
    kernels = {
        "rke": lambda x, y: (-pairwise(x, y).square() / term.bandwidth**2).exp(),
        "mmd": lambda x, y: (-pairwise(x, y).square() / (2 * 1.5**2)).exp(),
        "kid": lambda x, y: (x @ y.T / x.shape[1] + 1).pow(3),
    }
    total = 0.0
    if term.name in kernels:
        k = kernels[term.name]

        def mean(x, y, same):
            values = k(x, y)
            n = len(x)
            return float((values.sum() - values.trace()) / (n * (n - 1)) if same else values.mean())

        m = len(arms)
        total += sum(a[i] * a[j] * mean(arms[i], arms[j], unbiased and i == j) for i in range(m) for j in range(m))
        if term.name != "rke":
            total -= 2 * sum(a[i] * mean(x, term.reference, False) for i, x in enumerate(arms))
            total += mean(term.reference, term.reference, True)
        return total
    distance = pairwise(term.reference, term.reference)
    radii = distance.sort(1).values[:, term.k]
    for weight, x in zip(a, arms, strict=True):
        inside = (pairwise(x, term.reference) < radii).double()
        total -= weight * float(inside.amax(1).mean() if term.name == "precision" else inside.sum(1).mean() / term.k)
    return total


ARMS = [normals(1, 30, 3), normals(2, 41, 3) + 0.5, 0.6 * normals(3, 25, 3) - 0.5]
ROWS = normals(4, 60, 3)
ALL = [RKE(1.5), MMD(ROWS, bandwidth=1.5), KID(ROWS), Precision(ROWS), NeighbourDensity(ROWS, k=3)]


@pytest.mark.parametrize("term", ALL, ids=lambda term: term.name)
@pytest.mark.parametrize("a", [(1, 0, 0), (0.2, 0.5, 0.3)], ids=["one", "three"])
def test_values_are_those_of_brute_force(term, a):
    q, a = term.on(ARMS), np.array(a)
    for unbiased in (True, False):
        K, f = q.form(unbiased=unbiased)
        assert a @ K @ a + f @ a + q.constant == pytest.approx(brute(term, ARMS, a, unbiased), rel=2e-6, abs=2e-7)
    assert q.loss(a).value == pytest.approx(brute(term, ARMS, a, True), rel=2e-6, abs=2e-7)
    assert q.loss(a).n == 30 + 41 + 25
    assert np.linalg.eigvalsh(q.form(unbiased=False)[0]).min() > -1e-6


def test_values_are_those_of_the_metrics():
    """Of one arm, where metrics say the same. Their errors are jackknives, ours influence functions: nearly the same."""
    x, real = normals(5, 400, 3) + 0.3, normals(6, 500, 3)
    one = np.ones(1)
    rke = Objective(RKE(1.5).parts).own(RKE(1.5).on([x]).loss(one))
    found = mode_count(x, Gaussian(1.5))
    assert (rke.value, rke.error) == (pytest.approx(found.value, rel=1e-6), pytest.approx(found.error, rel=0.02))
    mmd, found = MMD(real, bandwidth=1.5).on([x]).loss(one), mmd2(real, x, kernel=Gaussian(1.5), rng=generator(0))
    assert (mmd.value, mmd.error) == (pytest.approx(found.value, abs=1e-7), pytest.approx(found.error, rel=0.02))
    cubic, found = KID(real).on([x]).loss(one), kid(real, x, rng=generator(0))
    assert (cubic.value, cubic.error) == (pytest.approx(found.value, rel=1e-9), pytest.approx(found.error, rel=0.02))
    near = manifold(real, x, k=5)
    assert -Precision(real).on([x]).loss(one).value == pytest.approx(near.precision.value)
    assert -NeighbourDensity(real).on([x]).loss(one).value == pytest.approx(near.density.value)


def test_terms_of_one_reference_have_its_luck_once():
    """MMD² twice is twice MMD², its error too; of two references the luck adds up as of any two samples."""
    arms, real, other = [normals(seed, 400, 2) + seed for seed in (0, 1)], normals(2, 50, 2), normals(3, 50, 2)
    a, b, once = [0.5, 0.5], [1.0, 0.0], MMD(real, bandwidth=1.0).on(arms)
    for same in (MMD(real, bandwidth=1.0), MMD(real.numpy().copy(), bandwidth=1.0)):
        twice = of(MMD(real, bandwidth=1.0) + same, arms)
        assert twice.loss(a).error == pytest.approx(2 * once.loss(a).error, rel=1e-9)
        assert twice.excess(b, a).error == pytest.approx(2 * once.excess(b, a).error, rel=1e-9)
    still = [torch.zeros(3, 2).double(), torch.ones(3, 2).double()]  # all luck is that of the references
    one, two = (MMD(rows, bandwidth=1.0).on(still).loss(a).error for rows in (real, other))
    both = of(MMD(real, bandwidth=1.0) + MMD(other, bandwidth=1.0), still).loss(a).error
    assert both == pytest.approx(math.hypot(one, two), rel=1e-9)


def test_log_likelihood_and_cost():
    standard = torch.distributions.Normal(0.0, 1.0)
    loss = LogLikelihood(log_prob=lambda x: standard.log_prob(x).sum(1)).on(ARMS).loss([0, 1, 0])
    assert loss.value == pytest.approx(-float(standard.log_prob(ARMS[1]).sum(1).mean()))
    assert loss.error == pytest.approx(float(standard.log_prob(ARMS[1]).sum(1).std()) / math.sqrt(41))
    own = Objective(Cost((1.0, 2.0, 5.0)).parts).own(Cost((1.0, 2.0, 5.0)).on(ARMS).loss([0.5, 0.25, 0.25]))
    assert own == Estimate(2.25, 0.0, 96)


def test_the_likeliest_bandwidth_makes_a_density():
    """A kernel estimate of 100 + 3 N(0, 1): near the entropy of that, ½ log(2πe 9), and it integrates to one."""
    real = 100 + 3 * normals(7, 800, 1)
    term = LogLikelihood(real)
    loss = term.on([100 + 3 * normals(8, 800, 1)]).loss([1])
    assert loss.value == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 9), abs=0.06)
    grid = torch.linspace(60, 140, 4001).double()[:, None]
    assert float((-term.linear(grid, 0)).exp().sum()) * 0.02 == pytest.approx(1, abs=1e-6)


def test_sums_and_scales():
    whole, a = of(RKE(1.5) + 0.2 * Precision(ROWS) + 3 * MMD(ROWS, bandwidth=1.5), ARMS), [0.2, 0.5, 0.3]
    alone = [term.on(ARMS).loss(a).value for term in (RKE(1.5), Precision(ROWS), MMD(ROWS, bandwidth=1.5))]
    assert whole.loss(a).value == pytest.approx(alone[0] + 0.2 * alone[1] + 3 * alone[2], rel=1e-12)
    twice = of(2 * (RKE(1.5) + MMD(ROWS, bandwidth=1.5)), ARMS).loss(a)
    once = of(RKE(1.5) + MMD(ROWS, bandwidth=1.5), ARMS).loss(a)
    assert (twice.value, twice.error) == (pytest.approx(2 * once.value), pytest.approx(2 * once.error))


@pytest.mark.parametrize(
    "make",
    [
        lambda s, c: RKE(1.5 * s),
        lambda s, c: MMD(c + s * ROWS, bandwidth=1.5 * s),
        lambda s, c: MMD(c + s * ROWS).ready([], generator(0)),
        lambda s, c: RKE(reference=c + s * ROWS).ready([], generator(0)) + 0.2 * Precision(c + s * ROWS),
        lambda s, c: NeighbourDensity(c + s * ROWS),
    ],
    ids=["rke", "mmd", "mmd of the median", "rke+precision", "density"],
)
def test_units(make):
    """Neither a shift nor a scale of the features changes anything, if the bandwidth has their units."""
    plain, moved = of(make(1, 0), ARMS), of(make(3, 100), [100 + 3 * x for x in ARMS])
    a = [0.2, 0.5, 0.3]
    assert moved.loss(a).value == pytest.approx(plain.loss(a).value, rel=1e-5, abs=1e-7)
    assert moved.loss(a).error == pytest.approx(plain.loss(a).error, rel=1e-4)


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("what", ["rke", "mmd", "excess"])
def test_losses_are_unbiased_and_their_errors_honest(what):
    """250 small draws of three of the eight Gaussians, closed form beside: mean within 4 errors, ± 2 errors cover about 95 %."""
    rng = np.random.default_rng(0)
    target, a, b = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6]), np.array([0.6, 0.4, 0.0])
    K = K8[:3, :3]
    truth = {"rke": a @ K @ a, "mmd": (a - target) @ K @ (a - target), "excess": a @ K @ a - b @ K @ b}[what]
    found = []
    for _ in range(250):
        arms = draws(rng, [25, 40, 30], MEANS[:3])
        if what == "mmd":
            real = torch.cat(draws(rng, rng.multinomial(60, target), MEANS[:3]))
            found.append(MMD(real, bandwidth=H).on(arms).loss(a))
        elif what == "rke":
            found.append(RKE(H * math.sqrt(2)).on(arms).loss(a))
        else:
            found.append(RKE(H * math.sqrt(2)).on(arms).excess(a, b))
    values, errors = np.array([(e.value, e.error) for e in found]).T
    assert abs(values.mean() - truth) < 4 * values.std() / math.sqrt(len(values))
    assert 0.88 <= (np.abs(values - truth) < 2 * errors).mean() <= 0.99


def test_excess_is_the_difference_of_losses():
    q, a, b = of(RKE(1.5) + MMD(ROWS, bandwidth=1.5), ARMS), [0.2, 0.5, 0.3], [0.0, 1.0, 0.0]
    assert q.excess(a, b).value == pytest.approx(q.loss(a).value - q.loss(b).value, abs=1e-12)
    assert q.excess(a, a).value == q.excess(a, a).error == 0
    assert q.excess(a, b).error == pytest.approx(q.excess(b, a).error)


@pytest.mark.parametrize("term", [Frechet(ROWS), Vendi(1.5), FLD(ROWS)], ids=lambda term: term.name)
def test_convex_terms_have_their_gradient(term):
    loss, a = term.on(ARMS, generator(0)), np.array([0.2, 0.5, 0.3])
    for step in (np.array([1, -1, 0]), np.array([0.5, 0.5, -1])):
        slope = (loss.value(a + 1e-5 * step) - loss.value(a - 1e-5 * step)) / 2e-5
        assert loss.gradient(a) @ step == pytest.approx(slope, rel=1e-4, abs=1e-6)
