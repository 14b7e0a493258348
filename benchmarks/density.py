"""Exact discrete densities against the literature: binarised MNIST with a one-layer MADE of 500 units, and nltcs.

    python benchmarks/density.py [--only nltcs,mnist]

Nats a test row, lower is better. Published: MADE-500, one hidden layer, 94.5 (pytorch-made README) and 88.4 with 8,000
units (Germain et al. 2015); nltcs: Chow-Liu 6.76, mixture of Bernoullis 6.02, RAT-SPN 6.011, EiNet 6.015.
"""

from __future__ import annotations

import argparse
import time
from typing import cast

import numpy as np
import torch
from real import binary

from mixtura.blending.nats import log_probs
from mixtura.contracts import ClosedForm, Space
from mixtura.families import TABLE
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe


def measure(name: str, family: str, config: dict, recipe: dict | None = None) -> float:
    """Fit on train (and valid, of which fit takes its own slice), score test."""
    train, valid, test = (torch.from_numpy(part).double() for part in binary(name))
    space = Space.levels(train.shape[1], levels=2)
    row, rng = TABLE[family], generator(0)
    model = row.build(space, config=row.config(**config), rng=rng)
    began = time.process_time()
    if isinstance(model, ClosedForm):
        model.fit_closed(torch.cat([train, valid]), None, rng)
        how = f"{len(cast(torch.Tensor, model.weights))} components"
    else:
        settings = Recipe(**(recipe or {}))
        *_, step = fit(model, torch.cat([train, valid]), settings, rng=rng)
        how = f"{step.step} steps of {settings.batch}{'' if step.converged else ' (not converged)'}"
    nats, _ = log_probs(model, test, rng=rng)
    error = float(nats.std()) / np.sqrt(len(nats))
    print(
        f"{name:16} {family:18} {-float(nats.mean()):8.3f} ± {error:.3f} nats   {time.process_time() - began:6.1f} CPU-s   {how}",
        flush=True,
    )
    return -float(nats.mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="nltcs,mnist")
    only = parser.parse_args().only.split(",")
    torch.set_num_threads(1)
    if "nltcs" in only:
        made = {"hidden": (256, 256), "orderings": 4, "natural": False}
        best = min(
            measure("nltcs", "gaussian_mixture", {"components": 128}),
            measure("nltcs", "autoregressive", made, {"steps": 6_000, "batch": 256, "every": 200}),
        )
        print(f"nltcs: {best:.3f}, {best / 6.015:.4f} of the published mixture of Bernoullis (6.015); wanted 6.03 or less")
    if "mnist" in only:
        made = {"hidden": (500,), "orderings": 1}
        nats = measure(
            "binarized_mnist",
            "autoregressive",
            made,
            {"steps": 12_000, "batch": 128, "every": 400, "rate": 2e-3, "held_out": 0.08},
        )
        print(f"binarised MNIST, MADE-500: {nats:.2f}, {nats / 94.5:.4f} of the published 94.5; wanted 95 or less")


if __name__ == "__main__":
    main()
