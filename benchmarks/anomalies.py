"""Anomaly detectors on 21 sets of ADBench, beside PyOD's, and the false alarms of their thresholds.

    python benchmarks/anomalies.py [auroc] [--seeds 3] [--peers PYTHON] [--methods blend,knn] [--out runs/anomalies.jsonl]
    python benchmarks/anomalies.py alarms [--splits 200]     rates of false alarms at 1 %, 5 % and 10 % on five sets
    python benchmarks/anomalies.py cells [--rows 300]        whether the top reason of a row is the cell that was planted
    python benchmarks/anomalies.py known | trim              what ten known anomalies are worth; what leaving rows out is worth
                                                             where 5 % of them are anomalies
    python benchmarks/anomalies.py speed                     seconds of 100,000 rows of 30 columns
    python benchmarks/anomalies.py tune                      how the blend was chosen

auroc: half of the normal rows are learnt from; the other half and all anomalies are ranked. Mean AUROC over sets and seeds, and
the difference to k-NN with a 95 % bootstrap interval over sets. --peers: a Python with PyOD, whose detectors see the same rows,
standardised; without it they are left out. Every result is a line of --out and is not computed again. Published means over these
sets (tables of Livernoche et al. 2024): DTE-NP 82.63, k-NN 82.49.

alarms: rows divided at random: half is learnt from, the other half counted. cells: of adult, german credit and penguins, in rows
that are not learnt from and not called strange (at 5 %) one cell is replaced by a different one of another row; of the rows that
are called strange then, the share whose first reason is that cell.

The blend and its members were chosen by ``tune`` on other sets: nine UCI regression tables with four kinds of synthetic
anomalies, and digits of which one is left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from real import HOME, TABLES
from scipy.stats import rankdata
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from mixtura import AnomalyDetector, InputError

METHODS = (
    "blend", "nearest", "knn", "dte", "dte-c", "isolation_forest", "lof", "ocsvm", "uniform", "autoencoder", "marginals",
    "gaussian_mixture", "circuit",
)  # fmt: skip
PEERS = ("KNN", "IForest", "ECOD", "COPOD", "LOF", "OCSVM", "DeepSVDD")
#: what the peers' Python runs: rows in, scores out
OF_PYOD = """
import sys, time, numpy as np
from importlib import import_module
name, path = sys.argv[1:]
made = getattr(import_module("pyod.models." + {"DeepSVDD": "deep_svdd"}.get(name, name.lower())), name)
data = np.load(path)
more = {"IForest": {"random_state": 0}, "DeepSVDD": {"random_state": 0, "verbose": 0, "n_features": data["x"].shape[1]}}
more = more.get(name, {})
began = time.process_time()
found = made(**more)
found.fit(data["x"])
scores = found.decision_function(data["y"])
print(time.process_time() - began)
np.save(path + ".npy", scores)
"""
LEVELS = (0.01, 0.05, 0.1)


def adbench(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal rows to learn from, rows to rank, and which of these are anomalies."""
    with np.load(HOME / "adbench" / f"{name}.npz") as file:
        x, y = file["X"].astype(float), file["y"]
    normal = np.random.default_rng([seed, 17]).permutation(np.flatnonzero(y == 0))
    half = len(normal) // 2
    asked = np.concatenate([normal[half:], np.flatnonzero(y == 1)])
    return x[normal[:half]], x[asked], y[asked]


def sets() -> list[str]:
    return sorted((path.stem for path in (HOME / "adbench").glob("*.npz")), key=lambda name: int(name.split("_")[0]))


class Results:
    """Lines of a file: a set, a seed and a method, with the AUROC and the CPU seconds."""

    def __init__(self, path: Path) -> None:
        self.path, self.done = path, dict[tuple[str, int, str], dict]()
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text().splitlines() if path.exists() else ():
            found = json.loads(line)
            self.done[found["set"], found["seed"], found["method"]] = found

    def keep(self, key: tuple[str, int, str], **found: float | str | None) -> None:
        self.done[key] = {"set": key[0], "seed": key[1], "method": key[2], **found}
        with self.path.open("a") as file:
            file.write(json.dumps(self.done[key]) + "\n")


