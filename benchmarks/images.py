"""MNIST, 10,000 images, one budget: bits per dimension, Fréchet distance and boosted C2ST of every family and of both blends.

    python benchmarks/images.py [--budget 300s] [--workers 2] [--samples 2000] [--out runs/mnist] [--grid docs/mnist.png]

The run (its own splits of the 10,000) trains and weighs. Judged on test images that no part of it saw: bits per dimension of
1,000 of them, the debiased Fréchet distance of samples to all 10,000 in the 64 features of a small classifier trained here on
20,000 other images, and the cross-validated AUC of boosted trees (scikit-learn) that tell samples from as many test images by
64 principal components. "training images" is what as many real ones, which the run did not see, get: what a perfect model gets.
``--heun 5 8 12`` judges the diffusion model with so many steps of its sampler as well. ``--grid`` draws samples of the verdict's
choice. To judge another version of mixtura, put its src first on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from PIL import Image
from real import HOME
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import nn

import mixtura
from mixtura.blending.nats import log_probs
from mixtura.contracts import density_kind
from mixtura.ground.rng import generator, seeded
from mixtura.job.scoring import bits_per_dimension
from mixtura.metrics.frechet import frechet_distance
from mixtura.metrics.likelihood import mean_nats

#: principal components that the boosted trees see
COMPONENTS = 64


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


def boosted_c2st(real: np.ndarray, made: np.ndarray) -> float:
    """AUC of boosted trees on five held-out folds, of images (n, 28, 28) in principal components of the real ones."""
    n = min(len(real), len(made))
    real, made = (np.asarray(images[:n], np.float32).reshape(n, -1) for images in (real, made))
    components = PCA(COMPONENTS, random_state=0).fit(real)
    x, y = np.concatenate([components.transform(real), components.transform(made)]), np.arange(2 * n) < n
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    said = cross_val_predict(HistGradientBoostingClassifier(random_state=0), x, y, cv=folds, method="predict_proba")
    return float(roc_auc_score(y, said[:, 1]))


def draw_grid(images: np.ndarray, path: str, across: int = 20, down: int = 10) -> None:
    """Write a picture of the first images."""
    rows = np.asarray(images[: across * down]).reshape(down, across, 28, 28).clip(0, 255).astype(np.uint8)
    Image.fromarray(rows.transpose(0, 2, 1, 3).reshape(down * 28, across * 28)).quantize(16).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="300s")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--grid")
    parser.add_argument("--heun", type=int, nargs="*", default=[], help="judge the diffusion model with so many steps")
    parser.add_argument("--out", default="runs/mnist")
    asked = parser.parse_args()
    if not (HOME / "mnist").is_dir():
        raise SystemExit(f"no mnist in {HOME}; set MIXTURA_DATA")
    data = mnist()
    net = trained(data["x_train"][20_000:40_000], data["y_train"][20_000:40_000])
    right = (net(torch.as_tensor(data["x_test"]).float().unsqueeze(1) / 255).argmax(1).numpy() == data["y_test"]).mean()
    print(f"classifier trained here: {right:.1%} of the test digits right")
    began = time.monotonic()
    study = mixtura.run(data["x_train"][:10_000], budget=asked.budget, workers=asked.workers, out=asked.out)
    print(f"run: {time.monotonic() - began:.0f} s wall of a budget of {asked.budget}, {asked.workers} workers")
    for verdict in study.verdicts.values():
        print(f"  in {verdict.unit}: {verdict.sentence}")
    real = net.features(data["x_test"])
    unseen = torch.as_tensor(data["x_test"][:1_000]).double().unsqueeze(1)
    test = data["x_test"][np.random.default_rng(0).permutation(len(data["x_test"]))[: asked.samples]]

    def judged(images: np.ndarray, name: str) -> str:
        distance = frechet_distance(real, net.features(images), rng=generator(2, name))
        return f"{f'{distance.value:.2f} ± {distance.error:.2f}':>22} {boosted_c2st(test, images):>6.3f}"

    print(f"\n{'model':<18} {'kind':<6} {'bits/dim':>18} {'Fréchet, classifier':>22} {'C2ST':>6}   how the bits were measured")
    everyone = {**study.models, "blend in nats": study.blends["nats"], "blend in MMD²": study.blends["mmd"]}
    for name, fitted in everyone.items():
        kind, bits, how = density_kind(fitted.model), "", ""
        if kind is not None:
            nats, _ = log_probs(fitted.model, unseen, rng=generator(1, name))
            mean = bits_per_dimension(mean_nats(nats.numpy()), fitted.model.space)
            bits = f"{mean.value:.3f} ± {mean.error:.3f}"
            how = getattr(fitted.model, "how", "cell masses")
        print(f"{name:<18} {kind or '':<6} {bits:>18} {judged(fitted.sample(asked.samples, seed=1), name)}   {how}", flush=True)
    others = data["x_train"][40_000 : 40_000 + asked.samples]
    print(f"{'training images':<18} {'':<6} {'':>18} {judged(others, 'training images')}")
    if asked.grid:
        draw_grid(study.best.sample(200, seed=2), asked.grid)
    for steps in asked.heun:
        model = study.models["diffusion"].model
        model.config = model.config.model_copy(update={"sampler": "heun", "sampler_steps": steps})
        images = study.models["diffusion"].sample(asked.samples, seed=1)
        print(f"{f'diffusion, {steps} steps':<18} {'':<6} {'':>18} {judged(images, 'diffusion')}", flush=True)
    for score in study.scores:
        if score.status in ("skipped", "failed"):
            print(f"{score.name} {score.status}: {score.reason}")
        elif score.seconds is not None:
            print(f"{score.name}: {score.seconds:.0f} s, {score.steps} steps; {score.sample_ms / 1e3:.1f} s for 1,000 samples")


if __name__ == "__main__":
    main()
