"""Where two tables differ: in which columns, and in which parts of the table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from scipy.stats import chi2_contingency, fisher_exact, ks_2samp, rankdata
from sklearn.tree import DecisionTreeClassifier
from torch import Tensor

from mixtura.data.field import Field
from mixtura.data.kind import DataKind
from mixtura.data.schema import Schema
from mixtura.ground.rng import generator

#: of the regions: splits that describe one, the fewest rows of one, as a share, and how many are given
DEPTH, LEAST_SHARE, REGIONS = 3, 0.02, 4
#: of "the shares of all regions are equal"
LEVEL = 0.05
#: levels of a column whose equality can describe a region, the most frequent first
MOST_LEVELS = 20


@dataclass(frozen=True)
class ColumnDifference:
    """distance: the largest difference of the distribution functions, of numbers; the total variation, of levels. p: of "this
    column has one law in a and b" (Kolmogorov–Smirnov; χ²), times the number of columns that are left to be tested (Holm 1979).
    detail: what differs most, in words."""

    column: str
    distance: float
    p: float
    detail: str


@dataclass(frozen=True)
class Region:
    """A part of the table. share_a, share_b: how many of the rows of a, and of b, lie in it, measured on rows that did not choose
    it. error: standard error of their difference."""

    rule: str
    share_a: float
    share_b: float
    error: float


def columns_that_differ(kind: DataKind, a: Tensor, b: Tensor) -> tuple[ColumnDifference, ...]:
    """Every column of a table, the least p first; none of images. a, b: rows (n, d), as ``kind`` encodes them."""
    if not isinstance(kind, Schema):
        return ()
    found = [_column(field, a[:, j].numpy(), b[:, j].numpy()) for j, field in enumerate(kind.modelled)]
    found.sort(key=lambda column: (column.p, -column.distance))
    least, adjusted = 0.0, []
    for k, column in enumerate(found):
        least = max(least, min(1.0, column.p * (len(found) - k)))
        adjusted.append(replace(column, p=least))
    return tuple(adjusted)


def _column(field: Field, a: np.ndarray, b: np.ndarray) -> ColumnDifference:
    there = ~np.isnan(a), ~np.isnan(b)
    tests = []
    if not (there[0].all() and there[1].all()):
        counts = np.array([[len(x) - t.sum(), t.sum()] for x, t in zip((a, b), there, strict=True)])
        shares = counts[:, 0] / counts.sum(1)
        tests.append((abs(shares[0] - shares[1]), _chi2(counts), f"missing {shares[0]:.1%} → {shares[1]:.1%}"))
    present = a[there[0]], b[there[1]]
    if min(map(len, present)) > 0:
        tests.append(_levels(field, *present) if field.discrete else _numbers(field, *present))
    distance, p, detail = min(tests, key=lambda test: (test[1], -test[0]))
    return ColumnDifference(field.name, float(distance), min(1.0, float(p) * len(tests)), detail)


def _numbers(field: Field, a: np.ndarray, b: np.ndarray) -> tuple[float, float, str]:
    statistic, p = cast(tuple[float, float], ks_2samp(a, b))
    middle = [_shown(field, float(np.median(x))) for x in (a, b)]
    if middle[0] != middle[1]:
        return statistic, p, f"median {middle[0]} → {middle[1]}"
    ends = [" … ".join(_shown(field, float(end)) for end in np.quantile(x, (0.05, 0.95))) for x in (a, b)]
    return statistic, p, f"5 % … 95 %: {ends[0]} → {ends[1]}"


def _levels(field: Field, a: np.ndarray, b: np.ndarray) -> tuple[float, float, str]:
    codes = np.union1d(a, b)
    counts = np.array([[(x == code).sum() for code in codes] for x in (a, b)])
    shares = counts / counts.sum(1, keepdims=True)
    most = int(np.abs(shares[0] - shares[1]).argmax())
    said = f"{_label(field, codes[most])}: {shares[0, most]:.1%} → {shares[1, most]:.1%}"
    return np.abs(shares[0] - shares[1]).sum() / 2, _chi2(counts), said


def _chi2(counts: np.ndarray) -> float:
    """p of a table of counts (2, k) with independent rows; levels with few rows are put together, as the test needs 5 of each."""
    rare = counts.sum(0) * counts.sum(1).min() / counts.sum() < 5
    counts = np.concatenate([counts[:, ~rare], counts[:, rare].sum(1, keepdims=True)], 1)
    counts = counts[:, counts.sum(0) > 0]
    return float(cast(Any, chi2_contingency(counts)).pvalue) if counts.shape[1] > 1 else 1.0


def regions_that_differ(kind: DataKind, x: Tensor, of_a: Tensor, seed: int) -> tuple[Region, ...]:
    """Parts of a table where the shares of a and b differ most: leaves of a small tree that tells a from b, grown on one half of
    the rows x (n, d) and measured on the other, where they differ beyond chance (Fisher's exact test, times the number of
    leaves). of_a: (n,) bool."""
    if not isinstance(kind, Schema):
        return ()
    questions = list(_questions(kind, x.numpy()))
    if not questions:
        return ()
    # ranks: a tree takes float32, and ranks have the same splits
    features = np.stack([rankdata(values, "dense") for _, values, _ in questions], 1)
    grown, mine = torch.rand(len(x), generator=generator(seed, "regions")).numpy() < 0.5, of_a.numpy()
    least = max(2, math.ceil(LEAST_SHARE * grown.sum()))
    tree = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=least, class_weight="balanced", random_state=0)
    tree.fit(features[grown], mine[grown])
    leaves, side = tree.apply(features[~grown]), mine[~grown]
    sizes, found = (int(side.sum()), int((~side).sum())), []
    for leaf, rules in _paths(tree, questions, features):
        counts = [int((leaves[side == which] == leaf).sum()) for which in (True, False)]
        table = [[count, size - count] for count, size in zip(counts, sizes, strict=True)]
        p = cast(Any, fisher_exact(table)).pvalue
        # two rows inside and two outside are added, so that a share of 0 or 1 has an error too (Agresti & Coull 1998)
        shares = [(count + 2) / (size + 4) for count, size in zip(counts, sizes, strict=True)]
        error = math.sqrt(sum(share * (1 - share) / (size + 4) for share, size in zip(shares, sizes, strict=True)))
        share_a, share_b = (count / max(1, size) for count, size in zip(counts, sizes, strict=True))
        found.append((float(p), Region(" and ".join(rules) or "everywhere", share_a, share_b, error)))
    sure = [(p, region) for p, region in found if p * len(found) < LEVEL]
    sure.sort(key=lambda each: (each[0], -abs(each[1].share_a - each[1].share_b)))
    return tuple(region for _, region in sure[:REGIONS])


#: a field, its values (n,), and the words of no and of yes where these are 0 and 1
Question = tuple[Field, np.ndarray, tuple[str, str] | None]


def _questions(kind: Schema, x: np.ndarray) -> Iterator[Question]:
    for j, field in enumerate(kind.modelled):
        values, missing = x[:, j], np.isnan(x[:, j])
        if missing.any():
            yield field, missing.astype(float), (f"{field.name} is there", f"{field.name} is missing")
        if field.discrete:
            codes, counts = np.unique(values[~missing], return_counts=True)
            for code in codes[np.argsort(-counts)][:MOST_LEVELS]:
                label = _label(field, code)
                yield field, (values == code).astype(float), (f"{field.name} is not {label}", f"{field.name} is {label}")
        elif not missing.all():
            yield field, np.where(missing, np.median(values[~missing]), values), None


def _paths(tree: DecisionTreeClassifier, questions: Sequence[Question], ranks: np.ndarray) -> Iterator[tuple[int, list[str]]]:
    """Every leaf with the answers on its way, in words. Of several thresholds of one column the last one says it all, and a
    column that is something need not be said to be nothing else."""
    nodes = tree.tree_

    def walk(node: int, said: dict[tuple[str, str], str]) -> Iterator[tuple[int, list[str]]]:
        if nodes.children_left[node] < 0:
            yield node, [*said.values()]
            return
        field, values, words = questions[nodes.feature[node]]
        # the largest value that is not above the threshold says the same, and is a value of the column
        name, cut = field.name, float(values[ranks[:, nodes.feature[node]] <= nodes.threshold[node]].max())
        for child, yes in ((nodes.children_left[node], 0), (nodes.children_right[node], 1)):
            if words is None:
                more = {(name, "> " if yes else "≤ "): f"{name} {'>' if yes else '≤'} {_shown(field, cut)}"}
                yield from walk(int(child), said | more)
            elif yes:
                yield from walk(int(child), {k: v for k, v in said.items() if k[0] != name} | {(name, words[1]): words[1]})
            else:
                yield from walk(int(child), said | {(name, words[0]): words[0]})

    return walk(0, {})


def _shown(field: Field, value: float) -> str:
    """A number of a column, from tensor units, for people."""
    found = field.decode(np.array([value])).iloc[0]
    return f"{found:.6g}" if isinstance(found, int | float | np.number) else str(found)


def _label(field: Field, code: float) -> str:
    return str(field.labels[int(code)]) if int(code) < len(field.labels) else "a level never seen"