def auroc(asked: argparse.Namespace) -> None:
    results, methods = Results(asked.out), asked.methods.split(",")
    for name in sets():
        for seed in range(asked.seeds):
            x, y, labels = adbench(name, seed)
            for method in methods:
                if (key := (name, seed, method)) not in results.done:
                    began = time.process_time()
                    try:
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")
                            scores = -AnomalyDetector(method).fit(x).score_samples(y)
                        results.keep(key, auroc=float(roc_auc_score(labels, scores)), seconds=time.process_time() - began)
                    except InputError as error:
                        results.keep(key, auroc=None, reason=str(error))
            for method in PEERS if asked.peers else ():
                if (key := (name, seed, f"pyod {method}")) not in results.done:
                    results.keep(key, **of_pyod(asked.peers, method, x, y, labels))
            print(f"{name} {seed}", flush=True)
    show(results)


def of_pyod(python: str, method: str, x: np.ndarray, y: np.ndarray, labels: np.ndarray) -> dict[str, float | str | None]:
    scale = StandardScaler().fit(x)
    with tempfile.TemporaryDirectory() as place:
        path = f"{place}/rows.npz"
        np.savez(path, x=scale.transform(x), y=scale.transform(y))
        done = subprocess.run([python, "-c", OF_PYOD, method, path], capture_output=True, text=True)
        if done.returncode:
            return {"auroc": None, "reason": (done.stderr.strip().splitlines() or ["failed"])[-1]}
        scores = np.nan_to_num(np.load(path + ".npy"))
    return {"auroc": float(roc_auc_score(labels, scores)), "seconds": float(done.stdout.split()[-1])}


def show(results: Results) -> None:
    by = defaultdict(lambda: defaultdict(list))
    for (name, _, method), found in results.done.items():
        if found["auroc"] is not None:
            by[method][name].append(100 * found["auroc"])
    means = {method: {name: np.mean(values) for name, values in of.items()} for method, of in by.items()}
    seconds = defaultdict(list)
    for (*_, method), found in results.done.items():
        seconds[method].append(found.get("seconds") or 0.0)
    everywhere = set.intersection(*(set(of) for of in means.values()))
    print(f"\n{'':18s}{'sets':>5s}{'AUROC':>8s}{'common':>8s}{'over knn':>10s}   95 % interval  wins  most CPU s")
    rng = np.random.default_rng(0)
    for method in sorted(means, key=lambda m: -np.mean(list(means[m].values()))):
        of, knn = means[method], means["knn"]
        shared = sorted(set(of) & set(knn))
        apart = np.array([of[name] - knn[name] for name in shared])
        again = apart[rng.integers(len(apart), size=(10_000, len(apart)))].mean(1)
        low, high = np.quantile(again, [0.025, 0.975])
        common = np.mean([of[name] for name in everywhere])
        print(
            f"{method:18s}{len(of):5d}{np.mean(list(of.values())):8.2f}{common:8.2f}{apart.mean():+10.2f}"
            f"   {low:+.2f} … {high:+.2f}  {(apart > 0).sum():4d}  {max(seconds[method]):8.1f}"
        )


# ----------------------------------------------------------------------------------------------------- false alarms


def alarms(asked: argparse.Namespace) -> None:
    """Rates over splits, beside what is promised: at most α, at least α − 1/(m + 1)."""
    for name in ("19_landsat", "29_Pima", "33_skin", "41_Waveform", "47_yeast"):
        with np.load(HOME / "adbench" / f"{name}.npz") as file:
            rows = file["X"].astype(float)[file["y"] == 0]
        found, calibration = defaultdict(list), 0
        for split in range(asked.splits):
            order = np.random.default_rng([split, 3]).permutation(len(rows))[:2_000]
            half = len(order) // 2
            detector = AnomalyDetector(asked.method, random_state=split).fit(rows[order[:half]])
            p, calibration = detector.p_value(rows[order[half:]]), len(detector.calibration_)
            for level in LEVELS:
                found[level].append(float((p <= level).mean()))
        for level in LEVELS:
            rates = np.array(found[level])
            error = rates.std() / np.sqrt(len(rates))
            least = level - 1 / (calibration + 1)
            told = "yes" if least - 2 * error <= rates.mean() <= level + 2 * error else "NO"
            said = f"{rates.mean():.4f} ± {error:.4f}, {least:.4f} … {level} wanted: {told}"
            print(f"{name:12s} α = {level:.2f}: {said}", flush=True)


# ------------------------------------------------------------------------------------------------------ planted cells


