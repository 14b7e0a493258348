"""What bins of recurring values are worth: nats of unseen rows with and without them, for each family with an exact density.

    python benchmarks/recurring.py [--tables adult,california,german_credit] [--seconds 30] [--rows 20000]

One model of each family, fitted to the fit rows, scores the report rows twice: with the bins it found, and after they are taken
away. The difference is paired; its error is over rows; there is one training seed. Controls, where nothing may be gained or lost:
a rounded Gaussian (at most .005 nats wanted), and power, whose readings of a meter do not recur. The last columns are the seconds
of the search for bins, and the time of scoring with bins over that without (at most 2 wanted). forest and circuit count such
values in ways of their own.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, cast

import pandas as pd
import torch
from real import TABLES

from mixtura.contracts import Batch, ClosedForm, Density, InputError, Model
from mixtura.families import TABLE
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator, normal
from mixtura.job.splits import make_splits
from mixtura.job.start import Options, understand
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe


def rounded_gaussian() -> pd.DataFrame:
    """Two dependent columns in steps of a tenth of a deviation and of a hundredth."""
    z = normal((6_000, 2), generator(0), torch.zeros(0, dtype=torch.float64))
    return pd.DataFrame({"coarse": (z[:, 0] * 10).round().numpy(), "fine": ((z[:, 0] + z[:, 1]) * 100).round().numpy()})


def fitted(name: str, x: torch.Tensor, encoding: Columns, seconds: float) -> Model:
    """A model of the family, fitted as a run fits it."""
    row, rng = TABLE[name], generator(0, name)
    model = row.build(encoding.space, encoding=encoding, config=row.suggest(encoding.space, len(x), seconds), rng=rng)
    if not isinstance(model, Density):
        raise InputError("it has no exact density")
    if isinstance(model, ClosedForm):
        model.fit_closed(x, None, rng)
        return model.eval()
    for _ in fit(model, Batch(x=x), Recipe(**{**row.recipe, "seconds": seconds}), rng=rng):
        pass
    return model


@torch.no_grad()
def scored(model: Density, x: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Nats, and the least CPU seconds of three."""
    taken, nats = [], x
    for _ in range(3):
        began = time.process_time()
        nats = model.log_prob(x)
        taken.append(time.process_time() - began)
    return nats, min(taken)


def measure(table: str, frame: pd.DataFrame, seconds: float, most: int) -> None:
    source, schema = understand(frame, Options())
    x = schema.space.clamp(schema.encode(cast(Any, source).frame))
    splits = make_splits(x, seed=0)
    fit_rows, unseen = x[splits.fit][:most], x[splits.report]
    encoding = Columns(schema.space)
    encoding.prepare(fit_rows)
    for name, row in TABLE.items():
        if row.context == "needs" or name in ("forest", "circuit"):
            continue
        try:
            model = fitted(name, fit_rows, encoding, seconds)
        except InputError:
            continue
        columns = next((m for m in model.modules() if isinstance(m, Columns)), None)
        if not isinstance(model, Density) or columns is None:
            continue
        began = time.process_time()
        columns.find_recurring(fit_rows)
        search = time.process_time() - began
        found = columns.recurring.tables()
        nats, cost = scored(model, unseen)
        columns.recurring.hold([None] * columns.continuous)
        without, cost_without = scored(model, unseen)
        gain = nats - without
        print(
            f"{table:<16} {name:<17} without {float(without.mean()):9.3f}   with {float(nats.mean()):9.3f}   "
            f"gain {float(gain.mean()):7.4f} ± {float(gain.std()) / len(gain) ** 0.5:.4f}   columns with bins {len(found):2}   "
            f"search {search:5.2f} s   time {cost / cost_without:4.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default="adult,california,german_credit")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rows", type=int, default=20_000)
    o = parser.parse_args()
    torch.set_num_threads(1)
    frames = {name: TABLES[name] for name in o.tables.split(",")}
    frames |= {"control: gaussian": rounded_gaussian, "control: power": lambda: TABLES["power"]().iloc[:20_000]}
    for table, frame in frames.items():
        measure(table, frame(), o.seconds, o.rows)


if __name__ == "__main__":
    main()
