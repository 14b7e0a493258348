"""Neutral judges of generated rows, from scikit-learn only: nothing here is used by the library, or tuned on its models.

A judge compares frames with the same columns; ``categorical`` names those of levels, all others are numbers. All but the
distances of single columns are fitted five times, on resampled rows, and give a mean and its standard error over the five.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd
from rivals import near
from scipy.stats import ks_2samp, rankdata
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import KFold
from sklearn.neighbors import NearestNeighbors

#: how often a judge is fitted, and the most rows of each kind that nearest rows are searched for
REFITS, NEAREST = 5, 3_000

Result = tuple[float, float]


def mean_and_error(values: Sequence[float]) -> Result:
    """Of refits."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def codes(frames: Sequence[pd.DataFrame], categorical: Sequence[str]) -> list[np.ndarray]:
    """Rows as numbers (n, d), NaN where missing; the levels of a column have the same codes in all frames."""
    found = [frame.copy() for frame in frames]
    for name in categorical:
        levels = sorted(set().union(*(frame[name].dropna().unique() for frame in frames)))
        for frame in found:
            code = pd.Categorical(frame[name], levels).codes.astype(float)
            frame[name] = np.where(code < 0, np.nan, code)
    return [frame.to_numpy(float) for frame in found]


def draws(made: pd.DataFrame, n: int, seed: int) -> list[pd.DataFrame]:
    """A set of n generated rows for each refit: sets of their own where there are rows enough, else drawn from all again."""
    each = len(made) // REFITS
    blocks = [made[r * each : (r + 1) * each] if each >= n else made for r in range(REFITS)]
    return [block.sample(min(n, len(block)), random_state=seed + r) for r, block in enumerate(blocks)]


def c2st(test: pd.DataFrame, made: pd.DataFrame, categorical: Sequence[str], seed: int) -> Result:
    """AUC of boosted trees that tell generated rows from as many test rows, over five folds, each with another draw of generated
    rows; .5: they cannot."""
    n, mask = min(len(test), len(made)), [name in categorical for name in test]
    real, *sets = codes([test.sample(n, random_state=seed), *draws(made, n, seed)], categorical)
    folds, found = KFold(REFITS, shuffle=True, random_state=seed).split(real), []
    for refit, ((fit, held), drawn) in enumerate(zip(folds, sets, strict=True)):
        judge = HistGradientBoostingClassifier(categorical_features=mask, random_state=seed + refit)
        judge.fit(np.concatenate([real[fit], drawn[fit]]), np.repeat([0, 1], len(fit)))
        told = judge.predict_proba(np.concatenate([real[held], drawn[held]]))[:, 1]
        found.append(roc_auc_score(np.repeat([0, 1], len(held)), told))
    return mean_and_error(found)


def tstr(
    test: pd.DataFrame, made: pd.DataFrame, categorical: Sequence[str], target: str, regression: bool, n: int, seed: int
) -> Result:  # fmt: skip
    """Boosted trees that learn the target from n generated rows, each time from others, on the test rows: AUC of a target of two
    values, R² of a number."""
    real, *sets = codes([test, *draws(made, n, seed)], categorical)
    at = list(test).index(target)
    mask = [name in categorical for name in test if name != target]
    (x, y), *pieces = ((np.delete(z, at, 1), z[:, at]) for z in (z[np.isfinite(z[:, at])] for z in (real, *sets)))
    values, found = np.unique(y), []
    for refit, (of_made, answers) in enumerate(pieces):
        if regression:
            judge = HistGradientBoostingRegressor(categorical_features=mask, random_state=refit).fit(of_made, answers)
            found.append(r2_score(y, judge.predict(x)))
            continue
        upper = answers > values.mean()  # a value between the two belongs to the nearer
        if upper.all() or not upper.any():
            found.append(0.5)
            continue
        judge = HistGradientBoostingClassifier(categorical_features=mask, random_state=refit).fit(of_made, upper)
        found.append(roc_auc_score(y > values.mean(), judge.predict_proba(x)[:, 1]))
    return mean_and_error(found)


def _shares(x: np.ndarray, width: int) -> np.ndarray:
    return np.bincount(x, minlength=width) / len(x)


def margins(test: pd.DataFrame, made: pd.DataFrame, categorical: Sequence[str]) -> dict[str, float]:
    """By column: Kolmogorov-Smirnov distance of numbers (missing ones below all others), total variation of levels."""
    a, b = codes([test, made], categorical)
    found = {}
    for j, name in enumerate(test):
        if name in categorical:
            x, y = (np.nan_to_num(z[:, j], nan=-1).astype(int) + 1 for z in (a, b))
            width = max(x.max(), y.max()) + 1
            found[name] = float(np.abs(_shares(x, width) - _shares(y, width)).sum() / 2)
        else:
            found[name] = float(ks_2samp(*(np.nan_to_num(z[:, j], nan=-1e300) for z in (a, b)), method="asymp").statistic)
    return found


