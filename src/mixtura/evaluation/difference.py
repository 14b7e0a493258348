"""Are two sets of rows or images of one law, how far are they apart, and where do they differ: :func:`compare`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import pandas as pd
import torch

from mixtura import ratio
from mixtura.contracts import Estimate, InputError
from mixtura.data import source
from mixtura.data.kind import Content, DataKind
from mixtura.evaluation.where import ColumnDifference, Region, columns_that_differ, regions_that_differ
from mixtura.features.space import FeatureSpace
from mixtura.ground.rng import generator
from mixtura.metrics import c2st, mmd2, same_law
from mixtura.metrics.classifier import same_law_by_classifier
from mixtura.metrics.neighbours import shared_rows
from mixtura.ratio.divergences import divergence

#: fewest rows that are compared, and the most of each set that a ratio learns from
LEAST_ROWS, MOST_ROWS = 20, 5_000
#: the p-value below which two sets are said to differ
LEVEL = 0.05
#: rows of each set that are shown
SHOWN = 5
#: log of how many times as dense a row is said to be at most
MOST_TIMES = 100.0
#: the divergences that are measured
MEASURED = ("kl", "reverse_kl", "js")


@dataclass(frozen=True)
class Difference:
    """What :func:`compare` found of sets a and b.

    names, rows:  of the sets. kind: what the columns of both mean. shared: rows of b that are also in a, beyond chance; 0 if
                  there are no more than chance gives. same_rows: whether b is a, row by row.
    p:            of "a and b are of one law": twice the smaller of the two below, at most 1. differ: whether p < 0.05.
    verdict:      one sentence.
    tests:        "mmd2" and "c2st" with their errors, and "mmd2_p" and "c2st_p", their p-values.
    method, divergences: how the ratio of a to b was learnt, and kl (a from b), reverse_kl (b from a) and js, in nats, at rows
                  that it has not learnt from.
    left_out:     column → why it is not compared (free text, identifiers).
    columns:      of tables, the most different first. regions: parts of the table where the shares of a and b differ most.
    most_like:    for a and for b, up to ``SHOWN`` rows that are most like the one and least like the other, and how many times as
                  dense the one is there.
    features, seed: what was compared, for people, and the seed of all draws.
    """

    names: tuple[str, str]
    rows: tuple[int, int]
    kind: DataKind
    shared: int
    same_rows: bool
    p: float
    differ: bool
    verdict: str
    tests: dict[str, Estimate]
    method: str
    divergences: dict[str, Estimate]
    columns: tuple[ColumnDifference, ...]
    left_out: dict[str, str]
    regions: tuple[Region, ...]
    most_like: tuple[tuple[Content, list[float]], ...]
    features: str
    seed: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        examples = [{"times": times, "rows": _records(rows)} for rows, times in self.most_like]
        return {
            "names": list(self.names), "rows": list(self.rows), "nouns": self.kind.nouns, "verdict": self.verdict,
            "differ": self.differ, "p": self.p, "shared_rows": self.shared, "same_rows": self.same_rows,
            "tests": _plain(self.tests), "method": self.method, "summary": ratio.TABLE[self.method].summary,
            "divergences": _plain(self.divergences), "columns": [dataclasses.asdict(column) for column in self.columns],
            "left_out": self.left_out,
            "regions": [dataclasses.asdict(region) for region in self.regions], "most_like": examples,
            "features": self.features, "seed": self.seed,
        }  # fmt: skip


def _records(rows: Content) -> list[dict[str, Any]]:
    """The rows of a table as plain data; none of images."""
    if not isinstance(rows, pd.DataFrame):
        return []
    return json.loads(str(rows.to_json(orient="records", date_format="iso")))


def _plain(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: dataclasses.asdict(estimate) for name, estimate in found.items()}


def compare(
    a: Any, b: Any, *, method: str | None = None, features: str | None = None, kinds: Mapping[str, str] | None = None,
    seed: int = 0, skip_broken: bool = False,
) -> Difference:  # fmt: skip
    """Whether two sets are of one law, how far they are apart and where: tables or images, anything :func:`mixtura.run` takes.

    The two tests are permutation of MMD² and a classifier on rows that it was not trained on; both are exact at any number of
    rows, so two halves of one set "differ" in at most 5 % of all cases. method: of ``mixtura.ratio.TABLE``; by default the best
    of those that are tried. kinds: column → its kind, instead of the guess. Raises InputError on data of different kinds,
    columns or sizes.
    """
    if method is not None:
        ratio.of_name(method)
    loaded = [
        source.with_note(source.load(rows, seed=seed, skip_broken=skip_broken, name=name)) for rows, name in ((a, "a"), (b, "b"))
    ]
    n, m = (len(source.rows_of(data)) for data in loaded)
    for data, rows in zip(loaded, (n, m), strict=True):
        if rows < LEAST_ROWS:
            raise InputError(f"{data.name}: {rows} rows are too few to compare; give {LEAST_ROWS} or more")
    names = loaded[0].name, loaded[1].name
    if names[0] == names[1] and str(a) != str(b) and all(isinstance(rows, str | PathLike) for rows in (a, b)):
        names = str(a), str(b)  # two files of one name
    kind, x, left_out = source.learn_both(*loaded, kinds=kinds)
    shared = shared_rows(x[:n].flatten(1), x[n:].flatten(1))
    space = FeatureSpace.of_rows(kind, x, features, seed=seed)
    seen = space(x)
    first, second = seen[:n], seen[n:]
    tests = {  # value and p-value of each classifier are of the same split
        "mmd2": mmd2(first, second, kernel=space.kernel, rng=generator(seed, "mmd2")),
        "mmd2_p": same_law(first, second, kernel=space.kernel, rng=generator(seed, "mmd2_p")),
        "c2st": c2st(first, second, rng=generator(seed, "c2st")),
        "c2st_p": same_law_by_classifier(first, second, rng=generator(seed, "c2st")),
    }
    p = min(1.0, 2 * min(tests["mmd2_p"].value, tests["c2st_p"].value))
    # the rows that the ratio is learnt from and measured at
    some = [torch.randperm(size, generator=generator(seed, name))[:MOST_ROWS] for size, name in ((n, "a"), (m, "b"))]
    learnt = ratio.learn(first[some[0]], second[some[1]], seed, method)
    measured, of_a = torch.cat([some[0], n + some[1]]), torch.arange(len(some[0]) + len(some[1])) < len(some[0])
    found = shared.count if shared.too_many else 0
    apart = {name: divergence(name, learnt.at_p, learnt.at_q) for name in MEASURED}
    if found:  # a row of both sets is never left out of what is learnt
        why = f"the sets share {found:,} {kind.nouns}: no ratio can be measured at {kind.nouns} that it has not learnt from"
        apart = {name: Estimate(math.nan, math.nan, e.n, why) for name, e in apart.items()}
    return Difference(
        names=names, rows=(n, m), kind=kind, shared=found, same_rows=shared.same, p=p, differ=p < LEVEL and not shared.same,
        verdict=_verdict(names, p, shared.same, found, kind.nouns), tests=tests, method=learnt.method,
        divergences=apart, columns=columns_that_differ(kind, x[:n], x[n:]), left_out=left_out,
        regions=regions_that_differ(kind, x[measured], of_a, seed),
        most_like=(_most_like(kind, x[some[0]], learnt.at_p), _most_like(kind, x[n + some[1]], -learnt.at_q)),
        features=space.name, seed=seed,
    )  # fmt: skip


def _verdict(names: tuple[str, str], p: float, same: bool, shared: int, nouns: str) -> str:
    a, b = names
    if same:
        return f"{a} and {b} are the same {nouns}"
    said = f"no difference found (p = {p:.2f})"
    if p < LEVEL:
        said = f"{a} and {b} differ (p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})"
    return said + (f"; {shared:,} {nouns} of {b} are also in {a}, more than chance gives" if shared else "")


def _most_like(kind: DataKind, x: torch.Tensor, log_times: torch.Tensor) -> tuple[Content, list[float]]:
    """The rows with the largest log ratio, of those where it is above 0, and their ratio."""
    order = torch.argsort(-log_times, stable=True)[:SHOWN]
    order = order[log_times[order] > 0]
    return kind.decode(x[order]), log_times[order].clamp(max=MOST_TIMES).exp().tolist()
