"""Policies on made-up knowledge: bonuses by hand, arms that are open, the best arm where there is nothing left to learn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.policies import TABLE, of_name
from mixtura.policies.bandit import Cab, Greedy, Ogd, SuccessiveHalving, VanillaUcb, VarianceUcb, View, published_bonus
from mixtura.policies.sparse import Sparse
from mixtura.simplex.quadratic import minimise_quadratic


def view(n, K=None, f=None, **changes):
    n = np.array(n, dtype=np.float64)
    m = len(n)
    made = View(
        np.eye(m) if K is None else np.array(K, dtype=np.float64), np.zeros(m) if f is None else np.array(f, dtype=np.float64),
        n, n.copy(), np.ones(m, dtype=bool), 1.0, 0.0, lambda a: np.full(m, 0.1), horizon=1_000,
    )  # fmt: skip
    return replace(made, **changes)


def problem(seed, m=6):
    A = np.random.default_rng(seed).normal(size=(m + 2, m))
    return A.T @ A / m, np.random.default_rng(seed + 1).normal(size=m)


@pytest.mark.parametrize("name", TABLE)
def test_every_policy_asks_an_open_arm_and_ends_on_the_simplex(name):
    for seed in range(10):
        K, f = problem(seed)
        n = np.random.default_rng(seed).integers(2, 40, 6)
        is_open = np.random.default_rng(seed + 2).random(6) < 0.5
        is_open[seed % 6] = True
        seen = view(n, K, f, open=is_open, truth=(K, f))
        policy = of_name(name)
        chosen = [policy.choose(seen, generator(seed, str(i))) for i in range(5)]
        assert all(is_open[i] for i in chosen)
        fresh = of_name(name)
        assert [fresh.choose(seen, generator(seed, str(i))) for i in range(5)] == chosen
        found = policy.weights(seen)
        assert min(found.weights) >= 0
        assert sum(found.weights) == pytest.approx(1, abs=1e-12)
        if TABLE[name].learns_mixture:
            a = np.array(found.weights)
            assert found.gap <= 1e-12 * max(np.abs(K).max(), np.abs(f).max())
            assert found.value == pytest.approx(a @ K @ a + f @ a, rel=1e-9)
        else:
            assert sorted(found.weights)[-1] == 1


@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row.learns_mixture and name != "sparse"])
def test_learners_know_the_best_mixture_when_they_have_seen_it(name):
    K, f = problem(3)
    found = of_name(name).weights(view([5] * 6, K, f, truth=(K, f)))
    assert found.weights == minimise_quadratic(K, -f / 2).weights


def test_the_table_and_its_sparse_row():
    assert all(name == row.name and row.summary for name, row in TABLE.items())
    assert {name for name, row in TABLE.items() if row.needs_truth} == {"one_arm_oracle", "mixture_oracle"}
    found = of_name("sparse").weights(view([9] * 6, np.eye(6)))
    assert sorted(found.weights) == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 1 / 3])
    assert isinstance(of_name("sparse"), Sparse)


# ------------------------------------------------------------------------------------------------------------ bonuses


def test_bonuses_by_hand():
    """Δ_L √(β log t / 2n) + Δκ / n with Δ_L = 2Δκ + Δ_f; of the code 0.6 √(log t / n), and 0.4 / n with a linear part; of the
    default z sd √(2 log t / n)."""
    seen = view([5, 20, 75], f=[0.1, 0, 0], kernel_bound=1.0, linear_range=0.5, asked=np.array([50.0, 60, 80]))
    n, log_t = np.array([5.0, 20, 75]), math.log(100)
    assert published_bonus(seen, "theory") == pytest.approx(2.5 * np.sqrt(4 * log_t / (2 * n)) + 1 / n)
    assert published_bonus(seen, "code") == pytest.approx(0.6 * np.sqrt(log_t / n) + 0.4 / n)
    assert published_bonus(replace(seen, f=np.zeros(3)), "code") == pytest.approx(0.6 * np.sqrt(log_t / n))
    sd = np.array([0.1, 0.2, 0.3])
    measured = replace(seen, deviation=lambda a: sd * (1 + abs(a - n / 100).max()))
    assert VarianceUcb(2.0).bonus(measured) == pytest.approx(2 * sd * np.sqrt(2 * log_t / n))
    assert not Greedy().bonus(seen).any()


def test_bonuses_have_the_unit_of_the_loss():
    """Thrice the objective is the same problem: bonuses triple, choices stay. Those of the code alone are a constant."""
    K, f = problem(5)
    once = view([5, 9, 14, 3, 20, 8], K, f, kernel_bound=2.0, linear_range=0.5)
    thrice = replace(once, K=3 * K, f=3 * f, kernel_bound=6.0, linear_range=1.5, deviation=lambda a: np.full(6, 0.3))
    assert published_bonus(thrice, "theory") == pytest.approx(3 * published_bonus(once, "theory"))
    assert VarianceUcb().bonus(thrice) == pytest.approx(3 * VarianceUcb().bonus(once))
    for policy in (VarianceUcb(), Cab(), Ogd(), VanillaUcb(), Greedy()):
        assert policy.choose(thrice, generator(0)) == policy.choose(once, generator(0))


@pytest.mark.parametrize("policy", [Ogd(), Ogd("code"), VanillaUcb(), VanillaUcb("code"), VarianceUcb()], ids=repr)
@pytest.mark.parametrize("f", [[0, 0, 0], [0.3, 0.3, 0.3]], ids=["no linear part", "linear part"])
def test_of_equal_arms_the_one_seen_least_is_asked(policy, f):
    """Optimism is taken from the loss. The original's OGD added that of the linear part, and kept away from what it did not
    know."""
    K = 0.5 * np.ones((3, 3))
    assert policy.choose(view([50, 4, 50], K, f), generator(0)) == 1


def test_the_step_of_ogd():
    """argmin of (2/t) K n + f − ε, where ε is the same for all."""
    K, f = problem(7, 4)
    seen = view([10] * 4, K, f)
    assert Ogd().choose(seen, generator(0)) == int(np.argmin(2 * K @ np.full(4, 0.25) + f))
    n = np.array([4_000.0, 1_000, 3_000, 2_000])
    many = view(n * 1e6, K, f)
    assert Ogd().choose(many, generator(0)) == int(np.argmin(2 * K @ n / n.sum() + f))
    for seed, constants in ((seed, constants) for seed in range(20) for constants in ("theory", "code")):
        (K, f), n = problem(seed, 4), np.random.default_rng(seed).integers(1, 30, 4)
        asked = n[::-1] + 3.0
        some = view(n, K, f, linear_range=0.3, asked=asked)
        by_hand = 2 * K @ (asked / asked.sum()) + f - published_bonus(some, constants)
        assert Ogd(constants).choose(some, generator(0)) == int(np.argmin(by_hand))


def test_theory_needs_bounds():
    for policy in (Cab(), Ogd(), VanillaUcb()):
        with pytest.raises(InputError, match="the constants of the theory need a bounded objective"):
            policy.choose(view([5, 5], linear_range=math.inf), generator(0))
        assert type(policy)("code").choose(view([5, 5], linear_range=math.inf), generator(0)) in (0, 1)


# ----------------------------------------------------------------------------------------------------------- choices


@pytest.mark.parametrize("policy", [Greedy(), of_name("mixture_oracle")], ids=["greedy", "oracle"])
def test_tracking_follows_the_best_mixture(policy):
    """After t pulls every arm was asked within m of t a_i times."""
    K = np.diag([1.0, 2.0, 4.0])
    asked = np.ones(3)
    for _ in range(200):
        asked[policy.choose(view([5, 5, 5], K, asked=asked.copy(), truth=(K, np.zeros(3))), generator(0))] += 1
    assert np.abs(asked - asked.sum() * np.array([4, 2, 1]) / 7).max() <= 2


def test_tracking_counts_what_is_awaited():
    seen = view([10, 10], asked=np.array([10.0, 14.0]))
    assert Greedy().choose(seen, generator(0)) == 0


@pytest.mark.parametrize("policy", [Greedy(), of_name("mixture_oracle")], ids=["greedy", "oracle"])
def test_tracking_looks_one_pull_ahead(policy):
    """Shares of 0.9 and 0.1, asked twice and never: of three pulls they have 2.7 and 0.3, so the first is further behind."""
    K = np.diag([1.0, 9.0])
    assert policy.choose(view([40, 40], K, asked=np.array([2.0, 0.0]), truth=(K, np.zeros(2))), generator(0)) == 0


def test_cab_draws_from_its_mixture():
    K = np.diag([1.0, 2.0, 4.0])
    seen = view([100, 100, 100], K, kernel_bound=1e-6)
    chosen = [Cab().choose(seen, generator(0, i)) for i in range(700)]
    shares = np.bincount(chosen, minlength=3) / 700
    assert np.abs(shares - np.array([4, 2, 1]) / 7).max() < 4 * 0.5 / math.sqrt(700)
    closed = replace(seen, open=np.array([False, True, True]))
    shares = np.bincount([Cab().choose(closed, generator(0, i)) for i in range(600)], minlength=3) / 600
    assert shares[0] == 0
    assert abs(shares[1] - 2 / 3) < 4 * 0.5 / math.sqrt(600)


@pytest.mark.parametrize("n, share", [(250, 0.1), (2, 0.25)])
def test_epsilon_greedy_explores_with_its_probability(n, share):
    """At t = 1,000 one pull in ten, at t = 8 one in four as there are four arms, of any of the open arms; the others are
    greedy's."""
    K = np.eye(4)
    seen = view([n] * 4, K, asked=np.array([240.0, 250, 250, 250]))
    other = np.mean([of_name("epsilon_greedy").choose(seen, generator(1, i)) != 0 for i in range(2_000)])
    assert abs(other - share * 3 / 4) < 4 * math.sqrt(share * 3 / 4 / 2_000)


