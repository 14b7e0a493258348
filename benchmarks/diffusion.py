"""Diffusion: what train.fit costs over a bare loop, bits and nats after a short budget, and what few steps of Heun lose.

    python benchmarks/diffusion.py [--only speed,digits,mnist,penguins,adult,heun]

All on one thread. speed: training steps per CPU second through train.fit, with its validation, clipping and average, over
those of the same network in a bare loop with the same loss formula; wanted 0.9 or more. digits and mnist: bits per dimension
of 500 unseen images after 8 and 80 seconds of CPU; penguins and adult: nats of unseen rows after 5. heun: MMD² of 1,000 sampled
digits to 800 unseen ones, in 16 principal components, beside ancestral sampling and beside real digits with real digits.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from real import HOME, TABLES
from torch import nn

from mixtura.blending.nats import log_probs
from mixtura.contracts import ONLY, Batch, Space
from mixtura.data.examples import path
from mixtura.data.guess import guess
from mixtura.families import diffusion
from mixtura.ground.rng import generator
from mixtura.job.scoring import bits_per_dimension
from mixtura.metrics.likelihood import mean_nats
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe


def digits() -> tuple[Space, torch.Tensor]:
    """All 1,797, in an order that is ours."""
    with np.load(path("digits"), allow_pickle=False) as file:
        pixels = torch.as_tensor(file[file.files[0]]).double().reshape(-1, 1, 8, 8)
    return Space.image(1, 8, 8, high=16), pixels[torch.randperm(len(pixels), generator=generator(0, "digits"))]


def mnist() -> tuple[Space, torch.Tensor]:
    """8,000 training images, then 500 test images."""
    with np.load(HOME / "mnist" / "mnist.npz", allow_pickle=False) as file:
        pixels = np.concatenate([file["x_train"][:8_000], file["x_test"][:500]])
    return Space.image(1, 28, 28), torch.as_tensor(pixels).double().unsqueeze(1)


def fitted(space: Space, x: torch.Tensor, seconds: float) -> tuple[diffusion.Diffusion, str]:
    """As a study fits it, in so many seconds of CPU: a busy machine takes longer and measures the same."""
    config = diffusion.suggest(space, len(x), seconds)

    def trained(steps: int) -> tuple[diffusion.Diffusion, int, float]:
        began, rng = time.process_time(), generator(1)
        model = diffusion.build(space, config=config, rng=rng)
        *_, last = fit(model, x, Recipe(**{**diffusion.RECIPE, **model.recipe, "steps": steps}), rng=rng)
        return model, last.step, time.process_time() - began

    trained(20)  # the first steps of a process are slow
    model, steps, spent = trained(int(50 * seconds / trained(50)[2]))
    return model, f"{steps} steps in {spent:.1f} CPU-s"


def bits(name: str, space: Space, x: torch.Tensor, seconds: float) -> None:
    model, how = fitted(space, x[:-500], seconds)
    began = time.process_time()
    nats, _ = log_probs(model, x[-500:], rng=generator(2))
    found = bits_per_dimension(mean_nats(nats.numpy()), space)
    assert found is not None  # pixels have levels
    scoring = time.process_time() - began
    began = time.process_time()
    model.sample(500, rng=generator(3))
    print(
        f"{name:10} {found.value:7.3f} ± {found.error:.3f} bits/dim   {how}; 500 rows scored in {scoring:.1f} CPU-s, "
        f"sampled in {time.process_time() - began:.1f}",
        flush=True,
    )


def nats(name: str, seconds: float) -> None:
    frame = TABLES[name]()
    schema = guess(frame)
    x = schema.encode(frame)
    x = x[torch.randperm(len(x), generator=generator(0, name))]
    held = min(500, len(x) // 4)
    model, how = fitted(schema.space, x[held:], seconds)
    found, error = log_probs(model, x[:held], rng=generator(2))
    mean = mean_nats(found.numpy())
    print(f"{name:10} {mean.value:7.3f} ± {mean.error:.3f} nats (sampling ± {error:.3f})   {how}", flush=True)


def bare(model: diffusion.Diffusion, rows: torch.Tensor, steps: int) -> float:
    """Steps per CPU second of the network alone: noise, forward, weighted squared error and variance, backward, AdamW."""
    optimiser = torch.optim.AdamW(model.net.parameters(), lr=1e-3, fused=True)
    rng = generator(4)
    began = time.process_time()
    for _ in range(steps):
        x = rows[torch.randint(len(rows), (256,), generator=rng)]
        s = torch.exp(1.2 * torch.randn(256, 1, generator=rng) - 0.5)
        y = x + s * torch.randn(x.shape, generator=rng)
        F, ratio = model.net(y * (1 + s**2).rsqrt(), s[:, 0].log(), None)
        plain = s**2 / (1 + s**2)
        D = y / (1 + s**2) - plain.sqrt() * F
        V = plain * (9 * torch.tanh(ratio / 9)).exp()
        error = ((x - D) ** 2 / plain).mean() + 0.1 * ((x - D.detach()) ** 2 / V + (V / plain).log()).mean()
        optimiser.zero_grad()
        error.backward()
        nn.utils.clip_grad_norm_(model.net.parameters(), 5.0)
        optimiser.step()
    return steps / (time.process_time() - began)


def speed(rounds: int = 3, steps: int = 150) -> None:
    space, x = digits()
    config, found = diffusion.Config(width=192, depth=3), []
    for _ in range(rounds):
        model = diffusion.build(space, config=config, rng=generator(5))
        began = time.process_time()
        for _ in fit(model, x, Recipe(steps=steps, **diffusion.RECIPE), rng=generator(6)):
            pass
        ours = steps / (time.process_time() - began)
        model = diffusion.build(space, config=config, rng=generator(5)).train()
        model.prepare({ONLY: Batch(x=x)}, generator(6))
        found.append((ours, bare(model, model.columns.split(x).values.float(), steps)))
    ours, plain = (statistics.median(speeds) for speeds in zip(*found, strict=True))
    ratio = statistics.median(a / b for a, b in found)
    print(f"speed      {ours:.0f} steps per CPU-s through fit, {plain:.0f} bare: ratio {ratio:.2f}; wanted 0.90", flush=True)


def mmd2(real: torch.Tensor, made: torch.Tensor) -> float:
    """Unbiased, Gaussian kernel, the bandwidth the median distance of the real rows."""
    distances = torch.pdist(real)
    kernel = lambda a, b: torch.exp(-torch.cdist(a, b) ** 2 / (2 * distances.median() ** 2))  # noqa: E731
    within = lambda a: (kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1))  # noqa: E731
    return float(within(real) + within(made) - 2 * kernel(real, made).mean())


def heun(seconds: float) -> None:
    space, x = digits()
    model, how = fitted(space, x[:-800], seconds)
    flat = x.flatten(1)
    basis = torch.linalg.svd(flat[:-800] - flat[:-800].mean(0))[2][:16].T
    look = lambda images: (images.flatten(1) - flat.mean(0)) @ basis  # noqa: E731
    real = look(x[-800:])
    print(f"heun       {how}; real digits beside real digits: MMD² {mmd2(real, look(x[:800])):.5f}")
    for sampler, steps in (*(("heun", k) for k in (3, 5, 8, 12, 24)), ("ddim", 24), ("ancestral", model.steps)):
        model.config = model.config.model_copy(update={"sampler": sampler, "sampler_steps": steps})
        distance = mmd2(real, look(model.sample(1_000, rng=generator(7))))
        passes = steps * (2 if sampler == "heun" else 1)
        print(f"           {sampler:10} {steps:3} steps, {passes:3} passes: MMD² {distance:.5f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="speed,digits,penguins,adult,heun,mnist")
    only = parser.parse_args().only.split(",")
    torch.set_num_threads(1)
    if "speed" in only:
        speed()
    if "digits" in only:
        bits("digits", *digits(), 8)
    for name in ("penguins", "adult"):
        if name in only:
            nats(name, 5)
    if "heun" in only:
        heun(8)
    if "mnist" in only:
        bits("mnist", *mnist(), 80)


if __name__ == "__main__":
    main()
