"""Forests as tensors beside the trees of scikit-learn that they were taken from, in one run.

    python benchmarks/trees.py [--rows 20000] [--columns 10] [--trees 60] [--leaves 1000] [--rounds 9]

Process CPU time on one thread, medians, taken in turns: the leaves of a random forest beside ``apply``, without and with missing
values, and the raw prediction of a boosted forest. Wanted: at most 3 times scikit-learn's time, and equal answers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from threadpoolctl import threadpool_limits

from mixtura.ground.trees import Forest


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def line(what: str, rounds: int, theirs: Callable[[], Any], ours: Callable[[], Any], equal: bool) -> None:
    taken = [(seconds(theirs), seconds(ours)) for _ in range(rounds)]
    a, b = (median(times) for times in zip(*taken, strict=True))
    print(f"{what:<36} scikit-learn {a:7.4f} s   forest {b:7.4f} s   ratio {b / a:5.2f}   {'equal' if equal else 'DIFFERENT'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 20_000), ("columns", 10), ("trees", 60), ("leaves", 1_000), ("rounds", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    o = parser.parse_args()
    rng = np.random.default_rng(0)
    X = rng.standard_normal((o.rows, o.columns))
    y = X[:, 0] * X[:, 1] + rng.standard_normal(o.rows)
    holes = np.where(rng.random(X.shape) < 0.1, np.nan, X)
    leaves(o, "numbers", X, y)
    leaves(o, "10 % missing", holes, y)
    boosted = HistGradientBoostingRegressor(max_iter=o.trees, max_leaf_nodes=31, early_stopping=False).fit(holes, y)
    forest, x = Forest.of(boosted), torch.as_tensor(holes)
    equal = np.array_equal(forest.predict(x)[:, 0].numpy(), boosted.predict(holes))
    line("prediction, boosted, 31 leaves", o.rounds, lambda: boosted.predict(holes), lambda: forest.predict(x), equal)


def leaves(o: argparse.Namespace, name: str, X: np.ndarray, y: np.ndarray) -> None:
    model = RandomForestRegressor(o.trees, max_leaf_nodes=o.leaves, random_state=0, n_jobs=1).fit(X, y)
    forest, x = Forest.of(model), torch.as_tensor(X)
    equal = np.array_equal(forest.predict(x)[:, 0].numpy() / o.trees, model.predict(X))
    line(f"leaves, random forest, {name}", o.rounds, lambda: model.apply(X), lambda: forest.leaves(x), equal)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main()