def test_of_arms_that_look_the_same_the_one_asked_least_is_next():
    assert VanillaUcb().choose(view([5, 5, 5], asked=np.array([9.0, 7.0, 7.0])), generator(0)) == 1


def test_uniform_goes_round():
    asked = np.zeros(3)
    for _ in range(10):
        asked[of_name("uniform").choose(view([5, 5, 5], asked=asked.copy()), generator(0))] += 1
    assert sorted(asked) == [3, 3, 4]


def test_successive_halving_halves():
    """Of 8 arms and 240 pulls: three rounds of 80, 10, 20 and 40 of each that is left."""
    K = np.diag(np.arange(1.0, 9.0))
    policy, asked = SuccessiveHalving(), np.zeros(8)
    for _ in range(240):
        asked[policy.choose(view([5] * 8, K, asked=asked.copy(), horizon=240), generator(0))] += 1
    assert asked.tolist() == [70, 70, 30, 30, 10, 10, 10, 10]
    assert policy.weights(view([5] * 8, K)).weights[0] == 1
    with pytest.raises(InputError, match="successive_halving: needs to know the total number of pulls; give --pulls"):
        SuccessiveHalving().choose(view([5, 5], horizon=None), generator(0))


def test_halving_asks_an_open_arm_when_those_left_are_closed():
    policy, K = SuccessiveHalving(left=[0], rounds=1), np.diag([1.0, 2.0])
    seen = view([5, 5], K, asked=np.array([3.0, 9.0]), open=np.array([False, True]), horizon=100)
    assert policy.choose(seen, generator(0)) == 1