def cells(asked: argparse.Namespace) -> None:
    for table in ("adult", "german_credit", "penguins"):
        rows = (TABLES[table]() if table in TABLES else penguins()).sample(frac=1, random_state=1).reset_index(drop=True)[:6_000]
        half, rng = len(rows) // 2, np.random.default_rng(5)
        for method in ("blend", "odd_cells"):
            detector = AnomalyDetector(method).fit(rows[:half])
            names = [field.name for field in detector.schema_.modelled]
            some = rows[half:].reset_index(drop=True)
            some = some[detector.predict(some) > 0].reset_index(drop=True)[: asked.rows].copy()
            planted = rng.choice(names, len(some))
            for row, column in enumerate(planted):
                others = rows[column][rows[column].notna() & (rows[column] != some.at[row, column])]
                some.at[row, column] = others.iloc[rng.integers(len(others))]
            called = detector.predict(some) < 0
            first = detector.explain(some).idxmax(axis=1).to_numpy()
            right, n = (first == planted)[called], called.sum()
            share = right.mean() if n else float("nan")
            error = np.sqrt(share * (1 - share) / max(n, 1))
            said = f"{n} of {len(some)} rows with a replaced cell are called strange, top reason right in {share:.3f}"
            print(f"{table:14s} {method:10s} {said} ± {error:.3f}; of all {(first == planted).mean():.3f}", flush=True)


def penguins() -> pd.DataFrame:
    from mixtura.data.examples import path

    return pd.read_csv(path("penguins"))


# ----------------------------------------------------------------------- known anomalies, anomalies among the rows, speed

KNOWN, DIRTY = 10, 0.05


