"""Verdicts on laws whose best mixture is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mixtura.folder.records import digits_of
from mixtura.ground.kernels import Gaussian
from mixtura.ground.rng import generator
from mixtura.job.verdict import ComparedSamples, choose_objective, in_mmd, in_nats, of_inputs, weigh, weigh_in_mmd
from mixtura.simplex.quadratic import minimise_quadratic


def weighed_and_judged(choosing, report, kernel):
    return in_mmd(weigh_in_mmd(choosing, kernel), report, kernel)[:2]


def halves(n, seed):
    """n rows of a two-humped law: half at 100 − 6, half at 100 + 6."""
    rng = generator(seed)
    side = torch.randint(2, (n, 1), generator=rng) * 12.0 - 6
    return 100 + side + 3 * torch.randn(n, 1, generator=rng)


def hump(n, centre, seed):
    return centre + 3 * torch.randn(n, 1, generator=generator(seed))


def pool(seed, n=600):
    centres = {"left": 94.0, "right": 106.0, "far": 150.0}
    return ComparedSamples(halves(n, seed), {name: hump(n, c, seed + 1 + i) for i, (name, c) in enumerate(centres.items())})


@pytest.mark.parametrize("folds", [1, 3])
def test_two_humps_are_blended_in_halves(folds):
    v, quadratic = weighed_and_judged([pool(10 * k, 600 // folds) for k in range(1, folds + 1)], pool(500), Gaussian(3.0))
    assert v.choice == "blend" and v.gap < 1e-9 and v.kind == "samples" and v.objective == "mmd"
    assert v.weights["left"] == pytest.approx(0.5, abs=0.08) and v.weights["far"] < 0.02
    assert v.gain > 2 * v.error > 0 and abs(v.value) < 5 * v.value_error
    assert v.sentence.startswith(f"gain {v.gain:.{digits_of(v.error)}f} ±")
    # the plain numbers give the verdict's own value and gain
    Q, b, w = (np.array(quadratic[k]) for k in ("Q", "b", "weights"))
    at = lambda w: w @ Q @ w - 2 * b @ w + quadratic["c"]  # noqa: E731
    alone = np.array([name == v.best for name in quadratic["names"]], float)
    assert at(w) == pytest.approx(v.value, rel=1e-6, abs=1e-9) and at(alone) - at(w) == pytest.approx(v.gain, rel=1e-6)


def test_the_right_model_beside_wrong_ones_stands_alone():
    made = lambda seed: ComparedSamples(  # noqa: E731
        halves(500, seed), {"right": halves(500, seed + 1), "left": hump(500, 94.0, seed + 2), "far": hump(500, 150.0, seed + 3)}
    )
    choices = [weighed_and_judged([made(10 * s)], made(10 * s + 5), Gaussian(3.0))[0] for s in range(1, 6)]
    assert sum(v.choice == "right" for v in choices) >= 4
    assert all("no gain: use right" in v.sentence for v in choices if v.choice == "right")


def normal_nats(x, centre, scale):
    return -0.5 * ((x - centre) / scale) ** 2 - math.log(scale * math.sqrt(2 * math.pi))


def test_nats_of_two_humps():
    def nats(seed):
        x = halves(2_000, seed).double().squeeze(1)
        return {"left": normal_nats(x, 94, 3), "right": normal_nats(x, 106, 3), "marginals": normal_nats(x, 100, 6.7)}

    v = in_nats(nats(1), nats(2), {"left": "exact", "right": "bound", "marginals": "exact"}, "pictures")
    assert v.choice == "blend" and v.best == "marginals" and v.kind == "bound"
    assert v.weights["left"] == pytest.approx(0.5, abs=0.05) and v.weights["marginals"] >= 1 / 2_001
    assert "in lower bounds over marginals: use the blend" in v.sentence and "2,000 unseen pictures" in v.sentence


def test_a_blend_that_was_not_better_where_it_was_chosen_is_not_used():
    x = halves(300, 1).double().squeeze(1)
    same = {"a": normal_nats(x, 100, 6.7), "b": normal_nats(x, 100, 6.8)}
    v = in_nats(same, same, dict.fromkeys(same, "exact"))
    assert v.choice == v.best and v.weights[v.best] == 1 and v.gain == 0 and "no gain" in v.sentence


@pytest.mark.parametrize(
    ("density", "asked", "images", "outside", "objective", "because"),
    [
        (True, None, False, [], "nats", "a density is wanted"),
        (True, None, True, [], "mmd", "images are wanted as samples"),
        (True, None, False, ["gan"], "mmd", "gan can only be judged by samples"),
        (True, "nats", True, ["gan"], "nats", "you asked"),
        (False, None, False, [], "mmd", "no model has a density"),
    ],
)
def test_the_verdict_says_which_objective_it_speaks_of(density, asked, images, outside, objective, because):
    spoken, why = choose_objective(density=density, asked=asked, images=images, outside=outside)
    assert spoken == objective and because in why


@pytest.mark.parametrize(
    ("error", "digits"), [(0.062, 3), (0.2, 2), (3.0, 2), (0.00031, 5), (1e-12, 7), (math.nan, 3), (0, 3), (None, 3)]
)
def test_two_digits_of_the_error_are_shown(error, digits):
    assert digits_of(error) == digits


# ------------------------------------------------------------------------------------------ what counts as a gain


def specialists(difference):
    """Nats of "a" and "b" on select rows, where each is right on every other row, so that they get a half each; and on report
    rows, where their blend is better than "a" by ``difference`` (n,)."""
    even = torch.arange(400) % 2 == 0
    select = {"a": torch.where(even, 0.0, -3.0).double(), "b": torch.where(even, -3.001, 0.0).double()}
    single = torch.full((len(difference),), -2.0, dtype=torch.float64)
    other = torch.log(2 * torch.exp(single + torch.as_tensor(difference)) - torch.exp(single))
    return select, {"a": single, "b": other}, dict.fromkeys("ab", "exact")


@pytest.mark.parametrize(("errors", "choice"), [(1.6, "a"), (2.5, "blend")])
def test_a_gain_in_nats_is_of_two_standard_errors_on_the_report_rows(errors, choice):
    difference = np.where(np.arange(400) % 2 == 0, 0.2, -0.2)
    difference += errors * difference.std(ddof=1) / 20
    v = in_nats(*specialists(difference))
    assert v.gain / v.error == pytest.approx(errors, rel=0.01) and v.trimmed > 0
    assert v.choice == choice and v.sentence.startswith("gain" if choice == "blend" else "no gain: use a")


@pytest.mark.parametrize(("lead", "choice"), [(1.0, "blend"), (0.0, "a")])
def test_the_value_is_the_mean_of_the_choice_and_its_error_that_of_a_mean(lead, choice):
    select, report, kinds = specialists(np.full(400, lead))
    report = {name: nats + torch.randn(400, generator=generator(1)).double() for name, nats in report.items()}
    v = in_nats(select, report, kinds)
    shares = torch.tensor([[v.weights["a"]], [v.weights["b"]]]).double()
    nats = torch.logsumexp(torch.stack([report["a"], report["b"]]) + shares.log(), 0) if choice == "blend" else report["a"]
    assert v.choice == choice and v.value == pytest.approx(float(nats.mean()), rel=1e-6)
    assert v.value_error == pytest.approx(float(nats.std()) / 20, rel=1e-6)


def test_rows_impossible_under_the_best_single_model_alone_are_a_gain_without_bound():
    """So many that the trimmed rows do not hold them all, or a single one."""
    for impossible in (1, 10):
        select, report, kinds = specialists(np.zeros(400))
        report["a"][:impossible] = -math.inf
        v = in_nats(select, report, kinds)
        assert v.choice == "blend" and v.best == "a" and v.gain == math.inf and math.isfinite(v.value)
        assert v.sentence.startswith("gain without bound on 400 unseen rows, some impossible under a alone: use the blend")


def test_a_gain_that_hangs_on_one_row_in_a_hundred_is_none():
    difference = np.full(1_000, -0.001)
    difference[:10] = 1.5
    v = in_nats(*specialists(difference))
    assert v.gain > 2.5 * v.error and v.trimmed < 0
    assert v.choice == "a" and v.value == pytest.approx(-2.0) and "but none without the 1 % that differ most" in v.sentence


def test_a_gain_that_is_the_same_on_every_row_but_for_one_in_a_hundred_and_rounding_is_none():
    difference = np.full(1_000, 1e-12)
    difference[:10] = 1.5
    assert in_nats(*specialists(difference)).choice == "a"


@pytest.mark.parametrize("noise", [0.0, 1e-8])
def test_rounding_is_no_gain(noise):
    """Two identical columns, and two that networks in float32 made: their blend differs from either by rounding alone."""
    for seed in range(100):
        rng = np.random.default_rng(seed)

        def nats(rng=rng):
            a = rng.normal(-300, 5, 200)
            return {"a": torch.from_numpy(a), "b": torch.from_numpy(a * (1 + noise * rng.random(200)))}

        v = in_nats(nats(), nats(), dict.fromkeys("ab", "exact"))
        assert v.choice == v.best and v.sentence.startswith("no gain")


def test_the_best_single_model_is_part_of_the_comparison():
    """The blend is of exact densities, but what it beats is a bound."""
    even = torch.arange(400) % 2 == 0
    nats = {"a": torch.where(even, 0.0, -20.0), "b": torch.where(even, -20.0, 0.0), "c": torch.full((400,), -1.0)}
    nats = {name: x.double() for name, x in nats.items()}
    v = in_nats(nats, nats, {"a": "exact", "b": "exact", "c": "bound"})
    assert v.choice == "blend" and v.best == "c" and v.weights["c"] == 0 and v.kind == "bound"
    assert in_nats(nats, nats, dict.fromkeys("abc", "exact")).kind == "exact"


def test_rows_that_no_model_holds_possible_do_not_choose():
    x = halves(2_000, 1).double().squeeze(1)
    nats = {"left": normal_nats(x, 94, 3), "right": normal_nats(x, 106, 3)}
    share, gap, best = weigh(nats)
    hidden = {name: torch.cat([v.new_full((5,), -math.inf), v]) for name, v in nats.items()}
    assert weigh(hidden) == (share, gap, best)
    nowhere = {name: v[:5] for name, v in hidden.items()}
    assert weigh(nowhere) == ({"left": 1.0, "right": 0.0}, math.inf, "left")
    v = in_nats(nowhere, nowhere, dict.fromkeys(nats, "exact"))
    assert v.choice == "left" and v.sentence.startswith("no gain: use left")


def test_a_row_that_one_model_holds_impossible_counts_against_it_alone():
    """However likely the others are to it; and two models that need one another are blended, whichever is the best."""
    nats = {"a": torch.zeros(100), "b": torch.full((100,), -5.0)}
    nats = {name: x.double() for name, x in nats.items()}
    nats["a"][7] = -math.inf
    share, gap, best = weigh(nats)
    assert best == "b" and share["a"] == pytest.approx(0.99, abs=0.001) and gap < 1e-6
    nats["b"][8] = -math.inf
    assert weigh(nats)[0]["b"] == pytest.approx(0.01, abs=0.001)


def test_the_best_single_model_is_that_of_the_largest_mean():
    """And not the one that is better on most rows."""
    often = torch.arange(100) < 70
    nats = {"mostly": torch.where(often, 0.0, -9.0).double(), "steady": torch.full((100,), -1.0, dtype=torch.float64)}
    assert weigh(nats)[2] == "steady" and weigh(dict(reversed(nats.items())))[2] == "steady"


def leaning(share, seed, n=600):
    """A report pool whose real rows lie to the left with this share."""
    rng = generator(seed)
    side = torch.where(torch.rand(n, 1, generator=rng) < share, -6.0, 6.0)
    real = 100 + side + 3 * torch.randn(n, 1, generator=rng)
    return ComparedSamples(real, pool(seed + 1).samples)


@pytest.mark.parametrize(
    ("share", "least", "most", "choice"), [(0.27, 0.8, 1.7, "right"), (0.1, -math.inf, 0.0, "right"), (0.32, 2.5, 6.0, "blend")]
)
def test_a_gain_in_mmd_is_of_two_standard_errors_on_the_report_rows(share, least, most, choice):
    v, plain = weighed_and_judged([pool(1)], leaning(share, 70), Gaussian(3.0))
    assert min(v.weights["left"], v.weights["right"]) > 0.4  # where they were chosen the blend was far better
    assert v.best == "right" and least < v.gain / v.error < most
    Q, b, alone = np.array(plain["Q"]), np.array(plain["b"]), np.array([0, 1, 0])
    of = lambda w: w @ Q @ w - 2 * b @ w + plain["c"]  # noqa: E731
    assert v.value == pytest.approx(of(alone if choice == "right" else np.array(plain["weights"])), rel=1e-6)
    assert v.choice == choice and ("no gain: use right (the blend differs by" in v.sentence) == (choice == "right")


def short_of_the_best(choosing, v, kernel):
    """How far the weights of a verdict are from the best ones, in MMD² where they were chosen."""
    forms = [p.sums(kernel).quadratic(len(v.weights)) for p in choosing]
    Q, b = (np.mean([form[k] for form in forms], 0) for k in range(2))
    w, best = np.array([*v.weights.values()]), np.array(minimise_quadratic(Q, b).weights)
    return float(w @ Q @ w - 2 * b @ w - (best @ Q @ best - 2 * b @ best))


def test_the_gap_in_mmd_is_that_of_the_weights_that_are_given():
    """A single model that stands alone, as no blend is surely better, is not the best blend."""
    made = lambda s: ComparedSamples(hump(40, 100.0, s), {"a": hump(40, 100.5, s + 1), "b": hump(40, 99.0, s + 2)})  # noqa: E731
    pools = [made(s) for s in range(1_200, 1_250, 10)]
    v, quadratic = weighed_and_judged(pools, pools[0], Gaussian(3.0))
    short = short_of_the_best(pools, v, Gaussian(3.0))
    assert v.weights[v.best] == 1 and short > 1e-5 and v.gap == quadratic["gap"] == pytest.approx(short, rel=1e-6)


def test_the_error_of_folds_is_that_of_their_mean():
    """Five folds in which the blend gains about one error of their mean: not enough, and it would be five of the wrong one."""
    made = lambda s: ComparedSamples(hump(40, 100.0, s), {"a": hump(40, 100.5, s + 1), "b": hump(40, 99.0, s + 2)})  # noqa: E731
    pools = [made(s) for s in range(1_200, 1_250, 10)]
    kernel = Gaussian(3.0)
    passes = [p.sums(kernel) for p in pools]
    forms = [p.quadratic(2) for p in passes]
    w = minimise_quadratic(np.mean([f[0] for f in forms], 0), np.mean([f[1] for f in forms], 0)).weights
    v, _ = weighed_and_judged(pools, pools[0], kernel)
    gains = [p.gain(w, [float(v.best == name) for name in "ab"], 2) for p in passes]
    errors = np.mean([g.value for g in gains]) / (math.sqrt(sum(g.error**2 for g in gains)) / 5)
    assert 0.5 < errors < 1.8 and v.weights[v.best] == 1


def test_every_fold_has_a_say_in_weights_and_best_single_model():
    """In the first fold three in four rows lie to the left, in the other one in ten: 0.42 of all."""
    for folds in ((0.75, 0.1), (0.1, 0.75)):
        v, _ = weighed_and_judged([leaning(share, 10 + i) for i, share in enumerate(folds)], leaning(0.42, 70), Gaussian(3.0))
        assert v.best == "right" and v.weights["left"] == pytest.approx(0.425, abs=0.06)


# ------------------------------------------------------------------------------------------ numbers of our own


def test_codes_that_repeat_are_judged_whatever_the_tiles_round_to():
    """Sums in float32 tiles give (a, b) and (b, a) apart in their last digits."""
    for seed in range(20):
        rng = generator(seed)
        codes = lambda n, rng=rng: torch.randint(2, (n, 3), generator=rng) / math.sqrt(2)  # noqa: E731
        pools = [ComparedSamples(codes(60), {name: codes(205) for name in "abc"}) for _ in range(4)]
        v, quadratic = weighed_and_judged(pools[:3], pools[3], Gaussian(0.7))
        Q = np.array(quadratic["Q"])
        assert np.array_equal(Q, Q.T) and v.gap <= short_of_the_best(pools[:3], v, Gaussian(0.7)) + 1e-9
        Q = pools[0].sums(Gaussian(0.7)).quadratic(3)[0]
        assert np.array_equal(Q, Q.T)


def test_one_point_is_no_gain():
    """All rows and samples are one: float32 products may not say so to the last digit."""
    for seed in range(10):
        point = 1e3 * torch.randn(1, 4, generator=generator(seed))
        same = ComparedSamples(point.repeat(70, 1), {"a": point.repeat(80, 1), "b": point.repeat(90, 1)})
        v, _ = weighed_and_judged([same], same, Gaussian(1.0))
        assert v.choice == v.best and v.sentence.startswith("no gain")


def test_a_difference_within_the_rounding_of_large_numbers_is_no_gain():
    """Of nats near 1e6, which networks and sums in single precision round to 0.1."""
    near = lambda n, more: torch.full((n,), 1e6, dtype=torch.float64) + more  # noqa: E731
    odd = torch.arange(400) % 2 == 0
    for more, choice in ((1e-3, "a"), (3.0, "blend")):
        parts = {"a": near(400, torch.where(odd, more, 0.0)), "b": near(400, torch.where(odd, 0.0, more + 1e-9))}
        assert in_nats(parts, parts, {"a": "exact", "b": "exact"}).choice in (choice, choice.replace("a", "b"))


def test_a_sure_gain_within_rounding_chooses_no_blend_either():
    """Two models that are 0.8 apart, each way by turns, have a blend log cosh 0.4 = 0.077 better, on every row alike; near 1e6
    single precision rounds to 0.12."""
    odd = torch.arange(400) % 2 == 0
    for size, worth in ((1e6, False), (1e5, True)):
        parts = {"a": torch.where(odd, 0.8, 0.0).double() + size, "b": torch.where(odd, 0.0, 0.8 + 1e-9).double() + size}
        share, _, best = weigh(parts)
        assert sorted(share.values()) == (pytest.approx([0.5, 0.5], abs=1e-3) if worth else [0.0, 1.0]) and share[best] > 0.49


def test_two_possible_rows_are_enough_to_weigh_by_and_one_is_not():
    nats = {"a": torch.tensor([-1.0, -1.0, -math.inf]), "b": torch.tensor([-2.0, -2.0, -math.inf])}
    share, gap, best = weigh({name: values.double() for name, values in nats.items()})
    assert (share, best) == ({"a": 1.0, "b": 0.0}, "a") and gap < 1e-6
    share, gap, best = weigh({name: values.double()[1:] for name, values in nats.items()})
    assert (share, best, gap) == ({"a": 1.0, "b": 0.0}, "a", math.inf)


def test_the_floor_has_one_part_in_rows_and_one():
    x = halves(500, 3).double().squeeze(1)
    parts = {"left": normal_nats(x, 94, 3), "right": normal_nats(x, 106, 3), "marginals": torch.full_like(x, -40.0)}
    assert weigh(parts)[0]["marginals"] == pytest.approx(1 / 501, rel=1e-9)


def test_a_floor_that_earns_more_keeps_it_and_one_beside_a_single_model_has_nothing():
    third = torch.arange(600) % 3
    parts = {name: torch.where(third == k, 0.0, -20.0).double() for k, name in enumerate(("a", "b", "marginals"))}
    assert weigh(parts)[0] == pytest.approx(dict.fromkeys(parts, 1 / 3), abs=1e-4)
    x = halves(300, 1).double().squeeze(1)
    same = {"a": normal_nats(x, 100, 6.7), "b": normal_nats(x, 100, 6.8), "marginals": normal_nats(x, 100, 7.5)}
    share, _, best = weigh(same)
    assert best != "marginals" and share == {name: float(name == best) for name in same}


def test_a_floor_below_its_part_is_raised_to_it_and_the_gap_says_what_that_costs():
    """Of three rows "a" and "b" have one each, and a fifth of the third: the best shares are 5/12, 5/12 and 1/6. But the floor
    has a quarter at least."""
    rows = torch.tensor([[1, 0, 0], [0, 1, 0], [0.2, 0.2, 1]]).double().log()
    share, gap, _ = weigh(dict(zip(("a", "b", "marginals"), rows.T, strict=True)))
    assert share == pytest.approx({"a": 0.375, "b": 0.375, "marginals": 0.25}, abs=1e-4)
    of = lambda floor: (2 * math.log((1 - floor) / 2) + math.log(0.2 + 0.8 * floor)) / 3  # noqa: E731
    assert gap == pytest.approx(of(1 / 6) - of(1 / 4), abs=1e-4)


def test_the_gap_of_a_single_model_is_what_the_best_shares_have_over_it():
    x = torch.as_tensor(np.random.default_rng(0).normal(size=30))
    nats = {"a": normal_nats(x, -0.3, 1), "b": normal_nats(x, 0.3, 1)}
    share, gap, best = weigh(nats)
    mean = lambda w: float(torch.logsumexp(torch.stack([*nats.values()]) + torch.tensor([[w], [1 - w]]).log(), 0).mean())  # noqa: E731
    short = max(mean(w) for w in np.linspace(0, 1, 1_001)) - float(nats[best].mean())
    assert share[best] == 1 and short > 1e-3 and gap == pytest.approx(short, abs=1e-5)


def test_what_inputs_are_worth_and_what_a_gate_gains_is_measured_and_said():
    n = 400
    side = torch.arange(n) % 2 == 0
    parts = {
        "a": torch.where(side, -1.0, -3.0).double(), "b": torch.where(side, -3.0, -1.0).double(),
        "marginals": torch.full((n,), -2.5, dtype=torch.float64) - 0.1 * (torch.arange(n) % 3),
    }  # fmt: skip
    gate = torch.stack([torch.where(side, 0.9, 0.1), torch.where(side, 0.1, 0.9), torch.full((n,), 1e-9)], 1).double().log()
    share = {"a": 0.5, "b": 0.5, "marginals": 0.0}
    v = in_nats(parts, parts, dict.fromkeys(parts, "exact"), gate=gate)
    assert v.choice == "blend" and v.weights == pytest.approx({"a": 0.5, "b": 0.5, "marginals": 1e-9})
    said, beside = of_inputs(v, parts, share, gate, ["y"], ["u", "v"])
    mixed = torch.logsumexp(torch.stack([*parts.values()], 1) + gate, 1)
    constant = torch.logaddexp(parts["a"], parts["b"]) + math.log(0.5)
    assert beside.worth == pytest.approx(float((mixed - parts["marginals"]).mean()))
    assert beside.gate_gain == pytest.approx(float((mixed - constant).mean()))
    assert beside.gate_error == pytest.approx(float((mixed - constant).std()) / math.sqrt(n), abs=1e-9)
    assert beside.worth_error == pytest.approx(float((mixed - parts["marginals"]).std()) / math.sqrt(n))
    assert "more than marginals, which ignore the inputs" in said.sentence and "over constant ones" in said.sentence
    alone = replace(v, choice="marginals", value=float(parts["marginals"].mean()))
    said, beside = of_inputs(alone, parts, share, None, ["y"], ["u"])
    assert beside.worth == 0 and beside.gate_gain is None and "more than marginals" not in said.sentence
