"""UCI regression, the standard splits: mixture density networks as they come beside what others predict, on the same rows.

    python benchmarks/uci.py [--peers PYTHON] [--sets yacht,kin8nm] [--splits 20] [--methods mixtura,NGBoost] [--results DIR]

Nine sets with the 20 splits (protein 5) of Hernández-Lobato & Adams 2015; one default configuration, nothing chosen per set. As
it was chosen on training rows of these sets, and those of one split are test rows of another, two more stand by, `--sets
california,insurance`, that nothing was ever chosen on.
Peers run in the Python named by --peers, whose packages are not mixtura's (uci_peers.py says what they are and how they are set):

    python -m venv build/peers && build/peers/bin/pip install torch numpy pandas scikit-learn ngboost skpro

Each result is a file of its own in the folder of results, named by method, settings, set and split, and ours by the code of the
fit: what is there is printed and not computed again, so a run may be stopped at any moment. All of it (``--splits 20``) takes
hours on one thread, two of them the peers'. Peers without results have an empty column.

Ranked is the interval likelihood: where y is written in steps of δ, −log(mass of y ± δ/2 / δ) in nats a row, else the density
(kin8nm); the cells of the least and the greatest y are no wider than the others. Point densities, in the units of y, stand beside
published ones at the end: most targets here are rounded, and a density can grow without end on values that repeat. ± is the
standard error of the mean over splits, * the least mean, (7) says of how many splits where some are missing. "Within one standard
error of the best" is about the mean paired difference to the best peer over the splits both have, and its standard error; beside
it stands the count by the standard error of the best peer's own mean.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from real import HOME
from uci_peers import FRESH, METHODS, SPLITS, Key, Mixture, Table, keys, line, options, scores, table

import mixtura
from mixtura import MixtureDensityRegressor
from mixtura.data import lattice

OURS = "mixtura"
#: modules of which a change may change a fit, or what it says
DECIDING = (
    "estimators/mixture_density.py", "estimators/inputs.py", "families/mixture_density.py",
    "ground/distributions.py", "ground/nets/ensemble.py",
    "ground/encode.py", "train/fit.py", "ground/rng.py",
    "data/cells.py",
)  # fmt: skip
#: rows of the table, and the heads of their columns
COLUMNS = {
    OURS: OURS,
    "NGBoost": "NGBoost",
    "deep ensemble, Gaussian": "ensemble",
    "deep ensemble, mixture": "ens. mixture",
    "MC dropout": "MC dropout",
    "skpro MDN": "skpro MDN",
}
NAME, WIDTH = 27, 21
#: point density, nats a row, lower is better. PBP, MC dropout, deep ensemble: table 1 of Lakshminarayanan et al. 2017; NGBoost
#: and deep evidential regression as tabled by the authors of WGBoost
PUBLISHED_METHODS = ("PBP", "MC dropout", "ensemble", "NGBoost", "evidential")
PUBLISHED = {
    "yacht": (1.63, 1.55, 1.18, 0.20, 1.03),
    "bostonHousing": (2.57, 2.46, 2.41, 2.43, 2.35),
    "energy": (2.04, 1.99, 1.38, 0.60, 1.39),
    "concrete": (3.16, 3.04, 3.06, 3.04, 3.01),
    "wine-quality-red": (0.97, 0.93, 0.94, 0.91, 0.89),
    "kin8nm": (-0.90, -0.95, -1.20, -0.49, -1.24),
    "power-plant": (2.84, 2.80, 2.79, 2.79, 2.81),
    "naval-propulsion-plant": (-3.73, -3.80, -5.63, -5.34, -5.73),
    "protein-tertiary-structure": (2.97, 2.89, 2.83, 2.81, 2.63),
}


def resolution(y: np.ndarray) -> float:
    """The step δ in which y is written; 0 where there is none of six decimals or fewer."""
    found = lattice.lattice(y, y.dtype)
    return found[1] / 10 ** found[0] if found else 0.0


# ------------------------------------------------------------------------------------------------------------------- ours


@cache
def code_of_a_fit() -> str:
    """A hash of the modules that decide what a fit comes to, comments, layout and docstrings aside."""
    home, seen = Path(mixtura.__file__).parent, hashlib.sha256()
    for name in DECIDING:
        tree = ast.parse((home / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        seen.update(ast.dump(tree).encode())
    return seen.hexdigest()[:12]


def our_key(name: str, split: int) -> Key:
    settings = MixtureDensityRegressor().get_params() | {"random_state": split, "code": code_of_a_fit()}
    return Key(OURS, json.loads(json.dumps(settings)), name, split)


def measure(data: Table, number: int, step: float, results: Path) -> None:
    """Fit the default network and score it, unless the result is there."""
    key, split = our_key(data.name, number), data.split(number)
    if key.path(results).exists():
        return
    began = time.process_time()
    model = MixtureDensityRegressor(random_state=number).fit(split.x, split.y)
    trained = time.process_time()
    predicted = answer(model, split.test_x)
    took = {"fit": trained - began, "predict": time.process_time() - trained}
    found = scores(predicted, split.test_y, step)
    versions = {"torch": torch.__version__}
    told = {"scores": found, "resolution": step, "seconds": took, "chosen": {}, "versions": versions}
    key.write(results, told | {"rows": [len(split.y), len(split.test_y)]})
    print(f"{data.name:28}{number:3}  {line(OURS, found)}{took['fit']:7.1f} s", flush=True)


def write_fresh(name: str, results: Path) -> None:
    """A set that no setting was chosen on, its complete rows: a tenth of them, drawn anew for each split, to test on."""
    file, target = {"california": ("california_housing", "median_house_value"), "insurance": ("insurance", "charges")}[name]
    frame = pd.read_parquet(HOME / "tables" / f"{file}.parquet").dropna()
    y = frame.pop(target).to_numpy(np.float64)
    x = pd.get_dummies(frame, dtype=float).to_numpy()
    orders = [np.random.default_rng(split).permutation(len(y)) for split in range(FRESH[name])]
    tested = np.array([order < len(y) // 10 for order in orders])
    np.savez(results / f"{name}.npz", X=x, y=y, test_mask_packed=np.packbits(tested, axis=1))


def answer(model: MixtureDensityRegressor, x: np.ndarray) -> Mixture:
    """What the network predicts at x (n, d), in the units of y."""
    law = model.distribution(x)
    return Mixture(*(part.double().numpy() for part in (law.weights, law.means[..., 0], law.deviations[..., 0])))


# ------------------------------------------------------------------------------------------------------------------ table


@dataclass(frozen=True)
class Cell:
    """One method on one set: split → the value of one score."""

    values: dict[int, float]

    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))

    def error(self) -> float:
        """Standard error of the mean over splits; NaN for one."""
        return _error(list(self.values.values()))

    def minus(self, other: Cell) -> tuple[float, float]:
        """Mean paired difference over the splits both have, and its standard error."""
        differences = [value - other.values[split] for split, value in self.values.items() if split in other.values]
        return (float(np.mean(differences)), _error(differences)) if differences else (math.nan, math.nan)


def _error(values: list[float]) -> float:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


Scores = dict[str, dict[str, dict[int, dict[str, Any]]]]
"""set → method → split → result"""


def gathered(sets: list[str], splits: int, results: Path) -> Scores:
    """The results that are there, of the present settings only."""
    found: Scores = {}
    for name in sets:
        rows = found[name] = {column: {} for column in COLUMNS}
        sizes = (~table(name, results).tested).sum(1)
        for number in range(min(splits, SPLITS[name])):
            wanted = [our_key(name, number)] + [k for m in METHODS for k in keys(m, name, int(sizes[number]), number)]
            for key in wanted:
                if (result := key.read(results)) is not None:
                    rows[key.method][number] = result
    return found


def cells_of(rows: dict[str, dict[int, dict[str, Any]]], value: Callable[[dict[str, Any]], float]) -> dict[str, Cell]:
    """Method → its cell, where it has results."""
    return {m: Cell({split: value(result) for split, result in by.items()}) for m, by in rows.items() if by}


def ranked(result: dict[str, Any]) -> float:
    """Negative interval nats, or those of the density where y has no step."""
    found = result["scores"]
    return -(found["nats"] if found["interval"] is None else found["interval"])


def said(cell: Cell | None, best: bool, full: int) -> str:
    """Mean ± se with two digits of the error."""
    if cell is None:
        return "-"
    mean, error = cell.mean(), cell.error()
    digits = min(max(1 - math.floor(math.log10(error)), 0), 6) if error > 0 and math.isfinite(error) else 3
    around = "" if math.isnan(error) else f"±{error:.{digits}f}"
    part = "" if len(cell.values) == full else f" ({len(cell.values)})"
    return f"{mean:.{digits}f}{around}{part}{'*' if best else ' '}"


def block(title: str, found: Scores, splits: int, value: Callable[[dict[str, Any]], float]) -> None:
    print(f"\n{title:<{NAME}}" + "".join(f"{head:>{WIDTH}}" for head in COLUMNS.values()))
    for name, rows in found.items():
        of_methods = cells_of(rows, value)
        best = min(of_methods, key=lambda m: of_methods[m].mean(), default=None)
        told = [said(of_methods.get(m), m == best, min(splits, SPLITS[name])) for m in COLUMNS]
        print(f"{name:<{NAME}}" + "".join(f"{text:>{WIDTH}}" for text in told))


class Standing(NamedTuple):
    """Ours beside the best peer on one set: mean paired difference of the ranked NLL, its standard error and the peer's."""

    best: str
    difference: float
    paired: float
    plain: float