def known(asked: argparse.Namespace) -> None:
    """AUROC of the other anomalies with and without ``KNOWN`` of them given to the blend."""

    def both(x: np.ndarray, y: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> list[float]:
        some = rng.permutation(np.flatnonzero(labels == 1))[: min(KNOWN, int(labels.sum()) // 2)]
        rest = np.setdiff1d(np.arange(len(y)), some)
        found = (AnomalyDetector(asked.method).fit(x, anomalies=given) for given in (None, y[some]))
        return [float(roc_auc_score(labels[rest], -d.score_samples(y[rest]))) for d in found]

    beside(asked, both, "ten known anomalies")


def trim(asked: argparse.Namespace) -> None:
    """AUROC where ``DIRTY`` of the rows that are learnt from are anomalies, as they are and with so many left out."""

    def both(x: np.ndarray, y: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> list[float]:
        odd = rng.permutation(np.flatnonzero(labels == 1))
        some = odd[: min(len(odd) // 2, int(DIRTY / (1 - DIRTY) * len(x)))]
        rest, mixed = np.setdiff1d(np.arange(len(y)), some), np.concatenate([x, y[some]])
        found = (AnomalyDetector(asked.method, trim=share).fit(mixed) for share in (0.0, len(some) / len(mixed)))
        return [float(roc_auc_score(labels[rest], -d.score_samples(y[rest]))) for d in found]

    beside(asked, both, "anomalies among the rows left out")


def beside(asked: argparse.Namespace, both: Callable[..., list[float]], what: str) -> None:
    found = {}
    for name in sets():
        each = [both(*adbench(name, seed), np.random.default_rng([seed, 23])) for seed in range(asked.seeds)]
        found[name] = 100 * np.mean(each, 0)
        print(f"{name:20s} without {found[name][0]:6.2f}  with {found[name][1]:6.2f}", flush=True)
    apart = np.array([b - a for a, b in found.values()])
    again = apart[np.random.default_rng(0).integers(len(apart), size=(10_000, len(apart)))].mean(1)
    low, high = np.quantile(again, [0.025, 0.975])
    means = np.mean([*found.values()], 0)
    print(f"{what}: AUROC {means[0]:.2f} without, {means[1]:.2f} with, {apart.mean():+.2f} ({low:+.2f} … {high:+.2f})")


def speed(asked: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120_000, 6)) @ rng.normal(size=(6, 30)) + 0.5 * rng.normal(size=(120_000, 30))
    began = time.process_time()
    found = AnomalyDetector(asked.method).fit(x[:20_000])
    fitted = time.process_time()
    found.score_samples(x[20_000:])
    scored = time.process_time() - fitted
    print(f"{asked.method}: 20,000 rows learnt in {fitted - began:.1f}, 100,000 scored in {scored:.1f} CPU s")


# ---------------------------------------------------------------------------------------------------------- tuning


def tuning_sets() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    x, y = load_digits(return_X_y=True)
    for digit in range(10):
        normal = np.random.default_rng(0).permutation(np.flatnonzero(y != digit))
        half, strange = len(normal) // 2, np.flatnonzero(y == digit)
        asked = np.concatenate([normal[half:], strange])
        yield f"digit {digit}", x[normal[:half]], x[asked], np.arange(len(asked)) >= len(normal) - half
    for path in sorted((HOME / "uci_regression").glob("*.npz")):
        with np.load(path) as file:
            rows = np.c_[file["X"], file["y"]]
        rng = np.random.default_rng([0, 5])
        rows = rows[:, rows.std(0) > 0][rng.permutation(len(rows))[:6_000]]
        learnt, normal = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        for kind, strange in synthetic(learnt, normal, len(normal) // 5, rng):
            labels = np.arange(len(normal) + len(strange)) >= len(normal)
            yield f"{path.stem} {kind}", learnt, np.concatenate([normal, strange]), labels


def synthetic(learnt: np.ndarray, normal: np.ndarray, m: int, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Four kinds of anomalies: spread too wide, uniform in the box, columns shuffled, one cell of another row."""
    scale = StandardScaler().fit(learnt)
    wide = GaussianMixture(5, random_state=0, reg_covar=1e-3).fit(scale.transform(learnt))
    wide.covariances_ *= 5
    yield "local", scale.inverse_transform(wide.sample(m)[0])
    low, span = learnt.min(0), np.ptp(learnt, 0)
    yield "global", rng.uniform(low - 0.1 * span, low + 1.1 * span, (m, learnt.shape[1]))
    yield "dependence", np.stack([rng.permutation(column)[:m] for column in normal.T], 1)
    one = normal[rng.permutation(len(normal))[:m]].copy()
    column = rng.integers(one.shape[1], size=m)
    one[np.arange(m), column] = learnt[rng.integers(len(learnt), size=m), column]
    yield "one cell", one


def tune(asked: argparse.Namespace) -> None:
    """Every method and some blends: Fisher's combination and the mean rank among the rows asked for."""
    alone = ("nearest", "knn", "lof", "isolation_forest", "gaussian_mixture", "circuit", "odd_cells")
    some = {
        "nearest + gm": (0, 4), "knn + gm": (1, 4), "nearest + knn + gm + circuit": (0, 1, 4, 5), "knn + gm + circuit": (1, 4, 5),
        "nearest + knn + gm + cells": (0, 1, 4, 6), "knn + lof + forest + gm + circuit": (1, 2, 3, 4, 5),
    }  # fmt: skip
    found = defaultdict(list)
    for name, x, y, labels in tuning_sets():
        p, scores = [], []
        for method in alone:
            detector = AnomalyDetector(method).fit(x)
            scores.append(-detector.score_samples(y))
            p.append(detector.p_value(y))
            found[method].append(100 * roc_auc_score(labels, scores[-1]))
        for title, members in some.items():
            fisher = sum(-np.log(p[k]) + 1e-6 * rankdata(scores[k]) / len(y) for k in members)
            found[f"Fisher: {title}"].append(100 * roc_auc_score(labels, fisher))
        print(name, flush=True)
    knn = np.array(found["knn"])
    for method in sorted(found, key=lambda m: -np.mean(found[m])):
        apart = np.array(found[method]) - knn
        error = apart.std() / np.sqrt(len(apart))
        print(f"{method:40s}{np.mean(found[method]):8.2f}  over knn {apart.mean():+.2f} ± {error:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="auroc", choices=tuple(WHAT))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--method", default="blend")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--peers", help="a Python with PyOD")
    parser.add_argument("--out", type=Path, default=Path("runs/anomalies.jsonl"))
    asked = parser.parse_args()
    if not (HOME / "adbench").is_dir():
        sys.exit(f"no adbench in {HOME}; set MIXTURA_DATA")
    WHAT[asked.what](asked)


WHAT = {"auroc": auroc, "alarms": alarms, "cells": cells, "known": known, "trim": trim, "speed": speed, "tune": tune}


if __name__ == "__main__":
    main()
