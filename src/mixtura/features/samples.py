"""Samples of outside generators, by name, mapped to features that can be compared."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.contracts import InputError, Note
from mixtura.data import dtypes, numerals, source
from mixtura.data.field import refuse_nested
from mixtura.data.memory import to_numpy
from mixtura.data.names import aligned, header
from mixtura.features.space import FeatureSpace


def gather(
    samples: Mapping[str, Any], reference: Any, asked: str | None, *, seed: int, skip_broken: bool = False
) -> tuple[dict[str, Tensor], Tensor | None, str]:
    """The features (n, d) of samples, by name, and of the reference, and the name of these features.

    Tables of numbers are used as they are. Other tables and images are mapped by a :class:`FeatureSpace` fitted on the reference,
    or on all samples if there is none. Columns are matched by name, in the order of the reference or of the first table; by
    position if a table has no header. A :class:`Note` names columns that are left out, and counts values that the rows of the
    reference cannot have, which are measured as they are.
    """
    given = {**samples} if reference is None else {**samples, "reference": reference}
    if "reference" in samples and reference is not None:
        raise InputError("mix: an arm is called 'reference'; rename it")
    arrays = {name: _array(x, name) for name, x in given.items()}
    if asked is None and all(x is not None for x in arrays.values()):
        found, called = {name: x for name, x in arrays.items() if x is not None}, "as given"
    else:
        loaded = {
            name: source.with_note(source.load(x, seed=seed, skip_broken=skip_broken, name=name)) for name, x in given.items()
        }
        frames = {name: source.rows_of(data) for name, data in loaded.items()}
        numbers = _by_name(frames)
        if asked is None and all(x is not None for x in numbers.values()):
            found, called = {name: x for name, x in numbers.items() if x is not None}, "as given"
        else:
            found, called = _compared(loaded, asked, seed)
    widths = {name: x.shape[1] for name, x in found.items()}
    odd = next((name for name, width in widths.items() if width != next(iter(widths.values()))), None)
    if odd is not None:
        first = next(iter(widths))
        raise InputError(f"{odd}: has {widths[odd]} columns, {first} has {widths[first]}; give samples of the same kind")
    for name, x in found.items():
        if len(x) < 2:
            raise InputError(f"{name}: {len(x)} sample cannot tell how alike samples are; give 2 or more")
        bad = (~torch.isfinite(x.float().square())).nonzero()  # kernels multiply in float32
        if len(bad):
            row, column = bad[0].tolist()
            value = float(x[row, column])
            remedy = "divide the column by a power of ten" if math.isfinite(value) else "drop it, or encode missing values"
            what = "beyond 1e19, where products overflow" if math.isfinite(value) else "which is not finite"
            raise InputError(f"{name}: row {row}, column {column} is {value:g}, {what}; {remedy}")
    return {name: found[name] for name in samples}, found.get("reference"), called


def real_rows(reference: Any, *, seed: int = 0) -> tuple[Tensor, list[str] | None]:
    """Real rows of numbers (n, d), or images (n, C, H, W), for an online selection; and the column names of a table, None without
    a header. Raises InputError on a table with other columns than numbers."""
    data = source.load(reference, seed=seed, name="reference")
    frame = source.rows_of(data)
    if isinstance(frame, pd.DataFrame):
        if numbers_of(frame) is None:
            raise InputError(f"{data.name}: has columns without numbers, but arms give numbers; encode them first")
        return gather({"reference": reference}, None, None, seed=seed)[0]["reference"], header(frame)
    schema = source.learn(data)
    return schema.encode(frame, name=data.name), None


def _array(x: Any, name: str) -> Tensor | None:
    """An array of numbers (n, d) in memory as features, float32 or float64; None for anything else. Masked values are missing."""
    if not isinstance(x, Tensor | np.ndarray) or isinstance(x, np.ma.MaskedArray) or x.ndim != 2 or 0 in x.shape:
        return None
    array = to_numpy(x, name) if isinstance(x, Tensor) else x
    if array.dtype.kind not in "biuf":
        return None
    return torch.from_numpy(np.ascontiguousarray(array, np.float32 if array.dtype == np.float32 else np.float64))


def _by_name(frames: Mapping[str, Any]) -> dict[str, Tensor | None]:
    """Tables of numbers (n, d), columns in the order of the reference or of the first; None for other tables and for images."""
    numbers = {name: numbers_of(frame) for name, frame in frames.items()}
    first = "reference" if "reference" in frames else next(iter(frames))
    if any(x is None for x in numbers.values()):
        return numbers
    columns = header(frames[first])
    return {name: numbers_of(aligned(frame, columns, name=name, like=first)) for name, frame in frames.items()}


def numbers_of(frame: Any) -> Tensor | None:
    """A table of numbers (n, d), NaN where one is missing; None for any other table, and for images."""
    if not isinstance(frame, pd.DataFrame):
        return None
    x = np.full(frame.shape, np.nan)
    for j in range(frame.shape[1]):
        column = frame.iloc[:, j]
        present = column.dropna()
        refuse_nested(present)
        plain = not dtypes.is_text(present.dtype) or all(numerals.is_number(str(cell)) for cell in present.unique())
        values = numerals.numbers(present) if plain else None
        if values is None:
            return None
        x[column.notna().to_numpy(), j] = numerals.floats(values)
    return torch.as_tensor(x)


def _compared(loaded: Mapping[str, Any], asked: str | None, seed: int) -> tuple[dict[str, Tensor], str]:
    """Tables of any kind, or images, in a feature space fitted on the reference, or on all samples if there is none."""
    like = loaded.get("reference", next(iter(loaded.values())))
    schema = source.learn(like)
    rows = {name: source.rows_like(source.rows_of(data), schema, name=name) for name, data in loaded.items()}
    for name, x in rows.items():
        schema = schema.strict(x, name=name)
    as_made = {name: schema.as_made(x, name=name) for name, x in rows.items()}
    for name, found in as_made.items():
        if said := found.told(name, "real rows" if "reference" in loaded else f"those of {next(iter(loaded))}"):
            warnings.warn(said, Note, stacklevel=4)
    encoded = {name: found.x for name, found in as_made.items()}
    fit = encoded.get("reference", torch.cat([*encoded.values()]))
    of_samples = schema.pictured
    space = FeatureSpace.of_samples(fit, asked, seed=seed) if of_samples else FeatureSpace.of_rows(schema, fit, asked, seed=seed)
    return {name: space(x) for name, x in encoded.items()}, space.name
