"""The wall time of a run with two workers beside one, and whether the bits agree.

python benchmarks/workers.py [--steps 300] [--workers 2]

On two idle cores at most .65 is wanted: training is shared, reading the file and the verdict are not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from real import TABLES

from mixtura.folder.layout import RunFolder

RUN = """
import sys, mixtura
mixtura.run(sys.argv[1], steps=int(sys.argv[2]), workers=int(sys.argv[3]), out=sys.argv[4])
"""


def seconds(data: Path, steps: int, workers: int, out: Path) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", RUN, str(data), str(steps), str(workers), str(out)], check=True)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "adult.csv"
        TABLES["adult"]().to_csv(data, index=False)
        folders = {workers: Path(place) / str(workers) for workers in (1, asked.workers)}
        spent = {workers: seconds(data, asked.steps, workers, out) for workers, out in folders.items()}
        one, several = (RunFolder(out).bits() for out in folders.values())
    told = ", ".join(f"{workers} workers {took:.1f} s" for workers, took in spent.items())
    print(f"adult.csv, {asked.steps} steps a fit: {told}")
    print(f"ratio {spent[asked.workers] / spent[1]:.2f}; {'the same bits' if one == several else 'DIFFERENT BITS'}")
    sys.exit(0 if one == several else 1)


if __name__ == "__main__":
    main()
