"""Sums kept sample by sample are those of all pairs, in whatever order and blocks they came, and errors are honest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mixtura.select import tally as tallies
from mixtura.select.objective import KID, MMD, RKE, Cost, Objective, Precision, QuadraticTerm
from mixtura.select.tally import Tally, bounds

SIZES = (35, 20, 27)


def normals(seed, *shape):
    return torch.as_tensor(np.random.default_rng(seed).normal(size=shape))


ARMS = [100 + 3 * (s * normals(i, n, 4) + by) for i, (n, s, by) in enumerate(zip(SIZES, (1, 1.3, 0.5), (0, 1, -1), strict=True))]
REAL = 100 + 3 * normals(9, 40, 4)
OBJECTIVES = {
    "rke": RKE(7.0),
    "mmd": MMD(REAL, bandwidth=6.0),
    "kid": KID((REAL - 100) / 3),
    "rke+0.2*precision": RKE(7.0) + 0.2 * Precision(REAL),
    "mmd+0.5*rke+cost": MMD(REAL, bandwidth=6.0) + 0.5 * RKE(7.0) + 0.1 * Cost((1.0, 2.0, 3.0)),
}


def rows(name, arms=ARMS):
    """KID is for features about 0."""
    return [(x - 100) / 3 for x in arms] if name == "kid" else arms


def order(seed, arms=ARMS):
    """Every (arm, row), in some order."""
    pulls = [(i, k) for i, x in enumerate(arms) for k in range(len(x))]
    return [pulls[j] for j in np.random.default_rng(seed).permutation(len(pulls))]


def told(objective, arms, pulls, **options):
    tally = Tally(Objective(objective.parts), len(arms), **options)
    for i, k in pulls:
        tally.add(i, arms[i][k])
    tally.flush()
    return tally


def quadratic(objective, arms):
    found = None
    for scale, term in Objective(objective.parts).terms:
        part = term.on([x.float() for x in arms]) * scale
        found = part if found is None else found + part
    return found


# --------------------------------------------------------------------------------------------------------------- sums


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("batched", [1, 10, 1_000])
def test_sums_are_those_of_all_pairs(name, batched, monkeypatch):
    """Samples taken in one by one, or in blocks: both diagonals, constant and losses are those of the batch."""
    monkeypatch.setattr(tallies, "BATCHED", batched)
    tally, q = told(OBJECTIVES[name], rows(name), order(0)), quadratic(OBJECTIVES[name], rows(name))
    assert tally.n.tolist() == list(SIZES)
    assert tally.constant == pytest.approx(q.constant, rel=2e-6)
    for unbiased in (True, False):
        for found, whole in zip(tally.form(unbiased=unbiased), q.form(unbiased=unbiased), strict=True):
            assert found == pytest.approx(whole, rel=1e-6, abs=1e-6 * np.abs(whole).max())
    a = np.array([0.2, 0.5, 0.3])
    assert tally.loss(a).value == pytest.approx(q.loss(a).value, rel=1e-5, abs=2e-6)


def test_a_sample_meets_itself_once():
    """The original counted k(x, x) twice: K̂_ii was high by 1 / n. Of samples that see only themselves K̂ is 1 / n, or 0."""
    far = torch.eye(12, dtype=torch.float64)
    tally = told(RKE(0.15), [far[:4], far[4:]], [(0, k) for k in range(4)] + [(1, k) for k in range(8)])
    assert tally.form()[0] == pytest.approx(np.diag([1 / 4, 1 / 8]), abs=1e-9)
    assert tally.form(unbiased=True)[0] == pytest.approx(np.zeros((2, 2)), abs=1e-9)
    assert tally.itself.tolist() == [4, 8]


def test_a_linear_loss_counts_once():
    """The original appended it once for every arm: with m arms its sums were m times as large."""
    tally = told(OBJECTIVES["rke+0.2*precision"], ARMS, order(1))
    precision = [-0.2 * float((torch.cdist(x, REAL) < Precision(REAL).radii).any(1).double().sum()) for x in ARMS]
    assert tally.linear == pytest.approx(precision)
    assert len(tally.contributions()[0]) == sum(SIZES)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_scale_is_used_everywhere(name):
    """The original's LAMBDA reached the solver and not the score of a single arm."""
    plain, scaled = told(OBJECTIVES[name], rows(name), order(2)), told(3 * OBJECTIVES[name], rows(name), order(2))
    a = np.array([0.2, 0.5, 0.3])
    for unbiased in (True, False):
        for once, thrice in zip(plain.form(unbiased=unbiased), scaled.form(unbiased=unbiased), strict=True):
            assert thrice == pytest.approx(3 * once, rel=1e-9, abs=1e-12)
    for at in (a, np.eye(3)[1]):
        assert scaled.loss(at).value == pytest.approx(3 * plain.loss(at).value, rel=1e-9)
        assert scaled.loss(at).error == pytest.approx(3 * plain.loss(at).error, rel=1e-9)
        assert scaled.deviation(at) == pytest.approx(3 * plain.deviation(at), rel=1e-9)
        assert scaled.slack(at)[0] == pytest.approx(3 * plain.slack(at)[0], rel=1e-9)
    assert np.array(bounds(scaled.parts)) == pytest.approx(3 * np.array(bounds(plain.parts)))


