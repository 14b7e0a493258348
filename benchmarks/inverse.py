"""Mixture density networks on laws that are known: how near to the entropy, are the parameters told the true ones, how fast.

    python benchmarks/inverse.py [--original PATH] [--only bishop|toy|rotating|recovery|speed] [--seeds 10]
    python benchmarks/inverse.py --picture docs/mdn.png

One thread, seconds of CPU time, nats a row on rows of their own. The peer is the network of tonyduan/mixture-density-network,
PATH a checkout of it; without one its columns are "-". It is trained as in its example (Adam at 5e-3 with a cosine, 2,000 steps
on all rows, 50 units), and the (d/2) log 2π that its loss leaves out is added. Ours is MixtureDensityRegressor as it comes.

bishop: x = t + .3 sin 2πt + U(−.1, .1), t ~ U(0, 1), p(t | x) wanted (Bishop 1994, section 5). toy: the peer's own example, x =
    7 sin 5y + y/2 + ε/2. rotating: two entries with deviations 1 and .1 along axes turned by πx, p(y | x) one full Gaussian.
recovery: 50,000 rows of a mixture of each kind of noise; the weights, means and covariances told, averaged over x, against the
    true ones in standard errors of the maximum-likelihood estimate. 3 is wanted at most. The network is linear and trained to the
    end, by the family itself. Beside it that estimate, by who is told the components: what of the distance is of the rows alone.
speed: networks of equal size, steps and batch in turn, and scikit-learn's perceptron; NGBoost and skpro where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler

from mixtura import MixtureDensityRegressor
from mixtura.contracts import Batch, Space
from mixtura.families import mixture_density
from mixtura.ground.distributions import MixtureDensity
from mixtura.ground.noise import NoiseKind
from mixtura.ground.rng import generator, seeded
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

Array = np.ndarray
#: rows that are scored, and the seed of them
TEST, TEST_SEED = 50_000, 10_000
#: steps, rate and units of the peer's example
STEPS, RATE, UNITS = 2_000, 5e-3, 50


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of ``work``, and what it returns."""
    began = time.process_time()
    made = work()
    return time.process_time() - began, made


# ------------------------------------------------------------------------------------------------------------ the laws


