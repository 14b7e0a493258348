"""Real black boxes through `mixtura select`: pools, a command, exported networks, text.

    python benchmarks/real_arms.py [--only pools,command,onnx,text] [--pulls 400]

pools: LeNet features of nine pretrained MNIST generators. command: the images of three of them behind a program that answers on
standard output. onnx: three generators trained here on the digits 0–2, 3–6 and 7–9, exported and driven through onnxruntime;
the mixture should weigh them as MNIST does. text: MiniLM embeddings of six intents. Printed for each: what the default policy
found, and the offline optimum on all samples of the pools. Needs the real data; onnx needs the packages onnx and onnxruntime.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from real import HOME

import mixtura
from mixtura.arms import Arm, Pool, load_arms
from mixtura.families import vae
from mixtura.ground.rng import generator
from mixtura.selection.mixture import begin
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

GENERATORS = (
    "gan_mlp_csinva", "vae_csinva", "vae_pushpgarg", "gan_mlp_yunhdan", "dcgan_ryhan", "wgan_gp_ryhan", "cwgan_gp_hayato",
    "ddpm_yichizz", "ddpm_aug_yichizz",
)  # fmt: skip
INTENTS = ("card_arrival", "top_up_failed", "exchange_rate", "lost_or_stolen_card", "age_limit", "atm_support")
SERVER = """
import json, sys
import numpy as np
images = np.load(sys.argv[1])[sys.argv[2]]
for line in sys.stdin:
    seed = json.loads(line)["seed"]
    print(json.dumps({"sample": images[np.random.default_rng(seed).integers(len(images))].tolist()}), flush=True)
