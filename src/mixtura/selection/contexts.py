"""Selection in contexts: a table of contexts, a request in each of them in turn, and the best weights at each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.arms import Arm
from mixtura.contracts import InputError
from mixtura.data import source
from mixtura.features.samples import numbers_of
from mixtura.features.space import FeatureSpace
from mixtura.folder.selection import SelectionFolder
from mixtura.ground.arguments import shown
from mixtura.ground.kernels import BANDWIDTH, LARGEST, SMALLEST, median_bandwidth
from mixtura.ground.rng import generator
from mixtura.ledger import Ledger, Pull
from mixtura.objectives.terms import parse
from mixtura.policies.by_context import ContextualSelector
from mixtura.selection.mixture import checked_names, described
from mixtura.selection.records import SelectedByContext, added_columns
from mixtura.selection.session import Session


@dataclass(frozen=True)
class Contexts:
    """A table of contexts.

    rows: column → value of each context, as sent to arms. vectors: (n, p) the numeric columns, standardised, by which contexts
    are compared. reach: bandwidth of the kernel that compares them.
    """

    rows: tuple[dict[str, Any], ...]
    vectors: Tensor
    reach: float

    @property
    def fingerprint(self) -> str:
        """A hash of the rows."""
        return hashlib.sha256(json.dumps(self.rows, sort_keys=True).encode()).hexdigest()[:16]


def read_contexts(contexts: Any, *, reach: float | None = None, seed: int = 0) -> Contexts:
    """Read contexts from a file, a frame, column → its values or an array (n, p), one context in each row. Truth values are
    numbers, 0 and 1. ``reach``: in standard deviations of the columns; by default half of the median distance between two
    contexts.

    Raises InputError on a table without rows or without a column of numbers, and on numbers that are missing or not finite.
    """
    given = _table_of(contexts)
    frame = source.rows_of(source.load(given, seed=seed))
    if not isinstance(frame, pd.DataFrame):
        raise InputError("contexts: expected a table with one row for each context, got images; give a table")
    frame = frame.assign(**{str(name): x for name in frame.columns if (x := _truths(cast(pd.Series, frame[name]))) is not None})
    numeric = {str(name): x for name in frame.columns if (x := numbers_of(frame[[name]])) is not None}
    if not numeric:
        raise InputError(
            "contexts: no column holds numbers, which contexts are compared by; add numbers that describe each context, "
            "such as an embedding of its prompt"
        )
    x = torch.cat([*numeric.values()], 1)
    bad = (~torch.isfinite(x)).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise InputError(f"contexts: row {row}, column {[*numeric][column]!r} is no finite number; fill it in, or drop the row")
    if reach is not None and not SMALLEST <= reach <= LARGEST:
        raise InputError(f"reach: expected {BANDWIDTH}, got {reach}; leave it out for half the median distance")
    deviations = x.std(0, correction=0)
    vectors = (x - x.mean(0)) / deviations.where(deviations > 0, 1.0)
    values = {str(name): [_text(value) for value in frame[name]] for name in frame.columns}
    values |= {name: _numbers(column[:, 0]) for name, column in numeric.items()}
    rows = tuple(dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True))
    return Contexts(rows, vectors, reach or median_bandwidth(vectors, generator(seed, "contexts")) / 2)


def _table_of(contexts: Any) -> Any:
    """Columns by name as a frame; anything else as it is. InputError for columns that make no frame, and for no rows."""
    if isinstance(contexts, Mapping):
        try:
            contexts = pd.DataFrame({name: [*values] for name, values in contexts.items()})
        except (TypeError, ValueError) as error:
            raise InputError(
                f"contexts: expected {{column: a list of values}}, all of one length, got {shown(contexts)}"
            ) from error
    if not isinstance(contexts, str | Path | pd.DataFrame | np.ndarray | Tensor):
        raise InputError(f"contexts: expected a file, a frame, an array or {{column: a list of values}}, got {shown(contexts)}")
    if not isinstance(contexts, str | Path) and (not len(contexts.shape) or not contexts.shape[0]):
        raise InputError("contexts: the table has no rows; give one row for each context")
    return contexts


def _truths(column: pd.Series) -> pd.Series | None:
    """A column of truth values, also as a text file has them, as 0 and 1, NaN where missing; None for any other column."""
    words = column.dropna().astype(str).str.lower()
    return words.map({"false": 0.0, "true": 1.0}).reindex(column.index) if len(words) and {*words} <= {"false", "true"} else None


def _text(value: Any) -> str | None:
    """A cell that is no number, as text; None where it is missing."""
    return None if pd.isna(value) else str(value)


def _numbers(column: Tensor) -> list[float]:
    """The numbers (n,) of a column, as whole numbers where all are."""
    whole = bool((column == column.round()).all())
    return [int(value) for value in column.tolist()] if whole else column.tolist()


class ContextualSession(Session):
    """Learns the best weights at each context. Requests go through the contexts in turn, in an order drawn from ``seed``, so that
    the number of a pull says its context."""

    selector: ContextualSelector

    def __init__(
        self, arms: Sequence[Arm], selector: ContextualSelector, ledger: Ledger, contexts: Contexts, features: FeatureSpace, *,
        pulls: int, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(arms, ledger, features, pulls=pulls)
        self.selector, self.contexts = selector, contexts
        self._order = torch.randperm(len(contexts.rows), generator=generator(seed, "order of contexts")).tolist()

    def _row(self, number: int) -> int:
        return self._order[number % len(self._order)]

    def _context(self, number: int) -> Mapping[str, Any]:
        return self.contexts.rows[self._row(number)]

    def _choose(self, number: int) -> str:
        return self.selector.ask(self.contexts.vectors[self._row(number)])

    def _learn(self, pull: Pull, features: Tensor) -> None:
        self.selector.tell(self.contexts.vectors[self._row(pull.number)], pull.arm, features)

    def finish(self) -> SelectedByContext:
        """The best weights at each context."""
        self._catch_up()
        selector = self.selector
        found = tuple(selector.weights(vector) for vector in self.contexts.vectors)
        return SelectedByContext(
            self.contexts.rows, found, selector.objective.unit, selector.objective.higher, selector.pulls, self.ledger.spent(),
            self.why or "it was stopped", dict(self.closed), self.ledger.counts(selector.names),
        )  # fmt: skip

    def record(self, selected: SelectedByContext, title: str) -> dict[str, Any]:
        """What the folder keeps of a finished selection, as plain data."""
        about = {"title": title, "objective": self.selector.objective.name, "features": self.features.name}
        return {**about, **selected.record()}


def begin_in_contexts(
    arms: Sequence[Arm], out: Path, objective: str, contexts: Contexts, *, reference: Tensor | None = None,
    name: str | None = None, extractor: str | None = None, bandwidth: float | None = None, seed: int = 0, pulls: int = 1000,
) -> ContextualSession:  # fmt: skip
    """A session in a folder: begun, or taken up where it stopped, as :func:`mixtura.selection.mixture.begin`.

    Raises InputError also where an arm takes no context, and where a column of the contexts has the name of one of the table of
    weights.
    """
    names = checked_names(arms, pulls)
    taken = next((name for name in added_columns(names) if name in contexts.rows[0]), None)
    if taken is not None:
        raise InputError(f"contexts: the column {taken!r} has the name of a column of the table of weights; rename it")
    fixed = next((arm.name for arm in arms if not arm.takes_context), None)
    if fixed is not None:
        raise InputError(
            f"{fixed}: takes no context; leave it out, or give contexts to arms of kind python, command, http, onnx, diffusers "
            "or transformers only"
        )
    features = FeatureSpace.of_samples(reference, extractor)
    real = None if reference is None else features(reference)
    costs = [arm.cost for arm in arms]
    wanted = parse(objective, reference=real, bandwidth=bandwidth, costs=costs)
    selector = ContextualSelector(names, wanted, reach=contexts.reach, seed=seed)
    ledger = Ledger(SelectionFolder(out).ledger_path)
    ledger.agree({
        "arms": names, "objective": objective, "bandwidth": bandwidth, "features": extractor, "policy": "in contexts",
        "seed": seed, "reference": described(name, reference), "costs": costs, "contexts": contexts.fingerprint,
        "reach": contexts.reach,
    })  # fmt: skip
    return ContextualSession(arms, selector, ledger, contexts, features, pulls=pulls, seed=seed)
