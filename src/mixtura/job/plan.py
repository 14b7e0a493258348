"""What will be done before it is done: what is asked, the split of the rows, the budget, the families."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.contracts import InputError, Model, Space
from mixtura.data import cells
from mixtura.data.source import load
from mixtura.ground.rng import child_seed

#: shares of the rows that fit, select and report
SHARES = (0.6, 0.2, 0.2)
#: select and report need no more rows than this for errors of a hundredth of a nat
MOST_HELD = 5_000
#: samples of every model that are looked at, once for choosing and once for reporting
SAMPLES = 1_000
#: scoring and sampling are paid from the budget: rows held out a second of it, of tables and of images, whose samples are held
#: to the same number, and the least of each
ROWS_A_SECOND, LEAST_ROWS_HELD = 50, 1_000
IMAGES_A_SECOND, LEAST_IMAGES, MOST_IMAGES = 5, 100, 1_000
#: with fewer fit and select rows than this the choice is cross-fitted, in so many folds
CROSS_FIT_BELOW, FOLDS = 1_000, 5
LEAST_ROWS = 20
#: rows of a part that samples can be compared with: the error of MMD² leaves out one of them
LEAST_PART = 3


@dataclass(frozen=True)
class Options:
    """What a run may be asked; the arguments of ``mixtura.run``. ``models`` maps a name to a callable Space → Model of
    your own, ``samples`` a name to a file or frame of an outside generator's samples. ``objective``: "nats" or "mmd", by
    default what suits the data; ``bounds`` maps a column of numbers to (low, high), where its values end, None where they do
    not; ``features``: what samples are compared by (features.py). ``target``: columns to model given
    the others. ``stops`` replays recorded steps."""

    budget: str | float | None = None
    steps: int | None = None
    families: Sequence[str] | None = None
    seed: int = 0
    out: str | Path | None = None
    fresh: bool = False
    split: str | None = None
    group: str | None = None
    time: str | None = None
    target: str | Sequence[str] | None = None
    columns: Sequence[str] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    models: Mapping[str, Callable[[Space], Model]] = field(default_factory=dict)
    samples: Mapping[str, Any] = field(default_factory=dict)
    objective: str | None = None
    features: str | None = None
    skip_broken: bool = False
    size: int | None = None
    device: str = "auto"
    stops: Mapping[str, Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and (isinstance(self.steps, bool) or self.steps < 1):
            raise InputError(f"steps: expected a whole number, 1 or more, got {self.steps!r}")
        if self.steps is not None and self.budget is not None:
            raise InputError("budget and steps: give one of them; steps makes every fit take so many steps")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"seed: expected a whole number, 0 or more, got {self.seed!r}")
        odd = next((name for name in (*self.models, *self.samples) if Path(name).name != name), None)
        if odd is not None:
            raise InputError(f"models: the name {odd!r} cannot be a file name; give your model another name")
        if self.objective not in (None, "nats", "mmd"):
            raise InputError(f"objective: {self.objective!r} is none, expected nats or mmd; leave it out for what suits the data")
        odd = next((name for name, ends in self.bounds.items() if isinstance(ends, str) or len(ends) != 2), None)
        if odd is not None:
            raise InputError(f"bounds: of {odd!r}, expected (low, high), None for an end there is not; got {self.bounds[odd]!r}")
        self._check_target()

    def _check_target(self) -> None:
        if self.target is None:
            return
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise InputError(f"--target: expected one column or more, each once, got {list(self.targets)}; name them once")
        for flag, column in (("--split", self.split), ("--group", self.group), ("--time", self.time)):
            if column in self.targets:
                raise InputError(f"--target: {column!r} is the column of {flag} too; a column is one or the other")
        left_out = next((name for name in self.targets if self.columns is not None and name not in self.columns), None)
        if left_out is not None:
            raise InputError(f"--columns: leaves out {left_out!r}, which --target asks for; name it there too")
        # a conditional run speaks of nats: there is no second set of rows with the same inputs to compare samples with
        beside = {"--objective mmd": self.objective == "mmd", "--samples": self.samples, "--features": self.features}
        odd = next((flag for flag, given in beside.items() if given), None)
        if odd is not None:
            raise InputError(f"{odd}: compares samples, and with --target densities given the inputs are compared; leave it out")

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns that are modelled given the others; none where all are modelled together."""
        return () if self.target is None else (self.target,) if isinstance(self.target, str) else tuple(self.target)

    @property
    def planned_seconds(self) -> float | None:
        """The budget in seconds; None for a run by steps."""
        return None if self.steps is not None else parse_budget(60.0 if self.budget is None else self.budget)

    @property
    def seconds(self) -> float | None:
        """The seconds that bound this run; None where steps do, given or replayed."""
        return None if self.stops is not None else self.planned_seconds

    def asked(self) -> dict[str, Any]:
        """What decides the result, as plain data: two runs that agree in it are the same run."""
        families = None if self.families is None else list(self.families)
        columns = None if self.columns is None else list(self.columns)
        samples = {name: load(source).fingerprint for name, source in self.samples.items()}
        return {
            "budget": self.planned_seconds, "steps": self.steps, "families": families, "seed": self.seed,
            "split": self.split, "group": self.group, "time": self.time, "columns": columns,
            "kinds": dict(self.kinds), "bounds": {column: list(ends) for column, ends in self.bounds.items()},
            "models": sorted(self.models), "samples": samples, "objective": self.objective,
            "features": self.features, "skip_broken": self.skip_broken, "size": self.size,
            **({"target": list(self.targets)} if self.targets else {}),
        }  # fmt: skip


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


