"""What `mixtura run` costs and brings on adult (32,561 mixed rows): wall time, peak memory, held-out nats; and whether the
Gaussian mixture's ridge moves the ranking (the base measure says it must not).

    python benchmarks/adult.py [--budget 60]
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from real import TABLES

import mixtura
from mixtura.blending.nats import log_probs
from mixtura.families import gaussian_mixture
from mixtura.ground.rng import generator
from mixtura.job.splits import make_splits
from mixtura.job.start import Options, understand


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--budget", type=float, default=60)
    budget = parser.parse_args().budget
    frame = TABLES["adult"]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    study = mixtura.run(frame, budget=budget)
    wall = time.monotonic() - began
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"wall {wall:.1f} s of a budget of {budget:.0f} s ({wall / budget:.2f}), peak memory {peak:.0f} MB over the loaded table"
    )
    print(study.leaderboard[["name", "kind", "nats", "nats_error", "seconds", "converged"]].to_string(index=False))
    print(study.verdict.sentence)

    torch.set_num_threads(1)
    table, schema = understand(frame, Options())
    x = schema.encode(table.frame)
    splits = make_splits(x, seed=0)
    others = {s.name: s.nats for s in study.scores if s.nats is not None and s.name != "gaussian_mixture"}
    rankings = []
    for ridge in (1e-6, 1e-2):
        model = gaussian_mixture.build(schema.space, config=gaussian_mixture.Config(components=32, ridge=ridge), rng=generator(0))
        model.fit_closed(x[splits.fit], None, generator(0))
        nats = float(log_probs(model, x[splits.report], rng=generator(0))[0].mean())
        rankings.append(
            sorted(others | {"gaussian_mixture": nats}, key=lambda name: -(others | {"gaussian_mixture": nats})[name])
        )
        print(f"ridge {ridge:g}: gaussian_mixture {nats:.3f} nats; ranking {' > '.join(rankings[-1])}")
    print("the ridge moves no ranking" if rankings[0] == rankings[1] else "THE RIDGE MOVES THE RANKING")


if __name__ == "__main__":
    main()
