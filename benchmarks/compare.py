"""Two-sample tests under the null and under a shift, and `mixtura compare` on halves of one file.

    python benchmarks/compare.py [--draws 500] [--halvings 200] [--power 200]

null: ``--draws`` pairs of samples of one law (120 and 150 rows; a normal, a level of three and a rounded number, so with ties):
the p-values of the permutation of MMD² and of the classifier must be uniform; printed are the share below .05 and the p-value of
Kolmogorov–Smirnov against the uniform law.
power: the share of p < .05 in ``--power`` pairs of 100 rows in five columns, under a shift of every mean by .3 and under a
correlation of .6 of two columns with the same margins, beside Hotelling's T² and a Kolmogorov–Smirnov test of each column
(Bonferroni), which are the peers that need no settings.
halves: ``--halvings`` halvings at random of penguins, and of as many rows of the law above; the share that is said to differ
(5 % or less wanted), and a file beside itself.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from scipy.stats import f as f_law
from scipy.stats import ks_2samp, kstest

import mixtura
from mixtura.data.examples import path
from mixtura.ground.rng import generator
from mixtura.metrics import same_law
from mixtura.metrics.classifier import same_law_by_classifier


def mixed(n: int, rng: torch.Generator) -> torch.Tensor:
    level = torch.randint(0, 3, (n,), generator=rng).float()
    return torch.stack([torch.randn(n, generator=rng), level, (4 * torch.rand(n, generator=rng)).round()], 1)


def null(draws: int) -> None:
    found: dict[str, list[float]] = {"MMD² by permutation": [], "classifier": []}
    for seed in range(draws):
        rng = generator(seed, "null")
        x, y = mixed(120, rng), mixed(150, rng)
        found["MMD² by permutation"].append(same_law(x, y, permutations=199, rng=rng).value)
        found["classifier"].append(same_law_by_classifier(x, y, rng=rng).value)
    for name, values in found.items():
        uniform = kstest(values, "uniform").pvalue
        print(f"null, {draws} draws: {name:22s} p < .05 in {np.mean(np.array(values) < 0.05):.3f}, uniform: p = {uniform:.2f}")


def hotelling(x: np.ndarray, y: np.ndarray) -> float:
    (n, d), m = x.shape, len(y)
    apart = x.mean(0) - y.mean(0)
    pooled = ((n - 1) * np.cov(x.T) + (m - 1) * np.cov(y.T)) / (n + m - 2)
    t2 = n * m / (n + m) * apart @ np.linalg.solve(pooled, apart)
    return float(f_law.sf(t2 * (n + m - d - 1) / (d * (n + m - 2)), d, n + m - d - 1))


def columns(x: np.ndarray, y: np.ndarray) -> float:
    return min(1.0, x.shape[1] * min(ks_2samp(a, b).pvalue for a, b in zip(x.T, y.T, strict=True)))


def power(pairs: int) -> None:
    for name in ("means .3 apart", "a correlation of .6"):
        below = {"MMD²": 0, "classifier": 0, "Hotelling": 0, "columns": 0}
        for seed in range(pairs):
            rng = generator(seed, name)
            x, y = (torch.randn(100, 5, generator=rng) for _ in range(2))
            if name.startswith("means"):
                y = y + 0.3
            else:
                y[:, 1] = 0.6 * y[:, 0] + 0.8 * y[:, 1]
            a, b = x.numpy(), y.numpy()
            below["MMD²"] += same_law(x, y, permutations=199, rng=rng).value < 0.05
            below["classifier"] += same_law_by_classifier(x, y, rng=rng).value < 0.05
            below["Hotelling"] += hotelling(a, b) < 0.05
            below["columns"] += columns(a, b) < 0.05
        print(f"power, {pairs} pairs, {name}: " + ", ".join(f"{test} {count / pairs:.2f}" for test, count in below.items()))


def halves(times: int) -> None:
    penguins = pd.read_csv(path("penguins"))
    tables = {"penguins": penguins, "mixed law": pd.DataFrame(mixed(344, generator(0, "halves")).numpy(), columns=list("abc"))}
    for name, frame in tables.items():
        said = 0
        for seed in range(times):
            order = np.random.default_rng(seed).permutation(len(frame))
            first, second = (frame.iloc[part].reset_index(drop=True) for part in np.array_split(order, 2))
            said += mixtura.compare(first, second, method="logistic", seed=seed).differ
        print(f"halves of {name}: said to differ in {said} of {times}")
    print(mixtura.compare(penguins, penguins, method="logistic").verdict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--halvings", type=int, default=200)
    parser.add_argument("--power", type=int, default=200)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    null(asked.draws)
    power(asked.power)
    halves(asked.halvings)


if __name__ == "__main__":
    main()
