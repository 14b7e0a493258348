"""The circuit beside the Gaussian mixture and MADE: nats a row on report rows, and CPU seconds of the fit.

    python benchmarks/circuit.py [--tables german_credit,adult,california] [--seeds 3] [--seconds 60]

Each seed is a split of the table into fit, select and report rows; select rows are not used. Every family has the configuration
that a run of ``--seconds`` gives it; autoregressive trains for a tenth of them. Printed: the mean nats of each family, and the
circuit's difference from it with the standard error over the splits (which share rows: it is too small), and the ratio of the
seconds of the fits. About ten minutes for all tables.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch
from real import HOME, TABLES

from mixtura.blending.nats import log_probs
from mixtura.contracts import ClosedForm
from mixtura.families import TABLE
from mixtura.ground.rng import generator
from mixtura.job.splits import make_splits
from mixtura.job.start import Options, understand
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

FAMILIES = ("circuit", "gaussian_mixture", "autoregressive")


def measure(name: str, family: str, seed: int, seconds: float) -> tuple[float, float]:
    """(nats a row, CPU seconds) of one family on one split."""
    table, schema = understand(TABLES[name](), Options())
    x = schema.encode(table.frame)
    splits, row = make_splits(x, seed=seed), TABLE[family]
    rows = x[splits.fit]
    model = row.build(schema.space, config=row.suggest(schema.space, len(rows), seconds), rng=generator(seed))
    began = time.process_time()
    if isinstance(model, ClosedForm):
        model.fit_closed(rows, None, generator(seed))
    else:
        *_, last = fit(model, rows, Recipe(**{**row.recipe, "seconds": seconds / 10}), rng=generator(seed))
        assert last.finished
    spent = time.process_time() - began
    return float(log_probs(model.eval(), x[splits.report], rng=generator(seed))[0].mean()), spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="german_credit,adult,california")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60)
    asked = parser.parse_args()
    if not (HOME / "tables").exists():
        print(f"circuit: no tables in {HOME}; set MIXTURA_DATA")
        return
    torch.set_num_threads(1)
    print(f"{'table':14} {'family':18} {'nats':>9} {'circuit is better by':>22} {'CPU s':>7} {'circuit takes':>14}")
    for name in asked.tables.split(","):
        found = {family: [measure(name, family, seed, asked.seconds) for seed in range(asked.seeds)] for family in FAMILIES}
        for family, ones in found.items():
            gains = [ours[0] - theirs[0] for ours, theirs in zip(found["circuit"], ones, strict=True)]
            error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
            nats, spent, ours = (
                statistics.fmean(values)
                for values in ([one[0] for one in ones], [one[1] for one in ones], [one[1] for one in found["circuit"]])
            )
            gain = "" if family == "circuit" else f"{statistics.fmean(gains):+.3f} ± {error:.3f}"
            ratio = "" if family == "circuit" else f"{ours / spent:.2f}×"
            print(f"{name:14} {family:18} {nats:9.3f} {gain:>22} {spent:7.2f} {ratio:>14}", flush=True)


if __name__ == "__main__":
    main()
