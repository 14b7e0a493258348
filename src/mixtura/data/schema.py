"""What the columns of a table mean: the human side of :class:`~mixtura.contracts.Space`.

``guess`` looks at a table once; the :class:`Schema` it returns turns tables into tensors and back without
losing a digit: ``schema.decode(schema.encode(frame))`` is ``frame``, less the columns it dropped.

A rounded column lives on a lattice, (offset + k·step) / 10^decimals for whole k, whose three numbers are
exact Python ints. Its tensor holds value − offset (integer), the value (numeric) or k (datetime), so
that an identifier near 2^60 and an instant in nanoseconds both survive float64.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from pandas.api import types
from pydantic import TypeAdapter
from torch import Tensor

from mixtura.contracts import ON_STEPS, Column, InputError, Space
from mixtura.data import cells, datetimes, dtypes, hints, lattice, numerals
from mixtura.data.cells import Label
from mixtura.ground.shown import kind_of

Kind = Literal["numeric", "integer", "boolean", "categorical", "ordinal", "datetime", "constant", "dropped"]

LEAST_ROWS = 20
#: labels of a column, at most: every model keeps a number for each of them in every row it looks at
MOST_LEVELS = 4_096
#: values off the steps of their column that are kept as atoms, at most
MOST_APART = 64
#: whole numbers with at most this many distinct values are levels
FEW = 10
#: cells that are no numbers are faults of a column of numbers up to this share
MOST_ODD = 0.5
_SCALARS = ("string", "boolean", "integer", "floating", "decimal", "mixed-integer-float", "mixed-integer", "mixed")
_ROW_NUMBER = {"id", "ids", "index", "idx", "row", "rows", "rownum", "unnamed"}


@dataclass(frozen=True)
class Field:
    """One column of a table.

    dtype:    the dtype that decoding gives ("int64", "category", "str", "datetime64[ns, UTC]" …; see :mod:`mixtura.data.dtypes`).
    stored:   its type in the Parquet file that the table came from, else empty.
    absent:   how many of the rows looked at had no value; any makes "missing" a possible value.
    labels:   the values of a boolean, categorical or ordinal column in code order, as the table had them
              (and the one value of a constant column; none if it was empty throughout).
    decimals, step, offset: the lattice of a rounded column (see the module); step 0 if it has none.
    unit:     of a datetime, the tick of step and offset.
    pattern:  how text writes a datetime, or a number ("1.234,50 €", :class:`mixtura.data.numerals.Style`); empty if plainly.
    low, high, atoms: the smallest and the largest value seen and those with a share of their own, or off the steps,
              in tensor units. exact: the ticks of a datetime's atoms off the steps, which a float might round.
              moved: how many more were off the steps, and are moved to them.
    bounds:   where a person said that the values end, in data units.
    ends:     where the values end: by bounds, at 0 where none is negative, or where the type does; None where they do not.
              In data units, ticks of a datetime.
    floor, ceiling: the walls, the outermost values within the ends, in tensor units; None where there is none.
    unseen:   the probability of a label that is not among the labels.
    reason:   why a column is dropped.
    """

    name: str
    kind: Kind
    dtype: str = ""
    stored: str = ""
    absent: int = 0
    labels: tuple[Label, ...] = ()
    decimals: int = 0
    step: int = 0
    offset: int = 0
    unit: str = ""
    pattern: str = ""
    low: float = 0.0
    high: float = 0.0
    atoms: tuple[float, ...] = ()
    exact: tuple[int, ...] = ()
    moved: int = 0
    bounds: tuple[float | None, float | None] = (None, None)
    ends: tuple[int | float | None, int | float | None] = (None, None)
    floor: float | None = None
    ceiling: float | None = None
    unseen: float = 0.0
    reason: str = ""

    @property
    def modelled(self) -> bool:
        """Whether the column has an entry in the space."""
        return self.kind not in ("constant", "dropped")

    @property
    def discrete(self) -> bool:
        """Whether its tensor holds codes of labels."""
        return self.kind in ("boolean", "categorical", "ordinal")

    @property
    def resolution(self) -> float:
        """δ in tensor units; 0 for real numbers that are not written in steps."""
        return 1.0 if self.kind == "datetime" else self.step / 10**self.decimals

    @property
    def column(self) -> Column:
        """The entry of the space."""
        if self.discrete:
            return Column("levels", len(self.labels), bool(self.absent), unseen=self.unseen)
        low = -math.inf if self.floor is None else self.floor
        high = math.inf if self.ceiling is None else self.ceiling
        # tensor units of the others count from the offset
        anchor = self.offset / 10**self.decimals if self.kind == "numeric" else 0.0
        return Column("continuous", 0, bool(self.absent), self.resolution, low, high, self.atoms, anchor)

    def gaps(self, series: pd.Series) -> np.ndarray:
        """(n,) bool: the cells that say nothing, as they are empty or hold a word for missing that is no label."""
        numbered = series.set_axis(range(len(series)))
        gone = np.ones(len(series), dtype=bool)
        gone[self._there(dtypes.plain(numbered.dropna())).index.to_numpy()] = False
        return gone

    def encode(self, series: pd.Series, *, name: str = "data") -> np.ndarray:
        """(n,) float64 in tensor units, NaN where missing, numbers and instants on their steps; rows are named by the index of
        ``series``."""
        return self._settled(self.measured(series, name=name))

    def measured(self, series: pd.Series, *, name: str = "data") -> np.ndarray:
        """As :meth:`encode`, with numbers and instants where they are, on a step or not."""
        numbered = series.set_axis(range(len(series)))
        present = dtypes.plain(numbered.dropna())
        refuse_nested(present.set_axis(series.index[present.index.to_numpy()]))
        present = self._there(present)
        at = present.index.to_numpy()
        out = np.full(len(series), np.nan)
        out[at] = self._measured(_plain(present.set_axis(series.index[at])), name) if len(present) else ()
        return out

    def _there(self, present: pd.Series) -> pd.Series:
        """The cells that say something: of labels all but a word for missing that is none, where something may be missing."""
        if self.kind == "categorical" and not self.absent:
            return present
        return cells.without_words(present, self.labels)

    def _measured(self, present: pd.Series, name: str) -> np.ndarray:
        if self.discrete:
            if self.pattern and (values := numerals.numbers(present, self.pattern)) is not None:
                present = pd.Series(numerals.write_numbers(values, self.pattern))
            return cells.codes(present, self.labels).astype(np.float64)
        if self.kind == "datetime":
            return self._measured_instants(present, name)
        values = _numbers(present, name, self.pattern)
        if self.kind == "numeric":
            return self._as_stored(values.astype(np.float64))
        # As Python ints, because near 2^60 float64 would lose the last digits before the offset is taken away.
        whole, part = values, np.zeros(len(values))
        if values.dtype.kind == "f":
            whole = np.array([int(v) for v in np.rint(values)], dtype=object)
            part = values - np.rint(values)
        return _finite(present, numerals.floats(whole.astype(object) - self.offset), name) + part

    def _as_stored(self, values: np.ndarray) -> np.ndarray:
        """Real numbers that were written with the digits of a float32, as that float32."""
        stored = dtypes.dtype(self.dtype)
        if not types.is_float_dtype(stored) or dtypes.precision(stored).itemsize == 8:
            return values
        with np.errstate(over="ignore"):
            short = values.astype(dtypes.precision(stored)).astype(np.float64)
        return np.where(np.isfinite(short), short, values)

    @property
    def apart(self) -> tuple[float, ...]:
        """The atoms off the steps."""
        return tuple(atom for atom in self.atoms if self.step and not self.column.on_steps(atom))

    def _settled(self, values: np.ndarray) -> np.ndarray:
        """``values`` moved to the nearest step within the walls, but for those that are beyond one, or an atom off the steps."""
        if not self.step:
            return values
        scale = self.step if self.kind == "integer" else 1
        on_steps = self.nearest(values) if self.kind == "numeric" else np.rint(values / scale) * scale
        # 0 is possible where values are 300, 700, …, and the nearest of these is not −100
        origin = self.offset if self.kind == "integer" else 0
        for end, wall, beyond in zip(self.ends, (self.floor, self.ceiling), (np.less, np.greater), strict=True):
            if end is not None and wall is not None and self.kind != "datetime":
                on_steps = np.where(beyond(on_steps, wall) & ~beyond(values, float(end - origin)), wall, on_steps)
        for atom in self.apart:
            on_steps = np.where(np.isclose(values, atom, rtol=1e-12, atol=0), atom, on_steps)
        return on_steps

    def _measured_instants(self, present: pd.Series, name: str) -> np.ndarray:
        seen = datetimes.instants(present, self.pattern)
        if seen is None:
            if why := hints.why_not(present, self.pattern):
                raise InputError(f"{name}: column {self.name!r} holds {why}")
            row = _first_without_instant(present, self.pattern)
            raise InputError(
                f"{name}: column {self.name!r}, row {row} is {str(present[row])!r}, expected a date like "
                f"{self._show(self.low)}, all written alike; repair the column"
            )
        if seen.aware != self._aware:
            have, lack = ("a time zone", "none") if self._aware else ("no time zone", "one")
            raise InputError(f"{name}: column {self.name!r} was learnt with {have} and now has {lack}; convert it")
        here, there = datetimes.UNITS[seen.unit], datetimes.UNITS[self.unit]
        # a quotient of Python ints, which is the float nearest to it
        return ((seen.ticks.astype(object) * there - self.offset * here) / (self.step * here)).astype(np.float64)

    @property
    def _aware(self) -> bool:
        return "," in self.dtype if not self.pattern else datetimes.knows_zone(self.pattern)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Numeric values moved to their lattice; those so far off that float64 has no such point stay."""
        if not self.step:
            return values
        with np.errstate(over="ignore"):
            k = np.rint((values * 10.0**self.decimals - self.offset) / self.step)
            return np.where(np.abs(values) * 10.0**self.decimals < dtypes.EXACT, self.on_lattice(k), values)

    def on_lattice(self, k: np.ndarray) -> np.ndarray:
        """Step k as a number."""
        return (self.offset + k * self.step) / 10.0**self.decimals

    def decode(self, x: np.ndarray) -> pd.Series:
        """(n,) tensor units → the column; rounded columns are moved to their lattice."""
        missing = np.isnan(x)
        if self.kind == "constant" or self.discrete:
            codes = np.where(missing, -1, x).astype(np.int64)
            return _series(np.array([*self.labels, None], dtype=object)[codes], missing, self)
        if not self.step:
            return _series(self._held(x), missing, self)
        x = np.where(missing, self.low, x)
        apart = np.isin(x, self.apart)
        if self.kind == "numeric":
            x, column = self._held(x), self.column
            return _series(np.where(apart, x, np.clip(self.nearest(x), column.low, column.high)), missing, self)
        exact = self._exact(np.where(apart, self.low, x))
        for atom, tick in zip(self.apart, self.exact or [int(atom) + self.offset for atom in self.apart], strict=True):
            exact[x == atom] = tick
        if self.kind == "integer":
            return _series(exact, missing, self)
        ticks = exact.astype(np.int64)
        if self.pattern:
            return _series(np.array(datetimes.write_instants(ticks, self.unit, self.pattern), dtype=object), missing, self)
        instants = ticks.view(f"M8[{self.unit}]")
        if self.dtype == "date" or self.dtype.endswith("[pyarrow]"):
            return _series(instants, missing, self)
        dates = pd.Series(instants).mask(missing)
        return (dates.dt.tz_localize("UTC") if self._aware else dates).astype(self.dtype).rename(self.name)

    def _held(self, x: np.ndarray) -> np.ndarray:
        """Real numbers that the type of the column can hold."""
        stored = dtypes.dtype(self.dtype)
        if not types.is_float_dtype(stored):
            return x
        largest = float(np.finfo(dtypes.precision(stored)).max)
        return np.clip(x, -largest, largest)

    def _exact(self, x: np.ndarray) -> np.ndarray:
        """Whole numbers, or ticks, as Python ints: those of the nearest steps within the walls."""
        column = self.column
        k = np.clip(x, max(column.low, -dtypes.EXACT), min(column.high, dtypes.EXACT))
        k = k / self.step if self.kind == "integer" else k
        return np.rint(k).astype(np.int64).astype(object) * self.step + self.offset

    def _show(self, value: float) -> str:
        if self.kind == "numeric" and self.step and not self.pattern:
            return f"{value:.{self.decimals}f}" if value not in self.apart else f"{value:g}"
        cell = self.decode(np.array([value])).iloc[0]
        return str(int(cell) if self.kind == "integer" and not self.pattern else cell).removesuffix(" 00:00:00")

    @property
    def detail(self) -> str:
        """One line for a person: levels, or step, range and atoms; missing rows; why it is dropped."""
        if self.kind == "dropped":
            return self.reason
        if self.kind == "constant":
            return f"always {_short(self.labels[0])}" if self.labels else "always missing"
        if self.discrete:
            shown = ", ".join(map(_short, self.labels[:6])) + (", …" if len(self.labels) > 6 else "")
            parts = [f"{len(self.labels)} level{'s' * (len(self.labels) != 1)}: {shown}"]
        else:
            parts = [f"step {self._show_step()}"] * bool(self.step) + [f"{self._show(self.low)} … {self._show(self.high)}"]
            often = [atom for atom in self.atoms if atom not in self.apart]
            parts += [f"often {', '.join(map(self._show, often))}"] * bool(often)
            parts += [f"off its steps {', '.join(map(self._show, self.apart[:6]))}"] * bool(self.apart)
            parts += [f"{self.moved} more moved to its steps"] * bool(self.moved)
            parts += [f"walls {self.walls}"] * bool(self.walls)
            parts += ["not below 0"] * (self.kind in ("numeric", "integer") and not self.walls and self.ends[0] == 0)
            parts += [f"written as in {self.pattern}"] * (bool(self.pattern) and self.kind != "datetime")
        return ", ".join(parts + [f"{self.absent} missing"] * bool(self.absent))

    @property
    def walls(self) -> str:
        """Where a person said that the values end."""
        return "" if self.bounds == (None, None) else ":".join("" if end is None else f"{end:g}" for end in self.bounds)

    def _show_step(self) -> str:
        if self.kind != "datetime":
            return f"{self.step / 10**self.decimals:.{self.decimals}f}"
        days, rest = divmod(self.step, 86400 * datetimes.UNITS[self.unit])
        return f"{self.step} {self.unit}" if rest else f"{days} day{'s' * (days != 1)}"


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
                f"{name}: no column {lacking[0]!r}{_closest(lacking[0], frame.columns)}; give a table with every learnt column"
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


