"""One column of a table: what its cells mean, and how they become numbers and cells again.

A rounded column lives on a lattice, (offset + k·step) / 10^decimals for whole k, whose three numbers are
exact Python ints. Its tensor holds value − offset (integer), the value (numeric) or k (datetime), so
that an identifier near 2^60 and an instant in nanoseconds both survive float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.contracts import Column, InputError
from mixtura.data import cells, datetimes, dtypes, hints, numerals
from mixtura.data.cells import Label

Kind = Literal["numeric", "integer", "boolean", "categorical", "ordinal", "datetime", "constant", "dropped"]


@dataclass(frozen=True)
class Field:
    """One column of a table.

    dtype:    the dtype that decoding gives ("int64", "category", "str", "datetime64[ns, UTC]" …; see :mod:`mixtura.data.dtypes`).
    stored:   its type in the Parquet file that the table came from, else empty.
    absent:   how many of the rows learnt from had no value; more than 0 makes "missing" a possible value.
    labels:   the values of a boolean, categorical or ordinal column in code order, as the table had them
              (of a constant column its one value, or none if every cell was missing).
    decimals, step, offset: the lattice of a rounded column (see the module); step 0 if it has none.
    unit:     of a datetime, the tick of step and offset.
    pattern:  how text writes a datetime, or a number ("1.234,50 €", :class:`mixtura.data.numerals.Style`); empty if it has no
              style of its own.
    low, high: the smallest and the largest value seen, in tensor units.
    atoms:    the values that hold a share of the rows, or lie off the steps, in tensor units.
    exact:    the ticks of a datetime's atoms off the steps, which a float might round.
    moved:    how many cells were off the steps, are no atoms, and are moved to the nearest step.
    bounds:   the limits of the values that the person gave, in data units.
    ends:     where the values end: at the bounds, at 0 where none is negative, or at the limit of the type; None where there
              is no end. In data units; ticks of a datetime.
    floor, ceiling: the walls: the outermost values within the ends, in tensor units; None where there is no end.
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
        """(n,) bool: the missing cells, which are empty or hold a word for missing that is not a label."""
        numbered = series.set_axis(range(len(series)))
        gone = np.ones(len(series), dtype=bool)
        gone[self._not_missing(dtypes.plain(numbered.dropna())).index.to_numpy()] = False
        return gone

    def encode(self, series: pd.Series, *, name: str = "data") -> np.ndarray:
        """(n,) float64 in tensor units, NaN where missing, numbers and dates moved to the nearest step. Errors name rows by the
        index of ``series``."""
        return self._moved_to_steps(self.encode_unmoved(series, name=name))

    def encode_unmoved(self, series: pd.Series, *, name: str = "data") -> np.ndarray:
        """As :meth:`encode`, but numbers and dates that are off the steps stay where they are."""
        numbered = series.set_axis(range(len(series)))
        present = dtypes.plain(numbered.dropna())
        refuse_nested(present.set_axis(series.index[present.index.to_numpy()]))
        present = self._not_missing(present)
        at = present.index.to_numpy()
        out = np.full(len(series), np.nan)
        out[at] = self._encode_present(uncategorised(present.set_axis(series.index[at])), name) if len(present) else ()
        return out

    def _not_missing(self, present: pd.Series) -> pd.Series:
        """The cells that are not words for missing. In a column of labels without missing cells every text is a label."""
        if self.kind == "categorical" and not self.absent:
            return present
        return cells.drop_missing_words(present, self.labels)

    def _encode_present(self, present: pd.Series, name: str) -> np.ndarray:
        if self.discrete:
            if self.pattern and (values := numerals.numbers(present, self.pattern)) is not None:
                present = pd.Series(numerals.write_numbers(values, self.pattern))
            return cells.codes(present, self.labels).astype(np.float64)
        if self.kind == "datetime":
            return self._encode_instants(present, name)
        values = numbers_of(present, name, self.pattern)
        if self.kind == "numeric":
            return self._in_stored_precision(values.astype(np.float64))
        # As Python ints, because near 2^60 float64 would lose the last digits before the offset is taken away.
        whole, part = values, np.zeros(len(values))
        if values.dtype.kind == "f":
            whole = np.array([int(v) for v in np.rint(values)], dtype=object)
            part = values - np.rint(values)
        return refuse_infinite(present, numerals.floats(whole.astype(object) - self.offset), name) + part

    def _in_stored_precision(self, values: np.ndarray) -> np.ndarray:
        """Real numbers rounded to the precision of the column's type, as those of a float32 written in decimal digits."""
        stored = dtypes.dtype(self.dtype)
        if not types.is_float_dtype(stored) or dtypes.precision(stored).itemsize == 8:
            return values
        with np.errstate(over="ignore"):
            short = values.astype(dtypes.precision(stored)).astype(np.float64)
        return np.where(np.isfinite(short), short, values)

    @property
    def atoms_off_steps(self) -> tuple[float, ...]:
        """The atoms off the steps."""
        return tuple(atom for atom in self.atoms if self.step and not self.column.on_steps(atom))

    def _moved_to_steps(self, values: np.ndarray) -> np.ndarray:
        """``values`` moved to the nearest step within the walls. Values beyond a wall and atoms off the steps stay."""
        if not self.step:
            return values
        scale = self.step if self.kind == "integer" else 1
        on_steps = self.nearest(values) if self.kind == "numeric" else np.rint(values / scale) * scale
        # 0 is possible where values are 300, 700, …, and the nearest of these is not −100
        origin = self.offset if self.kind == "integer" else 0
        for end, wall, beyond in zip(self.ends, (self.floor, self.ceiling), (np.less, np.greater), strict=True):
            if end is not None and wall is not None and self.kind != "datetime":
                on_steps = np.where(beyond(on_steps, wall) & ~beyond(values, float(end - origin)), wall, on_steps)
        for atom in self.atoms_off_steps:
            on_steps = np.where(np.isclose(values, atom, rtol=1e-12, atol=0), atom, on_steps)
        return on_steps

    def _encode_instants(self, present: pd.Series, name: str) -> np.ndarray:
        seen = datetimes.instants(present, self.pattern)
        if seen is None:
            if why := hints.why_not(present, self.pattern):
                raise InputError(f"{name}: column {self.name!r} holds {why}")
            row = first_without_instant(present, self.pattern)
            raise InputError(
                f"{name}: column {self.name!r}, row {row} is {str(present[row])!r}, expected a date like "
                f"{self._text_of(self.low)}, all written alike; repair the column"
            )
        if seen.aware != self._knows_zone:
            have, lack = ("a time zone", "none") if self._knows_zone else ("no time zone", "one")
            raise InputError(f"{name}: column {self.name!r} was learnt with {have} and now has {lack}; convert it")
        here, there = datetimes.UNITS[seen.unit], datetimes.UNITS[self.unit]
        # a quotient of Python ints, which is the float nearest to it
        return ((seen.ticks.astype(object) * there - self.offset * here) / (self.step * here)).astype(np.float64)

    @property
    def _knows_zone(self) -> bool:
        return "," in self.dtype if not self.pattern else datetimes.knows_zone(self.pattern)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Numeric values moved to the nearest step. Values so large that float64 cannot hold the step stay."""
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
            return _decoded_series(np.array([*self.labels, None], dtype=object)[codes], missing, self)
        if not self.step:
            return _decoded_series(self._within_type(x), missing, self)
        x = np.where(missing, self.low, x)
        apart = np.isin(x, self.atoms_off_steps)
        if self.kind == "numeric":
            x, column = self._within_type(x), self.column
            return _decoded_series(np.where(apart, x, np.clip(self.nearest(x), column.low, column.high)), missing, self)
        exact = self._whole_numbers(np.where(apart, self.low, x))
        ticks_of_atoms = self.exact or [int(atom) + self.offset for atom in self.atoms_off_steps]
        for atom, tick in zip(self.atoms_off_steps, ticks_of_atoms, strict=True):
            exact[x == atom] = tick
        if self.kind == "integer":
            return _decoded_series(exact, missing, self)
        ticks = exact.astype(np.int64)
        if self.pattern:
            texts = np.array(datetimes.write_instants(ticks, self.unit, self.pattern), dtype=object)
            return _decoded_series(texts, missing, self)
        instants = ticks.view(f"M8[{self.unit}]")
        if self.dtype == "date" or self.dtype.endswith("[pyarrow]"):
            return _decoded_series(instants, missing, self)
        dates = pd.Series(instants).mask(missing)
        return (dates.dt.tz_localize("UTC") if self._knows_zone else dates).astype(self.dtype).rename(self.name)

    def _within_type(self, x: np.ndarray) -> np.ndarray:
        """Real numbers clipped to the largest that the type of the column holds."""
        stored = dtypes.dtype(self.dtype)
        if not types.is_float_dtype(stored):
            return x
        largest = float(np.finfo(dtypes.precision(stored)).max)
        return np.clip(x, -largest, largest)

    def _whole_numbers(self, x: np.ndarray) -> np.ndarray:
        """The nearest step within the walls as a Python int: a whole number, or ticks of a datetime."""
        column = self.column
        k = np.clip(x, max(column.low, -dtypes.EXACT), min(column.high, dtypes.EXACT))
        k = k / self.step if self.kind == "integer" else k
        return np.rint(k).astype(np.int64).astype(object) * self.step + self.offset

    def _text_of(self, value: float) -> str:
        if self.kind == "numeric" and self.step and not self.pattern:
            return f"{value:.{self.decimals}f}" if value not in self.atoms_off_steps else f"{value:g}"
        cell = self.decode(np.array([value])).iloc[0]
        return str(int(cell) if self.kind == "integer" and not self.pattern else cell).removesuffix(" 00:00:00")

    @property
    def detail(self) -> str:
        """One line for a person: levels, or step, range and atoms; missing rows; why it is dropped."""
        if self.kind == "dropped":
            return self.reason
        if self.kind == "constant":
            return f"always {_shortened(self.labels[0])}" if self.labels else "always missing"
        if self.discrete:
            shown = ", ".join(map(_shortened, self.labels[:6])) + (", …" if len(self.labels) > 6 else "")
            parts = [f"{len(self.labels)} level{'s' * (len(self.labels) != 1)}: {shown}"]
        else:
            parts = [f"step {self._step_text()}"] * bool(self.step) + [f"{self._text_of(self.low)} … {self._text_of(self.high)}"]
            often = [atom for atom in self.atoms if atom not in self.atoms_off_steps]
            parts += [f"often {', '.join(map(self._text_of, often))}"] * bool(often)
            parts += [f"off its steps {', '.join(map(self._text_of, self.atoms_off_steps[:6]))}"] * bool(self.atoms_off_steps)
            parts += [f"{self.moved} more moved to its steps"] * bool(self.moved)
            parts += [f"walls {self.bounds_text}"] * bool(self.bounds_text)
            parts += ["not below 0"] * (self.kind in ("numeric", "integer") and not self.bounds_text and self.ends[0] == 0)
            parts += [f"written as in {self.pattern}"] * (bool(self.pattern) and self.kind != "datetime")
        return ", ".join(parts + [f"{self.absent} missing"] * bool(self.absent))

    @property
    def bounds_text(self) -> str:
        """The bounds as a person writes them, "0:120"; empty without bounds."""
        return "" if self.bounds == (None, None) else ":".join("" if end is None else f"{end:g}" for end in self.bounds)

    def _step_text(self) -> str:
        if self.kind != "datetime":
            return f"{self.step / 10**self.decimals:.{self.decimals}f}"
        days, rest = divmod(self.step, 86400 * datetimes.UNITS[self.unit])
        return f"{self.step} {self.unit}" if rest else f"{days} day{'s' * (days != 1)}"


def _shortened(label: Label) -> str:
    text = str(label)
    return text if len(text) <= 60 else text[:60] + "…"


def _decoded_series(values: np.ndarray, missing: np.ndarray, field: Field) -> pd.Series:
    """Decoded cells in the dtype of the field; one that cannot hold a missing cell gives way to its nullable twin."""
    if field.dtype == "category":
        codes = pd.Index(field.labels, dtype=object).get_indexer(values)
        categories = pd.Index(list(field.labels))
        ordered = field.kind == "ordinal"
        return pd.Series(pd.Categorical.from_codes(codes, categories=categories, ordered=ordered), name=field.name)
    if field.pattern and field.kind in ("numeric", "integer"):
        values = np.array(numerals.write_numbers(values, field.pattern), dtype=object)
    return dtypes.cells_as(field.dtype, values, missing).rename(field.name)


def refuse_nested(present: pd.Series) -> None:
    """InputError, naming column and row, where a cell is a list or the like."""
    if types.is_object_dtype(present.dtype):
        for row, value in present.items():
            if isinstance(value, list | tuple | dict | set | np.ndarray):
                raise InputError(
                    f"column {present.name!r}, row {row} holds a {type(value).__name__}, "
                    "expected one number or text a cell; flatten the column or leave it out"
                )


def uncategorised(present: pd.Series) -> pd.Series:
    """The cells without their pandas Categorical type."""
    return present.astype(present.cat.categories.dtype) if isinstance(present.dtype, pd.CategoricalDtype) else present


def numbers_of(present: pd.Series, name: str = "", like: str = "") -> np.ndarray:
    """(n,) numbers that the cells hold; InputError, naming the row, for other text and for an infinite number."""
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
    return refuse_infinite(present, values, name)


def refuse_infinite(present: pd.Series, values: np.ndarray, name: str = "") -> np.ndarray:
    """``values`` (n,) of the cells as they are; InputError, naming the row, where one is infinite."""
    if values.dtype.kind == "f" and np.isinf(values).any():
        row = present.index[int(np.isinf(values).argmax())]
        raise InputError(
            f"{name and name + ': '}column {present.name!r}, row {row} is infinite, expected a finite number; "
            "repair the cell or leave it empty"
        )
    return values


def first_without_instant(present: pd.Series, like: str = "") -> int:
    """The index of the first cell that cannot be read as a date."""
    return next((row for row in present.index if datetimes.instants(present.loc[[row]], like) is None), present.index[0])