@pytest.mark.parametrize("batched", [10, 1_000])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_order_of_pulls_does_not_matter(name, batched, monkeypatch):
    monkeypatch.setattr(tallies, "BATCHED", batched)
    forms = [told(OBJECTIVES[name], rows(name), order(seed)).form(unbiased=True) for seed in range(4)]
    for K, f in forms[1:]:
        # beyond this it is the rounding of float32, which is not symmetric in x and y
        assert pytest.approx(forms[0][0], abs=1e-6 * np.abs(K).max()) == K
        assert f == pytest.approx(forms[0][1], rel=5e-6)


@pytest.mark.parametrize("batched", [10, 1_000])
def test_the_order_of_pulls_leaves_only_the_last_bit_of_exp_where_products_are_exact(batched, monkeypatch):
    """Whole numbers around a reference whose mean is 0, and a bandwidth that is a power of two: float32 rounds nothing."""
    monkeypatch.setattr(tallies, "BATCHED", batched)
    whole = [(x - 100).round() for x in ARMS]
    real = torch.tensor([[1.0, 2, -3, 4], [-1, -2, 3, -4]])
    forms = [told(MMD(real, bandwidth=8.0), whole, order(seed)).form(unbiased=True) for seed in range(4)]
    for K, f in forms[1:]:
        assert pytest.approx(forms[0][0], abs=1e-7) == K
        assert f == pytest.approx(forms[0][1], abs=1e-7)


def test_a_shift_and_a_scale_of_features_change_nothing():
    plain = [(x - 100) / 3 for x in ARMS]
    small, large = told(RKE(7 / 3), plain, order(0)), told(RKE(7.0), ARMS, order(0))
    a = np.array([0.2, 0.5, 0.3])
    assert large.loss(a).value == pytest.approx(small.loss(a).value, rel=1e-5)
    assert large.deviation(a) == pytest.approx(small.deviation(a), rel=1e-4)


def test_bounds():
    """Of κ(x, x), and of what one sample's own loss can change by."""
    of = lambda objective: bounds(Tally(Objective(objective.parts), 3).parts)  # noqa: E731
    assert of(RKE(1.0)) == (1, 0)
    assert of(MMD(REAL, bandwidth=1.0)) == (1, 2)
    assert of(RKE(1.0) + 0.2 * Precision(REAL)) == (1, pytest.approx(0.2))
    assert of(KID(REAL)) == (math.inf, math.inf)
    assert of(2 * RKE(1.0) + MMD(REAL, bandwidth=1.0)) == (3, 2)


# -------------------------------------------------------------------------------------------------------------- sketch


def test_the_sketch_is_near_the_exact_sums():
    """max |ΔK| ≤ 0.04 with 2,048 features, on eight Gaussians; a sample's pair with itself stays out, exactly."""
    means = np.array([[-3, -2], [-2, 1.5], [-0.8, -1.2], [0, 2.4], [1.2, 0.2], [2.2, -1.8], [3, 1.4], [0.9, 3.2]])
    rng = np.random.default_rng(0)
    arms = [torch.as_tensor(mean + 0.4 * rng.normal(size=(60, 2))) for mean in means]
    pulls, a = order(0, arms), np.full(8, 1 / 8)
    exact = told(RKE(1.25 * math.sqrt(2)), arms, pulls)
    wrong = []
    for seed in range(8):
        sketch = told(RKE(1.25 * math.sqrt(2)), arms, pulls, exact=200, seed=seed)
        assert exact.sketch is None
        assert sketch.sketch is not None
        assert sketch.n.tolist() == exact.n.tolist() == [60] * 8
        wrong.append(sketch.form(unbiased=True)[0] - exact.form(unbiased=True)[0])
        assert np.diagonal(sketch.form()[0]) == pytest.approx(np.diagonal(sketch.form(unbiased=True)[0]) * 59 / 60 + 1 / 60)
        assert sketch.deviation(a) == pytest.approx(exact.deviation(a), rel=0.2)
        assert sketch.loss(a).error == pytest.approx(exact.loss(a).error, rel=0.2)
    assert np.mean([np.abs(w).max() for w in wrong]) <= 0.04
    own = np.array([np.diagonal(w) for w in wrong]).mean(1)
    assert abs(own.mean()) < 4 * own.std(ddof=1) / math.sqrt(len(own))