def _short(label: Label) -> str:
    text = str(label)
    return text if len(text) <= 60 else text[:60] + "…"


def listed(names: Iterable[str], most: int) -> str:
    """Names as they are given to an option that takes several: one with a comma in quotes."""
    shown = [f'"{name}"' if "," in name else name for name in names]
    quoted = " (a name with a comma is given in quotes)" if any("," in name for name in shown) else ""
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "") + quoted


def _closest(word: str, among: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(among), n=1, cutoff=0.5)
    return f" (closest: {found[0]!r})" if found else ""


def _series(values: np.ndarray, missing: np.ndarray, field: Field) -> pd.Series:
    """Decoded cells in the dtype of the field; one that cannot hold a missing cell gives way to its nullable twin."""
    if field.dtype == "category":
        codes = pd.Index(field.labels, dtype=object).get_indexer(values)
        categories = pd.Index(list(field.labels))
        ordered = field.kind == "ordinal"
        return pd.Series(pd.Categorical.from_codes(codes, categories=categories, ordered=ordered), name=field.name)
    if field.pattern and field.kind in ("numeric", "integer"):
        values = np.array(numerals.write_numbers(values, field.pattern), dtype=object)
    return dtypes.cells_as(field.dtype, values, missing).rename(field.name)


# ------------------------------------------------------------------------------------------------- guess


