"""The set-ups of Mixture-UCB (Rezaei, Farnia & Li 2025) with mixtura, beside what its authors published.

    python benchmarks/mixture_ucb.py [--only toy readme truncated trap] [--seeds 5]

toy: their 8 Gaussian arms; true RKE of the shares in which arms were asked. Their code reported 5.92 (CAB) and 5.93 (OGD) after
1,000 pulls, of its samples and not of the arms; the best mixture has 6.042.

readme: the example of their README, three Gaussian arms of which the third, around 100, is junk. Their code cannot be imported as
it is; with its constant defined it gives .29 .23 .48, dropping the precision it is passed (has_linear=False).

truncated: 8 arms that draw a few digits each, from training images of MNIST in 64 principal components, in place of StyleGANs
truncated to parts of FFHQ and AFHQ. Published: mixtures of RKE 19.23 from singles of 4.24 to 9.30, and 16.56 from 4.68 to 9.97.

trap: three pretrained generators of digits and one arm of another domain, in place of three generators of FFHQ and CIFAR10: once
pieces of two photographs in black and white, once random squares. Published: RKE alone puts .91 on CIFAR10; with precision
.26 .28 .46 0, with density .16 .28 .56 0.

RKE is 1 / E k(X, X′)², here unbiased, with a Gaussian k. Their bandwidths are not known; where images are compared it is half the
median distance of real ones. ± is a standard error: over seeds of what was learnt online, else of the samples. Gains are of
samples that chose nothing. All of it takes less than three minutes on one thread.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from real import HOME
from selection import Problem, gaussians, of_pools, play, told
from sklearn.datasets import load_sample_images
from threadpoolctl import threadpool_limits
from torch import Tensor

from mixtura.features.extractors import PrincipalComponents
from mixtura.ground.kernels import median_bandwidth
from mixtura.ground.rng import generator
from mixtura.mixing import BestMixture, mix
from mixtura.objectives.terms import RKE, NeighbourDensity, Precision

Bytes = NDArray[np.uint8]

#: digits of every arm of the truncated set-up; images in an arm, and in the reference
DIGITS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (1, 4, 7), (0, 6, 8), (3, 5, 9))
POOL, REAL = 2_000, 3_000
GENERATORS = ("dcgan_ryhan", "gan_mlp_yunhdan", "cwgan_gp_hayato")
TOY_POLICIES = ("variance_ucb", "cab_code", "ogd_code", "uniform", "mixture_oracle")
IMAGE_POLICIES = (
    "variance_ucb", "cab_code", "ogd_code", "uniform", "vanilla_ucb", "successive_halving", "one_arm_oracle", "mixture_oracle",
)  # fmt: skip


def curves(problem: Problem, policies: tuple[str, ...], seeds: int, after: tuple[int, ...]) -> None:
    """True RKE of the shares after some numbers of pulls."""
    m, least = len(problem.f), float(problem.best @ problem.K @ problem.best)
    print(f"{'policy':<20}" + "".join(f"{f'{t:,} pulls':>18}" for t in after))
    for policy in policies:
        shares = [play(problem, policy, seed, after[-1]).shares(m)[np.array(after) - 1] for seed in range(seeds)]
        rke = np.array([1 / (least + problem.excess(each)) for each in shares])
        print(f"{policy:<20}" + "".join(f"{told(list(column), '.3f'):>18}" for column in rke.T), flush=True)


def line(what: str, found: BestMixture) -> None:
    """Weights and terms of one mixture."""
    weights = " ".join(f"{w:.2f}" for w in found.weights)
    terms = ", ".join(f"{name} {value:.3f} ± {error:.3f}" for name, (value, error) in found.terms.items())
    print(f"{what:<24}{weights}   {terms}   gap {found.gap:.0e}", flush=True)


def toy(seeds: int) -> None:
    """The 8 Gaussians."""
    problem = gaussians()[0]
    best = float(problem.best @ problem.K @ problem.best)
    single = 1 / problem.K.diagonal().min()
    print(f"\ntoy: best single arm {single:.3f}, best mixture {1 / best:.3f}; their code reported 5.92, 5.93")
    curves(problem, TOY_POLICIES, seeds, (100, 300, 1_000, 3_000))


def readme() -> None:
    """Three arms, of which one is junk."""
    rng = np.random.default_rng(0)
    arms = {
        "model_0": rng.normal(0.1, 1, size=(200, 5)), "model_1": rng.normal(-0.5, 1, size=(200, 5)),
        "model_2": rng.normal(100, 0.5, size=(200, 5)),
    }  # fmt: skip
    real = torch.as_tensor(rng.normal(0, 0.3, size=(200, 5)))
    print("\nreadme: weights of model_0, model_1, model_2 (junk); their code gives .29 .23 .48")
    line("rke", mix(arms, RKE(10.0)))
    for scale in (0.05, 1.0, 5.0, 25.0):
        line(f"rke + {scale:g} precision", mix(arms, RKE(10.0) + scale * Precision(real)))


# ----------------------------------------------------------------------------------------------------------- images


def as_rows(images: Bytes) -> Tensor:
    """(n, 28, 28) levels → (n, 1, 28, 28) in [0, 1]."""
    return torch.as_tensor(images).float().unsqueeze(1) / 255


class Look:
    """64 principal components of real digits, half the median distance between them, and their features."""

    def __init__(self, real: Bytes) -> None:
        self.components = PrincipalComponents(64)
        self.components.fit(as_rows(real), generator(0, "features"))
        self.real = self(real)
        self.bandwidth = median_bandwidth(self.real, generator(0, "bandwidth")) / 2

    def __call__(self, images: Bytes) -> Tensor:
        return self.components(as_rows(images))


def digits() -> dict[str, NDArray[np.uint8]]:
    """MNIST."""
    with np.load(HOME / "mnist" / "mnist.npz", allow_pickle=False) as file:
        return dict(file)


def truncated(seeds: int) -> None:
    """Arms of a few digits each."""
    data, rng = digits(), np.random.default_rng(0)
    look = Look(data["x_test"][:REAL])
    pools = {}
    for kinds in DIGITS:
        rows = np.flatnonzero(np.isin(data["y_train"], kinds))
        pools["".join(map(str, kinds))] = look(data["x_train"][rng.choice(rows, POOL, replace=False)])
    objective = RKE(look.bandwidth)
    found = mix(pools, objective)
    print(f"\ntruncated: RKE of MNIST digits, {POOL:,} images an arm, k of width {look.bandwidth:.2f}")
    print(f"{'digits':<10}{'RKE':>8}{'weight':>9}{'95 %':>14}")
    for name, pool in pools.items():
        single = mix({name: pool}, objective)
        low, high = (found.intervals_by_name or {})[name]
        print(f"{name:<10}{single.value:>8.2f}{found.by_name[name]:>9.3f}{f'{low:.2f} to {high:.2f}':>14}")
    whole = mix({"all": look(data["x_train"][rng.choice(len(data["x_train"]), POOL, replace=False)])}, objective)
    print(f"mixture {found.value:.2f} ± {found.error:.2f}; all ten digits as they come {whole.value:.2f}; {found.sentence}")
    problem = of_pools("truncated", [pool.numpy() for pool in pools.values()], objective, POOL)
    best = float(problem.best @ problem.K @ problem.best)
    print(f"online, RKE of the shares, with the pools as the truth, V-form: best mixture {1 / best:.3f}")
    curves(problem, IMAGE_POLICIES, seeds, (100, 300, 1_000, POOL))


def photographs(n: int) -> Bytes:
    """(n, 28, 28) pieces of 112×112 pixels of photographs of scikit-learn, made smaller, then black below their median."""
    rng = np.random.default_rng(0)
    greys = [np.asarray(image, dtype=np.float64).mean(2) for image in load_sample_images().images]
    cut = []
    for k in range(n):
        top, left = (int(rng.integers(0, side - 112)) for side in greys[k % 2].shape)
        small = greys[k % 2][top : top + 112, left : left + 112].reshape(28, 4, 28, 4).mean((1, 3))
        cut.append(255 * (small > np.median(small)).astype(np.uint8))
    return np.stack(cut)


def squares(n: int) -> Bytes:
    """(n, 28, 28) images of 7×7 squares, black or white at random."""
    bits = np.random.default_rng(0).integers(0, 2, size=(n, 7, 7))
    return 255 * np.kron(bits, np.ones((4, 4), dtype=np.int64)).astype(np.uint8)


def trap() -> None:
    """An arm of the wrong domain."""
    samples = np.load(HOME / "mnist_generators" / "samples_uint8.npz")
    look = Look(digits()["x_test"][:REAL])
    generators = {name: look(samples[name]) for name in GENERATORS}
    strangers = {"photographs": look(photographs(POOL)), "squares": look(squares(POOL))}
    rke, precision, density = RKE(look.bandwidth), Precision(look.real), NeighbourDensity(look.real)
    print("\ntrap: each alone")
    for name, x in (generators | strangers).items():
        line(name, mix({name: x}, rke + precision + density))
    for name, x in strangers.items():
        arms = generators | {name: x}
        print(f"weights of {', '.join(arms)}; published .91 on the last by rke, then .26 .28 .46 0 and .16 .28 .56 0")
        line("rke", mix(arms, rke))
        for scale in (0.05, 0.1, 0.2):
            line(f"rke + {scale:g} precision", mix(arms, rke + scale * precision))
            line(f"rke + {scale:g} density", mix(arms, rke + scale * density))


@threadpool_limits.wrap(limits=1)
def main() -> None:
    """Print the set-ups asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parts = ("toy", "readme", "truncated", "trap")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "toy" in options.only:
        toy(options.seeds)
    if "readme" in options.only:
        readme()
    try:
        if "truncated" in options.only:
            truncated(options.seeds)
        if "trap" in options.only:
            trap()
    except FileNotFoundError as error:
        print(f"images: skipped, no {error.filename}; set MIXTURA_DATA")


if __name__ == "__main__":
    main()
