"""Energies in the plane by every loss: total variation to the truth on a grid, with seconds; samples; and golden numbers.

    python benchmarks/energies.py [--steps 4000] [--rows 5000] [--losses nce,pcd] [--only plane,golden]

plane: total variation of exp(−E), normalised on the grid, and of 20,000 samples, counted in cells of a 40 × 40 grid, to the exact
law; the same count of as many exact draws is beside it. Eight Gaussians and two moons; the Gaussian mixture of this library with
as many rows is printed as the peer (16 components).
"""

from __future__ import annotations

import argparse
import time

import torch
import toys

from mixtura.contracts import Space
from mixtura.families import energy, gaussian_mixture
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

CELLS = 40


def counted(law, x: torch.Tensor) -> float:
    """Total variation of the shares of samples in cells to those of the law."""
    points, area = toys.grid(law, 400)
    p = law.log_prob(points).exp() * area
    cell = lambda y: ((y + law.reach) / (2 * law.reach) * CELLS).long().clamp(0, CELLS - 1)  # noqa: E731
    flat = lambda y: cell(y)[:, 0] * CELLS + cell(y)[:, 1]  # noqa: E731
    truth = torch.zeros(CELLS**2, dtype=torch.float64).index_add(0, flat(points), p)
    made = torch.bincount(flat(x), minlength=CELLS**2).double() / len(x)
    return float((truth - made).abs().sum()) / 2


def plane(losses: list[str], steps: int, rows: int) -> None:
    for law in toys.LAWS:
        x = law.sample(rows, generator(0, law.name))
        exact = law.sample(20_000, generator(9, law.name))
        print(f"\n{law.name}, {rows:,} rows, {steps:,} steps; 20,000 exact draws: {counted(law, exact):.3f}")
        print(f"{'':18s}{'TV of exp(−E)':>14s}{'TV of samples':>14s}{'fit s':>8s}{'draw s':>8s}")
        points, _ = toys.grid(law)
        for loss in losses:
            rng = generator(1, loss)
            model = energy.build(Space.continuous(2), config=energy.Config(loss=loss), rng=rng)
            began = time.process_time()
            for _ in fit(model, x, Recipe(**{**energy.RECIPE, "steps": steps}), rng=rng):
                pass
            fitted = time.process_time() - began
            with torch.no_grad():
                found = toys.total_variation(law, model.columns.log_jacobian(points) - model.energy(model.columns.encode(points)))
            began = time.process_time()
            samples = model.sample(20_000, rng=rng)
            drawn = time.process_time() - began
            print(f"{loss:18s}{found:14.3f}{counted(law, samples):14.3f}{fitted:8.1f}{drawn:8.1f}", flush=True)
        peer = gaussian_mixture.build(Space.continuous(2), config=gaussian_mixture.Config(components=16), rng=generator(0))
        began = time.process_time()
        peer.fit_closed(x, None, generator(0))
        fitted, made = time.process_time() - began, counted(law, peer.sample(20_000, rng=generator(0)))
        print(f"{'gaussian_mixture':18s}{toys.total_variation(law, peer.log_prob(points)):14.3f}{made:14.3f}{fitted:8.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--losses", default=",".join(energy.LOSSES))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    plane(asked.losses.split(","), asked.steps, asked.rows)


if __name__ == "__main__":
    main()