def test_the_sketch_does_not_depend_on_when_it_began():
    tallied = [told(MMD(REAL, bandwidth=6.0) + 0.2 * Precision(REAL), ARMS, order(0), exact=exact) for exact in (30, 60)]
    (K, f), (L, g) = (tally.form() for tally in tallied)
    assert pytest.approx(L, abs=1e-6) == K
    assert f == pytest.approx(g, abs=1e-6)


def test_a_kernel_that_cannot_be_sketched_stays_exact():
    tally = told(OBJECTIVES["kid"], rows("kid"), order(0), exact=20)
    assert tally.sketch is None
    assert tally.form()[0] == pytest.approx(told(OBJECTIVES["kid"], rows("kid"), order(0)).form()[0])


# -------------------------------------------------------------------------------------------------------------- errors


def jackknife(statistic, arms):
    """Delete-one variances of a statistic (k,), the arms independent."""
    variance = 0.0
    for i, x in enumerate(arms):
        n = len(x)
        keep = lambda k, i=i, x=x: [*arms[:i], torch.cat([x[:k], x[k + 1 :]]), *arms[i + 1 :]]  # noqa: E731
        without = np.array([statistic(keep(k)) for k in range(n)])
        variance = variance + (n - 1) / n * np.square(without - without.mean(0)).sum(0)
    return np.sqrt(variance)


@pytest.mark.parametrize("name", ["rke", "mmd", "rke+0.2*precision"])
def test_errors_of_loss_and_slack_are_those_of_a_jackknife(name):
    a = np.array([0.2, 0.5, 0.3])
    arms = [100 + 3 * (normals(i, n, 4) * (1 + 0.3 * i) + i) for i, n in enumerate((110, 90, 100))]
    tally = told(OBJECTIVES[name], arms, order(0, arms))

    def values(arms):
        K, f = quadratic(OBJECTIVES[name], arms).form(unbiased=True)
        gradient = 2 * K @ a + f
        return np.append(gradient @ a - gradient, a @ K @ a + f @ a)

    exact, errors = values(arms), jackknife(values, arms)
    slack, error = tally.slack(a)
    assert slack == pytest.approx(exact[:3], abs=2e-6)
    assert error == pytest.approx(errors[:3], rel=0.06)
    assert tally.loss(a).error == pytest.approx(errors[3], rel=0.06)


def test_deviation_is_that_of_the_gradient_within_an_arm():
    a, q = np.array([0.2, 0.5, 0.3]), quadratic(OBJECTIVES["rke+0.2*precision"], ARMS)
    tally = told(OBJECTIVES["rke+0.2*precision"], ARMS, order(0))
    h = [(2 * near @ torch.as_tensor(a) + loss).numpy() for near, loss in zip(q.near, q.linear, strict=True)]
    everyone = np.concatenate(h).var()
    by_hand = [math.sqrt((len(x) * x.var() + tallies.PRIOR * everyone) / (len(x) + tallies.PRIOR)) for x in h]
    assert tally.deviation(a) == pytest.approx(by_hand, rel=0.05)
    assert min(tally.deviation(a)) > 0


def test_an_arm_of_equal_samples_still_has_a_deviation():
    """From its first samples an arm cannot be told to be constant: it borrows from the others."""
    arms = [torch.zeros(3, 1), normals(0, 40, 1)]
    tally = told(RKE(1.0), arms, order(0, arms))
    deviation = tally.deviation(np.array([0.5, 0.5]))
    assert deviation[0] > 0.5 * deviation[1] > 0


class Mean(QuadraticTerm):
    """ℓ(x) = x."""

    name, unit, higher, spread = "mean", "units", False, 1.0

    def linear(self, x, arm):
        return x[:, 0].double()


def test_deviation_of_a_plain_mean():
    """κ = 0: h is the sample itself, and errors are those of a weighted mean."""
    tally = told(Mean(), [normals(0, 500, 1), 3 * normals(1, 400, 1)], [(i, k) for i in (0, 1) for k in range(400)])
    assert tally.deviation(np.array([0.5, 0.5])) == pytest.approx([1, 3], rel=0.1)
    assert tally.loss(np.array([0.5, 0.5])).error == pytest.approx(0.5 * math.sqrt((1 + 9) / 400), rel=0.1)
    assert tally.slack(np.array([1.0, 0.0]))[1] == pytest.approx([0, math.sqrt(10 / 400)], rel=0.1, abs=1e-12)


def test_the_same_seed_gives_the_same_bits():
    first, again = (told(RKE(7.0), ARMS, order(0), exact=30, seed=3).form()[0] for _ in range(2))
    other = told(RKE(7.0), ARMS, order(0), exact=30, seed=4).form()[0]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