def bishop(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """x (n, 1), t (n, 1)."""
    t = rng.random((n, 1))
    return t + 0.3 * np.sin(2 * math.pi * t) + rng.uniform(-0.1, 0.1, (n, 1)), t


def toy(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """x (n, 1), y (n, 1)."""
    y = rng.uniform(-1, 1, (n, 1))
    return 7 * np.sin(5 * y) + 0.5 * y + 0.5 * rng.standard_normal((n, 1)), y


def rotating(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """x (n, 1), y (n, 2)."""
    x = rng.random((n, 1))
    long, short = rng.standard_normal(n), 0.1 * rng.standard_normal(n)
    cos, sin = np.cos(math.pi * x[:, 0]), np.sin(math.pi * x[:, 0])
    return x, np.stack([cos * long - sin * short, sin * long + cos * short], 1)


def entropy_of(p: Array, step: float) -> float:
    return float(-(p * np.log(np.maximum(p, 1e-300))).sum() * step)


def bishop_entropy() -> float:
    """H(t | x) = H(t) + H(x | t) − H(x), with p(x) = 5 P(|x − f(t)| < .1)."""
    t = (np.arange(1_000_000) + 0.5) / 1_000_000
    f = np.sort(t + 0.3 * np.sin(2 * math.pi * t))
    x, step = np.linspace(-0.2, 1.2, 200_001, retstep=True)
    p = 5 * (np.searchsorted(f, x + 0.1) - np.searchsorted(f, x - 0.1)) / len(f)
    return math.log(0.2) - entropy_of(p, float(step))


def toy_entropy() -> float:
    """H(y | x) = H(y) + H(x | y) − H(x), with p(x) the mean of N(x; f(y), ½) over y."""
    y = -1 + 2 * (np.arange(4_000) + 0.5) / 4_000
    f = 7 * np.sin(5 * y) + 0.5 * y
    x, step = np.linspace(-12, 12, 4_001, retstep=True)
    p = np.exp(-2 * (x[:, None] - f) ** 2).mean(1) / math.sqrt(2 * math.pi * 0.25)
    return math.log(2) + 0.5 * math.log(2 * math.pi * math.e * 0.25) - entropy_of(p, float(step))


# ------------------------------------------------------------------------------------------------------------ the two


class Original:
    """The peer: its class, trained as its example does."""

    def __init__(self, checkout: Path) -> None:
        spec = importlib.util.spec_from_file_location("original_blocks", checkout / "src" / "blocks.py")
        assert spec is not None and spec.loader is not None
        self.blocks: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.blocks)

    def fit(self, x: Array, y: Array, components: int, seed: int, *, batch: int | None = None, steps: int = STEPS) -> Any:
        """All rows at every step, or ``batch`` of them at random."""
        with seeded(seed):
            net = self.blocks.MixtureDensityNetwork(x.shape[1], y.shape[1], n_components=components, hidden_dim=UNITS)
            self.train(net, torch.as_tensor(x).float(), torch.as_tensor(y).float(), batch, steps)
        return net

    def train(self, net: Any, x: torch.Tensor, y: torch.Tensor, batch: int | None, steps: int) -> None:
        optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            rows = slice(None) if batch is None else torch.randint(len(x), (batch,))
            optimiser.zero_grad()
            net.loss(x[rows], y[rows]).mean().backward()
            optimiser.step()
            schedule.step()

    @staticmethod
    @torch.no_grad()
    def nats(net: Any, x: Array, y: Array) -> float:
        """Mean −log p, the constant that its loss leaves out added."""
        loss = net.loss(torch.as_tensor(x).float(), torch.as_tensor(y).float())
        return float(loss.double().mean()) + 0.5 * y.shape[1] * math.log(2 * math.pi)


@dataclass(frozen=True)
class Case:
    """Fits of ``rows`` rows, ``seeds`` times. wanted: the median and the worst −log p asked for, None where nothing is."""

    components: int
    rows: int
    seeds: int
    wanted: tuple[float | None, float | None]
    settings: tuple[tuple[str, Any], ...] = ()
    peer: bool = True


def compare(draw: Callable[..., tuple[Array, Array]], entropy: float, cases: list[Case], original: Original | None) -> None:
    """One line a case: −log p of both over the seeds."""
    test_x, test_y = draw(TEST, np.random.default_rng(TEST_SEED))
    print(f"{draw.__name__}: −log p of {TEST:,} rows, lower is better; no law has less than the entropy, {entropy:.4f}")
    print(f"{'':30}{'wanted':>16}{'mixtura':>18}{'':7}{'original':>17}")
    print(f"{'':30}{'median':>8}{'worst':>8}{'median':>9}{'worst':>9}{'s':>7}{'median':>9}{'worst':>9}{'s':>7}")
    for case in cases:
        ours, theirs = scored(draw, case, original, test_x, test_y)
        noise = dict(case.settings).get("noise", "")
        head = f"{noise:9} K={case.components:<3} n={case.rows:<6} {case.seeds} seeds"
        wanted = "".join(f"{'' if w is None else format(w, '.3f'):>8}" for w in case.wanted)
        print(f"{head:30}{wanted}{told(ours)}{told(theirs)}", flush=True)


def scored(
    draw: Callable[..., tuple[Array, Array]], case: Case, original: Original | None, test_x: Array, test_y: Array
) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(−log p, seconds of the fit) of every seed, of ours and of the peer's, in turn."""
    ours, theirs = [], []
    for seed in range(case.seeds):
        x, y = draw(case.rows, np.random.default_rng(seed))
        model = MixtureDensityRegressor(case.components, random_state=seed, **dict(case.settings))
        spent, _ = seconds(lambda model=model, x=x, y=y: model.fit(x, y))
        ours.append((-model.score(test_x, test_y), spent))
        if original is not None and case.peer:
            spent, net = seconds(lambda x=x, y=y, seed=seed: original.fit(x, y, case.components, seed))
            theirs.append((original.nats(net, test_x, test_y), spent))
    return ours, theirs


def told(results: list[tuple[float, float]]) -> str:
    if not results:
        return f"{'-':>9}{'-':>9}{'-':>7}"
    nats, spent = zip(*results, strict=True)
    return f"{median(nats):9.3f}{max(nats):9.3f}{median(spent):7.1f}"


def run_bishop(original: Original | None, seeds: int) -> None:
    few = min(seeds, 5)
    cases = [Case(3, 1_000, seeds, (-1.05, -1.00)), Case(20, 10_000, few, (None, -1.18))]
    compare(bishop, bishop_entropy(), cases, original)


def run_toy(original: Original | None, seeds: int) -> None:
    few = min(seeds, 5)
    compare(toy, toy_entropy(), [Case(5, 512, seeds, (-1.05, None)), Case(5, 5_000, few, (None, -1.15))], original)


def run_rotating(original: Original | None, seeds: int) -> None:
    few = min(seeds, 5)
    cases = [
        Case(k, 1_000, few, (wanted, None), (("noise", noise),), peer=noise == "diagonal")
        for noise, k, wanted in (("full", 1, 0.62), ("full", 5, 0.64), ("diagonal", 1, None), ("diagonal", 5, None))
    ]
    compare(rotating, math.log(2 * math.pi * math.e) + math.log(0.1), cases, original)


# ------------------------------------------------------------------------------------------------------------ recovery

#: rows; the network, of the truth's own form, linear in x; its training, on all rows and to the end: the state that is best on
#: 5,000 rows held out, where the estimator stops, is likeliest for these and not for all
ROWS = 50_000
LINEAR = {"components": 2, "members": 1, "bins": 0, "hidden": (), "warp": False}
TO_THE_END = Recipe(steps=2_000, batch=5_000, rate=5e-3, decay=0.0, held_out=0.0, every=2_000)
#: the truth: weights, means at x = 0, their slopes in x
WEIGHTS = np.array([0.35, 0.65])
MEANS = np.array([[97.0, 3.0], [106.0, -5.0]])
SLOPES = np.array([[2.0, -1.0], [-1.0, 3.0]])
FULL = np.array([[[1.0, 0.6], [0.6, 2.0]], [[1.5, -0.9], [-0.9, 0.8]]])
COVARIANCES: dict[NoiseKind, Array] = {
    "diagonal": np.stack([np.diag([1.0, 0.25]), np.diag([0.5, 2.0])]),
    "full": FULL,
    "isotropic": np.stack([0.6 * np.eye(2), 1.7 * np.eye(2)]),
    "shared": np.stack([0.8 * np.eye(2)] * 2),
    "fixed": np.stack([1.44 * np.eye(2)] * 2),
    "low_rank": FULL,
}


Parameters = tuple[Array, Array, Array]


def rows_of(kind: NoiseKind, n: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """x ~ U(−1, 1) (n, 1) and y (n, 2) of the mixture whose means are linear in x, and the component of every row (n,)."""
    x = rng.uniform(-1, 1, (n, 1))
    which = (rng.random(n) > WEIGHTS[0]).astype(int)
    noise = np.linalg.cholesky(COVARIANCES[kind])[which] @ rng.standard_normal((n, 2, 1))
    return x, MEANS[which] + SLOPES[which] * x + noise[..., 0], which


def estimate(kind: NoiseKind, x: Array, y: Array, which: Array) -> Parameters:
    """Weights (2,), means at x = 0 (2, 2) and covariances (2, 2, 2) of greatest likelihood, the components known."""
    shares, means, covariances = np.bincount(which) / len(which), [], []
    for k in range(2):
        of_k = which == k
        design = np.concatenate([np.ones((of_k.sum(), 1)), x[of_k]], 1)
        coefficients = np.linalg.lstsq(design, y[of_k])[0]
        residuals = y[of_k] - design @ coefficients
        means.append(coefficients[0])
        covariances.append(residuals.T @ residuals / of_k.sum())
    found = np.stack(covariances)
    if kind not in ("full", "low_rank"):
        variances = found.diagonal(axis1=1, axis2=2)
        if kind != "diagonal":
            variances = np.repeat(variances.mean(1, keepdims=True), 2, 1)
        if kind == "shared":
            variances = np.repeat((shares @ variances)[None], 2, 0)
        found = np.stack([np.diag(v) for v in variances])
    return shares, np.stack(means), found


def errors(kind: NoiseKind, n: int) -> tuple[float, Array, Array]:
    """Standard errors of the maximum-likelihood estimate where components do not overlap: of π_1, of the means at x = 0 (2, 2),
    the intercepts of a regression on centred x, and of the covariances (2, 2, 2). Of S_ij from m rows it is
    √((Σ_ii Σ_jj + Σ_ij²) / m), √c times less where c entries have it in common, and 0 where it is not estimated."""
    truth, m = COVARIANCES[kind], n * WEIGHTS
    variances = truth.diagonal(axis1=1, axis2=2)
    of_means = np.sqrt(variances / m[:, None])
    of_weight = math.sqrt(WEIGHTS.prod() / n)
    if kind in ("full", "low_rank"):
        both = variances[:, :, None] * variances[:, None, :] + truth**2
        return of_weight, of_means, np.sqrt(both / m[:, None, None])
    alike = {"diagonal": m, "isotropic": 2 * m, "shared": np.full(2, 2 * n), "fixed": np.full(2, math.inf)}[kind]
    return of_weight, of_means, truth * np.sqrt(2 / alike)[:, None, None]


def averaged(law: MixtureDensity) -> Parameters:
    """Weights, means and covariances on average over its rows."""
    return tuple(t.mean(0).numpy() for t in (law.weights, law.means, law.covariances))  # type: ignore[return-value]


def deviations(found: Parameters, kind: NoiseKind, n: int) -> list[float]:
    """The largest |z| of weights, means and covariances."""
    weights, means, covariances = found
    order = min(permutations(range(2)), key=lambda p: float(np.abs(means[list(p)] - MEANS).sum()))
    weights, means, covariances = weights[list(order)], means[list(order)], covariances[list(order)]
    of_weight, of_means, of_covariances = errors(kind, n)
    off = np.abs(covariances - COVARIANCES[kind])
    estimated = of_covariances > 0
    return [
        float(abs(weights[0] - WEIGHTS[0]) / of_weight),
        float((np.abs(means - MEANS) / of_means).max()),
        float((off[estimated] / of_covariances[estimated]).max(initial=0.0)) if kind != "fixed" else 0.0,
    ]


def recovered(kind: NoiseKind, x: Array, y: Array, seed: int) -> Parameters:
    """What one network tells."""
    scale, rng = math.sqrt(COVARIANCES["fixed"][0, 0, 0]), generator(seed)
    config = mixture_density.Config(noise=kind, scale=scale, **LINEAR)  # type: ignore[arg-type]
    model = mixture_density.build(Space.continuous(2), context_shape=(1,), config=config, rng=rng)
    for _ in fit(model, Batch(x=torch.as_tensor(y), context=torch.as_tensor(x)), TO_THE_END, rng=rng):
        pass
    with torch.no_grad():
        return averaged(model.law((torch.arange(2_000, dtype=torch.float64)[:, None] + 0.5) / 1_000 - 1))


def run_recovery(original: Original | None, seeds: int) -> None:
    """The peer tells no parameters in one form, and has no part in this."""
    print(f"recovery: {ROWS:,} rows, 2 components, means linear in x; largest |told − true| in standard errors, 3 wanted at most")
    print(f"{'':12}{'mixtura':>31}{'who is told the components':>33}")
    head = f"{'weights':>9}{'means':>9}{'covariances':>13}"
    print(f"{'noise':8}{'seed':>4}{head}{'':2}{head}{'s':>8}")
    for kind in COVARIANCES:
        for seed in range(min(seeds, 5)):
            x, y, which = rows_of(kind, ROWS, np.random.default_rng(seed))
            spent, found = seconds(lambda kind=kind, x=x, y=y, seed=seed: recovered(kind, x, y, seed))
            ours, rows = (deviations(p, kind, ROWS) for p in (found, estimate(kind, x, y, which)))
            shown = "  ".join(f"{w:9.2f}{m:9.2f}{c:13.2f}" for w, m, c in (ours, rows))
            print(f"{kind:11}{seed}{shown}{spent:8.1f}", flush=True)


# ------------------------------------------------------------------------------------------------------------ speed

#: rows, inputs and batch of a fit whose time is taken, and how often it is
SPEED_ROWS, SPEED_INPUTS, SPEED_BATCH, ROUNDS = 5_000, 8, 128, 3
K = 5


def speed_rows(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """x (n, 8), y (n, 1) with two branches."""
    x = rng.standard_normal((n, SPEED_INPUTS))
    sign = np.where(rng.random((n, 1)) < 0.3, -1.0, 1.0)
    return x, sign * (2 + np.sin(x[:, :1])) + 0.1 * rng.standard_normal((n, 1))


class Timed:
    """Somebody who fits and predicts: ``fit(x, y)`` returns what tells a mean or a density of rows (n, inputs)."""

    def __init__(self, name: str, fit: Callable[[Array, Array], Callable[[Array], Any]]) -> None:
        self.name, self.fit = name, fit
        self.times: list[tuple[float, float]] = []

    def play(self, x: Array, y: Array, new: Array) -> None:
        fitting, predict = seconds(lambda: self.fit(x, y))
        predict(new[:10])
        predicting, _ = seconds(lambda: predict(new))
        self.times.append((fitting, predicting))


def ours(members: int, steps: int | None) -> Callable[[Array, Array], Callable[[Array], Any]]:
    def fit(x: Array, y: Array) -> Callable[[Array], Any]:
        model = MixtureDensityRegressor(
            K, members=members, steps=steps, batch=SPEED_BATCH, hidden=(UNITS, UNITS) if members == 1 else (64, 64),
            bins=0 if members == 1 else 16, random_state=0,
        ).fit(x, y)  # fmt: skip
        return model.predict

    return fit


def theirs(original: Original) -> Callable[[Array, Array], Callable[[Array], Any]]:
    def fit(x: Array, y: Array) -> Callable[[Array], Any]:
        net = original.fit(x, y, K, 0, batch=SPEED_BATCH)

        @torch.no_grad()
        def mean(new: Array) -> Array:
            log_weights, means, _ = net(torch.as_tensor(new).float())
            return (log_weights.exp().unsqueeze(-1) * means).sum(1).numpy()

        return mean

    return fit


def perceptron(x: Array, y: Array) -> Callable[[Array], Any]:
    """scikit-learn's, of a Gaussian mean: as many steps of as many rows."""
    scaler = StandardScaler().fit(x)
    epochs = round(STEPS * SPEED_BATCH / len(x))
    settings: dict[str, Any] = {"batch_size": SPEED_BATCH, "max_iter": epochs, "tol": 0, "n_iter_no_change": epochs}
    net = MLPRegressor(hidden_layer_sizes=(UNITS, UNITS), random_state=0, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged is the plan
        net.fit(scaler.transform(x), y[:, 0])
    return lambda new: net.predict(scaler.transform(new))


def boosted(x: Array, y: Array) -> Callable[[Array], Any]:
    from ngboost import NGBRegressor  # pyright: ignore[reportMissingImports]

    return NGBRegressor(verbose=False, random_state=0).fit(x, y[:, 0]).predict


def skpro_network(x: Array, y: Array) -> Callable[[Array], Any]:
    from skpro.regression.mdn import MDNRegressor  # pyright: ignore[reportMissingImports]

    named = lambda rows: pd.DataFrame(rows, columns=[f"x{j}" for j in range(rows.shape[1])])  # noqa: E731
    model = MDNRegressor(random_state=0, device="cpu").fit(named(x), pd.DataFrame({"y": y[:, 0]}))
    return lambda new: model.predict(named(new))


def installed() -> list[Timed]:
    """The two peers that need packages of their own, as they come, where those can be imported."""
    peers = [("ngboost", "NGBoost, as it comes", boosted), ("skpro", "skpro MDN, as it comes", skpro_network)]
    return [Timed(name, fit) for package, name, fit in peers if importlib.util.find_spec(package) is not None]


def run_speed(original: Original | None, seeds: int) -> None:
    """Medians of 3 rounds in which everybody plays once; ``seeds`` is of no use here."""
    rng = np.random.default_rng(0)
    (x, y), (new, _) = speed_rows(SPEED_ROWS, rng), speed_rows(TEST, rng)
    all_of_them = [
        Timed("mixtura, 1 network", ours(1, STEPS)),
        *([Timed("original, batches", theirs(original))] if original is not None else []),
        Timed("MLPRegressor", perceptron),
        *installed(),
        Timed("mixtura, as it comes", ours(8, None)),
    ]
    for _ in range(ROUNDS):
        for one in all_of_them:
            one.play(x, y, new)
    first = [median(column) for column in zip(*all_of_them[0].times, strict=True)]
    print(f"speed: fit of {SPEED_ROWS:,} rows of {SPEED_INPUTS} numbers, mean of {TEST:,} others; medians of {ROUNDS} rounds")
    print(f"in turn, and over that of the first line; {STEPS:,} steps of {SPEED_BATCH} rows where not 'as it comes'")
    print(f"{'':24}{'fit, s':>9}{'times':>8}{'predict, s':>12}{'times':>8}")
    for one in all_of_them:
        fit, predict = (median(column) for column in zip(*one.times, strict=True))
        print(f"{one.name:24}{fit:9.2f}{fit / first[0]:8.2f}{predict:12.3f}{predict / first[1]:8.2f}", flush=True)


def draw_picture(path: Path) -> None:
    """What a network says of Bishop's rows: density, modes, central interval, mean."""
    x, t = bishop(1_000, np.random.default_rng(0))
    model = MixtureDensityRegressor(3, random_state=0).fit(x, t[:, 0])
    at, to = np.linspace(-0.08, 1.08, 400), np.linspace(-0.08, 1.08, 400)
    law = model.distribution(at[:, None])
    density = law.log_prob(torch.as_tensor(to)[:, None, None]).exp().numpy()
    # a mode that carries little is noise: it would draw the eye more than it matters
    modes, height = (m.numpy() for m in law.modes())
    modes = np.where(height > height[:, :1] - math.log(10), modes[..., 0], np.nan)
    interval, mean = model.predict_interval(at[:, None], 0.9), model.predict(at[:, None])
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), sharey=True, layout="constrained")
    for ax in axes:
        ax.set(xlabel="x, what is seen", xlim=(at[0], at[-1]), ylim=(to[0], to[-1]))
        ax.spines[["top", "right"]].set_visible(False)
    dots = {"s": 5, "color": "#5f6b7a", "linewidths": 0}
    axes[0].scatter(x, t, **dots)
    axes[0].plot(at, mean, color="#c2410c", lw=2, label="mean")
    axes[0].set(ylabel="t, what is wanted", title="the rows, and the mean of t given x")
    axes[1].pcolormesh(at, to, np.sqrt(density), cmap="Blues", shading="auto", rasterized=True)
    axes[1].plot(at, interval, color="#334155", lw=1, ls="--", label=["90 % interval", None])
    axes[1].plot(at, modes, ".", ms=2.5, color="#c2410c", label=["modes", *[None] * (modes.shape[1] - 1)])
    axes[1].set(title="p(t | x), its modes and 90 % interval")
    for ax in axes:
        ax.legend(frameon=False, loc="upper left", markerscale=4)
    figure.savefig(path, dpi=110)


PARTS = {"bishop": run_bishop, "toy": run_toy, "rotating": run_rotating, "recovery": run_recovery, "speed": run_speed}


def main() -> None:
    parser = argparse.ArgumentParser(description="Mixture density networks on laws that are known.")
    parser.add_argument("--original", type=Path, help="a checkout of tonyduan/mixture-density-network")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=10, help="the most fits of a case")
    parser.add_argument("--picture", type=Path, help="draw what a network says of Bishop's rows there, and do nothing else")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.picture is not None:
        draw_picture(args.picture)
        return
    original = Original(args.original) if args.original is not None else None
    for part in [args.only] if args.only else PARTS:
        PARTS[part](original, args.seeds)
        print()


if __name__ == "__main__":
    main()