def standing(of_methods: dict[str, Cell]) -> Standing | None:
    """None where ours has no split in common with a peer."""
    ours = of_methods.get(OURS, Cell({}))
    peers = {m: cell for m, cell in of_methods.items() if m != OURS and ours.values.keys() & cell.values.keys()}
    if not peers:
        return None
    best = min(peers, key=lambda m: peers[m].mean())
    return Standing(best, *ours.minus(peers[best]), peers[best].error())


def verdict(found: Scores) -> None:
    """On how many sets ours is the best or within one standard error of it."""
    beside = {name: stands for name, rows in found.items() if (stands := standing(cells_of(rows, ranked)))}
    print("\nranked NLL, ours minus the best peer, paired over splits")
    for name, stands in beside.items():
        print(f"{name:<{NAME}}{stands.difference:+9.4f} ± {stands.paired:.4f}   to {stands.best}, itself ± {stands.plain:.4f}")
    paired, plain = (sum(s.difference <= max(0, getattr(s, kind)) for s in beside.values()) for kind in ("paired", "plain"))
    print(f"best or within one standard error of the best: {paired} of {len(beside)} sets by the error of the paired difference,")
    print(f"{plain} of {len(beside)} by that of the best peer's mean")


def report(found: Scores, splits: int) -> None:
    block("interval NLL, nats a row", found, splits, ranked)
    block("RMSE of the mean", found, splits, lambda result: result["scores"]["rmse"])
    block("CRPS", found, splits, lambda result: result["scores"]["crps"])
    verdict(found)
    block("point density NLL, nats", found, splits, lambda result: -result["scores"]["nats"])
    if known := [name for name in found if name in PUBLISHED]:
        print(f"\n{'published, point density':<{NAME}}" + "".join(f"{head:>{WIDTH}}" for head in PUBLISHED_METHODS))
    for name in known:
        print(f"{name:<{NAME}}" + "".join(f"{nats:>{WIDTH}.2f}" for nats in PUBLISHED[name]))
    block("CPU seconds of a fit", found, splits, lambda result: result["seconds"]["fit"])


