"""The columns of a table: the human side of :class:`~mixtura.contracts.Space`.

:func:`mixtura.data.guess.guess` looks at a table once; the :class:`Schema` it returns turns tables into tensors and back without
losing a digit: ``schema.decode(schema.encode(frame))`` is ``frame``, less the columns it dropped.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import TypeAdapter
from torch import Tensor

from mixtura.contracts import InputError, Space
from mixtura.data import dtypes
from mixtura.data.field import Field


@dataclass(frozen=True)
class Schema:
    """The columns of a table, in its order."""

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

    def encode(self, frame: pd.DataFrame, *, holes: bool = False, name: str = "data") -> Tensor:
        """(n, D) float64 in tensor units, NaN where a cell is missing, a code one past the last for a
        category never seen, a number off its lattice moved to the nearest point of it.

        Columns are found by name in any order, others are ignored; an array (columns x0, x1, …) with as
        many columns as the table or its samples is taken by position. Raises InputError, naming row and column, for an
        absent column, text among numbers or dates, an infinite number, and, unless ``holes``, a missing
        cell in a column that had none.
        """
        frame = self.matched(frame, name)
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
        """How many cells of the modelled columns say nothing."""
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
        """By column the labels that are text: where a file has one of them, it is no word for missing. An empty cell is one only
        in a column without missing cells."""
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


def named(frame: pd.DataFrame, *, name: str = "data") -> pd.DataFrame:
    """``frame`` with text for column names: x0, x1, … if it has no header. InputError if two are the same."""
    if not isinstance(frame, pd.DataFrame):
        raise InputError(
            f"{name}: expected a pandas DataFrame, got {type(frame).__name__}; pass it through mixtura.data.read first"
        )
    unnamed = isinstance(frame.columns, pd.RangeIndex) and list(frame.columns) == list(range(frame.shape[1]))
    frame = frame.set_axis([f"x{c}" if unnamed else str(c) for c in frame.columns], axis=1)
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"{name}: two columns are named {twice!r}; give every column a name of its own")
    return frame


def listed(names: Iterable[str], most: int) -> str:
    """Names as they are given to an option that takes several: one with a comma in quotes."""
    shown = [f'"{name}"' if "," in name else name for name in names]
    quoted = " (a name with a comma is given in quotes)" if any("," in name for name in shown) else ""
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "") + quoted


def closest(word: str, among: Iterable[str]) -> str:
    """The end of a sentence that names the most similar of some words, empty where none is similar."""
    found = difflib.get_close_matches(word, list(among), n=1, cutoff=0.5)
    return f" (closest: {found[0]!r})" if found else ""
