"""Contextual selection: estimates equal batch solves and brute force, closed forms are found, and what is lost a round falls."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground.kernels import Cosine, Cubic, Gaussian
from mixtura.ground.rng import generator
from mixtura.policies.contextual import ContextualMixture, KernelRidgeUcb, RandomFeatureUcb, Ridge
from mixtura.simplex.quadratic import minimise_quadratic

WIDE = Gaussian(4.0)


def features(arms, D=64, seed=0, kernel=WIDE, **settings):
    return RandomFeatureUcb(arms, kernel, Ridge(**settings), rng=generator(seed), features=D)


BOTH_FORMS = pytest.mark.parametrize(
    "make", [lambda **s: KernelRidgeUcb(2, WIDE, Ridge(**s)), lambda **s: features(2, **s)], ids=["kernel", "features"]
)


def told(policy, n, seed=0, scale=1.0, shift=0.0):
    """The policy after n rewards of arm 0 and as many of arm 1 at contexts of mean 100, and what it was told."""
    rng = np.random.default_rng(seed)
    contexts, rewards = rng.normal(100, 3, size=(2, n, 2)), rng.normal(size=(2, n))
    for t in range(n):
        for arm in range(2):
            policy.tell(contexts[arm, t], arm, shift + scale * rewards[arm, t])
    return policy, contexts, rewards


# ------------------------------------------------------------------------------------------------ one arm a context


@BOTH_FORMS
@pytest.mark.parametrize("alpha", [0.1, 1.0, 7.0])
def test_the_first_reward_counts_once_and_the_first_inverse_is_right(make, alpha):
    """With k(c, c) = 1: 1 / (1 + α), and not 1 / k + α; y / (1 + α), and not 2y / (1 + α)."""
    policy = make(alpha=alpha, eta=2.0)
    policy.tell([100.0, 97.0], 1, 0.8)
    mean, width = policy.predict([100.0, 97.0])
    assert mean.tolist() == pytest.approx([0, 0.8 / (1 + alpha)], abs=1e-12)
    assert width.tolist() == pytest.approx([2 / math.sqrt(alpha), 2 / math.sqrt(1 + alpha)], abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 70, 150])
@pytest.mark.parametrize("kernel", [WIDE, Gaussian(0.5), Cosine()], ids=str)
def test_sample_by_sample_equals_all_at_once(kernel, n):
    policy, contexts, rewards = told(KernelRidgeUcb(2, kernel, Ridge(alpha=0.3, eta=1.5)), n)
    c = torch.tensor([[101.0, 99.0]], dtype=torch.float64)
    mean, width = policy.predict(c[0])
    for arm in range(2):
        x, y = torch.tensor(contexts[arm]), torch.tensor(rewards[arm])
        k = kernel(x, c)[:, 0]
        solved = torch.linalg.solve(kernel(x, x) + 0.3 * torch.eye(n, dtype=torch.float64), torch.stack([y, k], 1))
        assert float(mean[arm]) == pytest.approx(float(k @ solved[:, 0]), abs=1e-10)
        left = float(kernel(c, c) - k @ solved[:, 1])
        assert float(width[arm]) ** 2 == pytest.approx(1.5**2 * left / 0.3, abs=1e-10)


@pytest.mark.parametrize("n", [1, 2, 70, 400])
def test_sherman_morrison_equals_all_at_once(n):
    """The ridge on features [cos Wc, sin Wc] / 4, with the W that the generator draws."""
    policy, contexts, rewards = told(features(2, D=32, alpha=0.3, eta=1.5), n)
    c = torch.tensor([101.0, 99.0], dtype=torch.float64)
    W = torch.randn((16, 2), generator=generator(0), dtype=torch.float64) / WIDE.bandwidth
    phi = lambda x: torch.cat([(x @ W.T).cos(), (x @ W.T).sin()], -1) / 4  # noqa: E731
    mean, width = policy.predict(c)
    for arm in range(2):
        P, y = phi(torch.tensor(contexts[arm])), torch.tensor(rewards[arm])
        A = P.T @ P + 0.3 * torch.eye(32, dtype=torch.float64)
        assert float(mean[arm]) == pytest.approx(float(phi(c) @ torch.linalg.solve(A, P.T @ y)), abs=1e-10)
        assert float(width[arm]) ** 2 == pytest.approx(1.5**2 * float(phi(c) @ torch.linalg.solve(A, phi(c))), abs=1e-10)


def test_random_features_come_near_the_kernel_as_they_grow():
    at = [101.0, 99.0]
    exact = torch.cat(told(KernelRidgeUcb(2, WIDE, Ridge(eta=1.0)), 40)[0].predict(at))

    def error(D):
        off = [torch.cat(told(features(2, D=D, seed=seed, eta=1.0), 40)[0].predict(at)) - exact for seed in range(4)]
        return float(torch.stack(off).square().mean().sqrt())

    coarse, fine = error(32), error(512)
    # 16 times the features: a quarter of the error, give or take
    assert fine < 0.05 and fine < 0.5 * coarse


@BOTH_FORMS
def test_another_unit_of_reward_changes_nothing_but_the_unit(make):
    plain = told(make(rewards=(-3, 3)), 30)[0].predict([101.0, 99.0])
    scaled = told(make(rewards=(500 - 21, 500 + 21)), 30, scale=7.0, shift=500.0)[0].predict([101.0, 99.0])
    assert (500 + 7 * plain[0]).tolist() == pytest.approx(scaled[0].tolist(), rel=1e-12)
    assert (7 * plain[1]).tolist() == pytest.approx(scaled[1].tolist(), rel=1e-12)


def test_no_width_is_the_papers():
    policy = KernelRidgeUcb(4, WIDE, Ridge(eta=None, horizon=500, delta=0.1))
    assert policy.eta == pytest.approx(math.sqrt(2 * math.log(2 * 500 * 4 / 0.1)))


def lost(policy, seed, rounds):
    """(rounds,) reward lost where arm 0 gives 0.5 − 0.4 c and arm 1 gives 0.5 + 0.4 c, c uniform on [−1, 1], noise 0.1."""
    rng = np.random.default_rng(seed)
    contexts, noise = rng.uniform(-1, 1, rounds), rng.normal(0, 0.1, rounds)
    out = np.empty(rounds)
    for t, c in enumerate(contexts):
        arm = policy.ask([c])
        policy.tell([c], arm, 0.5 + (0.4 if arm else -0.4) * c + noise[t])
        out[t] = 0.8 * abs(c) * (arm != (c > 0))
    return out


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: KernelRidgeUcb(2, Gaussian(1.0), Ridge(eta=1.0)),
        lambda seed: KernelRidgeUcb(2, Cubic(1), Ridge(eta=1.0)),
        lambda seed: features(2, D=128, seed=seed, kernel=Gaussian(1.0), eta=1.0),
    ],
    ids=["gaussian", "cubic", "features"],
)
def test_regret_falls_far_below_what_no_context_can_do(make):
    """Uniform asking and the best fixed arm both lose 0.8 E max(c, 0) = 0.2 a round."""
    runs = np.array([lost(make(seed), seed, 300) for seed in range(5)])
    mean, error = runs.mean(), runs.mean(1).std(ddof=1) / math.sqrt(len(runs))
    assert mean + 4 * error < 0.2 / 10
    assert runs[:, 200:].mean() < runs[:, :100].mean() / 4


def test_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "contextual.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        exec(block, {})


def test_every_arm_is_asked_before_any_is_judged():
    policy = KernelRidgeUcb(3, WIDE, Ridge(rewards=(99, 101)))
    first = []
    for _ in range(3):
        first.append(policy.ask([0.0]))
        policy.tell([0.0], first[-1], 100.0)
    assert first == [0, 1, 2]


# -------------------------------------------------------------------------------------------- one mixture a context


def points(*sets, times=1):
    """(arm, one-hot point) of arms uniform on sets of points, each point so many times."""
    return [(arm, np.eye(8)[p]) for arm, places in enumerate(sets) for p in places for _ in range(times)]


def test_the_exact_mixture_of_each_context_is_found():
    """A = {1, 2}, B = {2, 3, 4} has (1/3, 2/3) and 5/18 (Mixture-UCB page, case 2); sets of 1 and 3 have (1/4, 3/4) and 1/4."""
    mixture = ContextualMixture(2, Gaussian(0.3), Cosine())
    for c, sets in ((97.0, ([1, 2], [2, 3, 4])), (103.0, ([1], [2, 3, 4]))):
        for arm, x in points(*sets, times=40):
            mixture.tell([c], arm, x)
    left, right = mixture.weights([97.0]), mixture.weights([103.0])
    assert left.weights == pytest.approx((1 / 3, 2 / 3), abs=1e-5)
    assert right.weights == pytest.approx((1 / 4, 3 / 4), abs=1e-5)
    # points in equal numbers are a little more alike than points at random: the unbiased value is less by about 1 / n
    assert left.value == pytest.approx(5 / 18, abs=0.01) and right.value == pytest.approx(1 / 4, abs=0.01)
    assert max(left.gap, right.gap) < 1e-12


def random_mixture(t=40, seed=0):
    rng = np.random.default_rng(seed)
    rows = [(rng.normal(100, 1, 2), int(rng.integers(3)), rng.normal(100, 3, 4), float(rng.normal())) for _ in range(t)]
    mixture = ContextualMixture(3, Gaussian(1.5), Gaussian(4.0).squared)
    for row in rows:
        mixture.tell(*row)
    return mixture, rows


def test_weights_minimise_what_two_loops_add_up():
    mixture, rows = random_mixture()
    at = np.array([100.5, 99.5])
    w = [math.exp(-((c - at) ** 2).sum() / (2 * 1.5**2)) for c, *_ in rows]
    biased, unbiased = (np.zeros((2, 3, 3)) for _ in range(2))
    reward = np.zeros((2, 3))
    for s, (_, i, x, r) in enumerate(rows):
        reward[:, i] += w[s] * r, w[s]
        for t, (_, j, y, _) in enumerate(rows):
            value = w[s] * w[t] * math.exp(-((x - y) ** 2).sum() / 4.0**2)
            biased[:, i, j] += value, w[s] * w[t]
            if s != t:
                unbiased[:, i, j] += value, w[s] * w[t]
    V, U, linear = biased[0] / biased[1], unbiased[0] / unbiased[1], reward[0] / reward[1]
    truth, found = minimise_quadratic(V, linear / 2), mixture.weights(at)
    a = np.array(found.weights)
    assert found.weights == pytest.approx(truth.weights, abs=1e-9)
    assert found.value == pytest.approx(a @ U @ a - linear @ a, abs=1e-10)


def test_the_order_of_tells_does_not_matter():
    mixture, rows = random_mixture()
    backwards = ContextualMixture(3, Gaussian(1.5), Gaussian(4.0).squared)
    for row in reversed(rows):
        backwards.tell(*row)
    for ours, theirs in ((mixture.weights([100, 100]), backwards.weights([100, 100])), (mixture.joint(), backwards.joint())):
        assert ours.weights == pytest.approx(theirs.weights, abs=1e-9)


def test_joint_weights_are_those_of_contexts_that_all_arms_share():
    """Far contexts in shares P: J_ij = Σ_c P(c)² M_ij(c), whichever arm was asked more at which."""
    mixture = ContextualMixture(2, Gaussian(0.3), Cosine())
    forms, counts = [], []
    for c, sets, times in ((-9.0, ([1, 2], [2, 3, 4]), (30, 2)), (9.0, ([1, 2, 3, 4], [5]), (3, 90))):
        told_here = [(arm, x) for arm, x in points(*sets) for _ in range(times[arm])]
        for arm, x in told_here:
            mixture.tell([c], arm, x)
        p = [np.mean([x for arm, x in points(*sets) if arm == i], 0) for i in range(2)]
        forms.append([[a @ b for b in p] for a in p])
        counts.append(len(told_here))
    share = np.array(counts) / sum(counts)
    truth = minimise_quadratic(np.einsum("c,cij->ij", share**2, np.array(forms)), np.zeros(2))
    assert mixture.joint().weights == pytest.approx(truth.weights, abs=1e-9)


def test_asking_learns_the_best_weights_of_each_context_and_keeps_to_them():
    """Disjoint sets of s points: weights s / Σs and 1 / Σs (Mixture-UCB page, case 1), in opposite order at two contexts."""
    sizes = {-1.0: np.array([1, 2, 5]), 1.0: np.array([5, 2, 1])}
    excess = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        mixture = ContextualMixture(3, Gaussian(0.3), Cosine())
        asked = {c: np.zeros(3) for c in sizes}
        for _ in range(300):
            c = float(rng.choice([-1.0, 1.0]))
            arm = mixture.ask([c])
            mixture.tell([c], arm, np.eye(15)[5 * arm + rng.integers(sizes[c][arm])])
            asked[c][arm] += 1
        excess.append([
            float((np.square(a) / sizes[c]).sum()) - 1 / 8
            for c in sizes
            for a in (np.array(mixture.weights([c]).weights), asked[c] / asked[c].sum())
        ])  # fmt: skip
    mean, error = np.mean(excess, 0), np.std(excess, 0, ddof=1) / 2
    # uniform weights, which are the best ones without a context, have an excess of 0.064
    uniform = (1 + 1 / 2 + 1 / 5) / 9 - 1 / 8
    assert (mean + 4 * error < uniform / 8).all()


@pytest.mark.parametrize(("z", "asks"), [(0.0, False), (1.0, True)])
def test_optimism_returns_to_an_arm_that_had_bad_luck(z, asks):
    """Of arms that give one and the same sample only the rewards tell: one began with 0, 0, the other alternates 0, 1."""
    mixture = ContextualMixture(2, Gaussian(1.0), Cosine(), z=z)
    for arm in (0, 1, 0, 1):
        mixture.tell([0.0], arm, [1.0], 0.5 * (arm == 0))
    arms = []
    for t in range(60):
        arms.append(mixture.ask([0.0]))
        mixture.tell([0.0], arms[-1], [1.0], float(t % 2))
    assert (1 in arms) == asks


def test_an_arm_unknown_around_a_context_is_asked_there():
    mixture = ContextualMixture(2, Gaussian(0.5), Cosine())
    for _ in range(9):
        for arm, x in points([1], [2, 3]):
            mixture.tell([-4.0], arm, x)
    for _ in range(4):
        mixture.tell([4.0], 0, np.eye(8)[1])
    assert mixture.ask([4.0]) == 1


# ----------------------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("use", "names"),
    [
        (lambda: KernelRidgeUcb(0, WIDE), "arms"),
        (lambda: KernelRidgeUcb(2, WIDE, Ridge(alpha=0)), "alpha"),
        (lambda: KernelRidgeUcb(2, WIDE, Ridge(eta=-1)), "eta"),
        (lambda: KernelRidgeUcb(2, WIDE, Ridge(eta=math.nan)), "eta"),
        (lambda: KernelRidgeUcb(2, WIDE, Ridge(delta=1)), "delta"),
        (lambda: KernelRidgeUcb(2, WIDE, Ridge(rewards=(1, 1))), "rewards"),
        (lambda: features(2, D=7), "features"),
        (lambda: ContextualMixture(2, WIDE, WIDE, z=-1), "z"),
        (lambda: KernelRidgeUcb(2, WIDE).ask([[1.0]]), "context"),
        (lambda: KernelRidgeUcb(2, WIDE).ask([math.nan]), "context"),
        (lambda: told(KernelRidgeUcb(2, WIDE), 2)[0].ask([1.0]), "context"),
        (lambda: told(features(2), 2)[0].ask([1.0]), "context"),
        (lambda: features(2).tell([1.0], 2, 0.0), "arm"),
        (lambda: features(2).tell([1.0], 1, math.inf), "reward"),
        (lambda: random_mixture()[0].tell([1.0, 1.0], 0, [1.0]), "sample"),
        (lambda: random_mixture()[0].tell([1.0], 0, [1.0] * 4), "context"),
        (lambda: random_mixture()[0].weights([1.0]), "context"),
        (lambda: ContextualMixture(2, WIDE, WIDE).weights([1.0]), "arm 0"),
        (lambda: ContextualMixture(2, WIDE, WIDE).joint(), "arm 0"),
    ],
)
def test_what_cannot_be_used_is_named(use, names):
    with pytest.raises(InputError, match=names):
        use()
