"""How far a run stays from a known law of mixed columns, in nats a fresh row: at most .83 of the code before is wanted.

    python benchmarks/known_law.py [--seeds 0 1 2 3 4] [--budget 60] [--workers 2] [--beside PATH/src]

The law was written for this script, before any run: no setting was chosen on it. Each seed draws other rows, and is the seed of
the run. Printed for each: the nats of the truth, of what the run delivers and of each of its models, on the same fresh rows,
which no run has seen; then the gaps truth - model, mean over the seeds ± their standard error. A bound is scored on the
first 2,000 fresh rows. ``--beside`` runs the same with the source of another commit, in turn with this one, and prints the ratio
of the gaps; the script uses only what both have. Where the CPU seconds of a run are far below workers times its seconds, other
processes used the machine, and models that need many steps fell short: such figures say little.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

import mixtura

#: fresh rows on which bounds, which take a sampler, are scored
OF_BOUNDS = 2_000

PLAN = np.array([0.5, 0.3, 0.2])
REGION_OF_PLAN = np.array([[0.55, 0.25, 0.15, 0.05], [0.1, 0.3, 0.3, 0.3], [0.05, 0.05, 0.3, 0.6]])
#: means of length/3, by plan, of two components; the share of the first by region
MIDDLES = np.array([[-1.0, 0.8], [0.0, 2.0], [-1.5, 1.5]])
FIRST_SHARE = np.array([0.7, 0.5, 0.4, 0.2])
STEP = 0.01  # of temp


class Law:
    """Six columns in the order in which they are drawn.

    plan      3 levels
    region    4 levels, given plan
    length    100 + 3 z; z of two Gaussians, their middles by plan, their shares by region
    income    log-normal; its middle is quadratic in z, its spread grows with z: positive, heavy tail
    temp      two branches, 20 ± (3 + 2 sin 2z), their shares by plan, their width by income; in steps of .01
    visits    Poisson, its rate by region and temp
    paid      2 levels, given visits, income and region
    """

    @staticmethod
    def sample(n: int, seed: int) -> pd.DataFrame:
        """n rows."""
        rng = np.random.default_rng([seed, 20261130])
        plan = rng.choice(3, n, p=PLAN)
        region = (rng.random((n, 1)) > REGION_OF_PLAN[plan].cumsum(1)[:, :-1]).sum(1)
        first = rng.random(n) < FIRST_SHARE[region]
        z = np.where(first, MIDDLES[plan, 0], MIDDLES[plan, 1]) + np.where(first, 0.5, 0.3) * rng.standard_normal(n)
        length = 100 + 3 * z
        middle, spread = Law._income(z, region)
        log_income = middle + spread * rng.standard_normal(n)
        up, centre, width = Law._temp(z, plan, log_income)
        side = np.where(rng.random(n) < up, 1.0, -1.0)
        temp = np.round((20 + side * centre + width * rng.standard_normal(n)) / STEP) * STEP
        visits = rng.poisson(Law._rate(region, temp))
        paid = rng.random(n) < Law._paid(visits, log_income, region)
        return pd.DataFrame(
            {
                "plan": np.array(["basic", "plus", "team"])[plan], "region": np.array(["n", "e", "s", "w"])[region],
                "length": length, "income": np.exp(log_income), "temp": temp.round(2), "visits": visits,
                "paid": np.array(["no", "yes"])[paid.astype(int)],
            }
        )  # fmt: skip

    @staticmethod
    def nats(frame: pd.DataFrame) -> np.ndarray:
        """Exact log-density of each row on the base measure of mixtura: probabilities of levels and of counts (steps of 1),
        Lebesgue for length and income, log(mass of the cell / step) for temp."""
        plan = frame["plan"].map({"basic": 0, "plus": 1, "team": 2}).to_numpy()
        region = frame["region"].map({"n": 0, "e": 1, "s": 2, "w": 3}).to_numpy()
        paid = frame["paid"].eq("yes").to_numpy()
        length, income, temp, visits = (frame[c].to_numpy(float) for c in ("length", "income", "temp", "visits"))
        z, log_income = (length - 100) / 3, np.log(income)
        share = FIRST_SHARE[region]
        of_length = np.logaddexp(
            np.log(share) + stats.norm.logpdf(z, MIDDLES[plan, 0], 0.5),
            np.log1p(-share) + stats.norm.logpdf(z, MIDDLES[plan, 1], 0.3),
        ) - math.log(3)
        middle, spread = Law._income(z, region)
        of_income = stats.norm.logpdf(log_income, middle, spread) - log_income
        up, centre, width = Law._temp(z, plan, log_income)

        def cell(middle: np.ndarray) -> np.ndarray:
            """Mass of a Gaussian in the cell of temp, on the side where the two numbers that are subtracted are small."""
            a, b = (np.abs(temp - 20 - middle) + side * STEP / 2 for side in (-1, 1))
            return stats.norm.cdf(-a / width) - stats.norm.cdf(-b / width)

        of_temp = np.log(up * cell(centre) + (1 - up) * cell(-centre)) - math.log(STEP)
        chance = Law._paid(visits, log_income, region)
        return (
            np.log(PLAN[plan]) + np.log(REGION_OF_PLAN[plan, region]) + of_length + of_income + of_temp
            + stats.poisson.logpmf(visits, Law._rate(region, temp)) + np.log(np.where(paid, chance, 1 - chance))
        )  # fmt: skip

    @staticmethod
    def _income(z: np.ndarray, region: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 7 + 0.25 * z**2 - 0.3 * (region == 3), 0.15 + 0.25 * expit(z)

    @staticmethod
    def _temp(z: np.ndarray, plan: np.ndarray, log_income: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return expit(1.5 * (plan - 1)), 3 + 2 * np.sin(2 * z), 0.5 + 0.5 * expit(2 * (log_income - 7.3))

    @staticmethod
    def _rate(region: np.ndarray, temp: np.ndarray) -> np.ndarray:
        return np.exp(0.5 + 0.4 * region + 0.08 * (temp - 20))

    @staticmethod
    def _paid(visits: np.ndarray, log_income: np.ndarray, region: np.ndarray) -> np.ndarray:
        return expit(0.5 * (visits - 4) + 2 * (log_income - 7.3) - 1.5 * (region == 0))


def measure(seed: int, asked: argparse.Namespace) -> dict[str, float]:
    """One run: the gap truth - model of each model, "blend" and "delivered"; its seconds, and "truth"."""
    frame, fresh = Law.sample(asked.rows, 2 * seed), Law.sample(asked.fresh, 2 * seed + 1)
    began, cpu = time.monotonic(), sum(os.times()[:4])
    study = mixtura.run(frame, budget=asked.budget, workers=asked.workers, seed=seed)
    seconds, cpu = time.monotonic() - began, sum(os.times()[:4]) - cpu
    truth = Law.nats(fresh)
    blend = study.verdicts["nats"].weights
    kinds = {s.name: s.kind for s in study.scores}
    found = {"seconds": seconds, "CPU seconds": cpu, "truth": float(truth.mean())}
    delivered = {"delivered": study.density, "blend": study.blends["nats"]}
    for name, model in (delivered | study.models).items():
        parts = [part for part, weight in blend.items() if weight > 0] if name in delivered else [name]
        exact = all(kinds[part] == "exact" for part in parts)
        rows = fresh if exact else fresh[:OF_BOUNDS]
        gap = truth[: len(rows)] - model.score(rows)["nats"].to_numpy()
        found[name if exact or name in delivered else f"{name} (bound)"] = float(gap.mean())
    told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    print(f"seed {seed}: {study.verdict.sentence}\n  {told}", file=sys.stderr)
    return found


def elsewhere(source: Path, seed: int, asked: argparse.Namespace) -> dict[str, float]:
    """The same with the source in another folder."""
    options = ("budget", "workers", "rows", "fresh")
    words = [word for name in options for word in (f"--{name}", str(getattr(asked, name)))]
    command = [sys.executable, __file__, "--seeds", str(seed), *words, "--json"]
    environment = os.environ | {"PYTHONPATH": str(source.resolve())}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    if Path(found.pop("source")).resolve() != (source / "mixtura").resolve():
        raise SystemExit(f"--beside: {source} holds no mixtura")
    return found


def mean_and_error(values: list[float]) -> str:
    """Over the seeds."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{statistics.fmean(values):8.3f} ± {error:.3f}"


