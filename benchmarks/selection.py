"""Online selection of a mixture: how close every policy comes, how soon, how often one locks, and what a pull costs.

    python benchmarks/selection.py [--only policies locks reach cost] [--seeds 5] [--policies variance_ucb cab_code ...]

policies: the 8 Gaussian arms whose losses are known in closed form, 2,000 pulls. Excess of a mixture a is L(a) − min L with the
true K and f, at "pulls", the shares n/t in which arms were asked, which is what the samples bought amount to, and at "weights",
the mixture the policy would name. Wanted of the default at pulls: 5e-5 (RKE), 2e-4 (MMD²), a 20th of cab_code and a 100th of
uniform. Left out unless named by --policies: sparse, ten times as slow, whose best is that of three arms.

locks: two Bernoulli arms that pay 1 with chances 0.5 and 0.6; a run is locked where more than 95 % of the last 200 of 1,000
pulls are of the worse arm. Such a run is played on to 2,000 pulls and looked at again. Wanted: 0 of 200.

reach: pulls after which the excess stays at 10 % or 1 % of that of uniform weights, L(uniform) − min L, or less until the end.
Runs that do not get there count as the last pull: ">", and how many did. Arms: the 8 Gaussians; the pools of nine pretrained
MNIST generators (MMD² of LeNet features to 3,000 test images); questions to a bank in 8 pools of 2 to 20 intents (RKE of
sentence embeddings). Pools are drawn from without replacement, an empty one is closed, and the truth is the optimum on full
pools.

cost: process CPU seconds of ask and tell for 10,000 pulls of 20 arms with 768 features. Beside it, on 2,000 pulls, the work a
pull of the authors' code does: all samples of the arm asked are copied to append one, kernels go arm by arm by broadcast
differences on fresh copies, every row and column anew, and the quadratic is modelled and solved by cvxpy. Needs cvxpy. Kernel
sums as such are timed by ground/kernels.py.

± is a standard error over seeds. Each part takes about three minutes of CPU or less with 5 seeds.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from real import HOME
from threadpoolctl import threadpool_limits
from torch import Tensor

from mixtura.ground.kernels import Gaussian, median_bandwidth
from mixtura.ground.rng import generator
from mixtura.objectives.expression import Expression, QuadraticTerm
from mixtura.objectives.terms import MMD, RKE
from mixtura.policies import TABLE as POLICIES
from mixtura.policies.selector import Selector
from mixtura.simplex.quadratic import minimise_quadratic

Array = NDArray[np.float64]
#: arm → its next sample (d,), or None when there is none left
Source = Callable[[int], Array | None]

#: means of the 8 Gaussian arms, their deviation, and the width of the kernel exp(−d² / 2h²)
MEANS = np.array([[-3.0, -2.0], [-2.0, 1.5], [-0.8, -1.2], [0.0, 2.4], [1.2, 0.2], [2.2, -1.8], [3.0, 1.4], [0.9, 3.2]])
DEVIATION, WIDTH = 0.4, 1.25
#: the mixture that MMD² is taken to
TARGET = np.array([0.0, 0.0, 0.45, 0.0, 0.35, 0.0, 0.2, 0.0])
#: intents in each pool of questions, in the order of their names
INTENTS = (20, 16, 12, 10, 8, 5, 4, 2)

PULLS, NEAR, CLOSE = 2_000, 0.1, 0.01
CHANCES, RUNS, LOCK_PULLS, LATER, LAST, LOCKED = (0.5, 0.6), 200, 1_000, 2_000, 200, 0.95
COMPARED = tuple(name for name in POLICIES if name != "sparse")
REACHING = ("variance_ucb", "cab", "cab_code", "ogd", "ogd_code", "greedy", "successive_halving")
LOCKING = ("variance_ucb", "greedy")
COST_ARMS, COST_FEATURES, COST_PULLS, BEARABLE = 20, 768, 10_000, 2_000


@dataclass(frozen=True)
class Problem:
    """Arms whose true loss a'Ka + f'a is known. ``arms``: seed → where their samples come from."""

    name: str
    objective: Expression
    K: Array
    f: Array
    arms: Callable[[int], Source]
    pulls: int = PULLS

    @cached_property
    def best(self) -> Array:
        """The best weights."""
        return np.array(minimise_quadratic(self.K, -self.f / 2, psd=True).weights)

    def excess(self, a: Array) -> Array:
        """L − min L of mixtures (..., m)."""
        loss = lambda a: ((a @ self.K) * a).sum(-1) + a @ self.f  # noqa: E731
        return loss(a) - loss(self.best)

    @property
    def uniform(self) -> float:
        """The excess of uniform weights."""
        m = len(self.f)
        return float(self.excess(np.full(m, 1 / m)))


@dataclass(frozen=True)
class Run:
    """asked (t,): the arm of every pull; weights: those named after the pulls ``at``; seconds of ask and tell."""

    asked: NDArray[np.int64]
    at: list[int]
    weights: Array
    seconds: float

    def shares(self, m: int) -> Array:
        """(t, m) after every pull."""
        counts = np.eye(m)[self.asked].cumsum(0)
        return counts / counts.sum(1, keepdims=True)


def play(problem: Problem, policy: str, seed: int, pulls: int, *, every: int | None = None) -> Run:
    """One selection. ``every``: pulls between looks at the weights, which are always looked at after the last."""
    m, draw = len(problem.f), problem.arms(seed)
    selector = Selector(m, problem.objective, policy=policy, seed=seed, horizon=pulls, truth=(problem.K, problem.f))
    asked, at, weights, seconds = [], [], [], 0.0
    while selector.pulls < pulls:
        began = time.process_time()
        name = selector.ask()
        seconds += time.process_time() - began
        sample = draw(int(name))
        if sample is None:
            selector.forget(name)
            selector.close(name)
            continue
        began = time.process_time()
        selector.tell(name, sample)
        seconds += time.process_time() - began
        asked.append(int(name))
        if selector.pulls == pulls or (every and selector.pulls % every == 0 and selector.tally is not None):
            at.append(selector.pulls)
            weights.append(selector.weights.weights)
    return Run(np.array(asked), at, np.array(weights), seconds)


def told(values: Sequence[float], form: str = ".2e") -> str:
    """mean ± standard error."""
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{mean(values):{form}} ± {error:{'.0e' if form.endswith('e') else form}}"


# ------------------------------------------------------------------------------------------------------------ arms


def between(means: Array, others: Array, variance: float) -> Array:
    """E exp(−‖x − y‖² / 2h²) of Gaussians in the plane, ``variance`` the sum of both."""
    squares = np.square(means[:, None] - others).sum(-1)
    return WIDTH**2 / (WIDTH**2 + variance) * np.exp(-squares / 2 / (WIDTH**2 + variance))


class ToTarget(QuadraticTerm):
    """MMD² to ``TARGET`` itself, so that no sample of it has a say in the truth."""

    name, unit, higher, spread = "mmd", "MMD²", False, 2.0
    kernel = Gaussian(WIDTH)

    def linear(self, x: Tensor, arm: int) -> Tensor:
        return torch.as_tensor(-2 * between(x.double().numpy(), MEANS, DEVIATION**2) @ TARGET)


def gaussian_draws(seed: int) -> Source:
    """From the 8 Gaussians, with no end."""
    rng = np.random.default_rng(seed)
    return lambda arm: MEANS[arm] + DEVIATION * rng.normal(size=2)


def gaussians() -> list[Problem]:
    """The toy of the authors, for RKE and for MMD²."""
    K = between(MEANS, MEANS, 2 * DEVIATION**2)
    return [
        Problem("8 Gaussians, RKE", RKE(WIDTH * math.sqrt(2)), K, np.zeros(8), gaussian_draws),
        Problem("8 Gaussians, MMD²", ToTarget(), K, -2 * K @ TARGET, gaussian_draws),
    ]


def of_pools(name: str, pools: list[Array], objective: QuadraticTerm, pulls: int) -> Problem:
    """Arms that are pools, whose truth is the V-form on all of them: two draws of a pool may be the same row."""
    K, f = objective.on([torch.as_tensor(pool) for pool in pools]).form(unbiased=False)

    def arms(seed: int) -> Source:
        rng = np.random.default_rng(seed)
        left = [iter(pool[rng.permutation(len(pool))]) for pool in pools]
        return lambda arm: next(left[arm], None)

    return Problem(name, objective, K, f, arms, pulls)


def mnist_generators() -> Problem:
    """Nine networks of seven authors."""
    features = np.load(HOME / "mnist_generators" / "lenet_feats.npz")
    arms = [key for key in features if not key.startswith(("test", "train"))]
    real = torch.as_tensor(features["test"][:3_000].astype(np.float32))
    objective = MMD(real, bandwidth=median_bandwidth(real, generator(0)))
    return of_pools("MNIST generators, MMD²", [features[arm].astype(np.float32) for arm in arms], objective, PULLS)


def bank_questions() -> Problem:
    """Arms that know few or many things a person may ask."""
    stored = np.load(HOME / "text_banking77" / "minilm_int8.npz")
    rows = stored["emb"].astype(np.float32) * stored["scale"]
    intent = pd.read_parquet(HOME / "text_banking77" / "banking77.parquet")["category"].astype("category").cat.codes.to_numpy()
    bounds = np.cumsum((0, *INTENTS))
    pools = [rows[(intent >= low) & (intent < high)] for low, high in zip(bounds, bounds[1:], strict=False)]
    objective = RKE(median_bandwidth(torch.as_tensor(rows), generator(0)))
    return of_pools("text intents, RKE", pools, objective, 3_000)


# --------------------------------------------------------------------------------------------------------- policies


def policies(names: Sequence[str], seeds: int) -> None:
    """Excess of every policy on the Gaussians."""
    for problem in gaussians():
        print(f"\n{problem.name}, {problem.pulls:,} pulls, {seeds} seeds; min L without its constant", end=" ")
        print(f"{problem.best @ problem.K @ problem.best + problem.f @ problem.best:.6f}")
        print(f"{'policy':<20}{'excess at pulls':>22}{'x default':>11}{'at weights':>22}{'ms a pull':>11}")
        least = None
        for name in names:
            runs = [play(problem, name, seed, problem.pulls) for seed in range(seeds)]
            shares = [float(problem.excess(run.shares(len(problem.f))[-1])) for run in runs]
            named = [float(problem.excess(run.weights[-1])) for run in runs]
            least = least or mean(shares)
            cost = 1e3 * mean(run.seconds for run in runs) / problem.pulls
            print(f"{name:<20}{told(shares):>22}{mean(shares) / least:>11.1f}{told(named):>22}{cost:>11.2f}", flush=True)


class Reward(QuadraticTerm):
    """The sample itself, to be raised: an objective without a kernel, where a policy can lock."""

    name, unit, higher, spread = "reward", "share", True, 1.0

    def linear(self, x: Tensor, arm: int) -> Tensor:
        return -x[:, 0].double()


def coins(seed: int) -> Source:
    """Two Bernoulli arms."""
    rng = np.random.default_rng(seed)
    return lambda arm: np.array([float(rng.random() < CHANCES[arm])])


def locks(names: Sequence[str]) -> None:
    """How many runs end on the worse arm."""
    problem = Problem("coins", Reward(), np.zeros((2, 2)), -np.array(CHANCES), coins)
    print(f"\nBernoulli arms {CHANCES}: of {RUNS} runs, locked on the worse one; share of the last {LAST} pulls it had, all runs")
    print(f"{'policy':<20}{f'at {LOCK_PULLS:,} pulls':>16}{f'still at {LATER:,}':>18}{'share':>8}")
    for name in names:
        worse = lambda seed, pulls, name=name: float((play(problem, name, seed, pulls).asked[-LAST:] == 0).mean())  # noqa: E731
        shares = [worse(seed, LOCK_PULLS) for seed in range(RUNS)]
        locked = [seed for seed, share in enumerate(shares) if share > LOCKED]
        still = sum(worse(seed, LATER) > LOCKED for seed in locked)
        print(f"{name:<20}{len(locked):>16}{still:>18}{mean(shares):>8.3f}", flush=True)


# ------------------------------------------------------------------------------------------------------------ reach


def reached(excess: Array, at: Sequence[int], close: float) -> int | None:
    """The pull from which on the excess (k,) at pulls ``at`` (k,) is close, or None."""
    far = np.flatnonzero(excess > close)
    if len(far) and far[-1] + 1 == len(at):
        return None
    return at[far[-1] + 1] if len(far) else at[0]


def pulls_told(found: Sequence[int | None], last: int) -> str:
    """mean ± standard error, or a bound."""
    counted = [last if pull is None else pull for pull in found]
    missed = found.count(None)
    if missed == len(found):
        return f"> {last} (0 of {len(found)})"
    return f"> {mean(counted):.0f} ({len(found) - missed} of {len(found)})" if missed else told(counted, ".0f")


def reach(names: Sequence[str], seeds: int) -> None:
    """Pulls to 1 %."""
    problems = gaussians()
    for make in (mnist_generators, bank_questions):
        try:
            problems.append(make())
        except FileNotFoundError as error:
            print(f"{make.__name__}: skipped, no {error.filename}; set MIXTURA_DATA")
    for problem in problems:
        print(f"\n{problem.name}, {problem.pulls:,} pulls, {seeds} seeds; excess of uniform weights {problem.uniform:.2e}")
        print("best weights", " ".join(f"{w:.3f}" for w in problem.best))
        heads = (f"{NEAR:.0%} at pulls", f"{CLOSE:.0%} at pulls", f"{CLOSE:.0%} at weights", "excess at last pull")
        print(f"{'policy':<20}" + "".join(f"{head:>22}" for head in heads))
        for name in names:
            found, last = ([], [], []), []
            for seed in range(seeds):
                run = play(problem, name, seed, problem.pulls, every=20)
                shares, pulls = problem.excess(run.shares(len(problem.f))) / problem.uniform, range(1, len(run.asked) + 1)
                found[0].append(reached(shares, pulls, NEAR))
                found[1].append(reached(shares, pulls, CLOSE))
                found[2].append(reached(problem.excess(run.weights) / problem.uniform, run.at, CLOSE))
                last.append(float(shares[-1]) * problem.uniform)
            columns = [*(pulls_told(each, problem.pulls) for each in found), told(last)]
            print(f"{name:<20}" + "".join(f"{column:>22}" for column in columns), flush=True)


# ------------------------------------------------------------------------------------------------------------- cost


def wide_arms(seed: int) -> Source:
    """Gaussians in 768 dimensions, of which a part is drawn in advance, so that drawing costs nothing."""
    rng = np.random.default_rng(seed)
    centres = 0.5 * rng.normal(size=(COST_ARMS, 1, COST_FEATURES))
    pools = (centres + rng.normal(size=(COST_ARMS, 600, COST_FEATURES))).astype(np.float32)
    count = np.zeros(COST_ARMS, dtype=int)

    def draw(arm: int) -> Array:
        count[arm] += 1
        return pools[arm, count[arm] % 600]

    return draw


class AsTheOriginal:
    """The work of a pull in the authors' code, with RKE and CAB: not its numbers, its cost."""

    def __init__(self, cvxpy: Any, sigma: float) -> None:
        self.cvxpy, self.sigma = cvxpy, sigma
        self.samples: list[Array | None] = [None] * COST_ARMS
        self.sums = np.zeros((COST_ARMS, COST_ARMS))

    def tell(self, arm: int, x: Array) -> None:
        """Append by copying; a kernel sum with each arm, from fresh copies."""
        held = self.samples[arm]
        self.samples[arm] = x[None] if held is None else np.concatenate((held, x[None]))
        for other, rows in enumerate(self.samples):
            if rows is not None:
                fresh, among = torch.Tensor(x[None]), torch.Tensor(rows)
                squares = ((fresh.unsqueeze(0) - among.unsqueeze(1)) ** 2).sum(-1)
                similar = (torch.exp(-0.5 * squares / self.sigma**2) ** 2).sum().item()
                self.sums[arm, other] += similar
                self.sums[other, arm] += similar

    def ask(self, rng: np.random.Generator) -> int:
        """In turn five times, then drawn from the solution of a fresh model."""
        sizes = np.array([0 if rows is None else len(rows) for rows in self.samples])
        if sizes.min() < 5:
            return int(sizes.argmin())
        weights = self.cvxpy.Variable(COST_ARMS, nonneg=True)
        mixture = sum(weights[j] * np.eye(COST_ARMS)[j] for j in range(COST_ARMS))
        K = self.sums / np.outer(sizes, sizes) + 1e-8 * np.eye(COST_ARMS)
        bonus = 0.6 * np.sqrt(math.log(sizes.sum()) / sizes)
        loss = self.cvxpy.quad_form(mixture, K) - self.cvxpy.sum(self.cvxpy.multiply(bonus, weights))
        self.cvxpy.Problem(self.cvxpy.Minimize(loss), [self.cvxpy.sum(weights) == 1]).solve()
        return int(rng.choice(COST_ARMS, p=np.maximum(weights.value, 0) / np.maximum(weights.value, 0).sum()))


