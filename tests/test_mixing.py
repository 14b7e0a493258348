"""`mix`: exact optima, honest gains and intervals, constraints obeyed, every kind of source, one sentence for every error."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student

from mixtura import InputError, mix, pareto
from mixtura.contracts import Estimate, Note
from mixtura.ground.rng import generator
from mixtura.metrics.neighbours import manifold
from mixtura.objectives import mixture as problems
from mixtura.objectives.expression import Objective
from mixtura.objectives.terms import KID, MMD, RKE, Cost, Frechet, Precision, parse
from mixtura.simplex import intervals

#: eight Gaussians of deviation 0.4, the bandwidth whose κ is exp(−|x − y|² / 2 · 1.25²), and the weights of most modes
MEANS = np.array([[-3, -2], [-2, 1.5], [-0.8, -1.2], [0, 2.4], [1.2, 0.2], [2.2, -1.8], [3, 1.4], [0.9, 3.2]])
BANDWIDTH = 1.25 * math.sqrt(2)
BEST = np.array([0.1672, 0.1652, 0.1158, 0.0275, 0.0630, 0.1643, 0.1503, 0.1467])


def gaussians(seed, n, which=range(8), scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    return {f"g{i}": shift + scale * (MEANS[i] + 0.4 * rng.normal(size=(n, 2))) for i in which}


def weights(found):
    return np.array(list(found.by_name.values()))


@pytest.fixture
def few_subsamples(monkeypatch):
    monkeypatch.setattr(intervals, "SUBSAMPLES", 10)
    monkeypatch.setattr(problems, "CONVEX_SUBSAMPLES", 2)


# ------------------------------------------------------------------------------------------------------- exact cases


@pytest.mark.parametrize(
    "arms, best, modes",
    [
        ([[0], [1, 2], [3, 4, 5, 6, 7]], [1 / 8, 1 / 4, 5 / 8], 8),
        ([[1, 2], [2, 3, 4]], [1 / 3, 2 / 3], 3.6),
        ([[0], [1], [2], [3]], [1 / 4] * 4, 4),
    ],
    ids=["disjoint", "overlap", "one point each"],
)
@pytest.mark.parametrize("copies", [2, 30])
def test_points_that_see_only_themselves(arms, best, modes, copies):
    """Every point as often: the V-form and so the weights are exact; the value leaves out what a sample has with itself,
    (r − 1) / (rs − 1) for 1 / s, which has gone where there are many."""
    corners = np.eye(8)
    found = mix([np.repeat(corners[arm], copies, axis=0) for arm in arms], "rke", bandwidth=0.15)
    assert weights(found) == pytest.approx(best, abs=2e-5)
    assert found.gap <= 1e-12
    if len({tuple(arm) for arm in arms}) == sum(map(len, arms)) or modes == 8:
        u_form = sum(w**2 * (copies - 1) / (copies * len(arm) - 1) for w, arm in zip(best, arms, strict=True))
        assert found.value == pytest.approx(1 / u_form, rel=1e-4)
    assert found.value == pytest.approx(modes, rel=2 / copies)
    assert (found.unit, found.higher, found.bandwidth) == ("modes", True, 0.15)


def test_eight_gaussians_and_their_units():
    found = mix(gaussians(0, 500), "rke", bandwidth=BANDWIDTH)
    assert abs(found.value - 6.04208) < 4 * found.error
    assert np.abs(weights(found) - BEST).max() < 0.03
    assert found.gap <= 1e-12
    assert found.samples == {f"g{i}": 500 for i in range(8)}
    assert found.value > found.best_value
    moved = mix(gaussians(0, 500, scale=3, shift=100), "rke", bandwidth=3 * BANDWIDTH)
    assert weights(moved) == pytest.approx(weights(found), abs=1e-4)
    assert (moved.value, moved.error) == (pytest.approx(found.value, rel=1e-5), pytest.approx(found.error, rel=1e-3))


def test_the_shares_of_a_known_mixture():
    arms = gaussians(1, 400, (2, 4, 6))
    others = gaussians(2, 400, (2, 4, 6)).values()
    real = np.concatenate([x[:n] for x, n in zip(others, (360, 280, 160), strict=True)])
    found = mix({**arms, **gaussians(3, 400, (0, 1))}, "mmd", reference=real, bandwidth=1.25)
    assert np.abs(weights(found) - [0.45, 0.35, 0.20, 0, 0]).max() < 0.03
    assert abs(found.value) < 4 * found.error
    assert found.p_value <= 1e-6
    assert "use 0.4" in found.sentence
    given = mix({**arms, **gaussians(3, 400, (0, 1))}, MMD(torch.as_tensor(real), bandwidth=1.25))
    assert given.by_name == found.by_name


def test_frechet_of_two_gaussians(few_subsamples):
    """N(±1, ½) beside N(0, 1)."""
    z = np.random.default_rng(0).normal(size=(400, 1))
    z = (z - z.mean()) / z.std(ddof=1)
    found = mix({"minus": -1 + math.sqrt(0.5) * z, "plus": 1 + math.sqrt(0.5) * z}, "frechet", reference=z)
    assert weights(found) == pytest.approx([0.5, 0.5], abs=1e-4)
    assert found.value == pytest.approx(0.050510, abs=1e-6)
    assert found.best_value == pytest.approx(1.085786, abs=1e-6)
    assert found.gap <= 1e-8


def test_a_duplicated_arm_changes_the_objective_by_nothing():
    arms = gaussians(4, 60, (0, 1, 2))
    once, twice = mix(arms, "rke", bandwidth=BANDWIDTH), mix({**arms, "again": arms["g1"]}, "rke", bandwidth=BANDWIDTH)
    assert twice.gap <= 1e-12
    assert weights(twice)[1] + weights(twice)[3] == pytest.approx(weights(once)[1], abs=1e-4)


# ------------------------------------------------------------------------------------------------------------ honesty


def test_no_gain_is_seldom_claimed(few_subsamples):
    """Three arms of one law: p < 0.05 in a tenth of 60 runs at most; and each could as well be another."""
    p, flat = [], 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = mix({name: rng.normal(size=(40, 2)) for name in "abc"}, "rke", bandwidth=1.0, seed=seed)
        p.append(found.p_value)
        assert ("no gain" in found.sentence) == (found.p_value >= 0.05 or found.gain <= 0)
        used = [name for name, w in found.by_name.items() if w >= 0.1]
        flat += {a for a, _ in found.flat} == set(used)
    assert np.mean(np.array(p) < 0.05) <= 0.1
    assert np.median(p) > 0.3
    assert flat >= 45


def test_a_gain_is_claimed_where_there_is_one():
    found = mix(gaussians(5, 60, (0, 6)), "rke", bandwidth=BANDWIDTH)
    assert found.p_value < 1e-3
    assert found.flat == []
    assert found.gain > 4 * found.gain_error
    assert found.sentence.startswith("gain +")


def judged(objective, samples, real, seed):
    """gain ± error and p-value of halves."""
    samples = {name: torch.as_tensor(x) for name, x in samples.items()}
    wanted = parse(objective, reference=torch.as_tensor(real)).ready([*samples.values()], generator(seed))
    return problems.gain_of_halves(samples, wanted, seed=seed)


def p_of_one_law(objective, n, d, repetitions):
    """p-values where both arms and the reference are N(0, I): no mixture is better. benchmarks/gains.py has more of them."""
    rng = np.random.default_rng(0)
    draws = ((rng.normal(size=(n, d)), rng.normal(size=(n, d)), rng.normal(size=(n, d))) for _ in range(repetitions))
    return np.array([judged(objective, {"a": a, "b": b}, real, seed)[1] for seed, (a, b, real) in enumerate(draws)])


@pytest.mark.parametrize("objective", ["frechet", "vendi", "fld", "rke+0.1*frechet"])
def test_more_samples_are_no_gain(objective):
    """A mixture of two arms has twice the samples of one, and so other values where these depend on how many there are."""
    p = p_of_one_law(objective, 60, 16, 8)
    assert p.min() > 1e-3
    assert (p < 0.05).sum() <= 2
    assert (p > 0.5).sum() >= 2


@pytest.mark.parametrize("objective", ["rke", "mmd", "kid", "precision", "density", "loglik", "mmd+0.1*density"])
def test_a_gain_of_one_law_is_seldom_claimed(objective):
    p = p_of_one_law(objective, 40, 4, 40)
    assert p.min() > 1e-4
    assert (p < 0.05).mean() <= 0.1


@pytest.mark.parametrize("objective", ["rke", "mmd", "frechet", "vendi", "fld"])
def test_two_modes_are_a_gain(objective):
    """Each arm has one mode of the reference."""
    rng = np.random.default_rng(0)
    modes = lambda n, *signs: rng.normal(size=(n, 2)) + 3 * rng.choice(signs, size=(n, 1)) * [1, 0]  # noqa: E731
    gain, p = judged(objective, {"left": modes(160, -1), "right": modes(160, 1)}, modes(200, -1, 1), 0)
    assert p < 0.01
    freedom = 79 if objective in ("rke", "mmd") else 9
    assert p == pytest.approx(max(1e-6, student.sf(gain.value / gain.error, freedom)), rel=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_a_gain_is_over_the_arm_that_is_beaten_the_least_surely(which, monkeypatch):
    """Not over the one that is beaten by the least: 0.1 ± 0.01 is sure and 0.3 ± 0.2 is not. In modes 1 / 0.5 − 1 / 0.8, with an
    error as much larger as the gain is."""
    less = [Estimate(0.1, 0.01, 9), Estimate(0.3, 0.2, 9)]
    monkeypatch.setattr(problems.Problem, "_by_influence", lambda *_: (0.5, less[:: 1 - 2 * which], 11))
    gain, p = judged("rke", gaussians(0, 40, (0, 6)), np.eye(2), 0)
    assert p == pytest.approx(student.sf(1.5, 11))
    assert (gain.value, gain.error, gain.n) == (pytest.approx(0.75), pytest.approx(0.5), 9)
    # without an error nothing is known of the luck there was, and nothing is claimed
    less[0] = Estimate(0.1, 0.0, 9)
    gain, p = judged("rke", gaussians(0, 40, (0, 6)), np.eye(2), 0)
    assert (gain.value, gain.error, p) == (pytest.approx(1 / 0.5 - 1 / 0.6), 0, 1)


@pytest.mark.parametrize("arms, real, freedom", [((40, 60), 100, 19), ((60, 60), 24, 11)], ids=["an arm", "the reference"])
def test_a_gain_is_as_sure_as_the_smallest_half_allows(arms, real, freedom):
    """By Student's law with one degree less than there are samples, or reference rows."""
    rng = np.random.default_rng(0)
    samples = {name: rng.normal(size=(n, 2)) + by for name, n, by in zip("ab", arms, (-1, 1), strict=True)}
    gain, p = judged("mmd", samples, rng.normal(size=(real, 2)) + np.resize([-1, 1], (real, 1)), 0)
    assert 1e-5 < p < 0.9
    assert p == pytest.approx(student.sf(gain.value / gain.error, freedom), rel=1e-6)