def show(title: str, runs: list[dict[str, float]]) -> None:
    """Mean over the runs of everything that all of them have."""
    print(f"{title}: {len(runs)} seeds")
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [run[name] for run in runs if name in run]
        told = "" if len(values) == len(runs) else f"   in {len(values)} runs"
        print(f"  {name:24} {mean_and_error(values)}{told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--budget", type=float, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=3_000)
    parser.add_argument("--fresh", type=int, default=20_000)
    parser.add_argument("--beside", type=Path, help="the folder src of another commit")
    parser.add_argument("--json", action="store_true", help="print one run as JSON, and nothing else")
    asked = parser.parse_args()
    if asked.json:
        print(json.dumps(measure(asked.seeds[0], asked) | {"source": str(Path(mixtura.__file__).parent)}))
        return
    ours: list[dict[str, float]] = []
    before: list[dict[str, float]] = []
    for seed in asked.seeds:
        ours.append(measure(seed, asked))
        told = f"seed {seed}: truth {ours[-1]['truth']:.3f} nats; gap of what is delivered {ours[-1]['delivered']:.3f}"
        if asked.beside is not None:
            before.append(elsewhere(asked.beside, seed, asked))
            told += f", before {before[-1]['delivered']:.3f}, ratio {ours[-1]['delivered'] / before[-1]['delivered']:.2f}"
        print(told, flush=True)
    show("gap truth - model, nats a fresh row", ours)
    if before:
        show("before", before)
        for name in ("delivered", "blend"):
            now, then = ([run[name] for run in runs] for runs in (ours, before))
            ratios = [a / b for a, b in zip(now, then, strict=True)]
            told = f"ratio of the mean gaps {sum(now) / sum(then):.3f} (wanted: .83 at most)"
            print(f"{name}: {told}; mean of the ratios {mean_and_error(ratios)}")


if __name__ == "__main__":
    main()
