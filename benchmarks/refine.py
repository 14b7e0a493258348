"""What `--refine` gains: samples of a model accepted by a learned ratio to real rows, over several seeds.

    python benchmarks/refine.py [--seeds 0 1 2 3 4] [--steps 600]

Of california and adult, one model at a time (diffusion, vae), and a model that is right: a Gaussian mixture of Gaussian rows.
MMD² and C2ST are those of the run, on its report rows; ± is the standard error over the seeds, which divide the rows anew.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from real import TABLES

import mixtura
from mixtura.folder.records import Refinement


def gaussian_rows(seed: int) -> pd.DataFrame:
    return pd.DataFrame(100 + 3 * np.random.default_rng(seed).standard_normal((10_000, 4)), columns=list("abcd"))


def refined(data: pd.DataFrame, family: str, seed: int, steps: int) -> Refinement:
    with tempfile.TemporaryDirectory() as folder:
        study = mixtura.run(
            data, steps=steps, families=[family], objective="mmd", refine=True, seed=seed, workers=1, out=Path(folder) / "run"
        )
    assert study.refinement is not None
    return study.refinement


def mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=600)
    asked = parser.parse_args()
    print(f"{'data':<12} {'model':<17} {'delivered':>9} {'MMD²':>17} {'refined':>17} {'C2ST':>17} {'refined':>17}  kept")
    for table in ("california", "adult", "gaussian"):
        for family in ("diffusion", "vae") if table != "gaussian" else ("gaussian_mixture",):
            found = []
            for seed in asked.seeds:
                data = gaussian_rows(seed) if table == "gaussian" else TABLES[table]().sample(10_000, random_state=seed)
                found.append(refined(data, family, seed, asked.steps))
            told = [f for f in found if f.trees]
            numbers = [[getattr(f, name) for f in told] for name in ("mmd2_before", "mmd2_after", "c2st_before", "c2st_after")]
            shown = [mean(values) if len(values) > 1 else "–" for values in numbers]
            kept = f"{statistics.mean(f.kept or 0 for f in told):.0%}" if told else "–"
            delivered = f"{sum(f.delivered for f in found)} of {len(found)}"
            columns = " ".join(f"{text:>17}" for text in shown)
            print(f"{table:<12} {family:<17} {delivered:>9} {columns}  {kept}", flush=True)


if __name__ == "__main__":
    main()