def main() -> None:
    parser = options()
    parser.description = "mixture density networks on the UCI regression sets"
    parser.add_argument("--methods", default=",".join((OURS, *METHODS)))
    parser.add_argument("--peers", metavar="PYTHON", help="the interpreter in which the peers run")
    asked = parser.parse_args()
    if not (HOME / "uci_regression").is_dir():
        print(f"uci: skipped, no {HOME / 'uci_regression'}; set MIXTURA_DATA")
        return
    torch.set_num_threads(1)
    sets, methods = asked.sets.split(","), asked.methods.split(",")
    asked.results.mkdir(parents=True, exist_ok=True)
    for name in FRESH:
        write_fresh(name, asked.results)
    steps = {name: resolution(table(name, asked.results).y) for name in SPLITS}
    (asked.results / "resolution.json").write_text(json.dumps(steps, indent=1))
    if asked.peers:
        run_peers(asked, [m for m in methods if m != OURS])
    if OURS in methods:
        for name in sets:
            data = table(name, asked.results)
            for number in range(min(asked.splits, SPLITS[name])):
                measure(data, number, steps[name], asked.results)
    report(gathered(sets, asked.splits, asked.results), asked.splits)


def run_peers(asked: argparse.Namespace, methods: list[str]) -> None:
    program = Path(__file__).with_name("uci_peers.py")
    command = [asked.peers, str(program), "--sets", asked.sets, "--splits", str(asked.splits)]
    subprocess.run([*command, "--results", str(asked.results), "--methods", ",".join(methods)], check=True)


if __name__ == "__main__":
    main()