def parse_budget(budget: str | float) -> float:
    """ "60s", "5m", "1.5h" or a number of seconds → seconds. InputError otherwise."""
    units = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(s|m|min|h|)\s*", str(budget))
    seconds = float(found[1]) * units[found[2]] if found else 0.0
    if seconds < 1:
        raise InputError(f"budget: {budget!r} is no time of a second or more; write 60s, 5m or 1h")
    return seconds


def looked_at(images: bool, seconds: float | None) -> tuple[int, int]:
    """(rows of the select and of the report part, samples of every model), at most, in a run of so many seconds; by
    steps, as in one of a minute."""
    seconds = 60.0 if seconds is None else seconds
    if not images:
        return min(MOST_HELD, max(LEAST_ROWS_HELD, round(ROWS_A_SECOND * seconds))), SAMPLES
    n = min(MOST_IMAGES, max(LEAST_IMAGES, round(IMAGES_A_SECOND * seconds)))
    return n, n


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
    as_tensor = lambda rows: torch.as_tensor(np.ascontiguousarray(rows), dtype=torch.int64)  # noqa: E731
    # six fits of every model are too dear for images
    plain = times is None and groups is None and given is None and x.dim() == 2
    crossed = plain and len(fit) + len(select) < CROSS_FIT_BELOW
    splits = Splits(as_tensor(fit), as_tensor(select), as_tensor(report), rule, FOLDS if crossed else 0, 0)
    return Splits(splits.fit, splits.select, splits.report, rule, splits.folds, _repeated(x, splits))


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
    present = cells.without_words(times.dropna())
    if len(present) < len(times):
        row = int(np.setdiff1d(np.arange(len(times)), present.index)[0])
        raise InputError(f"--time {times.name}: row {row} has no time; every row needs one")
    order = cells.numbers(times)
    if order is None and (seen := cells.instants(times)) is not None:
        order = seen.ticks
    if order is None:
        if why := cells.why_not(times):
            raise InputError(f"--time {times.name}: holds {why}")
        odd = (row for row in times.index if not cells.looks_like_number(str(times[row])))
        odd = next((row for row in odd if cells.instants(times.loc[[row]]) is None), 0)
        raise InputError(
            f"--time {times.name}: row {odd} holds {times[odd]!r}, expected numbers, or dates that are all written alike; "
            "name a column of times, or repair it"
        )
    return np.argsort(order, kind="stable")


def _repeated(x: Tensor, splits: Splits) -> int:
    flat = x.reshape(len(x), -1).nan_to_num(nan=-1.2345e300) + 0.0  # −0 becomes 0, so that equal rows are equal bytes
    key = lambda part: [row.tobytes() for row in flat[part].numpy()]  # noqa: E731
    known = {*key(splits.fit), *key(splits.select)}
    return sum(row in known for row in key(splits.report))


def choose_families(asked: Sequence[str] | None, table: Mapping[str, str], *, given: bool = False) -> list[str]:
    """The asked family names in the order of the table; all that can serve by default. The floor always joins.

    ``table``: name → whether the family takes a context ("never", "may", "needs"); ``given``: whether there is one."""
    able = [name for name, context in table.items() if context != ("never" if given else "needs")]
    if asked is None:
        return able
    unknown = [name for name in asked if name not in table]
    if unknown:
        raise InputError(f"families: {unknown[0]!r} is not among {', '.join(table)}; choose from these")
    if not asked:
        raise InputError(f"families: none was named; choose from {', '.join(able)}")
    unable = [name for name in asked if name not in able]
    if unable:
        why = "cannot model columns given others" if given else "models columns given others: name them with --target"
        raise InputError(f"families: {unable[0]} {why}; choose from {', '.join(able)}")
    return [name for name in able if name in asked or name == "marginals"]