def test_of_arms_that_are_surely_better_or_worse_the_best_is_compared():
    """What is paid for a sample has no luck in it: halves of both arms cost 1.5, half more than the cheaper one."""
    arms = gaussians(0, 40, (0, 1))
    for costs in ([1, 2], [2, 1]):
        found = mix(arms, "cost", costs=costs, cap=0.5)
        assert (found.gain, found.gain_error, found.p_value) == (pytest.approx(-0.5), 0, 1)


def test_a_gain_is_of_weights_of_the_size_that_was_asked():
    """One arm has no gain over itself, though both together would."""
    found = mix(gaussians(0, 40, (0, 6)), "rke", bandwidth=BANDWIDTH, size=1)
    assert (found.gain, found.gain_error, found.p_value) == (0, 0, 1)


def test_who_can_be_judged_by_halves():
    """Arms of twenty samples or more, and two of them; with costs, which go by the order of arms, all of them."""
    of = lambda *sizes: {name: normal(n) for name, n in zip("abc", sizes, strict=False)}  # noqa: E731
    normal = lambda n: np.random.default_rng(n).normal(size=(n, 2))  # noqa: E731
    costs = Objective((RKE(1.0) + 0.1 * Cost((1.0, 2.0, 3.0))).parts)
    tensors = lambda samples: {name: torch.as_tensor(x) for name, x in samples.items()}  # noqa: E731
    assert judged("rke", of(20, 20), np.eye(2), 0) is not None
    assert judged("rke", of(20, 21, 19), np.eye(2), 0) == judged("rke", of(20, 21), np.eye(2), 0)
    assert judged("rke", of(20, 19), np.eye(2), 0) is None
    assert problems.gain_of_halves(tensors(of(40, 30, 19)), costs) is None
    assert problems.gain_of_halves(tensors(of(40, 30, 20)), costs) is not None