"""


def chosen(title: str, arms: list[Arm], objective: str, pulls: int, reference: torch.Tensor | None = None, **options) -> dict:
    """Select online and say what came of it."""
    began, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        session = begin(arms, Path(scratch) / "run", objective, reference=reference, pulls=pulls, **options)
        for _ in session.conduct():
            pass
        found = session.finish()
        overhead = session.overhead
        session.close()
    took = f"{time.monotonic() - began:.1f} s ({time.process_time() - cpu:.1f} s CPU, {overhead:.1f} s not in arms)"
    print(f"\n{title}: {objective}, {found.pulls} pulls in {took}")
    print(f"  online  {said(found.by_name)}: {found.value:.4g} ± {found.error:.2g} {found.unit}; "
          f"{found.single[0]} alone {found.single[1].value:.4g} ± {found.single[1].error:.2g}")  # fmt: skip
    return found.by_name


def offline(samples: dict[str, np.ndarray], objective: str, **options) -> dict:
    found = mixtura.mix(samples, objective, **options)
    print(f"  offline {said(found.by_name)}: {found.value:.4g} ± {found.error:.2g} {found.unit}; {found.sentence}")
    return found.by_name


def said(weights: dict[str, float]) -> str:
    return " + ".join(f"{w:.2f} {name}" for name, w in sorted(weights.items(), key=lambda item: -item[1]) if w >= 0.005)


def pools(pulls: int) -> None:
    with np.load(HOME / "mnist_generators" / "lenet_feats.npz") as file:
        samples = {name: file[name].astype(np.float64) for name in GENERATORS}
        real = file["test"][:2000].astype(np.float64)
    arms: list[Arm] = [Pool(name, x) for name, x in samples.items()]
    chosen("nine pretrained MNIST generators, LeNet features", arms, "mmd", pulls, torch.as_tensor(real))
    offline(samples, "mmd", reference=real)


def command(pulls: int) -> None:
    with np.load(HOME / "mnist_generators" / "samples_uint8.npz") as file:
        samples = {name: file[name] for name in ("vae_csinva", "dcgan_ryhan", "ddpm_yichizz")}
    with np.load(HOME / "mnist" / "mnist.npz") as file:
        real = file["x_test"][:2000]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "server.py").write_text(SERVER)
        path = str(HOME / "mnist_generators" / "samples_uint8.npz")
        entries = [
            {"name": name, "kind": "command", "command": [sys.executable, "server.py", path, name], "persistent": True,
             "repeatable": True}
            for name in samples
        ]  # fmt: skip
        (place / "arms.json").write_text(json.dumps({"arms": entries}))
        images = torch.as_tensor(real).double().unsqueeze(1)
        chosen("three of them behind a command, images", load_arms(place / "arms.json"), "mmd", pulls, images, extractor="pca:32")
    offline(samples, "mmd", reference=real, features="pca:32")


def onnx(pulls: int) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        print(f"\nonnx: skipped, {error.name} is not installed")
        return
    with np.load(HOME / "mnist" / "mnist.npz") as file:
        x, y = file["x_train"][:10_000], file["y_train"][:10_000]
        real, labels = file["x_test"][:2000], file["y_test"][:2000]
    parts = {"digits 0-2": (0, 2), "digits 3-6": (3, 6), "digits 7-9": (7, 9)}
    with tempfile.TemporaryDirectory() as scratch:
        place, entries = Path(scratch), []
        for i, (name, (low, high)) in enumerate(parts.items()):
            rows = torch.as_tensor(x[(y >= low) & (y <= high)]).double().unsqueeze(1)
            space, rng = mixtura.Space.image(1, 28, 28), generator(i)
            model = vae.build(space, config=vae.Config(latent=16, hidden=(256, 128)), rng=rng)
            for _ in fit(model, rows, Recipe(steps=600, **vae.RECIPE), rng=rng):
                pass
            _export(model, place / f"{i}.onnx")
            entries.append({"name": name, "kind": "onnx", "path": f"{i}.onnx", "noise": "normal", "shape": [1, 16]})
        (place / "arms.json").write_text(json.dumps({"arms": entries}))
        images = torch.as_tensor(real).double().unsqueeze(1)
        chosen("three generators trained here, through onnxruntime", load_arms(place / "arms.json"), "mmd", pulls, images,
               extractor="pca:32")  # fmt: skip
    shares = {name: float(((labels >= low) & (labels <= high)).mean()) for name, (low, high) in parts.items()}
    print(f"  MNIST   {said(shares)}")


class _Decoder(torch.nn.Module):
    """Noise → the mean image of a VAE, in levels."""

    def __init__(self, model: vae.Vae) -> None:
        super().__init__()
        self.model = model
        self.scale, self.centre = model.columns.scale.float(), model.columns.centre.float()

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(1, latent) → (28, 28)."""
        pixels = (self.model.decoder(z) + self.model.level)[:, :784]
        return (pixels * self.scale + self.centre).clamp(0, 255).reshape(28, 28)


def _export(model: vae.Vae, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoder, noise = _Decoder(model).eval(), (torch.zeros(1, model.latent),)
        torch.onnx.export(decoder, noise, str(path), dynamo=False, input_names=["z"], output_names=["x"])


def text(pulls: int) -> None:
    with np.load(HOME / "text_banking77" / "minilm_int8.npz") as file:
        rows = file["emb"].astype(np.float64) * float(file["scale"])
    intent = pd.read_parquet(HOME / "text_banking77" / "banking77.parquet")["category"].to_numpy()
    samples = {name: rows[intent == name] for name in INTENTS}
    arms: list[Arm] = [Pool(name, x) for name, x in samples.items()]
    chosen("six intents of customers of a bank, MiniLM", arms, "rke", min(pulls, 300), bandwidth=0.7)
    offline(samples, "rke", bandwidth=0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="pools,command,onnx,text")
    parser.add_argument("--pulls", type=int, default=400)
    asked = parser.parse_args()
    if not (HOME / "mnist_generators").is_dir():
        print("skipped: no real data; set MIXTURA_DATA")
        return
    torch.set_num_threads(1)
    for name in asked.only.split(","):
        {"pools": pools, "command": command, "onnx": onnx, "text": text}[name](asked.pulls)


if __name__ == "__main__":
    main()
