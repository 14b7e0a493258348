"""What knowing the context is worth, and what it costs: both forms of PAK-UCB, and mixtures that depend on the context.

    python benchmarks/contextual.py [--seeds 10] [--rounds 800] [--luck]

Arms: three with mean reward 0.5 + 0.4 cos(c − 2πi/3), arm 0 better by 0.05 everywhere, noise of standard deviation 0.1, and
contexts c uniform on [−π, π). Table: reward lost a round.

Mixtures: three arms, each with ten points of its own. At each of eight contexts arm i gives its first point with chance
1 − q_i(c), else one of its nine others. With equality as the kernel the true form is diagonal, M_ii = (1 − q)² + q²/9, and the
best weights are proportional to 1 / M_ii. Table: how far the form is from its least at the shares in which arms were asked, and
at the weights learnt, mean over contexts.

Luck, two minutes more: two arms that pay 1 with chances 0.5 and 0.6 at one context, whose samples are all alike. Table: in how
many runs the worse arm had most of the later half of the rounds, and its share of them.

± is a standard error over seeds. Seconds are process CPU time on one thread.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from statistics import mean, stdev

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mixtura.ground.kernels import Cosine, Gaussian
from mixtura.ground.rng import generator
from mixtura.policies.contextual import ContextualMixture, KernelRidgeUcb, RandomFeatureUcb, Ridge, RidgeUcb

Array = NDArray[np.float64]

ARMS, NOISE, PLACES = 3, 0.1, 10
CONTEXTS = np.linspace(-1, 1, 8)

POLICIES: dict[str, Callable[[int], RidgeUcb]] = {
    "kernel ridge, paper's eta": lambda seed: KernelRidgeUcb(ARMS, Gaussian(1.0), Ridge(eta=None)),
    "kernel ridge, eta 1": lambda seed: KernelRidgeUcb(ARMS, Gaussian(1.0), Ridge(eta=1.0)),
    "kernel ridge, eta 0.3": lambda seed: KernelRidgeUcb(ARMS, Gaussian(1.0), Ridge(eta=0.3)),
    "random features, paper's eta": lambda seed: RandomFeatureUcb(
        ARMS, Gaussian(1.0), Ridge(eta=None), rng=generator(seed), features=256
    ),
    "random features, eta 1": lambda seed: RandomFeatureUcb(
        ARMS, Gaussian(1.0), Ridge(eta=1.0), rng=generator(seed), features=256
    ),
}


def told(values: list[float]) -> str:
    return f"{mean(values):9.5f} ± {stdev(values) / math.sqrt(len(values)):.5f}"


# ------------------------------------------------------------------------------------------------------------ arms


def mean_rewards(c: Array) -> Array:
    """(n, ARMS) at contexts (n,)."""
    return 0.5 + 0.4 * np.cos(c[:, None] - 2 * np.pi * np.arange(ARMS) / ARMS) + 0.05 * (np.arange(ARMS) == 0)


def regret(policy: RidgeUcb, seed: int, rounds: int) -> tuple[float, float, float]:
    """Reward lost a round, that in the last fifth of the rounds, and milliseconds a round."""
    rng = np.random.default_rng(seed)
    contexts, noise = rng.uniform(-math.pi, math.pi, rounds), NOISE * rng.normal(size=rounds)
    truth = mean_rewards(contexts)
    lost, began = np.empty(rounds), time.process_time()
    for t, c in enumerate(contexts):
        arm = policy.ask([c])
        policy.tell([c], arm, truth[t, arm] + noise[t])
        lost[t] = truth[t].max() - truth[t, arm]
    return float(lost.mean()), float(lost[-(rounds // 5) :].mean()), 1e3 * (time.process_time() - began) / rounds


def arms_table(seeds: int, rounds: int) -> None:
    print(f"one arm a context: reward lost a round, {rounds} rounds, {seeds} seeds")
    print(f"{'':30} {'all rounds':>19} {'last fifth':>19} {'ms a round':>11}")
    for name, policy in POLICIES.items():
        every, late, spent = zip(*(regret(policy(seed), seed, rounds) for seed in range(seeds)), strict=True)
        print(f"{name:30} {told(list(every))} {told(list(late))} {mean(spent):11.3f}")
    truth = mean_rewards(np.linspace(-math.pi, math.pi, 100_000, endpoint=False))
    best = float(truth.max(1).mean())
    for name, value in {"best arm a context": best, "best fixed arm": truth.mean(0).max(), "uniform": truth.mean()}.items():
        print(f"{name:30} {best - value:9.5f} exact")


# -------------------------------------------------------------------------------------------------------- mixtures


def chances(c: float) -> Array:
    """(ARMS, PLACES) of the points of each arm at a context."""
    q = 0.9 * np.array([1 / (1 + math.exp(-4 * c)), 1 / (1 + math.exp(4 * c)), 0.5])
    return np.column_stack([1 - q, np.repeat(q[:, None] / (PLACES - 1), PLACES - 1, axis=1)])


#: (contexts, ARMS) diagonals of the true form, and its least value at each context
TRUTH = np.array([np.square(chances(c)).sum(1) for c in CONTEXTS])
LEAST = 1 / (1 / TRUTH).sum(1)


def excess(weights: Array) -> float:
    """Of weights (contexts, ARMS) or (ARMS,), mean over contexts."""
    return float(((np.square(weights) * TRUTH).sum(1) - LEAST).mean())


def blend(z: float, draw: bool, seed: int, rounds: int) -> tuple[float, float, float]:
    """Excess of the shares asked, excess of the weights learnt, and milliseconds a round. ``draw``: from the weights, after two
    samples of each arm, instead of ``ask``."""
    rng = np.random.default_rng(seed)
    mixture = ContextualMixture(ARMS, Gaussian(0.3), Cosine(), z=z)
    asked = np.zeros((len(CONTEXTS), ARMS))
    began = time.process_time()
    for t in range(rounds):
        at = int(rng.integers(len(CONTEXTS)))
        c = CONTEXTS[at]
        if draw:
            arm = t % ARMS if t < 2 * ARMS else int(rng.choice(ARMS, p=mixture.weights([c]).weights))
        else:
            arm = mixture.ask([c])
        sample = np.zeros(ARMS * PLACES)
        sample[arm * PLACES + rng.choice(PLACES, p=chances(c)[arm])] = 1
        mixture.tell([c], arm, sample)
        asked[at, arm] += 1
    spent = 1e3 * (time.process_time() - began) / rounds
    learnt = np.array([mixture.weights([c]).weights for c in CONTEXTS])
    return excess(asked / asked.sum(1, keepdims=True)), excess(learnt), spent


def mixtures_table(seeds: int, rounds: int) -> None:
    print(f"\nmixtures: excess over the least form ({LEAST.mean():.5f}), {rounds} rounds, {seeds} seeds")
    print(f"{'':30} {'as asked':>19} {'weights learnt':>19} {'ms a round':>11}")
    for name, z, draw in (("tracked, z 1", 1.0, False), ("tracked, z 0", 0.0, False), ("drawn from the weights", 0.0, True)):
        shares, learnt, spent = zip(*(blend(z, draw, seed, rounds) for seed in range(seeds)), strict=True)
        print(f"{name:30} {told(list(shares))} {told(list(learnt))} {mean(spent):11.3f}")
    fixed = 1 / TRUTH.mean(0) / (1 / TRUTH.mean(0)).sum()
    exact = {
        "best mixture a context": 0.0,
        "best fixed mixture": excess(fixed),
        "best arm a context": float((TRUTH.min(1) - LEAST).mean()),
        "uniform": excess(np.full(ARMS, 1 / ARMS)),
    }
    for name, value in exact.items():
        print(f"{name:30} {value:9.5f} exact")


# ------------------------------------------------------------------------------------------------------------ luck


def worse_share(policy: RidgeUcb | ContextualMixture, seed: int, rounds: int) -> float:
    pays = np.random.default_rng(seed).random((rounds, 2)) < (0.5, 0.6)
    worse = np.empty(rounds)
    for t in range(rounds):
        arm = policy.ask([0.0])
        if isinstance(policy, RidgeUcb):
            policy.tell([0.0], arm, float(pays[t, arm]))
        else:
            policy.tell([0.0], arm, [1.0], float(pays[t, arm]))
        worse[t] = arm == 0
    return float(worse[rounds // 2 :].mean())


def luck_table(seeds: int) -> None:
    print(f"\n{f'luck, {seeds} seeds':30} {'rounds':>6} {'on the worse arm':>17} {'its share':>19}")
    # at one context any two features are exact
    ridge = lambda eta: RandomFeatureUcb(2, Gaussian(1.0), Ridge(eta=eta), rng=generator(0), features=2)  # noqa: E731
    makers: dict[str, tuple[int, Callable[[], RidgeUcb | ContextualMixture]]] = {
        f"ridge, eta {eta or 'of the paper'}": (1_000, lambda eta=eta: ridge(eta)) for eta in (0.5, 1.0, 1.5, None)
    }
    makers |= {f"mixture, z {z:g}": (500, lambda z=z: ContextualMixture(2, Gaussian(1.0), Cosine(), z=z)) for z in (0.0, 1.0)}
    for name, (rounds, make) in makers.items():
        shares = [worse_share(make(), seed, rounds) for seed in range(seeds)]
        print(f"{name:30} {rounds:6} {sum(share > 0.5 for share in shares):17} {told(shares)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=800)
    parser.add_argument("--luck", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        arms_table(args.seeds, args.rounds)
        mixtures_table(args.seeds, args.rounds // 2)
        if args.luck:
            luck_table(5 * args.seeds)


if __name__ == "__main__":
    main()
