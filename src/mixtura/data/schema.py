"""The columns of a table: the human side of :class:`~mixtura.contracts.Space`.

:func:`mixtura.data.guess.guess` looks at a table once; the :class:`Schema` it returns turns tables into tensors and back without
losing a digit: ``schema.decode(schema.encode(frame))`` is ``frame``, less the columns it dropped.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter
from torch import Tensor

from mixtura.contracts import InputError, Space
from mixtura.data import dtypes, impossible
from mixtura.data.field import Field
from mixtura.data.files import DOORS
from mixtura.data.kind import DataKind, Made
from mixtura.data.names import closest, named


@dataclass(frozen=True)
class Schema(DataKind):
    """The columns of a table, in its order."""

    name = "table"
    nouns = "rows"
    features = None
    pictured = False
    judged_by_samples = False
    fillable = True
    block = 1_000
    examples = 1_000
    more = "more.csv"
    gallery_dtype = torch.float64
    held_a_second, least_held, most_held = 50, 1_000, 5_000
    samples = 1_000

    fields: tuple[Field, ...]

    @property
    def modelled(self) -> tuple[Field, ...]:
        """The fields with an entry in the space, in its order."""
        return tuple(f for f in self.fields if f.modelled)

    @property
    def space(self) -> Space:
        """The space of one row in tensor units."""
        return Space.table(f.column for f in self.modelled)

    def divide(self, target: Collection[str]) -> tuple[Schema, Schema]:
        """The columns named in ``target``, and the others."""
        ours, others = ([f for f in self.fields if (f.name in target) == wanted] for wanted in (True, False))
        return Schema(tuple(ours)), Schema(tuple(others))

    def encode(self, data: Any, *, holes: bool = False, name: str = "data") -> Tensor:
        """(n, D) float64 in tensor units, NaN where a cell is missing, a code one past the last for a
        category never seen, a number off its steps moved to the nearest one.

        Columns are found by name in any order, others are ignored; the columns of an array (x0, x1, …) are taken by position if
        it has as many as the table or its samples. Raises InputError, naming row and column, for an
        absent column, text among numbers or dates, an infinite number, and, unless ``holes``, a missing
        cell in a column that had none.
        """
        frame = self.matched(data, name)
        if len(frame) == 0:
            raise InputError(f"{name}: the table has no rows; give at least one")
        x = np.empty((len(frame), len(self.modelled)))
        for j, field in enumerate(self.modelled):
            x[:, j] = field.encode(pd.Series(frame[field.name]), name=name)
            gaps = np.isnan(x[:, j])
            if gaps.any() and not field.absent and not holes:
                raise InputError(
                    f"{name}: column {field.name!r}, row {int(gaps.argmax())} is missing, but the column "
                    "was learnt without missing values; fill the cell, or leave out the row"
                )
        return torch.from_numpy(x)

    def gaps(self, frame: pd.DataFrame) -> int:
        """How many cells of the modelled columns are missing."""
        rows = self.matched(frame, "data")
        return sum(int(field.gaps(pd.Series(rows[field.name])).sum()) for field in self.modelled)

    def matched(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """``frame`` with its columns found as :meth:`encode` finds them, rows numbered from 0."""
        frame = named(frame, name=name).reset_index(drop=True)
        lacking = [f.name for f in self.modelled if f.name not in frame.columns]
        for fields in (self.fields, [f for f in self.fields if f.kind != "dropped"]):  # all of the table, or of its samples
            if lacking and list(frame.columns) == [f"x{j}" for j in range(len(fields))]:
                return frame.set_axis([f.name for f in fields], axis=1)
        if lacking:
            raise InputError(
                f"{name}: no column {lacking[0]!r}{closest(lacking[0], frame.columns)}; give a table with every learnt column"
            )
        return frame

    def decode(self, x: Tensor) -> pd.DataFrame:
        """(n, D) tensor units → a table with the dtypes, walls, rounding and writing of the original, its constant columns put
        back and its dropped columns absent. Raises InputError for a wrong shape or a code that is no label."""
        anywhere = Space.table(replace(c, missing=True) for c in self.space.columns)
        x = anywhere.check(x, name="decode").detach().cpu()
        for j, field in enumerate(self.modelled):
            if field.discrete and (x[:, j] >= len(field.labels)).any():
                row = int((x[:, j] >= len(field.labels)).nonzero()[0])
                raise InputError(
                    f"decode: row {row}, column {field.name!r} is code {int(x[row, j])}, which has no label "
                    f"(expected 0 to {len(field.labels) - 1}); leave out the row"
                )
        values = iter(x.T.contiguous().numpy())
        blank = np.zeros(x.shape[0])
        columns = {
            f.name: f.decode(next(values)) if f.modelled else f.decode(blank if f.labels else blank + np.nan)
            for f in self.fields
            if f.kind != "dropped"
        }
        return dtypes.keep_stored(pd.DataFrame(columns), {f.name: f.stored for f in self.fields if f.stored})

    @property
    def textual(self) -> list[str]:
        """The columns of samples that are text or dates in some row, which an array of numbers cannot hold."""
        written = [f for f in self.fields if f.kind == "datetime" or f.pattern or any(isinstance(v, str) for v in f.labels)]
        return [f.name for f in written if not f.dtype.startswith("decimal(")]

    @property
    def words(self) -> dict[str, frozenset[str]]:
        """Column → its labels that are text, so that a file that holds one is not read as missing there. An empty text is a label
        only in a column without missing cells."""
        texts = {f.name: frozenset(v for v in f.labels if isinstance(v, str) and (v or not f.absent)) for f in self.fields}
        return {name: labels for name, labels in texts.items() if labels}

    def describe(self) -> list[dict[str, str]]:
        """One row a column to show a person: column, kind, detail."""
        return [{"column": f.name, "kind": f.kind, "detail": f.detail} for f in self.fields]

    def to_json(self) -> dict[str, Any]:
        """Plain data; whole numbers stay whole however large."""
        plain = [asdict(f) for f in self.fields]
        return {"fields": [{key: list(v) if isinstance(v, tuple) else v for key, v in d.items()} for d in plain]}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Schema:
        """The inverse of :meth:`to_json`. Raises InputError if ``data`` is something else."""
        try:
            return Schema(tuple(TypeAdapter(list[Field]).validate_python(data["fields"])))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"schema: expected what Schema.to_json wrote, got data that does not fit ({error}); write it again"
            ) from error

    @property
    def written(self) -> str:
        """As :attr:`DataKind.written`."""
        return ".csv"

    def summary(self, n: int) -> str:
        """As :meth:`DataKind.summary`."""
        return f"{n:,} rows, {len(self.fields)} columns"

    def check_output(self, path: Path) -> None:
        """InputError where an array is asked for, and the samples hold more than numbers."""
        door = DOORS.get(path.suffix.lower())
        if door is not None and door.only_numbers and self.textual:
            raise InputError(
                f"{path}: column {self.textual[0]!r} holds no numbers, which is all an array can; use .csv, .jsonl or .parquet"
            )

    def as_made(self, rows: Any, *, name: str = "data", holes: bool = False) -> Made:
        """As :meth:`DataKind.as_made`."""
        found: list[tuple[str, np.ndarray]] = []
        x, frame = self.encode(rows, holes=holes, name=name), self.matched(rows, name)
        for j, field in enumerate(self.modelled):
            series, settled = pd.Series(frame[field.name]), x[:, j].numpy()
            raw = impossible.as_they_are(field, series, settled) if field.step else settled
            off = ~np.isnan(settled) & (raw != settled)
            x[:, j] = torch.from_numpy(raw)
            found += impossible.impossible_cells(field, series, raw, off)
        return Made.of(x, found)

    def strict(self, rows: Any, *, name: str = "data") -> Schema:
        """As :meth:`DataKind.strict`."""
        frame = self.matched(rows, name)
        differing = {
            f.name for f in self.fields if f.name in frame.columns and impossible.differs(f, pd.Series(frame[f.name]))
        }
        return Schema(tuple(impossible.as_level(f) if f.name in differing else f for f in self.fields))

    def wrong_constant(self, rows: Any, *, name: str = "data") -> str | None:
        """As :meth:`DataKind.wrong_constant`."""
        for field in self.strict(rows, name=name).modelled:
            if field.kind == "categorical" and field not in self.modelled:
                series = pd.Series(self.matched(rows, name)[field.name]).reset_index(drop=True)
                codes = field.encode(series)
                odd = impossible.impossible_cells(field, series, codes, codes < 0)
                said, where = next(odd, ("missing", series.isna().to_numpy()))
                return f"{impossible.counted(said, where)}, where the data is {impossible.as_constant(field)}"
        return None
