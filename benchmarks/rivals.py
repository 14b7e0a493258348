"""Generators of other people for the comparison of benchmarks/tables.py: each reads rows from a CSV file and writes new ones.

    python benchmarks/rivals.py NAME TRAIN.csv OUT.csv ROWS SECONDS SEED '["categorical", "columns"]'

smote and copula are written here. tvae and ctgan (package ctgan) and forest_diffusion (package ForestDiffusion) need a Python
that has them; this file imports nothing of mixtura, so that any Python with numpy, pandas and scikit-learn can run it. Each of
them gets SECONDS to train, where it can be cut short: epochs (300 by default) or noise levels and copies of the rows (50 and 100
by default) are reduced to what fits. Prints the settings.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata
from sklearn.neighbors import NearestNeighbors

#: neighbours of SMOTE, its usual number
NEIGHBOURS = 5
#: seconds of one noise level and one column of ForestDiffusion on one core, and more for each row and copy: roughly
FOREST_DIFFUSION_COST = (0.15, 1.5e-5)


class Unable(RuntimeError):
    """A generator that cannot serve this table, with the reason."""


def numeric(frame: pd.DataFrame, categorical: list[str]) -> list[str]:
    """The other columns."""
    return [name for name in frame if name not in categorical]


def on_steps(new: pd.DataFrame, train: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Columns of whole numbers are rounded to whole numbers."""
    whole = [name for name in names if np.array_equal(train[name].dropna() % 1, np.zeros(train[name].count()))]
    return new.assign(**{name: new[name].round() for name in whole})


def near(frame: pd.DataFrame, categorical: list[str], like: pd.DataFrame) -> np.ndarray:
    """Rows (n, d) in which distances are measured: standardised as ``like``; unequal categories are 1 apart."""
    names = numeric(like, categorical)
    middle, spread = like[names].median(), like[names].std().replace(0, 1)
    levels = {name: sorted(like[name].dropna().unique()) for name in categorical}
    ones = [(frame[name].to_numpy()[:, None] == np.array(levels[name])[None, :]) / np.sqrt(2) for name in categorical]
    return np.concatenate([((frame[names].fillna(middle) - middle) / spread).to_numpy(float), *ones], axis=1)


def smote(train: pd.DataFrame, categorical: list[str], n: int, seconds: float, seed: int) -> tuple[pd.DataFrame, str]:
    """SMOTE-NC on all rows (Chawla et al. 2002, 6.1): a point between a row and one of its neighbours; categories by vote of
    the neighbours."""
    rng, names = np.random.default_rng(seed), numeric(train, categorical)
    x = near(train, categorical, train)
    found = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(x).kneighbors(x, return_distance=False)[:, 1:]
    first = rng.permutation(np.resize(np.arange(len(train)), n))
    second, share = found[first, rng.integers(NEIGHBOURS, size=n)], rng.random((n, 1))
    a, b = train[names].to_numpy(float)[first], train[names].to_numpy(float)[second]
    b = np.where(np.isnan(b), a, b)  # missing where the row's own value is
    new = pd.DataFrame(a + share * (b - a), columns=names)
    for name in categorical:
        codes, levels = pd.factorize(train[name], use_na_sentinel=False)
        votes = (codes[found[first]][:, :, None] == np.arange(len(levels))).sum(1)
        new[name] = np.asarray(levels)[votes.argmax(1)]
    return on_steps(new[list(train)], train, names), f"{NEIGHBOURS} neighbours"


def copula(train: pd.DataFrame, categorical: list[str], n: int, seconds: float, seed: int) -> tuple[pd.DataFrame, str]:
    """A Gaussian copula with empirical margins: normal scores of the ranks; a level is a stretch of the normal distribution.
    Missing numbers are missing at random."""
    rng, scores, margins = np.random.default_rng(seed), [], {}
    for name in train:
        if name in categorical:
            share = train[name].value_counts(normalize=True, dropna=False)
            ends = np.concatenate([[0.0], share.cumsum().to_numpy()])
            code = share.index.get_indexer(train[name])
            u = ends[code] + rng.random(len(train)) * (ends[code + 1] - ends[code])
            margins[name] = (share.index, ends)
        else:
            filled = train[name].fillna(train[name].median())
            u = rankdata(filled + 0.0) / (len(filled) + 1)
        scores.append(norm.ppf(np.clip(u, 1e-6, 1 - 1e-6)))
    correlation = np.nan_to_num(np.corrcoef(scores)) * (1 - 1e-6) + 1e-6 * np.eye(len(scores))
    drawn = norm.cdf(rng.multivariate_normal(np.zeros(len(scores)), correlation, n, method="eigh"))
    new = {}
    for j, name in enumerate(train):
        if name in categorical:
            levels, ends = margins[name]
            new[name] = np.asarray(levels)[np.clip(np.searchsorted(ends, drawn[:, j]) - 1, 0, len(levels) - 1)]
        else:
            values = np.quantile(train[name].dropna(), drawn[:, j])
            new[name] = np.where(rng.random(n) < train[name].isna().mean(), np.nan, values)
    return on_steps(pd.DataFrame(new), train, numeric(train, categorical)), "empirical margins"