@pytest.mark.parametrize("m, every", [(3, 20), (5, 13), (2, 40), (1, 40)])
def test_an_odd_field_keeps_the_larger_half(m, every):
    """⌈log₂ m⌉ rounds share 40 pulls; at the end of a round ⌈m / 2⌉ arms are left."""
    policy, K = SuccessiveHalving(), np.diag(np.arange(1.0, m + 1))
    before = view([5] * m, K, asked=np.array([every - 1.0] + [0.0] * (m - 1)), horizon=40)
    policy.choose(before, generator(0))
    assert policy.left == list(range(m))
    policy.choose(replace(before, asked=before.asked + np.eye(m)[-1]), generator(0))
    assert policy.left == list(range(math.ceil(m / 2)))


def test_a_single_arm_is_chosen_by_its_whole_loss():
    """κ and ℓ together, of 1 + 2, 2 + 0.5 and 3 + 0; and by halves only of those that are left."""
    K, f = np.diag([1.0, 2.0, 3.0]), np.array([2.0, 0.5, 0.0])
    seen = view([1e9] * 3, K, f, truth=(K, f))
    for name in ("vanilla_ucb", "one_arm_oracle", "successive_halving"):
        assert of_name(name).weights(seen).weights == (0, 1, 0), name
    assert VanillaUcb().choose(seen, generator(0)) == 1
    assert of_name("one_arm_oracle").choose(seen, generator(0)) == 1
    assert SuccessiveHalving(left=[0, 2], rounds=1).weights(seen).weights in ((1, 0, 0), (0, 0, 1))
    policy = SuccessiveHalving()
    policy.choose(replace(seen, asked=np.array([900.0, 0, 0])), generator(0))
    assert policy.left[0] == 1


def test_oracles_need_the_truth():
    for name in ("one_arm_oracle", "mixture_oracle"):
        with pytest.raises(InputError, match="an oracle needs the truth"):
            of_name(name).choose(view([5, 5]), generator(0))
    K = np.array([[1.0, 0.0], [0.0, 2.0]])
    wrong = view([5, 5], 2 - K, truth=(K, np.zeros(2)))
    assert of_name("one_arm_oracle").choose(wrong, generator(0)) == 0
    assert of_name("mixture_oracle").weights(wrong).weights == pytest.approx((2 / 3, 1 / 3))


def test_no_such_policy():
    with pytest.raises(InputError, match="policy: 'ucb' is unknown, expected one of variance_ucb, cab"):
        of_name("ucb")