Bounds = tuple[float | None, float | None]


def guess(
    frame: pd.DataFrame, *, kinds: Mapping[str, Kind] | None = None, columns: Iterable[str] | None = None,
    bounds: Mapping[str, Bounds] | None = None,
) -> Schema:  # fmt: skip
    """What the columns of ``frame`` mean; ``kinds`` overrides, ``columns`` keeps only those, ``bounds`` says where the values of
    a column of numbers end, None on a side where they do not. Where no value is negative they end at 0.

    A column of one value is constant. Text written wholly as numbers or dates, as people write them, is read as such; words for
    missing are missing there (:mod:`mixtura.data.cells`). Whole numbers are ordinal with at most 10 distinct values, else
    integer; two-valued truth is boolean; other text is categorical unless nearly every text is different. What cannot be
    modelled is dropped, with its reason. Raises InputError for fewer than 20 rows, no usable column, repeated or unknown column
    names, nested cells, infinite numbers, and a kind or bounds that the cells do not fit.
    """
    frame = named(frame).reset_index(drop=True)
    kinds, bounds = dict(kinds or {}), dict(bounds or {})
    chosen = set(frame.columns if columns is None else columns)
    for column in (*sorted(chosen), *kinds, *bounds):
        if column not in frame.columns:
            there = listed(frame.columns, 100)
            raise InputError(f"no column {column!r}{_closest(column, frame.columns)}; the table has {there}")
    for column, kind in kinds.items():
        if kind not in get_args(Kind) or kind == "constant":
            expected = ", ".join(k for k in get_args(Kind) if k != "constant")
            raise InputError(f"column {column!r}: {kind!r} is no kind; expected {expected}")
    if len(frame) < LEAST_ROWS:
        raise InputError(f"learning needs at least {LEAST_ROWS} rows; got {len(frame)}")
    for column, (low, high) in bounds.items():
        if (low is None and high is None) or any(end is not None and not math.isfinite(end) for end in (low, high)):
            got = "none" if low is None and high is None else f"{low}:{high}"
            raise InputError(f"bounds: of {column!r}, expected one or two finite numbers, got {got}; write {column}=0:120")
        if low is not None and high is not None and not low < high:
            raise InputError(f"bounds: {column}={low:g}:{high:g} ends before it begins; give the lower end first")
    stored = {name: kept for name, kept in frame.attrs.get(dtypes.STORED, {}).items() if isinstance(kept, str)}
    fields = tuple(
        _guess_field(series, kinds.get(str(c)), bounds.get(str(c), (None, None)), stored.get(c, ""))
        for c, series in frame.items() if c in chosen
    )  # fmt: skip
    if not any(f.modelled for f in fields):
        said = "; ".join(f.reason or f"{f.name}: {f.detail}" for f in fields)
        raise InputError(f"no column is left to model ({said}); give a table with a column that varies")
    return Schema(fields)


