"""MNIST, 10,000 images, one budget: bits per dimension and Fréchet distance of every family and of both blends.

    python benchmarks/images.py [--budget 10m] [--samples 5000] [--out runs/mnist]

The run (its own splits of the 10,000) trains and weighs. Judged on test images that no part of it saw: bits per dimension
of 1,000 of them, and the debiased Fréchet distance of samples to all 10,000 in the 64 features of a small classifier
trained here on 20,000 other images. "test" is the distance of as many real training images: what a perfect model gets.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from real import HOME
from torch import nn

import mixtura
from mixtura.blending.nats import log_probs
from mixtura.contracts import density_kind
from mixtura.ground.rng import generator, seeded
from mixtura.job.scoring import bits_per_dimension
from mixtura.metrics.frechet import frechet_distance
from mixtura.metrics.likelihood import mean_nats


def mnist() -> dict[str, np.ndarray]:
    with np.load(HOME / "mnist" / "mnist.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


class Classifier(nn.Sequential):
    """28×28 levels → 10 digits; its last hidden layer has 64 features."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(800, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip

    def features(self, images: np.ndarray) -> torch.Tensor:
        """(n, 28, 28) levels → (n, 64)."""
        x = torch.as_tensor(np.asarray(images, np.float32)).reshape(-1, 1, 28, 28) / 255
        with torch.no_grad():
            return torch.cat([nn.Sequential(*list(self)[:-1])(part) for part in x.split(1000)])


def trained(images: np.ndarray, digits: np.ndarray, epochs: int = 4) -> Classifier:
    with seeded(0):
        net = Classifier()
    rng = generator(0, "classifier")
    x, y = torch.as_tensor(images).float().unsqueeze(1) / 255, torch.as_tensor(digits).long()
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(epochs):
        for part in torch.randperm(len(x), generator=rng).split(128):
            loss = nn.functional.cross_entropy(net(x[part]), y[part])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="10m")
    parser.add_argument("--samples", type=int, default=5_000)
    parser.add_argument("--out", default="runs/mnist")
    asked = parser.parse_args()
    if not (HOME / "mnist").is_dir():
        raise SystemExit(f"no mnist in {HOME}; set MIXTURA_DATA")
    data = mnist()
    net = trained(data["x_train"][20_000:40_000], data["y_train"][20_000:40_000])
    right = (net(torch.as_tensor(data["x_test"]).float().unsqueeze(1) / 255).argmax(1).numpy() == data["y_test"]).mean()
    print(f"classifier trained here: {right:.1%} of the test digits right")
    began = time.monotonic()
    study = mixtura.run(data["x_train"][:10_000], budget=asked.budget, out=asked.out)
    print(f"run: {time.monotonic() - began:.0f} s wall of a budget of {asked.budget}")
    for verdict in study.verdicts.values():
        print(f"  in {verdict.unit}: {verdict.sentence}")
    real = net.features(data["x_test"])
    unseen = torch.as_tensor(data["x_test"][:1_000]).double().unsqueeze(1)
    print(f"\n{'model':<18} {'kind':<6} {'bits/dim':>18} {'Fréchet, classifier':>22}   how the bits were measured")
    everyone = {**study.models, "blend in nats": study.blends["nats"], "blend in MMD²": study.blends["mmd"]}
    for name, fitted in everyone.items():
        kind, bits, how = density_kind(fitted.model), "", ""
        if kind is not None:
            nats, _ = log_probs(fitted.model, unseen, rng=generator(1, name))
            mean = bits_per_dimension(mean_nats(nats.numpy()), fitted.model.space)
            bits = f"{mean.value:.3f} ± {mean.error:.3f}"
            how = getattr(fitted.model, "how", "cell masses")
        distance = frechet_distance(real, net.features(fitted.sample(asked.samples, seed=1)), rng=generator(2, name))
        print(f"{name:<18} {kind or '':<6} {bits:>18} {f'{distance.value:.2f} ± {distance.error:.2f}':>22}   {how}")
    floor = frechet_distance(real, net.features(data["x_train"][40_000 : 40_000 + asked.samples]), rng=generator(2, "floor"))
    print(f"{'training images':<18} {'':<6} {'':>18} {f'{floor.value:.2f} ± {floor.error:.2f}':>22}")
    for score in study.scores:
        if score.status in ("skipped", "failed"):
            print(f"{score.name} {score.status}: {score.reason}")


if __name__ == "__main__":
    main()