def pairs(test: pd.DataFrame, made: pd.DataFrame, categorical: Sequence[str]) -> tuple[float, float]:
    """(mean absolute difference of the rank correlations of numbers, mean total variation of all pairs of columns, with numbers
    in bins at the deciles of the test rows)."""
    a, b = codes([test, made], categorical)
    numbers = [j for j, name in enumerate(test) if name not in categorical]
    correlations = 0.0
    if len(numbers) > 1:
        ranks = [np.apply_along_axis(rankdata, 0, np.nan_to_num(z[:, numbers], nan=-1e300)) for z in (a, b)]
        both = [np.nan_to_num(np.corrcoef(r, rowvar=False)) for r in ranks]
        correlations = float(np.abs(both[0] - both[1])[np.triu_indices(len(numbers), 1)].mean())
    binned: list[list[np.ndarray]] = [[], []]
    for j in range(a.shape[1]):
        if j in numbers:
            edges = np.unique(np.nanquantile(a[:, j], np.linspace(0, 1, 11)[1:-1]))
            ones = [np.where(np.isnan(z[:, j]), len(edges) + 1, np.searchsorted(edges, z[:, j], "right")) for z in (a, b)]
        else:
            ones = [np.nan_to_num(z[:, j], nan=-1).astype(int) + 1 for z in (a, b)]
        for some, one in zip(binned, ones, strict=True):
            some.append(one)
    apart = []
    for j, k in itertools.combinations(range(a.shape[1]), 2):
        width = max(z[k].max() for z in binned) + 1
        tables = [z[j] * width + z[k] for z in binned]
        most = max(t.max() for t in tables) + 1
        apart.append(np.abs(_shares(tables[0], most) - _shares(tables[1], most)).sum() / 2)
    return correlations, float(np.mean(apart))


def membership(of_train: np.ndarray, of_test: np.ndarray) -> Result:
    """AUC by which a number tells rows that were learnt from from rows that were not, over five parts of the rows; .5: not at
    all. The number: log-density, or minus the distance to the nearest generated row."""
    n = min(len(of_train), len(of_test))
    y = np.repeat([1, 0], n // REFITS)
    parts = zip(np.array_split(of_train[:n], REFITS), np.array_split(of_test[:n], REFITS), strict=True)
    cut = n // REFITS
    return mean_and_error([roc_auc_score(y, np.nan_to_num(np.concatenate([a[:cut], b[:cut]]), neginf=-1e300)) for a, b in parts])


def copying(train: pd.DataFrame, test: pd.DataFrame, made: pd.DataFrame, categorical: Sequence[str]) -> Result:
    """Membership by the distance to the nearest generated row."""
    tree = NearestNeighbors(n_neighbors=1).fit(near(made, list(categorical), train))
    apart = [-tree.kneighbors(near(rows[:NEAREST], list(categorical), train))[0][:, 0] for rows in (train, test)]
    return membership(apart[0], apart[1])


def telling(test: pd.DataFrame, made: pd.DataFrame, categorical: Sequence[str], seed: int) -> pd.DataFrame:
    """What gives generated rows away, by column: how much AUC the judge of all columns loses without it (it is permuted within
    the held-out half), AUC of a judge that sees only this column, and the distance of the margin."""
    n = min(len(test), len(made))
    x = np.concatenate(codes([test.sample(n, random_state=seed), made.sample(n, random_state=seed)], categorical))
    y, rng = np.repeat([0, 1], n), np.random.default_rng(seed)
    order = rng.permutation(2 * n)
    fit, held = order[:n], order[n:]
    mask = np.array([name in categorical for name in test])
    judge = HistGradientBoostingClassifier(categorical_features=mask, random_state=seed).fit(x[fit], y[fit])
    whole = roc_auc_score(y[held], judge.predict_proba(x[held])[:, 1])
    distances, rows = margins(test, made, categorical), []
    for j, name in enumerate(test):
        without = x[held].copy()
        without[:, j] = rng.permutation(without[:, j])
        lost = whole - roc_auc_score(y[held], judge.predict_proba(without)[:, 1])
        alone = HistGradientBoostingClassifier(categorical_features=mask[[j]], random_state=seed).fit(x[fit][:, [j]], y[fit])
        rows.append((name, lost, roc_auc_score(y[held], alone.predict_proba(x[held][:, [j]])[:, 1]), distances[name]))
    found = pd.DataFrame(rows, columns=["column", "lost without it", "it alone", "margin"])
    return found.sort_values("lost without it", ascending=False)
