"""What a file of observations is: a table or images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.contracts import Space
from mixtura.data.impossible import counted

#: rows of a table, or images (n, H, W) or (n, H, W, 3), as a person gives and takes them
Content = pd.DataFrame | np.ndarray


@dataclass(frozen=True)
class Made:
    """Rows of a generator as they are, with nothing moved or clipped before they are measured.

    x:     (n, *shape) float64 in tensor units: a code one past the last for a level never seen, numbers off their steps and
           beyond walls as they are.
    rows:  (n,) bool, those with a value that the rows learnt from cannot have.
    kinds: what these values are, with the number of rows.
    """

    x: Tensor
    rows: np.ndarray
    kinds: tuple[str, ...]

    @staticmethod
    def of(x: Tensor, found: Sequence[tuple[str, np.ndarray]]) -> Made:
        """From rows and (what is impossible of some, (n,) bool which), one for each kind of value."""
        rows = np.any([where for _, where in found], axis=0) if found else np.zeros(len(x), dtype=bool)
        return Made(x, rows, tuple(counted(*each) for each in found))

    def told(self, name: str, whose: str) -> str:
        """One sentence that counts them; empty where there are none. whose: "real rows", "the rows it learnt from"."""
        n, count = len(self.rows), int(self.rows.sum())
        return f"{name}: {count:,} of {n:,} rows have values that {whose} cannot have: {'; '.join(self.kinds)}" if count else ""


class DataKind(ABC):
    """A kind of data, tables or images: maps observations to tensors and back, and holds all that differs between kinds.

    name, nouns:       what such data is called ("table"), and its observations ("rows").
    features:          the features that samples are compared by if no others are asked for; None: the columns themselves.
    pictured:          whether samples are shown as pictures; else they are text, which a terminal can show.
    judged_by_samples: whether a run chooses by samples if nothing is asked for; else by nats, where a model has a density.
    fillable:          whether cells can be missing, so that models fill them.
    block:             rows drawn together, so that any stretch of a seed's sequence is the same however it is asked for.
    examples:          samples that a run writes.
    more:              a file of more such data, in commands to paste.
    gallery_dtype:     the dtype of the samples that a report shows.
    held_a_second, least_held, most_held: rows of the select and of the report part: for each second of the budget, from which
                       scoring and sampling are paid, at least, and at most.
    samples:           of every model that are compared; 0: as many as rows are held.
    """

    name: ClassVar[str]
    nouns: ClassVar[str]
    features: ClassVar[str | None]
    pictured: ClassVar[bool]
    judged_by_samples: ClassVar[bool]
    fillable: ClassVar[bool]
    block: ClassVar[int]
    examples: ClassVar[int]
    more: ClassVar[str]
    gallery_dtype: ClassVar[torch.dtype]
    held_a_second: ClassVar[int]
    least_held: ClassVar[int]
    most_held: ClassVar[int]
    samples: ClassVar[int]

    @property
    @abstractmethod
    def space(self) -> Space:
        """Of one observation in tensor units."""

    @property
    @abstractmethod
    def written(self) -> str:
        """The ending of a file that holds such samples and that people look into."""

    @abstractmethod
    def encode(self, data: Any, *, holes: bool = False, name: str = "data") -> Tensor:
        """Observations in data units → (n, *shape) float64 in tensor units. Raises InputError for others than those learnt, and
        unless ``holes`` for cells missing where none was."""

    @abstractmethod
    def decode(self, x: Tensor) -> Content:
        """The inverse of :meth:`encode`, in the types and the rounding of the data."""

    @abstractmethod
    def describe(self) -> list[dict[str, str]]:
        """One row a column to show a person: column, kind, detail."""

    @abstractmethod
    def summary(self, n: int) -> str:
        """``n`` observations in a few words."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Plain data, which :func:`mixtura.data.source.from_json` reads."""

    @abstractmethod
    def check_output(self, path: Path) -> None:
        """InputError where a file with this ending cannot hold such samples, before any is made."""

    def looked_at(self, seconds: float | None) -> tuple[int, int]:
        """(rows of the select and of the report part, samples of every model), at most, in a run of so many seconds; by steps, as
        in one of a minute."""
        n = min(self.most_held, max(self.least_held, round(self.held_a_second * (60.0 if seconds is None else seconds))))
        return n, self.samples or n

    @abstractmethod
    def as_made(self, rows: Any, *, name: str = "data", holes: bool = False) -> Made:
        """Rows with nothing moved, and what of them the rows learnt from cannot have. (:meth:`encode` moves a number to the
        nearest step of its column, which is right for rows of the same distribution alone.) Raises InputError as it does."""

    @abstractmethod
    def strict(self, rows: Any, *, name: str = "data") -> DataKind:
        """With those of the constant columns modelled, as one level, in which these rows hold something else: a column that
        differs counts as one."""

    @abstractmethod
    def wrong_constant(self, rows: Any, *, name: str = "data") -> str | None:
        """The first constant column in which rows hold something else, in words."""
