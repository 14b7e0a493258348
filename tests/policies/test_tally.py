"""Sums kept sample by sample are those of all pairs, in whatever order and blocks they came, and errors are honest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mixtura.objectives.expression import Objective, QuadraticTerm
from mixtura.objectives.terms import KID, MMD, RKE, Cost, Precision
from mixtura.policies import tally as tallies
from mixtura.policies.tally import Tally, bounds

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


# ------------------------------------------------------------------------------------ beyond what every pair is visited


def meetings(kernel, arms, pulls, exact):
    """(arm, row) → Σ κ with the samples of every arm that it met, and how many those were. By the rule: of the arms of which
    most are kept, the oldest makes way."""
    similar, counts = ({pull: np.zeros(len(arms)) for pull in pulls} for _ in range(2))
    kept = []
    for i, k in pulls:
        if len(kept) + 1 > exact:
            while len(kept) + 1 > int(tallies.STAY * exact):
                held = np.bincount([j for j, _ in kept], minlength=len(arms))
                for arm in np.flatnonzero(held == held.max()):
                    kept.remove(next(pull for pull in kept if pull[0] == arm))
        for j, row in kept:
            value = float(kernel(arms[i][k][None], arms[j][row][None]))
            for one, other in (((i, k), j), ((j, row), i)):
                similar[one][other] += value
                counts[one][other] += 1
        kept.append((i, k))
    return similar, counts


def by_arm(found, m):
    return np.array([sum(values for (i, _), values in found.items() if i == arm) for arm in range(m)])


@pytest.mark.parametrize("ordered", ["mixed", "arm by arm"])
def test_beyond_exact_a_pair_counts_if_it_met(ordered):
    objective, pulls = RKE(7.0), order(0) if ordered == "mixed" else [(i, k) for i in range(3) for k in range(SIZES[i])]
    tally = told(objective, ARMS, pulls, exact=30)
    similar, counts = (by_arm(found, 3) for found in meetings(objective.kernel, ARMS, pulls, 30))
    assert tally.met.tolist() == counts.tolist()
    assert tally.form(unbiased=True)[0] == pytest.approx(similar / counts, rel=1e-5)
    assert tally.n.tolist() == list(SIZES) and tally.t == sum(SIZES)
    assert len(tally.contributions()[0]) <= 30
    assert min(np.bincount(tally.contributions()[1])) >= 9, "every arm is among those that new samples meet, evenly"
    K = tally.form()[0]
    centred = K - K.mean(0) - K.mean(1)[:, None] + K.mean()
    assert np.linalg.eigvalsh(centred).min() > -1e-12, "what is minimised is convex"


def test_contributions_are_means_over_those_that_were_met():
    """Of every sample that is kept; and the deviation is that of as many as are kept."""
    objective, pulls, a = RKE(7.0), order(0), np.array([0.2, 0.5, 0.3])
    tally = told(objective, ARMS, pulls, exact=30)
    similar, counts = meetings(objective.kernel, ARMS, pulls, 30)
    near, arms = tally.contributions()
    for i in range(3):
        mine = [pull for pull in pulls if pull[0] == i][-int((arms == i).sum()) :]
        assert near[arms == i][:, :3] == pytest.approx(np.array([similar[pull] / counts[pull] for pull in mine]), rel=1e-5)
    h = near @ np.append(2 * a, 1)
    groups = [h[arms == i] for i in range(3)]
    assert max(map(len, groups)) < min(SIZES)
    by_hand = [math.sqrt((len(x) * x.var() + tallies.PRIOR * h.var()) / (len(x) + tallies.PRIOR)) for x in groups]
    assert tally.deviation(a) == pytest.approx(by_hand)


def test_samples_that_made_way_still_count_in_errors():
    """Influences by hand: (s_j − c_j K̂_ij) / (pairs that met) of every sample, those that are no longer kept among them."""
    rng, a = np.random.default_rng(0), np.array([0.7, 0.3])
    arms = [torch.as_tensor(rng.normal(0, 1, (90, 1))), torch.as_tensor(rng.normal(1, 1, (40, 1)))]
    pulls = [(0, k) for k in range(90)] + [(1, k) for k in range(40)]
    tally = told(RKE(1.5), arms, pulls, exact=50)
    similar, counts = meetings(RKE(1.5).kernel, arms, pulls, 50)
    K = tally.form(unbiased=True)[0]
    moved = {(i, k): (similar[i, k] - counts[i, k] * K[i]) / tally.met[i] for i, k in pulls}
    variance = sum((2 * a[i] * float(a @ e)) ** 2 for (i, _), e in moved.items())
    assert tally.loss(a).error == pytest.approx(math.sqrt(variance), rel=1e-4)
    slack = [
        sum((4 * a[i] * float(a @ e) - 2 * a[i] * e[k] - 2 * float(a @ e) * (i == k)) ** 2 for (i, _), e in moved.items())
        for k in range(2)
    ]
    assert tally.slack(a)[1] == pytest.approx(np.sqrt(slack), rel=1e-4)


@pytest.mark.parametrize("name", ["mmd", "rke+0.2*precision"])
def test_errors_go_on_falling_and_are_those_of_repetitions(name, monkeypatch):
    """60 selections of 600 samples of which 120 are kept: the error is that seen, and near that of all pairs."""
    monkeypatch.setattr(tallies, "BATCHED", 4)
    a, found = np.array([0.2, 0.5, 0.3]), {120: [], 10_000: []}
    for seed in range(60):
        arms = rows(name, [100 + 3 * (normals(10 * seed + i, 200, 4) * (1 + 0.3 * i) + i) for i in range(3)])
        pulls = order(seed, arms)
        for exact, losses in found.items():
            if exact == 120 or seed < 6:
                losses.append(told(OBJECTIVES[name], arms, pulls, exact=exact).loss(a))
    values, errors = (np.array([getattr(loss, of) for loss in found[120]]) for of in ("value", "error"))
    assert values.std(ddof=1) == pytest.approx(np.sqrt(np.square(errors).mean()), rel=0.3)
    assert errors.mean() < 1.3 * np.mean([loss.error for loss in found[10_000]])
    assert values[:6].mean() == pytest.approx(np.mean([loss.value for loss in found[10_000]]), abs=errors.mean())


def test_one_more_sample_than_is_kept_changes_little():
    """K̂ and f̂ go on from the same sums: MMD² does not jump where samples begin to make way."""
    a = np.array([0.2, 0.5, 0.3])
    before, after = (told(MMD(REAL, bandwidth=6.0), ARMS, order(0), exact=exact) for exact in (82, 81))
    assert before.how == "every pair of samples" and "last 81" in after.how
    assert after.loss(a).value == pytest.approx(before.loss(a).value, abs=0.1 * before.loss(a).error)
    assert after.loss(a).error == pytest.approx(before.loss(a).error, rel=0.02)


def test_forms_are_symmetric_to_the_last_bit(monkeypatch):
    """Float32 products of (x, y) and (y, x) differ, which the solver refused."""
    monkeypatch.setattr(tallies, "BATCHED", 1)
    K, _ = told(RKE(7.0), ARMS, order(0)).form()
    assert (K.T == K).all()


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


def test_deviation_of_few_samples_by_hand():
    """κ = 0: of −1 and 1, and of four times 2, with five samples' worth of the variance of all six, 11 / 9."""
    tally = told(Mean(), [torch.tensor([[-1.0], [1.0]]), torch.full((4, 1), 2.0)], [(0, 0), (0, 1)] + [(1, k) for k in range(4)])
    drawn = 5 * 11 / 9
    assert tally.deviation(np.array([0.5, 0.5])) == pytest.approx([math.sqrt((2 + drawn) / 7), math.sqrt(drawn / 9)])


def test_features_about_a_far_place_keep_their_digits_without_a_shift():
    """A polynomial kernel cannot be moved to the middle: about 100 its K is that of float64."""
    arms = [100 + normals(i, 8, 3) for i in range(2)]
    tally = told(KID(normals(9, 30, 3)), arms, [(i, k) for k in range(8) for i in range(2)])
    by_hand = (arms[0] @ arms[1].T / 3 + 1).pow(3).mean()
    assert tally.form()[0][0, 1] == pytest.approx(float(by_hand), rel=1e-12)


def test_an_estimate_counts_every_sample_and_not_those_kept():
    assert told(RKE(7.0), ARMS, order(0), exact=30).loss(np.full(3, 1 / 3)).n == sum(SIZES)


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
