"""Does the blend beat the best single model on unseen rows, and does a run keep its budget?

    python benchmarks/blend.py [--budget 60] [--seeds 3] [--sets penguins,adult,...]

For each table and seed: `mixtura.run` from the frame, default families. Printed per table: the gain of the blend over
the best single model (nats a report row; the error holds the paired error within seeds and the variance between
them), the verdicts, and the longest wall time as a share of the budget.
"""

from __future__ import annotations

import argparse
import statistics
import time

from real import TABLES

import mixtura


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", type=float, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", default=",".join(n for n in TABLES if n != "one_column"))
    asked = parser.parse_args()
    print(f"budget {asked.budget:.0f} s, {asked.seeds} seeds; gain in nats a row of the blend over the best single model")
    print(f"{'table':14} {'gain':>7} {'± se':>6} {'gain/se':>7} {'wall/budget':>11}  verdicts")
    worse, better = [], []
    for name in asked.sets.split(","):
        frame, gains, errors, walls, choices = TABLES[name](), [], [], [], []
        for seed in range(asked.seeds):
            began = time.monotonic()
            verdict = mixtura.run(frame, budget=asked.budget, seed=seed).verdict
            walls.append((time.monotonic() - began) / asked.budget)
            gains.append(verdict.gain)
            errors.append(verdict.error)
            choices.append(verdict.choice if verdict.choice == "blend" else f"{verdict.best}")
        between = statistics.variance(gains) if len(gains) > 1 else 0.0
        gain = statistics.mean(gains)
        error = ((statistics.mean(e * e for e in errors) + between) / len(gains)) ** 0.5
        worse += [name] if gain < -2 * error else []
        better += [name] if gain >= 0.05 and gain > 2 * error else []
        print(
            f"{name:14} {gain:7.3f} {error:6.3f} {gain / error if error else 0.0:7.1f} {max(walls):11.2f}  {', '.join(choices)}",
            flush=True,
        )
    print(f"worse than the best single model by more than 2 se: {len(worse)} ({', '.join(worse) or 'none'})")
    print(f"better by 0.05 nats and 2 se: {len(better)} ({', '.join(better) or 'none'})")


if __name__ == "__main__":
    main()
