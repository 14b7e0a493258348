"""Whether completed rows mean what they say: how often the truth lies in the 90 % interval of the draws, on a known law.

    python benchmarks/imputation.py [--seed 0] [--rows 3000] [--budget 60] [--fresh 1000] [--workers 2]

The law of mixed columns is that of benchmarks/known_law.py. Of fresh rows, which no run has seen, each cell is taken away with
probability .3, and what the run delivers completes them 39 times; so does the circuit of the run. Printed for each column,
categories included: the share of cells in the interval (metrics/calibration.py ``coverage``, exactly .9 for a perfect model) and
its standard error over rows.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from known_law import Law

import mixtura
from mixtura.metrics.calibration import coverage

DRAWS, MISSING = 39, 0.3


def codes(column: pd.Series) -> np.ndarray:
    """Numbers as they are, levels by their place among the levels."""
    numbers = column if pd.api.types.is_numeric_dtype(column) else column.astype("category").cat.codes
    return numbers.to_numpy(float)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--rows", type=int, default=3_000)
    arguments.add_argument("--budget", type=float, default=60.0)
    arguments.add_argument("--fresh", type=int, default=1_000)
    arguments.add_argument("--workers", type=int, default=2)
    asked = arguments.parse_args()
    study = mixtura.run(Law.sample(asked.rows, 2 * asked.seed), budget=asked.budget, workers=asked.workers, seed=asked.seed)
    fresh = Law.sample(asked.fresh, 2 * asked.seed + 1)
    away = np.random.default_rng([asked.seed, 90]).random(fresh.shape) < MISSING
    holes = fresh.mask(away)
    print(study.verdict.sentence)
    print(f"{'':18s}" + "".join(f"{name:>16s}" for name in fresh))
    for name, model in {"delivered": study.density, "circuit": study.models["circuit"]}.items():
        draws = model.impute(holes, draws=DRAWS)
        found = []
        for j, column in enumerate(fresh):
            rows = np.flatnonzero(away[:, j])
            together = pd.concat([fresh[column], draws[column]], ignore_index=True)
            whole = codes(together.astype(fresh[column].dtype))
            truth, drawn = whole[: len(fresh)], whole[len(fresh) :].reshape(DRAWS, len(fresh))
            found.append(coverage(truth[rows], drawn[:, rows], 0.9))
        print(f"{name:18s}" + "".join(f"{f'{f.value:.3f} ± {f.error:.3f}':>16s}" for f in found))


if __name__ == "__main__":
    main()
