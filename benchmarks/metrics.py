"""Fréchet distance and the four neighbour metrics beside other packages: bias, agreement, speed, in one run.

    python benchmarks/metrics.py [--rows 10000] [--rounds 3] [--draws 3]

First table: Gaussians whose distance is known. |error| of the plain distance, of FID∞ (Chong & Forsyth 2020: a line in 1/N
through 15 subsets of the generated rows, from a quarter of them to all, against all real rows), of the second-order correction
at the pooled covariance alone, and of ours. Then agreement and process CPU time, one thread, medians, taken in turns. Wanted:
ours nearest to the truth, Fréchet as fast as the fastest package, the four neighbour metrics 1.3 times as fast, values equal
within 1e-5. Packages: torch-fidelity, torchmetrics, clean-fid, prdc; one that is absent is named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from kernels import features_like, medians, package, stub_torchvision
from threadpoolctl import threadpool_limits
from torch import Tensor

from mixtura.ground.rng import generator
from mixtura.metrics.frechet import Moments, frechet_distance, plain_distance
from mixtura.metrics.neighbours import manifold


@dataclass(frozen=True)
class Case:
    """n rows of N(0, diag λ) and of the same law moved by a vector whose square is ``truth``; λᵢ ∝ i^-power, mean 1."""

    features: int
    power: float
    rows: int
    truth: float

    @property
    def variances(self) -> Tensor:
        λ = torch.arange(1, self.features + 1, dtype=torch.float64) ** -self.power
        return λ / λ.mean()

    def draw(self, seed: int) -> tuple[Tensor, Tensor]:
        rng, scale = generator(seed, "frechet"), self.variances.sqrt().float()
        x, y = (torch.randn(self.rows, self.features, generator=rng) * scale for _ in range(2))
        return x, y + math.sqrt(self.truth / self.features)


CASES = (Case(64, 0, 20_000, 0.0976), Case(256, 1, 5_000, 0.2704), Case(256, 0.5, 20_000, 0.2704), Case(1024, 1, 5_000, 0.9616))


def fid_infinity(x: Tensor, y: Tensor, seed: int) -> float:
    rng, real = generator(seed, "subsets"), Moments.of(x)
    sizes = np.linspace(len(y) / 4, len(y), 15).astype(int)
    found = [plain_distance(real, Moments.of(y[torch.randperm(len(y), generator=rng)[:n]])) for n in sizes]
    return float(np.polyfit(1 / sizes, found, 1)[1])


def pooled(x: Tensor, y: Tensor) -> float:
    a, b = Moments.of(x), Moments.of(y)
    λ = torch.linalg.eigvalsh((a.cov + b.cov) / 2).clamp(min=1e-300)
    g = λ.outer(λ) / (λ[:, None] + λ)
    return plain_distance(a, b) - (1 / a.n + 1 / b.n) * float(λ.sum() + (g.sum() + g.trace()) / 2)


def bias(draws: int) -> None:
    ways: dict[str, Callable[[Tensor, Tensor, int], float]] = {
        "plain": lambda x, y, seed: plain_distance(Moments.of(x), Moments.of(y)),
        "FID∞": fid_infinity,
        "pooled": lambda x, y, seed: pooled(x, y),
        "ours": lambda x, y, seed: frechet_distance(x, y, rng=generator(seed)).value,
    }
    print(f"mean |error| of {draws} draws" + "".join(f"{way:>10}" for way in ways) + "     error told")
    for case in CASES:
        pairs = [case.draw(seed) for seed in range(draws)]
        errors = [np.mean([abs(way(*both, seed) - case.truth) for seed, both in enumerate(pairs)]) for way in ways.values()]
        told = np.mean([frechet_distance(*both, rng=generator(0)).error for both in pairs])
        name = f"d{case.features} λ~i^-{case.power:g} n={case.rows}"
        print(f"{name:24}" + "".join(f"{e:10.4f}" for e in errors) + f"{told:15.4f}", flush=True)


def frechet_packages() -> dict[str, Callable[[Tensor, Tensor], float]]:
    fidelity, metrics, clean = (package(n) for n in ("torch_fidelity.metric_fid", "torchmetrics.image.fid", "cleanfid.fid"))
    found = {}
    if fidelity:
        statistics, number = fidelity.fid_features_to_statistics, fidelity.fid_statistics_to_metric
        found["torch-fidelity"] = lambda x, y: number(statistics(x), statistics(y), False)["frechet_inception_distance"]
    if metrics:
        of = lambda x: (x.mean(0), (x - x.mean(0)).T @ (x - x.mean(0)) / (len(x) - 1))  # noqa: E731
        found["torchmetrics"] = lambda x, y: float(metrics._compute_fid(*of(x.double()), *of(y.double())))
    if clean:
        fit = lambda x: (x.numpy().mean(0), np.cov(x.numpy(), rowvar=False))  # noqa: E731
        found["clean-fid"] = lambda x, y: float(np.real(clean.frechet_distance(*fit(x), *fit(y))))
    return found


def neighbour_packages() -> dict[str, Callable[[Tensor, Tensor], dict[str, float]]]:
    prdc, fidelity = package("prdc"), package("torch_fidelity.metric_prc")
    found = {}
    if prdc:
        found["prdc"] = lambda x, y: quietly(lambda: prdc.compute_prdc(x.numpy(), y.numpy(), 5))
    if fidelity:
        options = {"prc_neighborhood": 5, "prc_batch_size": 10_000, "save_cpu_ram": False, "verbose": False}
        found["torch-fidelity"] = lambda x, y: fidelity.prc_features_to_metric(y, x, **options)
    return found


def quietly(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        return work()


def speed(title: str, rounds: int, ours: dict[str, Callable[[], object]], theirs: dict[str, Callable[[], object]]) -> None:
    taken = medians(rounds, **ours, **theirs)
    fastest = min((taken[name] for name in theirs), default=math.nan)
    print(f"\n{title}" + "".join(f"\n  {name:36} {taken[name]:7.2f} s" for name in theirs))
    for name in ours:
        print(f"  {name:36} {taken[name]:7.2f} s   {fastest / taken[name]:.2f} of the fastest package's speed", flush=True)


def frechet(rows: int, rounds: int) -> None:
    x, y = features_like(rows, 2048, 1), features_like(rows, 2048, 2, shift=0.02)
    packages = frechet_packages()
    small = [z[:2000, :256] * 3 + 100 for z in (x, y)]
    plain = frechet_distance(*small, rng=generator(0), plain=True).value
    for name, way in packages.items():
        print(f"\nFréchet, 2,000 x 256: relative difference to {name} {abs(way(*small) / plain - 1):.1e}", end="")
    ours = {
        "ours, the same number": lambda: plain_distance(Moments.of(x), Moments.of(y)),
        "ours, debiased and with its error": lambda: frechet_distance(x, y, rng=generator(0)),
    }
    speed(f"\nFréchet, {rows:,} x 2,048", rounds, ours, {name: lambda way=way: way(x, y) for name, way in packages.items()})


def neighbours(rows: int, features: int, rounds: int) -> None:
    x, y = (torch.randn(rows, features, generator=generator(seed)) * scale for seed, scale in ((1, 1.0), (2, 1.01)))
    packages = neighbour_packages()
    ours = {name: estimate.value for name, estimate in manifold(x, y)._asdict().items()}
    for name, way in packages.items():
        theirs = way(x, y)
        apart = max(abs(value - theirs.get(key, value)) for key, value in ours.items())
        print(f"\n{rows:,} x {features}: largest difference to {name} {apart:.1e}", end="")
    title = f"\nprecision, recall, density, coverage with errors, {rows:,} x {features} (torch-fidelity: the first two)"
    works = {name: lambda way=way: way(x, y) for name, way in packages.items()}
    speed(title, rounds, {"ours": lambda: manifold(x, y)}, works)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    stub_torchvision()
    with threadpool_limits(1):
        bias(options.draws)
        frechet(options.rows, options.rounds)
        for features in (64, 2048):
            neighbours(options.rows, features, options.rounds)


if __name__ == "__main__":
    main()