def of_ctgan(kind: str) -> Callable[..., tuple[pd.DataFrame, str]]:
    """CTGAN and TVAE (Xu et al. 2019), default settings but for the epochs."""

    def make(train: pd.DataFrame, categorical: list[str], n: int, seconds: float, seed: int) -> tuple[pd.DataFrame, str]:
        import ctgan
        import torch

        torch.manual_seed(seed)
        np.random.seed(seed)
        torch.set_num_threads(1)
        names = numeric(train, categorical)
        train = train.assign(**{name: train[name].fillna(train[name].median()) for name in names})
        train = train.assign(**{name: train[name].fillna("(missing)") for name in categorical})
        taken = []
        for epochs in (1, 6):
            began = time.monotonic()
            _fitted(ctgan, kind, train, categorical, epochs)
            taken.append(time.monotonic() - began)
        each = max((taken[1] - taken[0]) / 5, 1e-3)
        epochs = int(np.clip((seconds - taken[0]) / each, 1, 300))
        new = _fitted(ctgan, kind, train, categorical, epochs).sample(n)
        return new.replace("(missing)", np.nan), f"{epochs} of 300 epochs"

    return make


def _fitted(ctgan, kind: str, train: pd.DataFrame, categorical: list[str], epochs: int):
    model = (ctgan.CTGAN if kind == "ctgan" else ctgan.TVAE)(epochs=epochs, enable_gpu=False)
    model.fit(train, categorical)
    return model


def forest_diffusion(train: pd.DataFrame, categorical: list[str], n: int, seconds: float, seed: int) -> tuple[pd.DataFrame, str]:
    """ForestDiffusion (Jolicoeur-Martineau et al. 2024), flow; noise levels and copies of the rows as the time allows."""
    from ForestDiffusion import ForestDiffusionModel

    names = numeric(train, categorical)
    levels = {name: sorted(train[name].dropna().unique()) for name in categorical}
    codes = {name: pd.Categorical(train[name], levels[name]).codes.astype(float) for name in categorical}
    x = train.assign(**{name: np.where(code < 0, np.nan, code) for name, code in codes.items()}).to_numpy(float)
    width = len(names) + sum(len(some) if len(some) > 2 else 1 for some in levels.values())
    fixed, each = FOREST_DIFFUSION_COST
    noise_levels = int(np.clip(seconds / width / (fixed + 4 * each * len(x)), 10, 50))
    copies = int(np.clip((seconds / width / noise_levels - fixed) / (each * len(x)), 1, 100))
    if (takes := width * noise_levels * (fixed + copies * each * len(x))) > 3 * seconds:
        raise Unable(f"{noise_levels} noise levels and {copies} copies of the rows would take about {takes:.0f} s")
    at = {name: j for j, name in enumerate(train)}
    whole = [name for name in names if np.array_equal(train[name].dropna() % 1, np.zeros(train[name].count()))]
    model = ForestDiffusionModel(
        x, n_t=noise_levels, duplicate_K=copies, n_batch=0, n_jobs=1, seed=seed,
        cat_indexes=[at[name] for name in categorical if len(levels[name]) > 2],
        bin_indexes=[at[name] for name in categorical if len(levels[name]) == 2],
        int_indexes=[at[name] for name in whole],
    )  # fmt: skip
    new = pd.DataFrame(model.generate(batch_size=n), columns=list(train))
    for name in categorical:
        code = new[name].round().fillna(-1).astype(int).clip(-1, len(levels[name]) - 1)
        new[name] = np.where(code < 0, None, np.array(levels[name], dtype=object)[code])
    return new, f"{noise_levels} of 50 noise levels, {copies} of 100 copies of the rows"


TABLE: dict[str, Callable[..., tuple[pd.DataFrame, str]]] = {
    "smote": smote,
    "copula": copula,
    "tvae": of_ctgan("tvae"),
    "ctgan": of_ctgan("ctgan"),
    "forest_diffusion": forest_diffusion,
}
#: those that need a package of their own, and its name
PACKAGES = {"tvae": "ctgan", "ctgan": "ctgan", "forest_diffusion": "ForestDiffusion"}


def read(path: str, categorical: list[str]) -> pd.DataFrame:
    """A CSV file; an empty cell is missing, and nothing else is."""
    return pd.read_csv(path, dtype=dict.fromkeys(categorical, str), keep_default_na=False, na_values=[""])


def main() -> None:
    if len(sys.argv) == 1:
        print(__doc__)
        return
    name, source, out, n, seconds, seed, kinds = sys.argv[1:]
    categorical = json.loads(kinds)
    try:
        new, told = TABLE[name](read(source, categorical), categorical, int(n), float(seconds), int(seed))
    except Unable as error:
        sys.exit(str(error))
    new.to_csv(out, index=False)
    print(told)


if __name__ == "__main__":
    main()
