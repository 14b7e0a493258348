"""Kernel sums beside the matrix product they are made of, and exact KID, Vendi and RKE beside other packages, in one run.

    python benchmarks/kernels.py [--rows 20000] [--features 2048] [--rounds 3]

Process CPU time on one thread, medians, memory as the rise of the process's peak. Wanted: the sums of MMD² and RKE at 75 % or
more of the best rate of a product of one tile, with under 0.5 GB beyond the rows; exact KID 1.3 times as fast as the fastest
package that takes all pairs; values equal to theirs within 1e-5. Packages: torch-fidelity, torchmetrics (both also where
torchvision does not load), vendi-score; one that is absent is named and left out.
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib import import_module
from statistics import median
from types import ModuleType
from unittest.mock import MagicMock

import torch
from threadpoolctl import threadpool_limits

from mixtura.ground.kernels import TILE, Cosine, Gaussian, sums
from mixtura.ground.rng import generator
from mixtura.metrics.diversity import vendi_score
from mixtura.metrics.kernel import kid

TORCHVISION = ("", ".models", ".transforms", ".transforms.functional", ".datasets", ".ops", ".utils")


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def medians(rounds: int, **works: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each, taken in turns."""
    taken = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            taken[name].append(seconds(work))
    return {name: median(times) for name, times in taken.items()}


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def product_rate(features: int) -> float:
    """Best multiplications and additions a second of one tile."""
    x, y = (torch.randn(TILE, features, generator=generator(i)) for i in range(2))
    out = torch.empty(TILE, TILE)
    times = math.ceil(2e11 / (2 * TILE**2 * features))
    best = min(seconds(lambda: [torch.mm(x, y.T, out=out) for _ in range(times)]) for _ in range(5))
    return 2 * TILE**2 * features * times / best


@cache
def package(name: str) -> ModuleType | None:
    """The module, if its package is installed. Of torchvision, whose networks are not used here, a dummy will do."""
    try:
        return import_module(name)
    except ImportError:
        print(f"{name}: not installed, left out")
        return None


def stub_torchvision() -> None:
    try:
        import_module("torchvision.models")
    except (ImportError, RuntimeError):
        for part in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[part]
        for part in TORCHVISION:
            sys.modules[f"torchvision{part}"] = MagicMock(__spec__=None)


def features_like(rows: int, features: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    """Non-negative float32, as the last layer of a network gives."""
    return torch.randn(rows, features, generator=generator(seed)).add_(shift).relu_()


def kid_packages() -> dict[str, Callable[[torch.Tensor, torch.Tensor], float]]:
    fidelity, metrics = package("torch_fidelity.metric_kid"), package("torchmetrics.image.kid")
    found = {}
    if fidelity:
        found["torch-fidelity"] = lambda x, y: float(fidelity.kernel_mmd(x.numpy(), y.numpy()))
    if metrics:
        found["torchmetrics"] = lambda x, y: float(metrics.poly_mmd(x, y))
    return found


def speed_of_sums(rows: int, features: int, rounds: int) -> None:
    x, k = features_like(rows, features, 0), Gaussian(math.sqrt(features))
    before = peak_gb()
    sums((x,), k)
    rise = peak_gb() - before
    y, z = x[: rows // 2], x[rows // 2 :]
    rate = product_rate(features)
    taken = medians(rounds, RKE=lambda: sums((x,), k.squared), MMD2=lambda: sums((y, z), k).mmd2([1.0], 1))
    rate = max(rate, product_rate(features))
    print(f"\nsums over {rows:,} x {features:,}: product of one {TILE} x {TILE} tile {rate / 1e9:.0f} GFLOP/s")
    for name, cpu in taken.items():
        share = rows**2 * features / rate / cpu
        print(f"  {name:5} {cpu:6.2f} s, {share:.0%} of the product rate (half of all pairs)")
    print(f"  peak memory beyond the rows {rise:.2f} GB")


def speed_of_kid(rows: int, features: int, rounds: int) -> None:
    x, y = features_like(rows, features, 1), features_like(rows, features, 2, shift=0.02)
    works = {name: (lambda f=f: f(x, y)) for name, f in kid_packages().items()}
    taken = medians(rounds, ours=lambda: kid(x, y, rng=generator(0)), **works)
    ours = taken.pop("ours")
    told = "".join(f", {name} {cpu:.2f} s" for name, cpu in taken.items())
    ratio = f": {min(taken.values()) / ours:.2f} times as fast as the fastest" if taken else ""
    print(f"exact KID of {rows:,} x {features:,} twice: ours with its error {ours:.2f} s{told}{ratio}")


def differs(what: str, theirs: float, ours: float) -> None:
    print(f"  {what}: {abs(theirs / ours - 1):.1e}")


def agreement() -> None:
    """With the other packages on float64 features, so that their rounding does not count."""
    print("\nrelative differences")
    x, y = (features_like(1_000, 256, seed, shift).double() for seed, shift in ((3, 0.0), (4, 0.1)))
    for precision, (a, b) in {"float64": (x, y), "float32": (x.float(), y.float())}.items():
        ours = kid(a, b, rng=generator(0)).value
        for name, f in kid_packages().items():
            differs(f"KID of {precision} features, {name} in float64", f(x, y), ours)
    few, k = x[:60], Gaussian(8.0)
    loop = sum(math.exp(-float((a - b).square().sum()) / k.bandwidth**2) for a in few for b in few)
    differs("mean k² of RKE, a loop over all pairs", loop / len(few) ** 2, sums((few,), k.squared).block(0, 0, unbiased=False))
    scores = package("vendi_score.vendi")
    if scores:
        first, second = (vendi_score(x, Cosine(), order=order).value for order in (1, 2))
        differs("Vendi of order 1, cosine, vendi-score", scores.score_dual(x.numpy(), q=1), first)
        differs("Vendi of order 2, cosine, vendi-score", scores.score_dual(x.numpy(), q=2), second)
        gaussian = vendi_score(x, k, order=2).value
        differs("Vendi of order 2, Gaussian, vendi-score", scores.score_K(k(x, x).numpy(), q=2), gaussian)
        differs("Vendi of order 1, vendi-score's score_X asked for order 2", scores.score_X(x.numpy(), q=2), first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--features", type=int, default=2_048)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        speed_of_sums(asked.rows, asked.features, asked.rounds)
        stub_torchvision()
        print()
        for features in (asked.features, 64, 32):
            speed_of_kid(asked.rows // 2, features, asked.rounds)
        agreement()


if __name__ == "__main__":
    main()