class Squared:
    """The squared mean of all numbers, a loss that is too large by what depends on how many there are."""

    def __init__(self, objective, samples, seed):
        self.samples = samples

    def value(self, a):
        return float(self.samples[0].mean()) ** 2


@pytest.mark.parametrize("beside", [False, True], ids=["convex", "and quadratic"])
def test_equal_counts_by_hand(beside, monkeypatch):
    """The mixture is the first arm: pseudo-values 10 θ − 9 θ without a block, of 24 rows of either, and their difference."""
    loss = problems.Loss
    monkeypatch.setattr(
        problems, "Loss", lambda objective, *rest: (loss if objective.quadratic else Squared)(objective, *rest)
    )  # fmt: skip
    monkeypatch.setattr(problems, "EQUAL_ROWS", 24)
    rng, rke = np.random.default_rng(0), RKE(1.0)
    samples = [torch.as_tensor(rng.normal(by, 1, size=(n, 1))) for n, by in ((30, 0.1), (44, 0.4))]
    frechet = Frechet(torch.as_tensor(rng.normal(size=(40, 1))))
    objective = Objective((rke + frechet if beside else frechet).parts)
    mixing = problems.Problem(["a", "b"], samples, objective, None, None, 0)
    mixed, less, freedom = mixing._at_equal_counts(objective, samples, np.array([1.0, 0.0]), generator(0))
    of = lambda x: float(x.mean()) ** 2 + (rke.on([x]).loss([1]).value if beside else 0)  # noqa: E731
    whole = np.array([of(x[:24]) for x in samples])
    left = [[of(x[:24][torch.arange(24) // 2 % 10 != k]) for x in samples] for k in range(10)]
    pseudo = 10 * whole - 9 * np.array(left)
    difference = pseudo[:, 1] - pseudo[:, 0]
    assert mixed == pytest.approx(whole[0])
    assert (less[0].value, less[0].error) == pytest.approx((0, 0), abs=1e-12)
    assert (less[1].n, freedom) == (24, 9)
    assert less[1].value == pytest.approx(difference.mean(), rel=1e-5)
    assert less[1].error == pytest.approx(difference.std(ddof=1) / math.sqrt(10), rel=1e-5)


def test_the_jackknife_of_a_mean_is_the_error_of_its_blocks():
    rows = torch.as_tensor(np.random.default_rng(0).normal(size=(20, 1)))
    mixing = problems.Problem(["a"], [rows], Objective(RKE(1.0).parts), None, None, 0)
    means = rows.reshape(10, 2).mean(1)
    assert mixing._jackknife(lambda _, samples: float(samples[0].mean())) == pytest.approx(float(means.std()) / math.sqrt(10))
    assert math.isnan(problems.Problem(["a"], [rows[:19]], mixing.objective, None, None, 0)._jackknife(lambda *_: 1.0))


def test_subsamples_are_halves(monkeypatch):
    """Of every arm, and of the reference by twos: even rows and the odd ones that follow them."""
    seen = []

    class Seen(problems.Loss):
        def __init__(self, objective, samples, seed):
            seen.append((objective, samples))
            super().__init__(objective, samples, seed)

    rng = np.random.default_rng(0)
    real, arms = torch.as_tensor(rng.normal(size=(44, 1))), [torch.as_tensor(rng.normal(size=(n, 1))) for n in (30, 41)]
    mixing = problems.Problem(["a", "b"], arms, Objective(Frechet(real).parts), None, None, 0)
    monkeypatch.setattr(problems, "Loss", Seen)
    mixing._of_half(generator(0))
    (objective, halves), place = seen[0], {float(v): i for i, v in enumerate(real[:, 0])}
    assert [len(x) for x in halves] == [15, 20]
    kept = [place[float(v)] for v in objective.terms[0][1].reference[:, 0]]
    assert len(set(kept)) == 22
    assert all(i % 2 == 0 and j == i + 1 for i, j in zip(kept[::2], kept[1::2], strict=True))


def test_intervals_of_halves_are_as_wide_as_halves_lie_apart(monkeypatch):
    """Of half of all samples weights move about those of half as those of all about the truth; of two the quantiles are 0.95 of
    the way to either."""
    monkeypatch.setattr(problems, "CONVEX_SUBSAMPLES", 2)
    ways = iter([0.1, -0.1])
    monkeypatch.setattr(problems.Problem, "_of_half", lambda *_: np.array([0.5, 0.5]) + next(ways) * np.array([1, -1]))
    mixing = problems.Problem(["a", "b"], [torch.eye(30)] * 2, Objective(Frechet(torch.eye(40)).parts), None, None, 0)
    found = mixing.intervals(SimpleNamespace(convex=[1], quadratic=None), np.array([0.5, 0.5]))
    assert np.array(found) == pytest.approx(np.array([[0.405, 0.595]] * 2))


def test_a_value_has_every_term_with_its_scale(few_subsamples):
    """Of a quadratic and a convex part: 1 / modes + 0.02 times the distance, and so for the best arm."""
    real = gaussians(9, 90, (0,))["g0"]
    found = mix(gaussians(8, 50, (0, 1)), "rke+0.02*frechet", reference=real, bandwidth=BANDWIDTH)
    assert found.value == pytest.approx(1 / found.terms["rke"][0] + 0.02 * found.terms["frechet"][0])
    alone = mix({"g0": gaussians(8, 50, (0, 1))[found.best]}, "rke+0.02*frechet", reference=real, bandwidth=BANDWIDTH)
    assert found.best_value == pytest.approx(alone.value, rel=1e-5)


def test_what_is_flat_by_hand():
    """All weight of one arm moved to another costs less than two errors. Of a weight below a tenth nothing is said."""
    costs = {(0, 1): 1.9, (0, 2): 2.1, (1, 0): -1.0, (1, 2): 0.0}

    class Known:
        def excess(self, b, a):
            assert b.sum() == pytest.approx(1)
            i, j = int(np.flatnonzero(b < a)[0]), int(np.flatnonzero(b > a)[0])
            return Estimate(costs[i, j] * 0.3, 0.3, 9)

    mixing = problems.Problem(["a", "b", "c"], [], Objective(RKE(1.0).parts), None, None, 0)
    loss = SimpleNamespace(convex=[], quadratic=Known())
    assert mixing.flat(loss, np.array([0.65, 0.3, 0.05])) == [("a", "b"), ("b", "a"), ("b", "c")]


def test_the_best_single_arm_is_chosen_without_what_a_sample_has_with_itself():
    """Of points that see only themselves, 20 and 20 of one arm and 3 and 2 of the other: 0.487 and 0.4 of all pairs are alike."""
    points = np.eye(4)
    found = mix({"many": points[[0, 1] * 20], "few": points[[2, 2, 2, 3, 3]]}, "rke", bandwidth=0.15)
    assert (found.best, found.best_value) == ("few", pytest.approx(1 / 0.4, rel=1e-4))


def test_a_block_is_left_out_by_twos():
    """Of even and odd rows, which a term can deal to two sides, the rows kept are on the side where they were."""
    rows = torch.arange(47)
    blocks = []
    for k in range(problems.BLOCKS):
        kept = problems._without(k)(rows)
        assert (kept[::2] % 2 == 0).all() and (kept[1::2] % 2 == 1).all()
        blocks += sorted(set(rows.tolist()) - set(kept.tolist()))
    assert sorted(blocks) == rows.tolist()


@pytest.mark.parametrize("objective, n, repetitions", [("rke", 60, 60), ("frechet", 60, 30)])
def test_the_error_of_a_gain_is_its_deviation(objective, n, repetitions):
    """Of an arm with one mode beside one with two, which the mixture beats the least surely."""
    rng = np.random.default_rng(1)
    modes = lambda n, *signs: rng.normal(size=(n, 2)) + 4 * rng.choice(signs, size=(n, 1)) * [1, 0]  # noqa: E731
    draws = [({"one": modes(n, 0), "two": modes(n, -1, 1)}, modes(n, -1, 0, 1)) for _ in range(repetitions)]
    gains = [judged(objective, samples, real, seed)[0] for seed, (samples, real) in enumerate(draws)]
    values, errors = np.array([(g.value, g.error) for g in gains]).T
    assert 0.7 < np.std(values, ddof=1) / math.sqrt(np.mean(errors**2)) < 1.35
    assert np.mean(values) > 0


def test_what_chose_does_not_judge(monkeypatch):
    """Weights come from one half of every arm and of the reference, the gain from the other; a reference is halved once for
    all terms, and one whose radii are taken as given is not."""
    seen = []

    class Seen(problems.Loss):
        def __init__(self, objective, samples, seed):
            seen.append((objective, samples))
            super().__init__(objective, samples, seed)

    monkeypatch.setattr(problems, "Loss", Seen)
    rng = np.random.default_rng(0)
    rows = lambda x: {float(v) for v in torch.as_tensor(x)[:, 0]}  # noqa: E731
    arms, real = {"a": rng.normal(size=(60, 2)), "b": rng.normal(size=(50, 2)) + 1}, rng.normal(size=(70, 2)) + 0.5
    for objective in ("mmd+0.1*kid+0.1*precision", "mmd+frechet"):
        seen.clear()
        judged(objective, arms, real, 0)
        (chose, first), judging = seen[0], seen[1:]
        assert [len(x) for x in first] == [30, 25]
        of = lambda objective: [t.reference for _, t in objective.terms if t.matches]  # noqa: E731
        assert len(of(chose)) == 2 and rows(of(chose)[0]) == rows(of(chose)[1]) and len(of(chose)[0]) == 35
        assert judging
        for other, second in judging:
            assert not set().union(*map(rows, second)) & set().union(*map(rows, first))
            assert not set().union(*map(rows, of(other))) & rows(of(chose)[0])
            assert all(len(t.reference) == 70 for _, t in other.terms if t.name == "precision")


def test_terms_that_hold_copies_of_one_reference_share_its_halves():
    real = np.random.default_rng(0).normal(size=(70, 2))
    for terms in (MMD(real, bandwidth=1.0) + KID(real.copy()), MMD(real.copy(), bandwidth=1.0) + Frechet(torch.as_tensor(real))):
        first, second = (
            [{float(v) for v in t.reference[:, 0]} for _, t in half.terms]
            for half in problems._halved(Objective(terms.parts), generator(0))
        )
        assert first[0] == first[1] and second[0] == second[1] and not first[0] & second[1] and len(first[0] | second[0]) == 70


def test_a_mixture_has_to_beat_every_arm(few_subsamples):
    """Ten arms of one law in equal parts: beside the arm that happened to be the best of the half that chose they would look
    better every second time. Of a share, which is linear, no mixture is better than its best arm."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        arms = {f"arm {i}": rng.normal(size=(40, 2)) for i in range(10)}
        found = mix(arms, "precision", reference=rng.normal(size=(30, 2)), cap=0.1, seed=seed)
        assert found.gain <= 0 and found.p_value >= 0.5


def test_a_few_reference_rows_judge_nothing(few_subsamples):
    arms, real = gaussians(6, 60, (0, 1)), gaussians(7, 60, (0,))["g0"]
    for objective, least in (("mmd", 20), ("frechet", 40), ("fld", 40)):
        found = mix(arms, objective, reference=real[: least - 1])
        assert (found.gain, found.gain_error, found.p_value) == (None, None, None)
        assert "too few samples to say whether it beats" in found.sentence and "no p-value is given" in found.sentence
        assert mix(arms, objective, reference=real[:least]).p_value is not None
    assert mix(arms, "precision", reference=real[:19]).p_value is not None, "its radii are taken as given"


def test_intervals_hold_the_best_weights(monkeypatch):
    monkeypatch.setattr(intervals, "SUBSAMPLES", 40)
    held = []
    for seed in range(30):
        found = mix(gaussians(seed, 80), "rke", bandwidth=BANDWIDTH, seed=seed)
        low, high = np.array(list(found.intervals_by_name.values())).T
        assert np.all((low <= weights(found)) & (weights(found) <= high))
        held.append((low - 1e-4 <= BEST) & (BEST <= high + 1e-4))
    assert 0.8 <= np.mean(held) <= 1
    assert np.mean(high - low) < 0.2


def sides(seed, left=0.5, n=100):
    """Two arms far apart, and real rows of which each is at the left with this chance: how many are is all that weights depend
    on."""
    rng = np.random.default_rng(seed)
    at = lambda x: x + 0.1 * rng.normal(size=(len(x), 1))  # noqa: E731
    real = np.where(rng.random((n, 1)) < left, -5.0, 5.0)
    return {"left": at(np.full((200, 1), -5.0)), "right": at(np.full((200, 1), 5.0))}, at(real)


@pytest.mark.parametrize("objective", ["mmd", "mmd+kid", "frechet"])
def test_intervals_count_the_luck_of_the_reference(objective):
    """The share of 100 real rows that are at one side has a deviation of 0.05."""
    widths = []
    for seed in range(2):
        arms, real = sides(seed)
        low, high = mix(arms, objective, reference=real, bandwidth=1.0).intervals_by_name["left"]
        widths.append((high - low) / (2 * 1.96))
    assert 0.03 < np.mean(widths) < 0.08


def test_the_error_of_a_convex_value_is_its_deviation(monkeypatch):
    """Of few real rows, which have most of the luck."""
    monkeypatch.setattr(problems.Problem, "intervals", lambda *_: None)
    monkeypatch.setattr(problems.Problem, "gain", lambda *_: (None, None))
    rng, found = np.random.default_rng(0), []
    for _ in range(40):
        arms = {name: shift + rng.normal(size=(200, 1)) for name, shift in (("a", 1.0), ("b", 1.2))}
        found.append(mix(arms, "frechet", reference=rng.normal(size=(60, 1))))
    ratio = np.std([f.value for f in found], ddof=1) / math.sqrt(np.mean([f.error**2 for f in found]))
    assert 0.7 < ratio < 1.5


def test_few_real_rows_have_no_intervals(few_subsamples):
    for objective in ("mmd", "frechet"):
        arms, real = sides(0, n=20)
        assert mix(arms, objective, reference=real[:19], bandwidth=1.0).intervals is None
        assert mix(arms, objective, reference=real, bandwidth=1.0).intervals is not None
    assert mix(arms, "precision", reference=real[:19]).intervals is not None, "its radii are taken as given"


@pytest.mark.parametrize("objective", ["mmd", "frechet"])
def test_intervals_obey_the_constraints(objective, few_subsamples):
    """All real rows are at the left, and the cap is far below that."""
    arms, real = sides(0, left=1.0)
    found = mix(arms, objective, reference=real, bandwidth=1.0, cap=0.6)
    assert np.array([*found.intervals_by_name.values()]) == pytest.approx(np.array([[0.6, 0.6], [0.4, 0.4]]), abs=1e-6)


def test_few_samples_are_not_judged():
    found = mix(gaussians(6, 19, (0, 1)), "rke", bandwidth=1.0)
    assert (found.gain, found.p_value, found.intervals) == (None, None, None)
    assert "too few samples to say" in found.sentence
    assert mix(gaussians(6, 20, (0, 1)), "rke", bandwidth=1.0).p_value is not None


def test_the_same_seed_gives_the_same_answer():
    arms = gaussians(7, 50, (0, 1, 2))
    first, again = (mix(arms, "rke+0.1*cost", bandwidth=1.0, costs=[1, 2, 3], seed=3) for _ in range(2))
    assert first == again
    assert mix(arms, "rke+0.1*cost", bandwidth=1.0, costs=[1, 2, 3], seed=4).gain != first.gain


def test_terms_have_their_own_values():
    arms, real = gaussians(8, 60, (0, 1, 2)), gaussians(9, 90, (0,))["g0"]
    found = mix(arms, "rke+0.2*precision+0.1*cost", reference=real, bandwidth=BANDWIDTH, costs=[1, 2, 4])
    assert set(found.terms) == {"rke", "precision", "cost"}
    modes, inside, cost = (found.terms[name][0] for name in ("rke", "precision", "cost"))
    assert found.value == pytest.approx(1 / modes - 0.2 * inside + 0.1 * cost)
    assert cost == pytest.approx(weights(found) @ [1, 2, 4])
    assert 0 < inside <= weights(found)[0] + 1e-9
    assert (found.unit, found.higher) == ("sum of losses", False)


def test_precision_keeps_out_of_the_trap():
    """Samples of the wrong domain have the most modes."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 2))
    arms = {"right": rng.normal(size=(150, 2)), "wrong": 30 + 20 * rng.normal(size=(150, 2))}
    assert mix(arms, "rke", bandwidth=1.5).by_name["wrong"] > 0.8
    assert mix(arms, RKE(1.5) + 2 * Precision(torch.as_tensor(real))).by_name["wrong"] < 0.05


@pytest.mark.parametrize("objective", ["precision", "density"])
@pytest.mark.parametrize("rows", ["once", "many times", "far from 0"])
def test_an_arm_that_is_the_reference_is_within_reach_of_it(objective, rows, few_subsamples):
    """Balls are closed, as the metric's: a copy is inside even of a ball of radius 0, which repeated rows have."""
    real = np.random.default_rng(0).normal(size=(30, 3))
    real = {"once": real, "many times": np.repeat(real, 7, axis=0), "far from 0": 1e6 + np.repeat(real, 7, axis=0)}[rows]
    found = mix({"copy": real, "away": real + 50.0}, objective, reference=real)
    expected = manifold(real, real)
    assert found.value == pytest.approx(getattr(expected, objective).value, rel=1e-12)
    assert found.by_name["copy"] == 1
    none = mix({"away": real + 50.0, "far": real + 90.0}, objective, reference=real)
    assert str(none.value) == str(none.best_value) == str(none.terms[objective][0]) == "0.0"


# -------------------------------------------------------------------------------------------------------- constraints


LIMITS = [{"cap": 0.21}, {"floor": 0.19}, {"cap": 0.3, "floor": 0.05, "at_most": 2.4}, {"at_most": 2.0}]


@pytest.mark.parametrize("objective", ["rke", "rke+0.01*frechet"])
@pytest.mark.parametrize("given", LIMITS, ids=str)
def test_constraints_are_obeyed(objective, given, few_subsamples):
    costs = np.arange(1.0, 6)
    arms, real = gaussians(10, 30, range(5)), gaussians(11, 40, (0,))["g0"]
    found = mix(arms, objective, reference=real, bandwidth=BANDWIDTH, costs=list(costs), **given)
    a = weights(found)
    assert a.sum() == pytest.approx(1, abs=1e-9)
    assert a.max() <= given.get("cap", 1) + 1e-9
    assert a.min() >= given.get("floor", 0) - 1e-9
    assert costs @ a <= given.get("at_most", 9) + 1e-8
    assert found.gap <= 1e-8
    free = weights(mix(arms, objective, reference=real, bandwidth=BANDWIDTH))
    assert np.abs(free - a).max() > 0.01, "the constraint binds"


def test_few_arms_at_once():
    """The best three of the eight have 1 / 0.2770 modes; these samples can choose others that are nearly as good."""
    found = mix(gaussians(12, 400), "rke", bandwidth=BANDWIDTH, size=3)
    squares, a = np.square(MEANS[:, None] - MEANS[None]).sum(-1), weights(found)
    true = a @ (1.25**2 / (1.25**2 + 0.32) * np.exp(-squares / (2 * (1.25**2 + 0.32)))) @ a
    assert np.count_nonzero(a) == 3
    assert 0.2769 < true < 1.01 * 0.2770
    assert found.exact
    assert found.intervals is None
    assert abs(found.value - 1 / 0.2770) < 4 * found.error + 0.01


def test_pareto_trades_one_term_for_the_other(few_subsamples):
    table = pareto(gaussians(13, 40, (0, 1, 2)), "rke+cost", [0, 0.01, 0.1, 5], bandwidth=BANDWIDTH, costs=[1, 2, 4])
    assert table["scale"].tolist() == [0, 0.01, 0.1, 5]
    assert table["rke"].is_monotonic_decreasing
    assert table["cost"].dropna().is_monotonic_decreasing
    assert table["g0"].iloc[-1] == pytest.approx(1)
    with pytest.raises(InputError, match="'rke' has one term, expected two or more; write them"):
        pareto(gaussians(13, 40, (0, 1)), "rke", [1])


# ------------------------------------------------------------------------------------------------------------ sources


def test_every_kind_of_table(tmp_path, few_subsamples):
    """Arrays, .npz keys, .npy and .csv files of the same rows give the same answer."""
    arms = gaussians(14, 40, (0, 1, 2))
    expected = mix(arms, "rke", bandwidth=BANDWIDTH)
    np.savez(tmp_path / "all.npz", **arms)
    np.save(tmp_path / "g1.npy", arms["g1"])
    pd.DataFrame(arms["g2"], columns=["x", "y"]).to_csv(tmp_path / "g2.csv", index=False)
    sources = {"g0": f"{tmp_path}/all.npz:g0", "g1": tmp_path / "g1.npy", "g2": tmp_path / "g2.csv"}
    found = mix(sources, "rke", bandwidth=BANDWIDTH)
    assert weights(found) == pytest.approx(weights(expected), abs=1e-5)
    assert found.features == "as given"
    assert mix({**sources, "g1": torch.as_tensor(arms["g1"])}, "rke", bandwidth=BANDWIDTH).value == pytest.approx(expected.value)


def test_tables_with_words(few_subsamples):
    """Columns of words are encoded by the reference; the arm that has its words is the better one."""
    rng = np.random.default_rng(0)
    table = lambda p, n: pd.DataFrame({"x": rng.normal(size=n), "colour": rng.choice(["red", "blue"], n, p=[p, 1 - p])})  # noqa: E731
    found = mix({"red": table(0.95, 60), "blue": table(0.05, 60)}, "mmd", reference=table(0.9, 120))
    assert found.by_name["red"] > 0.7
    assert found.features != "as given"


def test_images(tmp_path, few_subsamples):
    rng = np.random.default_rng(0)
    dark, light = (rng.integers(low, low + 60, size=(40, 8, 8)).astype(np.uint8) for low in (0, 190))
    np.savez(tmp_path / "images.npz", dark=dark, light=light)
    real = np.concatenate([dark[:20] + 1, light[:20] - 1])
    sources = {name: f"{tmp_path}/images.npz:{name}" for name in ("dark", "light")}
    found = mix(sources, "mmd", reference=real)
    assert weights(found) == pytest.approx([0.5, 0.5], abs=0.1)
    assert found.features == "pca:64"
    assert mix(sources, "mmd", reference=real, features="pixels").by_name["dark"] == pytest.approx(0.5, abs=0.1)


# ------------------------------------------------------------------------------------------------------------- errors


TWO = {"a": np.eye(4), "b": 2 * np.eye(4)}


@pytest.mark.parametrize(
    "samples, options, sentence",
    [
        ({}, {}, "no samples were given; name one file for each generator"),
        ({"a": np.eye(4), "b": np.eye(3)}, {}, "b: has 3 columns, a has 4; give samples of the same kind"),
        (TWO, {"reference": np.eye(3), "objective": "mmd"}, "reference: has 3 columns, a has 4"),
        ({"a": np.eye(4), "b": np.ones((1, 4))}, {}, "b: 1 sample cannot tell how alike samples are; give 2 or more"),
        ({"a": np.eye(4), "b": np.diag([1, math.nan, 1, 1])}, {}, "b: row 1, column 1 is nan, which is not finite"),
        ({"a": np.eye(4), "b": np.diag([1, 1e25, 1, 1])}, {}, "column 1 is 1e.25, beyond 1e19, .* power of ten"),
        ({"a": np.eye(4), "b": np.zeros((0, 4))}, {}, "b"),
        ({"a": np.eye(4), "reference": np.eye(4)}, {"reference": np.eye(4)}, "an arm is called 'reference'; rename it"),
        ({"a": "no/such/file.npz", "b": np.eye(4)}, {}, "no/such/file"),
        (TWO, {"objective": "fid"}, "'fid' is no term"),
        (TWO, {"objective": "mmd"}, "mmd compares with real rows; give --reference"),
        (TWO, {"objective": "rke+cost"}, "cost needs what a sample of each arm costs; give --costs"),
        (TWO, {"objective": "cost", "costs": [1]}, "1 costs were given, but there are more arms"),
        (TWO, {"at_most": 1.0}, "at_most: needs the cost of a sample of each of the 2 arms; give --costs"),
        (TWO, {"at_most": 1.0, "costs": [1, 2, 3]}, "at_most: needs the cost of a sample of each of the 2 arms"),
        (TWO, {"at_most": 0.5, "costs": [1, 2]}, "no weights that add up to one obey"),
        (TWO, {"cap": 0.4}, "caps: they add up to 0.8, expected 1 at least; raise one"),
        (TWO, {"floor": 0.6}, "floors: they add up to 1.2, expected 1 at most; lower one"),
        (TWO, {"size": 1, "cap": 0.9}, "size: works only with quadratic objectives, without cap, floor and at_most"),
        (TWO, {"size": 1, "objective": "vendi"}, "size: works only with quadratic objectives"),
        (TWO, {"size": 0}, "size: expected a whole number of models, 1 or more, got 0"),
        (TWO, {"bandwidth": -1.0}, "bandwidth: expected a number from 1e-19 to 1e.150, got -1.0"),
    ],
)
def test_what_cannot_be_mixed(samples, options, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        mix(samples, **{"objective": "rke", **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("objective", ["mmd", "kid", "frechet", "rke+mmd"])
@pytest.mark.parametrize("rows", [2, 3, 19])
def test_few_real_rows_are_halved_for_no_gain(objective, rows):
    rng = np.random.default_rng(0)
    arms = {"a": rng.normal(size=(60, 2)), "b": rng.normal(1, 1, size=(60, 2))}
    found = mix(arms, objective, reference=rng.normal(size=(rows, 2)))
    assert found.gain is found.gain_error is found.p_value is None and math.isfinite(found.value)
    assert "too few samples to say" in found.sentence and "nan" not in found.sentence


@pytest.mark.parametrize(
    ("gain", "error", "p", "words"),
    [(1.0, 1.0, 0.158655, "p = 0.16"), (-1.0, 1.0, 0.841345, "p = 0.84"), (4.0, 1.0, 3.17e-5, "p = 3.2e-05"),
     (30.0, 1.0, 1e-6, "p < 1e-6"), (50.0, 1.0, 1e-6, "p < 1e-6"), (1.0, 0.0, 1.0, "p = 1")],
)  # fmt: skip
def test_a_p_value_is_not_given_beyond_the_reach_of_its_approximation(gain, error, p, words):
    found = intervals.p_value(gain, error, math.inf)
    assert intervals.p_value(gain, error, 9) == pytest.approx(max(1e-6, student.sf(gain / error, 9)) if error else 1)
    assert found == pytest.approx(p, rel=1e-3) and intervals.p_in_words(found) == words


def test_columns_are_matched_by_name():
    rng = np.random.default_rng(0)
    draw = lambda: pd.DataFrame({"height": rng.normal(170, 8, 80), "weight": rng.normal(70, 9, 80)})  # noqa: E731
    real, arm = draw(), draw()
    value = lambda frame: mix({"a": frame}, "mmd", reference=real).value  # noqa: E731
    assert value(arm[["weight", "height"]]) == value(arm) == value(arm.to_numpy())
    swapped = arm.rename(columns={"height": "weight", "weight": "height"})
    assert value(swapped[["weight", "height"]]) > value(arm) + 0.5
    with pytest.raises(InputError, match="a: no column 'height', which reference has"):
        value(arm.rename(columns={"height": "foo"}))
    with pytest.warns(Note, match="a: column 'z', which reference has not, left out"):
        assert value(arm.assign(z=1.0)) == value(arm)
    with pytest.raises(InputError, match="b: no column 'height', which a has"):
        mix({"a": arm, "b": arm.rename(columns={"height": "foo"})}, "rke")


def test_levels_that_real_rows_do_not_have_count_against_a_generator():
    rng = np.random.default_rng(0)
    draw = lambda: pd.DataFrame({"size": rng.normal(size=100), "colour": rng.choice(["red", "blue"], 100)})  # noqa: E731
    real, good = draw(), draw()
    with pytest.warns(Note, match="bad: 100 of 100 rows have values that real rows cannot have: column 'colour', level 'octa"):
        found = mix({"good": good, "bad": draw().assign(colour="octarine")}, "mmd", reference=real)
    assert found.by_name["good"] > 0.9
    truth = lambda frame, as_written: frame.assign(colour=as_written(frame.colour == "red"))  # noqa: E731
    whole, words = (
        mix({"a": truth(good, how)}, "mmd", reference=truth(real, str_)).value
        for how, str_ in ((lambda c: c.astype(int), lambda c: c.astype(str)), (lambda c: c.astype(str), lambda c: c.astype(str)))
    )
    assert whole == words
