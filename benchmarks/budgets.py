"""Does a run keep its budget? Wall time over budget of whole `mixtura run` processes, report included.

    python benchmarks/budgets.py [--budget 60s] [--sets digits,mnist,penguins,adult,colour]

mnist is the first 10,000 training images, colour a folder of 500 PNGs made here, adult needs the real data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from real import HOME

from mixtura.job.options import parse_budget


def colour(place: Path, n: int = 500, size: int = 32) -> Path:
    """A folder of n PNGs: a bright disc of a random colour on a darker ground."""
    rng = np.random.default_rng(0)
    folder = place / "colour"
    folder.mkdir()
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1)
    for i in range(n):
        centre, radius = rng.uniform(8, size - 8, 2), rng.uniform(4, 9)
        inside = (np.square(grid - centre).sum(-1) < radius**2)[..., None]
        image = np.where(inside, rng.integers(120, 256, 3), rng.integers(0, 100, 3)) + rng.normal(0, 6, (size, size, 3))
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / f"{i:04d}.png")
    return folder


def mnist(place: Path) -> Path:
    with np.load(HOME / "mnist" / "mnist.npz", allow_pickle=False) as file:
        np.savez(place / "mnist.npz", images=file["x_train"][:10_000])
    return place / "mnist.npz"


SETS = {
    "digits": lambda place: "digits",
    "mnist": mnist,
    "penguins": lambda place: "penguins",
    "adult": lambda place: HOME / "tables" / "adult_train32561.parquet",
    "colour": colour,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="60s")
    parser.add_argument("--sets", default=",".join(SETS))
    asked = parser.parse_args()
    allowed = parse_budget(asked.budget)
    print(f"{'data':<10} {'wall s':>7} {'of budget':>10}  verdict")
    for name in asked.sets.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                data = SETS[name](Path(scratch))
            except FileNotFoundError as error:
                print(f"{name:<10} skipped: no {error.filename}; set MIXTURA_DATA")
                continue
            began = time.monotonic()
            command = [sys.executable, "-m", "mixtura", "run", str(data), "--budget", asked.budget, "--json"]
            done = subprocess.run([*command, "--out", f"{scratch}/run"], capture_output=True, text=True, check=False)
            wall = time.monotonic() - began
            if done.returncode:
                print(f"{name:<10} {wall:7.1f} failed: {done.stderr.strip().splitlines()[-1]}")
                continue
            result = json.loads(done.stdout)
            assert Path(f"{scratch}/run/report.html").stat().st_size < 3e6
            print(f"{name:<10} {wall:7.1f} {wall / allowed:10.2f}  {result['verdict']['sentence']}")
            for score in result["scores"]:
                if score["status"] in ("skipped", "failed"):
                    print(f"{'':<10} {score['name']} {score['status']}: {score['reason']}")


if __name__ == "__main__":
    main()