def seconds_as_the_original(cvxpy: Any, pulls: int) -> float:
    """CPU seconds of its asks and tells."""
    draw, rng, loop, taken = wide_arms(0), np.random.default_rng(0), AsTheOriginal(cvxpy, 40.0), 0.0
    for _ in range(pulls):
        began = time.process_time()
        arm = loop.ask(rng)
        taken += time.process_time() - began
        x = np.asarray(draw(arm))
        began = time.process_time()
        loop.tell(arm, x)
        taken += time.process_time() - began
    return taken


def cost() -> None:
    """CPU seconds of many pulls."""
    K = np.eye(COST_ARMS)  # only oracles look at the truth
    problem = Problem("wide", RKE(40.0), K, np.zeros(COST_ARMS), wide_arms)
    print(f"\nask and tell, {COST_ARMS} arms, {COST_FEATURES} features, RKE, CPU seconds in all")
    taken = play(problem, "variance_ucb", 0, COST_PULLS).seconds
    print(f"variance_ucb, {COST_PULLS:,} pulls: {taken:.1f} (wanted < 20)", flush=True)
    try:
        cvxpy = import_module("cvxpy")
    except ImportError:
        print("the authors' loop: left out, cvxpy is not installed; pip install cvxpy")
        return
    ours = {name: play(problem, name, 0, BEARABLE).seconds for name in ("variance_ucb", "cab_code")}
    theirs = seconds_as_the_original(cvxpy, BEARABLE)
    print(f"{BEARABLE} pulls: the authors' loop {theirs:.1f}", end="")
    print("".join(f", {name} {taken:.2f} ({theirs / taken:.0f} times less)" for name, taken in ours.items()))


@threadpool_limits.wrap(limits=1)
def main() -> None:
    """Print the parts asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parts = ("policies", "locks", "reach", "cost")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--policies", nargs="+", choices=list(POLICIES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "policies" in options.only:
        policies(options.policies or COMPARED, options.seeds)
    if "locks" in options.only:
        locks(options.policies or LOCKING)
    if "reach" in options.only:
        reach(options.policies or REACHING, options.seeds)
    if "cost" in options.only:
        cost()


if __name__ == "__main__":
    main()
