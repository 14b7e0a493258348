"""Which rows fit, select and report: :class:`Splits`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.contracts import InputError
from mixtura.data import cells, datetimes, hints, numerals
from mixtura.data.schema import Schema
from mixtura.ground.rng import child_seed, generator
from mixtura.train.fit import MOST_CHECKED

#: shares of the rows that fit, select and report
SHARES = (0.6, 0.2, 0.2)

#: select and report need no more rows than this for errors of a hundredth of a nat
MOST_HELD = Schema.most_held

#: samples of every model that are looked at, once for choosing and once for reporting
SAMPLES = Schema.samples

#: with fewer fit and select rows than this the choice is cross-fitted, in so many folds
CROSS_FIT_BELOW, FOLDS = 1_000, 5

#: the part of the select rows that refits do not learn from either
HELD = 0.2

LEAST_ROWS = 20

#: rows of a part that samples can be compared with: the error of MMD² leaves out one of them
LEAST_PART = 3


@dataclass(frozen=True)
class Splits:
    """Row numbers: ``fit`` trains, ``select`` chooses weights and the best single model, ``report`` is opened once.

    folds: 0 or the number of folds in which fit and select rows together are cross-fitted.
    duplicates: report rows that a fit or select row equals in every column.
    """

    fit: Tensor
    select: Tensor
    report: Tensor
    rule: str
    folds: int
    duplicates: int

    @property
    def training(self) -> Tensor:
        """The rows the final models learn from: fit, and select too where it is cross-fitted."""
        return torch.cat([self.fit, self.select]) if self.folds else self.fit

    def fold(self, k: int) -> tuple[Tensor, Tensor]:
        """(rows to learn from, rows left out) of fold k, as positions in :attr:`training`."""
        position = torch.arange(len(self.training))
        left = position % self.folds == k
        return position[~left], position[left]

    def again(self, seed: int) -> tuple[Tensor, Tensor]:
        """(rows that refits learn from, rows that neither the fits nor the refits do), where no row is cross-fitted: fit and most
        select rows; a few select rows."""
        order = torch.randperm(len(self.select), generator=generator(seed, "held out of refits"))
        held = min(MOST_CHECKED, max(2, round(HELD * len(order))))
        return torch.cat([self.fit, self.select[order[held:]]]), self.select[order[:held]]

    @property
    def growth(self) -> float:
        """Rows that a refit learns from, beside those of the fit. 0 where there are no refits: where rows are cross-fitted, and
        where a split that was given has so many select rows that the models would be others."""
        if self.folds or 2 * len(self.select) > len(self.fit):
            return 0.0
        return 1 + (1 - HELD) * len(self.select) / len(self.fit)


def make_splits(
    x: Tensor, *, seed: int, groups: pd.Series | None = None, times: pd.Series | None = None, given: pd.Series | None = None,
    most: int = MOST_HELD,
) -> Splits:  # fmt: skip
    """Split rows x (n, …): at random, by whole groups, by time (oldest fit, newest report), or as given.

    ``given`` holds fit, select and report for each row (train, valid and test are understood). At random, select and report
    get ``most`` rows at most. InputError if a part is too small.
    """
    n = len(x)
    if n < LEAST_ROWS:
        raise InputError(f"data: {n} row{'s' * (n != 1)} cannot be split into fit, select and report; give at least {LEAST_ROWS}")
    asked = [name for name, value in (("--group", groups), ("--time", times), ("--split", given)) if value is not None]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)}: give one way to split, not {len(asked)}")
    shuffle = np.random.default_rng(child_seed(seed, "splits"))
    if given is not None:
        fit, select, report = _as_given(given)
        rule = f"given by {given.name}"
    elif groups is not None:
        fit, select, report = _by_group(groups, shuffle)
        rule = f"whole groups of {groups.name}"
    else:
        order = shuffle.permutation(n) if times is None else _by_time(times)
        fit, select, report = np.split(order, _cuts(n))
        rule = "at random" if times is None else f"by time ({times.name}): the newest rows report"
    for name, part in (("fit", fit), ("select", select), ("report", report)):
        if len(part) < LEAST_PART:
            raise InputError(
                f"{rule}: the {name} part has {len(part)} rows, expected {LEAST_PART} or more; give more rows or another split"
            )
    spare = (
        [shuffle.permutation(part)[most:] for part in (select, report)]
        if given is None and times is None and groups is None
        else []
    )
    extra = np.concatenate(spare) if spare else np.array([], dtype=np.int64)
    select, report = (np.setdiff1d(part, extra) for part in (select, report))
    fit = np.concatenate([fit, extra])
    shuffle.shuffle(fit)
    # six fits of every model are too dear for images
    plain = times is None and groups is None and given is None and x.dim() == 2
    crossed = plain and len(fit) + len(select) < CROSS_FIT_BELOW
    splits = Splits(_as_tensor(fit), _as_tensor(select), _as_tensor(report), rule, FOLDS if crossed else 0, 0)
    return Splits(splits.fit, splits.select, splits.report, rule, splits.folds, _repeated(x, splits))


def _as_tensor(rows: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(rows), dtype=torch.int64)


def _cuts(n: int) -> list[int]:
    return [round(SHARES[0] * n), round((SHARES[0] + SHARES[1]) * n)]


def _as_given(given: pd.Series) -> list[np.ndarray]:
    names = {"fit": 0, "train": 0, "training": 0, "select": 1, "valid": 1, "val": 1, "validation": 1, "report": 2, "test": 2}
    part = given.astype(str).str.strip().str.lower().map(names)
    if part.isna().any():
        row = int(np.flatnonzero(part.isna())[0])
        raise InputError(
            f"--split {given.name}: row {row} holds {given.iloc[row]!r}, expected fit, select or report (or train, valid, test)"
        )
    return [np.flatnonzero(part.to_numpy() == k) for k in range(3)]


def _by_group(groups: pd.Series, shuffle: np.random.Generator) -> list[np.ndarray]:
    codes, uniques = pd.factorize(groups, use_na_sentinel=False)
    if len(uniques) < 3:
        raise InputError(f"--group {groups.name}: {len(uniques)} groups cannot be split in three; give a column with more groups")
    order = shuffle.permutation(len(uniques))
    rows = np.cumsum(np.bincount(codes, minlength=len(uniques))[order])
    part_of = np.empty(len(uniques), dtype=np.int64)
    part_of[order] = np.searchsorted(_cuts(len(groups)), rows - 1, side="right")
    # the first group of the draw and the last two make sure that no part is empty
    part_of[order[0]], part_of[order[-1]] = 0, 2
    if not (part_of == 1).any():
        part_of[order[-2]] = 1
    return [np.flatnonzero(part_of[codes] == k) for k in range(3)]


def _by_time(times: pd.Series) -> np.ndarray:
    times = times.reset_index(drop=True)
    present = cells.drop_missing_words(times.dropna())
    if len(present) < len(times):
        row = int(np.setdiff1d(np.arange(len(times)), present.index)[0])
        raise InputError(f"--time {times.name}: row {row} has no time; every row needs one")
    order = numerals.numbers(times)
    if order is None and (seen := datetimes.instants(times)) is not None:
        order = seen.ticks
    if order is None:
        if why := hints.why_not(times):
            raise InputError(f"--time {times.name}: holds {why}")
        odd = (row for row in times.index if not hints.looks_like_number(str(times[row])))
        odd = next((row for row in odd if datetimes.instants(times.loc[[row]]) is None), 0)
        raise InputError(
            f"--time {times.name}: row {odd} holds {times[odd]!r}, expected numbers, or dates that are all written alike; "
            "name a column of times, or repair it"
        )
    return np.argsort(order, kind="stable")


def _repeated(x: Tensor, splits: Splits) -> int:
    flat = x.reshape(len(x), -1).nan_to_num(nan=-1.2345e300) + 0.0  # −0 becomes 0, so that equal rows are equal bytes

    def key(part: Tensor) -> list[bytes]:
        return [row.tobytes() for row in flat[part].numpy()]

    known = {*key(splits.fit), *key(splits.select)}
    return sum(row in known for row in key(splits.report))
