"""Pictures in the families with a density: bits a dimension, and seconds to train, to score and to draw 1,000 images.

    python benchmarks/pixels.py [--only digits,mnist,colour] [--families marginals,flow]

One core, CPU seconds. A family trains for the share of a run's time given with each set; 1,000 images are drawn and scored
(a bound by four times its draws, as a study does). Then incremental sampling beside what a pass a value would take.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from real import HOME
from torch import Tensor

from mixtura.blending.nats import log_probs
from mixtura.contracts import ClosedForm, Estimate, InputError, Space, density_kind
from mixtura.data import examples
from mixtura.families import TABLE
from mixtura.families.autoregressive import Config, PixelModel
from mixtura.ground.nets.pixels import PixelWalk
from mixtura.ground.rng import generator
from mixtura.job.scoring import bits_per_dimension
from mixtura.metrics.likelihood import mean_nats
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

Pictures = tuple[Space, Tensor, Tensor]


def digits() -> Pictures:
    """8×8, 17 levels: 1,078 fit rows and 719 others."""
    with np.load(examples.path("digits"), allow_pickle=False) as file:
        x = torch.as_tensor(file[file.files[0]].astype(np.float64)).reshape(-1, 1, 8, 8)
    x = x[torch.randperm(len(x), generator=generator(0, "digits"))]
    return Space.image(1, 8, 8, low=0, high=16), x[:1_078], x[1_078:]


def mnist() -> Pictures:
    """28×28, 256 levels: 8,000 fit rows and 1,000 others."""
    with np.load(HOME / "mnist" / "mnist.npz", allow_pickle=False) as file:
        x = torch.as_tensor(file["x_train"][:9_000].astype(np.float64)).reshape(-1, 1, 28, 28)
    return Space.image(1, 28, 28), x[:8_000], x[8_000:]


def colour() -> Pictures:
    """3×32×32, a disc of one colour on another, no noise: 300 fit rows and 200 others."""
    u = torch.rand(500, 9, generator=generator(0, "discs"), dtype=torch.float64)[:, :, None, None]
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    inside = (y - 8 - 16 * u[:, :1]) ** 2 + (x - 8 - 16 * u[:, 1:2]) ** 2 < (4 + 6 * u[:, 2:3]) ** 2
    pictures = torch.where(inside, (255 * u[:, 3:6]).round(), (255 * u[:, 6:9]).round())
    return Space.image(3, 32, 32), pictures[:300], pictures[300:]


#: pictures → where they come from, and seconds of training
SETS: dict[str, tuple[Callable[[], Pictures], float]] = {"digits": (digits, 8.0), "mnist": (mnist, 60.0), "colour": (colour, 8.0)}


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and the CPU seconds it took."""
    began = time.process_time()
    return work(), time.process_time() - began


def fitted(family: str, space: Space, x: Tensor, seconds: float) -> Any:
    row, rng = TABLE[family], generator(0, family)
    # a run shares its time among about six families
    model = row.build(space, config=row.suggest(space, len(x), 6 * seconds), rng=rng)
    if isinstance(model, ClosedForm):
        model.fit_closed(x, None, rng)
        return model.eval()
    settings: dict[str, Any] = {**row.recipe, **(model.recipe if isinstance(model, PixelModel) else {})}
    for _ in fit(model, x, Recipe(seconds=seconds, **settings), rng=rng):
        pass
    return model


def table(name: str, families: list[str]) -> None:
    load, seconds = SETS[name]
    space, x, unseen = load()
    for family in families:
        try:
            model, training = timed(lambda family=family: fitted(family, space, x, seconds))
        except InputError as error:
            print(f"{name:8} {family:18} {error}", flush=True)
            continue
        (nats, _), scoring = timed(lambda model=model: log_probs(model, unseen, rng=generator(1)))
        _, drawing = timed(lambda model=model: model.sample(1_000, rng=generator(2)))
        bits = cast(Estimate, bits_per_dimension(mean_nats(nats.numpy()), space))
        scoring *= 1_000 / len(unseen)
        print(
            f"{name:8} {family:18} {density_kind(model):6} {bits.value:7.3f} ± {bits.error:.3f} bits   "
            f"{training:6.1f} s trained {scoring:6.1f} s scored {drawing:6.1f} s drawn",
            flush=True,
        )


def incremental(n: int = 100) -> None:
    """Drawing n MNIST-sized images value by value, beside one forward pass, and beside a pass a value."""
    space = Space.image(1, 28, 28)
    model = PixelModel(space, None, cast(Config, TABLE["autoregressive"].suggest(space, 8_000)), generator(0)).eval()
    walk, x = PixelWalk(model.net, n), torch.zeros(n, 1, 28, 28)
    with torch.no_grad():
        _, once = timed(lambda: model.net(x))
        _, walked = timed(lambda: [walk.outputs(0, i, j) for i, j in itertools.product(range(28), range(28))])
    print(
        f"\n{n} images of 784 values: one pass {once:.2f} s, incremental {walked:.2f} s ({walked / once:.1f} passes), "
        f"a pass a value {784 * once:.0f} s: {784 * once / walked:.0f} times as long"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="digits,mnist,colour")
    parser.add_argument("--families", default="marginals,gaussian_mixture,kde,flow,autoregressive")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.only.split(","):
        if name == "mnist" and not (HOME / "mnist").is_dir():
            print(f"no mnist in {HOME}; set MIXTURA_DATA")
        else:
            table(name, asked.families.split(","))
    incremental()


if __name__ == "__main__":
    main()
