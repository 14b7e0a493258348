"""kde with the shares of the levels mixed into its kernel, against all levels alike (Aitchison & Aitken 1976).

    python benchmarks/rare_levels.py [--steps 400]

The same code, rows and seed; only the law that a level changes to differs. Nats a row on the report rows of tables of
../shared/data (or MIXTURA_DATA), with their standard errors, and the difference. About two minutes.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from real import HOME
from torch import Tensor

import mixtura
from mixtura.families import kde

TABLES = ("adult_train32561", "german_credit", "mushrooms", "california_housing", "insurance")
SHARES = kde.KernelDensity._prepare


def all_alike(model: Any, x: Tensor, context: Tensor | None, rng: torch.Generator) -> None:
    """Prepared as usual, but with 1/k in the place of the share of each of k levels."""
    SHARES(model, x, context, rng)
    even = [torch.full_like(group, 1 / len(group)).log() for group in model._groups(model.log_share)]
    model.log_share = torch.cat([model.log_share[:0], *even])


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--steps", type=int, default=400)
    steps = asked.parse_args().steps
    if not (HOME / "tables").exists():
        print(f"rare levels: no tables in {HOME}; set MIXTURA_DATA")
        return
    print(f"{'table':20} {'shares':>18} {'all alike':>18} {'gained':>8}")
    for name in TABLES:
        found = []
        for prepare in (SHARES, all_alike):
            kde.KernelDensity._prepare = prepare
            study = mixtura.run(HOME / "tables" / f"{name}.parquet", families=["kde"], steps=steps)
            found.append(next(score for score in study.scores if score.name == "kde"))
        shown = [f"{score.nats:.3f} ± {score.nats_error:.3f}" for score in found]
        print(f"{name:20} {shown[0]:>18} {shown[1]:>18} {found[0].nats - found[1].nats:>+8.3f}", flush=True)
    kde.KernelDensity._prepare = SHARES


if __name__ == "__main__":
    main()