def _guess_field(series: pd.Series, kind: Kind | None, bounds: Bounds, stored: str) -> Field:
    field = _guess_kind(series, kind, bounds, stored)
    if bounds != (None, None) and field.kind not in ("numeric", "integer", "constant", "dropped"):
        remedy = "leave them out" if field.kind == "datetime" else f"leave them out, or add {kind_of(field.name, 'integer')}"
        raise InputError(f"bounds: {field.name!r} is {field.kind}, and only numbers have bounds; {remedy}")
    return replace(field, unseen=1 / (len(series) - field.absent + 2)) if field.discrete else field


def _guess_kind(series: pd.Series, kind: Kind | None, bounds: Bounds, stored: str) -> Field:
    present = dtypes.plain(series.dropna())
    refuse_nested(present)
    if kind not in ("categorical", "dropped"):
        rest = cells.without_words(present)
        present = rest if kind is not None or len(rest) == len(present) or _more_than_labels(rest) else present
    absent, dtype = len(series) - len(present), dtypes.name_of(series, present)
    field = Field(str(series.name), "dropped", dtype=dtype, stored=stored, absent=absent, bounds=bounds)
    distinct = present.nunique()
    if kind == "dropped":
        return replace(field, reason=f"{field.name}: left out as asked")
    if distinct == 0 or (distinct == 1 and not field.absent):
        return replace(field, kind="constant", labels=tuple(map(_verbatim, present[:1])))
    present = _plain(present) if kind not in (None, "categorical", "ordinal") else present
    if kind is not None:
        return _few_enough(_ASKED[kind](field, present), asked=True)
    if isinstance(present.dtype, pd.CategoricalDtype):
        return _few_enough(_ordinal(field, present) if present.dtype.ordered else _categorical(field, present))
    if types.infer_dtype(present) == "boolean" or _truth_in_text(present):
        return _boolean(field, present)
    if (values := numerals.numbers(present)) is not None:
        return _guess_number(field, present, values)
    if datetimes.instants(present) is not None:
        return _datetime(field, present)
    if (says := types.infer_dtype(present)) not in _SCALARS:
        return replace(
            field, reason=f"{field.name}: holds {says} values, which are not modelled; convert them to numbers or text"
        )
    return _few_enough(_guess_text(field, present, distinct, len(series)))


