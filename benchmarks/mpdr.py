"""Manifold recovery (MPDR) beside what it should beat: anomalies on the manifold, where an autoencoder does not see them.

    python benchmarks/mpdr.py [plane] [--seeds 2 3 4 5 6] [--methods mpdr,mpdr-s]
    python benchmarks/mpdr.py mnist [--digit 1] [--steps 1500]

plane: rows of eight Gaussians in a plane of R^16, turned at random, with noise of .05; 2,000 rows to learn from, 1,000 others and
1,000 that are uniform in the square of the plane. AUROC, the settings of the library.

mnist: 10,000 images without one digit to learn from; of the test images the others against that digit. AUPR of the digit, pixels
in 0 … 1, perceptrons of 512 and 256 units and 32 latent entries on a sphere, as small as 20 CPU minutes allow; the networks of
the paper are convolutional and train for hours on a GPU.

"pcd" is persistent contrastive divergence by the energy family, with its own settings.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import torch
import toys
from real import HOME
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from mixtura.contracts import Batch, Space
from mixtura.detectors import TABLE, mpdr
from mixtura.detectors.detector import Detector
from mixtura.detectors.nats import OfModel
from mixtura.families import energy
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator
from mixtura.train.fit import Recipe, fit

Task = tuple[Tensor, Tensor, np.ndarray]


def plane(seed: int) -> Task:
    rng, law = generator(seed, "mpdr"), toys.EightGaussians()
    axes = torch.linalg.qr(torch.randn(16, 16, generator=rng, dtype=torch.float64))[0][:2]

    def lifted(points: Tensor) -> Tensor:
        return points @ axes + 0.05 * torch.randn(len(points), 16, generator=rng, dtype=torch.float64)

    learnt, normal = lifted(law.sample(2_000, rng)), lifted(law.sample(1_000, rng))
    odd = lifted(8 * torch.rand(1_000, 2, generator=rng, dtype=torch.float64) - 4)
    return learnt, torch.cat([normal, odd]), np.arange(2_000) >= 1_000


def mnist(digit: int) -> Task:
    with np.load(HOME / "mnist" / "mnist.npz", allow_pickle=False) as file:
        train, labels, test, asked = (file[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    learnt = train[labels != digit][:10_000].reshape(-1, 784) / 255
    return torch.as_tensor(learnt), torch.as_tensor(test.reshape(-1, 784) / 255), asked == digit


def persistent(steps: int) -> Detector:
    def train(x: Tensor, rng: torch.Generator) -> tuple[energy.Model, Columns]:
        space = Space.continuous(x.shape[1])
        encoding = Columns(space)
        encoding.prepare(x)
        model = energy.build(space, encoding=encoding, config=energy.Config(loss="pcd"), rng=rng)
        for _ in fit(model, Batch(x=x), Recipe(**{**energy.RECIPE, "steps": steps}), rng=rng):
            pass
        return model, encoding

    return OfModel(train)


def in_plane() -> Iterator[tuple[str, Callable[[], Detector]]]:
    yield from ((name, TABLE[name].make) for name in ("knn", "dte", "isolation_forest", "autoencoder"))
    yield "pcd", lambda: persistent(2_000)
    yield "mpdr", TABLE["mpdr"].make
    yield "mpdr-s", TABLE["mpdr-s"].make


def of_images(steps: int) -> Iterator[tuple[str, Callable[[], Detector]]]:
    shape = {"latent": (32,), "hidden": (512, 256)}
    yield from ((name, TABLE[name].make) for name in ("knn", "isolation_forest"))
    yield "autoencoder", lambda: mpdr.Reconstruction(mpdr.Settings(**shape, steps=(2_000, 0)))
    yield "pcd", lambda: persistent(2_000)
    yield "mpdr-s", lambda: mpdr.Recovery(mpdr.Settings(**shape, energy="scalar", steps=(2_000, 2 * steps)))
    yield "mpdr", lambda: mpdr.Recovery(mpdr.Settings(**shape, steps=(2_000, steps)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="plane", choices=("plane", "mnist"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4, 5, 6])
    parser.add_argument("--digit", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--methods", help="names with commas between; all by default")
    asked = parser.parse_args()
    torch.set_num_threads(1)

    def wanted(all_of: Iterator[tuple[str, Callable[[], Detector]]]) -> list[tuple[str, Callable[[], Detector]]]:
        return [(name, make) for name, make in all_of if asked.methods is None or name in asked.methods.split(",")]

    if asked.what == "mnist":
        if not (HOME / "mnist").is_dir():
            sys.exit(f"no mnist in {HOME}; set MIXTURA_DATA")
        x, y, odd = mnist(asked.digit)
        print(f"MNIST without {asked.digit}: {len(x):,} images; {odd.sum():,} of {len(odd):,} test images are that digit")
        for name, make in wanted(of_images(asked.steps)):
            began = time.process_time()
            found = make().fit(x, generator(0, name))
            area = average_precision_score(odd, found.score(y))
            print(f"{name:18s} AUPR {area:.3f} {time.process_time() - began:6.0f} CPU s {' '.join(found.notes)}", flush=True)
        return
    areas = defaultdict(list)
    for seed in asked.seeds:
        x, y, odd = plane(seed)
        for name, make in wanted(in_plane()):
            began = time.process_time()
            found = make().fit(x, generator(seed, name))
            areas[name].append(float(roc_auc_score(odd, found.score(y))))
            seconds = time.process_time() - began
            print(f"{seed} {name:18s}{areas[name][-1]:.3f}{seconds:7.0f} CPU s {' '.join(found.notes)}", flush=True)
    print(f"\n{'':18s} AUROC, mean of {len(asked.seeds)} seeds")
    for name, found in areas.items():
        print(f"{name:18s}{np.mean(found):.3f} ± {np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan:.3f}")


if __name__ == "__main__":
    main()
