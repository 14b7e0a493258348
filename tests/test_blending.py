"""`mix`: exact optima, honest gains and intervals, constraints obeyed, every kind of source, one sentence for every error."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura import InputError, blending, mix, pareto
from mixtura.select import intervals
from mixtura.select.objective import MMD, RKE, Precision

#: eight Gaussians of deviation 0.4, the bandwidth whose κ is exp(−|x − y|² / 2 · 1.25²), and the weights of most modes
MEANS = np.array([[-3, -2], [-2, 1.5], [-0.8, -1.2], [0, 2.4], [1.2, 0.2], [2.2, -1.8], [3, 1.4], [0.9, 3.2]])
BANDWIDTH = 1.25 * math.sqrt(2)
BEST = np.array([0.1672, 0.1652, 0.1158, 0.0275, 0.0630, 0.1643, 0.1503, 0.1467])


def gaussians(seed, n, which=range(8), scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    return {f"g{i}": shift + scale * (MEANS[i] + 0.4 * rng.normal(size=(n, 2))) for i in which}


def weights(found):
    return np.array(list(found.weights.values()))


@pytest.fixture
def few_subsamples(monkeypatch):
    monkeypatch.setattr(intervals, "SUBSAMPLES", 10)
    monkeypatch.setattr(blending, "CONVEX_SUBSAMPLES", 2)


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
    assert given.weights == found.weights


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
        used = [name for name, w in found.weights.items() if w >= 0.1]
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


def test_intervals_hold_the_best_weights(monkeypatch):
    monkeypatch.setattr(intervals, "SUBSAMPLES", 40)
    held = []
    for seed in range(30):
        found = mix(gaussians(seed, 80), "rke", bandwidth=BANDWIDTH, seed=seed)
        low, high = np.array(list(found.intervals.values())).T
        assert np.all((low <= weights(found)) & (weights(found) <= high))
        held.append((low - 1e-4 <= BEST) & (BEST <= high + 1e-4))
    assert 0.8 <= np.mean(held) <= 1
    assert np.mean(high - low) < 0.2


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
    assert mix(arms, "rke", bandwidth=1.5).weights["wrong"] > 0.8
    assert mix(arms, RKE(1.5) + 2 * Precision(torch.as_tensor(real))).weights["wrong"] < 0.05


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
    with pytest.raises(InputError, match="'rke' has one term; write two"):
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
    assert found.weights["red"] > 0.7
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
    assert mix(sources, "mmd", reference=real, features="pixels").weights["dark"] == pytest.approx(0.5, abs=0.1)


# ------------------------------------------------------------------------------------------------------------- errors


TWO = {"a": np.eye(4), "b": 2 * np.eye(4)}


@pytest.mark.parametrize(
    "samples, options, sentence",
    [
        ({}, {}, "no samples were given; name one file for each generator"),
        ({"a": np.eye(4), "b": np.eye(3)}, {}, "b: has 3 columns, a has 4; give samples of the same kind"),
        (TWO, {"reference": np.eye(3), "objective": "mmd"}, "reference: has 3 columns, a has 4"),
        ({"a": np.eye(4), "b": np.ones((1, 4))}, {}, "b: 1 sample cannot tell how alike samples are; give 2 or more"),
        ({"a": np.eye(4), "b": np.diag([1, math.nan, 1, 1])}, {}, "b: row 1 is not finite, or beyond 1e19"),
        ({"a": np.eye(4), "b": np.zeros((0, 4))}, {}, "b"),
        ({"a": np.eye(4), "reference": np.eye(4)}, {"reference": np.eye(4)}, "an arm is called 'reference'; rename it"),
        ({"a": "no/such/file.npz", "b": np.eye(4)}, {}, "no/such/file"),
        (TWO, {"objective": "fid"}, "'fid' is no term"),
        (TWO, {"objective": "mmd"}, "mmd compares with real rows; give --reference"),
        (TWO, {"objective": "rke+cost"}, "cost needs what a sample of each arm costs; give --costs"),
        (TWO, {"objective": "cost", "costs": [1]}, "1 costs were given, but there are more arms"),
        (TWO, {"at_most": 1.0}, "at_most: needs what a sample of each of the 2 arms costs; give --costs"),
        (TWO, {"at_most": 1.0, "costs": [1, 2, 3]}, "at_most: needs what a sample of each of the 2 arms costs"),
        (TWO, {"at_most": 0.5, "costs": [1, 2]}, "no weights that add up to one obey"),
        (TWO, {"cap": 0.4}, "caps: they add up to 0.8, expected 1 at least; raise one"),
        (TWO, {"floor": 0.6}, "floors: they add up to 1.2, expected 1 at most; lower one"),
        (TWO, {"size": 1, "cap": 0.9}, "size: is for quadratic objectives without caps, floors or a budget"),
        (TWO, {"size": 1, "objective": "vendi"}, "size: is for quadratic objectives"),
        (TWO, {"size": 0}, "size: expected a whole number of models, 1 or more, got 0"),
        (TWO, {"bandwidth": -1.0}, "bandwidth: expected a finite number above 0, got -1.0"),
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
    found = intervals.p_value(gain, error)
    assert found == pytest.approx(p, rel=1e-3) and intervals.p_in_words(found) == words