def _more_than_labels(present: pd.Series) -> bool:
    """Whether all of it is numbers, times or truth."""
    truth = len(present) > 0 and (types.infer_dtype(present) == "boolean" or _truth_in_text(present))
    return truth or (len(present) > 0 and (numerals.numbers(present) is not None or datetimes.instants(present) is not None))


def _few_enough(field: Field, *, asked: bool = False) -> Field:
    """``field``, or why its labels are too many or too long to be modelled."""
    characters = sum(len(label) for label in field.labels if isinstance(label, str))
    if len(field.labels) <= MOST_LEVELS and characters <= cells.MOST_CHARACTERS:
        return field
    many = f"{len(field.labels):,} levels, more than the {MOST_LEVELS:,}"
    long = f"labels of {characters:,} characters, more than the {cells.MOST_CHARACTERS:,}"
    what = many if len(field.labels) > MOST_LEVELS else long
    if asked:
        raise InputError(f"column {field.name!r} has {what} that can be modelled; join rare ones, or leave the column out")
    reason = f"{field.name}: {what} that can be modelled; join rare ones to keep it"
    return Field(field.name, "dropped", dtype=field.dtype, absent=field.absent, bounds=field.bounds, reason=reason)


def refuse_nested(present: pd.Series) -> None:
    """InputError, naming column and row, where a cell is a list or the like."""
    if types.is_object_dtype(present.dtype):
        for row, value in present.items():
            if isinstance(value, list | tuple | dict | set | np.ndarray):
                raise InputError(
                    f"column {present.name!r}, row {row} holds a {type(value).__name__}, "
                    "expected one number or text a cell; flatten the column or leave it out"
                )


def _plain(present: pd.Series) -> pd.Series:
    """Cells out of their pandas Categorical."""
    return present.astype(present.cat.categories.dtype) if isinstance(present.dtype, pd.CategoricalDtype) else present


def _verbatim(value: Any) -> Label:
    return value.isoformat() if isinstance(value, pd.Timestamp) else cells.label(value)


def _truth_in_text(present: pd.Series) -> bool:
    pairs = ({"True", "False"}, {"true", "false"}, {"TRUE", "FALSE"})
    return types.infer_dtype(present) == "string" and set(present.unique()) in pairs


def _guess_number(field: Field, present: pd.Series, values: np.ndarray) -> Field:
    if not _whole(_finite(present, values)):
        return _numeric(field, present)
    distinct = np.unique(values)
    if len(distinct) <= FEW:
        return _ordinal(field, present)
    if int(distinct[-1]) - int(distinct[0]) > dtypes.EXACT:
        why = "whole numbers spread over more than 2^53, too far apart to tell from one another in float64"
        return replace(field, reason=f"{field.name}: {why}; {kind_of(field.name, 'categorical')} or =numeric keeps it")
    if datetimes.are_days(distinct):
        why = f"whole numbers that are all dates, as {distinct[0]} is; write them as 2024-12-31"
        return replace(field, reason=f"{field.name}: {why}, or {kind_of(field.name, 'integer')} keeps them as numbers")
    words = {w.lower() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", field.name)}
    if words & _ROW_NUMBER and not field.absent and (np.diff(values) > 0).all():
        return replace(field, reason=f"{field.name}: counts the rows; {kind_of(field.name, 'integer')} keeps it")
    return _integer(field, present)


def _guess_text(field: Field, present: pd.Series, distinct: int, rows: int) -> Field:
    keeps = f"{kind_of(field.name, 'categorical')} keeps it"
    if why := hints.why_not(present):
        return replace(field, reason=f"{field.name}: {why}; {keeps}")
    words = {str(value).lower() for value in present.unique()}
    if words <= {"true", "false", "0", "1"} and {"true", "false"} & words and {"0", "1"} & words:
        return replace(field, reason=f"{field.name}: truth in words and as 0 and 1; write all cells alike, or {keeps}")
    odd = [row for row, value in present.items() if not hints.looks_like_number(str(value))]
    if all(hints.is_code(str(present[row])) for row in odd):
        odd = []  # as postal codes are: no number among others, but none of the cells is wrong
    if distinct > numerals.FEW_TEXTS and 0 < len(odd) <= MOST_ODD * len(present):
        why = f"{len(present) - len(odd)} of {len(present)} texts are numbers, but row {odd[0]} is {present[odd[0]]!r}"
        return replace(field, reason=f"{field.name}: {why}; empty such cells, or {keeps}")
    if distinct > max(numerals.FEW_TEXTS, min(1000, rows // 5)):
        code = next((text for text in map(str, present) if hints.is_code(text)), None)
        if code is not None:
            why = f"{distinct} different texts in {rows} rows, codes such as {code!r}"
            return replace(field, reason=f"{field.name}: {why}; {keeps}")
        if shape := hints.form(present):
            why = f"{distinct} different texts such as {shape!r}, neither numbers nor dates as they are read"
            return replace(field, reason=f"{field.name}: {why}; write them as 1234.5 or 2024-12-31 if they are, or {keeps}")
        why = f"{distinct} different texts in {rows} rows, looks like an identifier"
        return replace(field, reason=f"{field.name}: {why}; {keeps}")
    return _categorical(field, present)


# Each of these makes a field of its kind out of the cells that are there, or says why they do not fit.


def _numbers(present: pd.Series, name: str = "", like: str = "") -> np.ndarray:
    values = numerals.numbers(present, like)
    if values is None:
        if why := hints.why_not(present):
            raise InputError(f"{name and name + ': '}column {present.name!r} holds {why}")
        said = [(row, cells.text(v)) for row, v in present.items()]
        odd = [(row, text) for row, text in said if not hints.looks_like_number(text)]
        odd = odd or [(row, text) for row, text in said if not numerals.is_number(text)] or said
        raise InputError(
            f"{name and name + ': '}column {present.name!r}, row {odd[0][0]} is {odd[0][1]!r}, "
            "expected a number; repair the cell or leave it empty"
        )
    return _finite(present, values, name)


def _finite(present: pd.Series, values: np.ndarray, name: str = "") -> np.ndarray:
    if values.dtype.kind == "f" and np.isinf(values).any():
        row = present.index[int(np.isinf(values).argmax())]
        raise InputError(
            f"{name and name + ': '}column {present.name!r}, row {row} is infinite, expected a finite number; "
            "repair the cell or leave it empty"
        )
    return values


def _whole(values: np.ndarray) -> bool:
    return values.dtype.kind != "f" or bool((np.abs(values) <= dtypes.EXACT).all() and (values == np.rint(values)).all())


def _numeric(field: Field, present: pd.Series) -> Field:
    values = _numbers(present).astype(np.float64)
    stored = dtypes.precision(present.dtype) if types.is_float_dtype(present.dtype) else np.dtype(np.float64)
    found = lattice.lattice(values, stored)
    decimals, step, offset = found or (0, 0, 0)
    dtype = _number_dtype(field, present)
    pattern = numerals.number_pattern(present)
    if found is None and not pattern and types.is_integer_dtype(dtypes.dtype(dtype)):
        dtype = "float64"  # whole numbers past 2^53, which the person asked to round
    field = replace(field, kind="numeric", dtype=dtype, decimals=decimals, step=step, offset=offset, pattern=pattern)
    _within(field, present, values)
    low, high = field.bounds
    low = 0.0 if low is None and values.min() >= 0 else low
    if held := dtypes.digits_held(field.stored or field.dtype):
        most = (10 ** held[0] - 1) / 10 ** held[1]
        low, high = (-most if low is None else low), (most if high is None else high)
    field = replace(field, ends=(low, high))
    if step:  # the outermost steps within
        k = lambda end: (end * 10.0**decimals - offset) / step  # noqa: E731
        low = None if low is None else float(field.on_lattice(np.ceil(k(low) - 1e-9)))
        high = None if high is None else float(field.on_lattice(np.floor(k(high) + 1e-9)))
    return _ranged(replace(field, floor=low, ceiling=high), values, field.nearest(values), stored)


def _within(field: Field, present: pd.Series, values: np.ndarray) -> None:
    low, high = (end if end is not None else side * math.inf for end, side in zip(field.bounds, (-1, 1), strict=True))
    beyond = (values < low) | (values > high)
    if beyond.any():
        row = present.index[int(beyond.argmax())]
        raise InputError(
            f"column {field.name!r}, row {row} is {present[row]}, beyond its bounds {field.walls}; "
            "repair the cell, or widen the bounds"
        )


def _integer(field: Field, present: pd.Series) -> Field:
    values = _numbers(present)
    if not _whole(values):
        row = present.index[int((values != np.rint(values)).argmax())]
        raise InputError(
            f"column {field.name!r}, row {row} is {present[row]}, expected a whole number; use {kind_of(field.name, 'numeric')}"
        )
    exact = values if values.dtype.kind != "f" else values.astype(np.int64)
    distinct, counts = np.unique(exact, return_counts=True)
    first, last = int(distinct[0]), int(distinct[-1])
    if last - first > dtypes.EXACT:
        raise InputError(
            f"column {field.name!r}: whole numbers spread over more than 2^53 do not fit float64; "
            f"use {kind_of(field.name, 'numeric')} to round them, or =categorical"
        )
    _within(field, present, exact)
    step, offset = lattice.steps(distinct, counts)
    pattern = numerals.number_pattern(present)
    field = replace(field, kind="integer", dtype=_number_dtype(field, present), step=step, offset=offset, pattern=pattern)
    low, high = field.bounds
    least, most = _limits(field)
    low = math.ceil(low) if low is not None else 0 if first >= 0 else least
    high = math.floor(high) if high is not None else most
    if least is not None and most is not None:
        low, high = (min(max(end, least), most) for end in (least if low is None else low, most if high is None else high))
    # whole steps from the offset; an end that float64 cannot tell from its neighbours is none
    down = None if low is None else (offset - low) // step * step
    up = None if high is None else (high - offset) // step * step
    floor, ceiling = (None if k is None or k > dtypes.EXACT else float(k) for k in (down, up))
    field = replace(field, ends=(low, high), floor=None if floor is None else 0.0 - floor, ceiling=ceiling)
    apart = (exact - offset).astype(np.float64)
    return _ranged(field, apart, np.rint(apart / step) * step)


def _limits(field: Field) -> tuple[int | None, int | None]:
    """The least and the largest whole number that a column of this type can hold; None where it has none."""
    if held := dtypes.digits_held(field.stored or field.dtype):
        most = 10 ** (held[0] - held[1]) - 1
        return -most, most
    stored = dtypes.dtype(field.dtype)
    if not types.is_integer_dtype(stored):
        return None, None
    ends = np.iinfo(dtypes.precision(stored))
    return int(ends.min), int(ends.max)


def _number_dtype(field: Field, present: pd.Series) -> str:
    """Numbers that came as text or objects decode as numbers, unless they were written in a style of their own; others as they
    came."""
    if numerals.number_pattern(present):
        return "str" if types.is_string_dtype(present.dtype) and not types.is_object_dtype(present.dtype) else "object"
    if types.is_numeric_dtype(dtypes.dtype(field.dtype)) or field.dtype.startswith("decimal("):
        return field.dtype
    values = _numbers(present)
    if values.dtype.kind == "f":
        return "float64"
    if values.dtype == object:
        return "object"
    return "Int64" if field.absent else "int64"


def _datetime(field: Field, present: pd.Series) -> Field:
    seen = datetimes.instants(present)
    if seen is None:
        if why := hints.why_not(present):
            raise InputError(f"column {field.name!r} holds {why}, or use {kind_of(field.name, 'categorical')}")
        row = _first_without_instant(present)
        raise InputError(
            f"column {field.name!r}, row {row} is {str(present[row])!r}, expected dates all written alike, as in "
            f"2024-12-31 or 2024-12-31 23:59:59; rewrite the column or use {kind_of(field.name, 'categorical')}"
        )
    distinct, counts = np.unique(seen.ticks, return_counts=True)
    step, offset = lattice.steps(distinct, counts)
    if (int(distinct[-1]) - int(distinct[0])) // step > dtypes.EXACT:
        return replace(field, reason=f"{field.name}: more than 2^53 {seen.unit} between its dates; round them to a coarser unit")
    dtype = f"datetime64[{seen.unit}, UTC]" if seen.aware else f"datetime64[{seen.unit}]"
    if field.dtype == "date" or field.dtype.endswith("[pyarrow]"):
        dtype = field.dtype
    elif seen.pattern or types.is_datetime64_any_dtype(present.dtype):
        dtype = str(present.dtype)
    # years of four digits, within what the unit can count
    ends = [int(np.datetime64(year, "s").astype(np.int64)) * datetimes.UNITS[seen.unit] for year in ("0001-01-01", "9999-12-31")]
    least, most = max(ends[0], -(2**63) + 1), min(ends[1], 2**63 - 1)
    down, up = ((offset - least) // step, (most - offset) // step)
    field = replace(
        field, kind="datetime", dtype=dtype, step=step, offset=offset, unit=seen.unit, pattern=seen.pattern, ends=(least, most),
        floor=-float(down) if down <= dtypes.EXACT else None, ceiling=float(up) if up <= dtypes.EXACT else None,
    )  # fmt: skip
    ticks = seen.ticks.astype(object) - offset
    k = ((2 * ticks + step) // (2 * step)).astype(np.float64)
    ranged = _ranged(field, np.where(ticks % step == 0, k, (ticks / step).astype(np.float64)), k)
    exact = {float(t - offset) / step: int(t) for t in distinct[(distinct - offset) % step != 0]}
    return replace(ranged, exact=tuple(exact[atom] for atom in ranged.apart))


def _first_without_instant(present: pd.Series, like: str = "") -> int:
    return next((row for row in present.index if datetimes.instants(present.loc[[row]], like) is None), present.index[0])


def _ranged(field: Field, values: np.ndarray, on_steps: np.ndarray, stored: np.dtype = np.dtype(np.float64)) -> Field:  # noqa: B008
    """With range and atoms: values with more than 2 % of the rows that also stand out from the others, the commonest of those
    off the steps in the precision they are ``stored`` in, and what stands on a wall of a column without steps."""
    apart = np.zeros(len(values), dtype=bool)
    if field.step:
        apart = (np.abs(values - on_steps) > ON_STEPS * field.resolution) & (values.astype(stored) != on_steps.astype(stored))
    odd, often = np.unique(values[apart], return_counts=True)
    kept = odd[np.argsort(-often, kind="stable")[:MOST_APART]]
    moved = apart & ~np.isin(values, kept)
    values = np.where(apart & ~moved, values, on_steps)
    distinct, counts = np.unique(values, return_counts=True)
    standing_out = 10 * float(np.median(counts)) if field.step else 3
    atom = (counts > 0.02 * (len(values) + field.absent)) & ((counts >= standing_out) | _piled(field, distinct, counts))
    most = sorted(np.flatnonzero(atom), key=lambda i: -counts[i])[:8]
    walls = [] if field.step else [wall for wall in (field.floor, field.ceiling) if wall in (distinct[0], distinct[-1])]
    atoms = sorted({*(float(distinct[i]) for i in most), *map(float, kept), *(float(wall) for wall in walls if wall is not None)})
    return replace(field, low=float(distinct[0]), high=float(distinct[-1]), atoms=tuple(atoms), moved=int(moved.sum()))


def _piled(field: Field, distinct: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Which values of a column in steps, as at a cap, hold far more rows than the usual value and than each of the two steps on
    either side: three times as many, and three standard errors more."""
    if not field.step:
        return np.zeros(len(distinct), dtype=bool)
    k = np.rint((distinct - distinct[0]) / field.resolution)
    beside = np.full(len(distinct), float(np.median(counts)))
    for shift in (-2, -1, 1, 2):
        at = np.searchsorted(k, k + shift).clip(max=len(k) - 1)
        beside = np.maximum(beside, np.where(k[at] == k + shift, counts[at], 0))
    return counts >= 3 * beside + 3 * np.sqrt(3 * beside + 1)


def _boolean(field: Field, present: pd.Series) -> Field:
    labels = _sorted_labels(present)
    if len(labels) > 2:
        raise InputError(
            f"column {field.name!r} has {len(labels)} different values, expected two; use {kind_of(field.name, 'categorical')}"
        )
    return replace(field, kind="boolean", labels=labels)


def _categorical(field: Field, present: pd.Series) -> Field:
    if isinstance(present.dtype, pd.CategoricalDtype):
        used = present.cat.remove_unused_categories().cat.categories
        return replace(field, kind="categorical", labels=tuple(map(cells.label, used)))
    return replace(field, kind="categorical", labels=_sorted_labels(present), dtype=_label_dtype(field, present))


def _ordinal(field: Field, present: pd.Series) -> Field:
    if isinstance(present.dtype, pd.CategoricalDtype) and present.dtype.ordered:
        return replace(field, kind="ordinal", labels=tuple(map(cells.label, present.cat.categories)))
    values = numerals.numbers(_plain(present))
    if values is None:
        raise InputError(
            f"column {field.name!r}: its texts have no order, expected numbers or an ordered pandas Categorical; "
            f"use {kind_of(field.name, 'categorical')}"
        )
    present, distinct = _plain(present), np.unique(_finite(present, values))
    pattern = numerals.number_pattern(present)
    labels = tuple(numerals.write_numbers(distinct, pattern) if pattern else map(cells.label, distinct))
    return replace(field, kind="ordinal", labels=labels, dtype=_number_dtype(field, present), pattern=pattern)


def _sorted_labels(present: pd.Series) -> tuple[Label, ...]:
    return tuple(sorted({cells.label(v) for v in pd.factorize(present)[1]}, key=lambda v: (isinstance(v, str), v)))


def _label_dtype(field: Field, present: pd.Series) -> str:
    """Text for what is not plain data (labels are then its text)."""
    distinct = pd.factorize(present)[1]
    plain = types.infer_dtype(present) in _SCALARS and all(isinstance(v, Label | np.generic) for v in distinct)
    return field.dtype if plain else "str"


_ASKED: dict[str, Callable[[Field, pd.Series], Field]] = {
    "numeric": _numeric,
    "integer": _integer,
    "boolean": _boolean,
    "categorical": _categorical,
    "ordinal": _ordinal,
    "datetime": _datetime,
}
