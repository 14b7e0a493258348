"""Loading: what a person names, a table or images, becomes data, a kind of data that is learnt from it, and files again."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.contracts import InputError, Note
from mixtura.data import images, tables
from mixtura.data.cells import MISSING
from mixtura.data.field import Kind
from mixtura.data.files.door import Levels
from mixtura.data.files.pixels import Images
from mixtura.data.guess import guess
from mixtura.data.images import ImageSchema
from mixtura.data.kind import Content, DataKind
from mixtura.data.names import aligned, header
from mixtura.data.schema import Schema
from mixtura.data.tables import Table

Data = Table | Images
#: kinds of columns that hold numbers
NUMBERS = ("numeric", "integer", "datetime")
#: files named in one sentence
MOST_NAMED = 8


def load(
    source: Any, *, seed: int = 0, skip_broken: bool = False, size: int | None = None,
    levels: Levels | None = None, name: str | None = None,
) -> Data:  # fmt: skip
    """A path, the name of an example, a frame, an array or a tensor → a table, or images. ``levels`` as
    :func:`mixtura.data.tables.read` has them. ``name``: what data in memory is called in messages. Raises InputError."""
    if images.is_images(source):
        return images.read_images(source, seed=seed, skip_broken=skip_broken, size=size, name=name)
    for flag, given in (("--skip-broken", skip_broken), ("--size", size is not None)):
        if given:
            raise InputError(f"{flag}: is for images, and this is a table; leave it out")
    return tables.read(source, seed=seed, levels=levels, name=name)


def rows_of(data: Data) -> Content:
    """The rows of data: a frame, or an array of images."""
    return data.pixels if isinstance(data, Images) else data.frame


def with_note(data: Data) -> Data:
    """The same data; a :class:`Note` names the files that were left out of images, for commands that print no plan."""
    left_out = data.skipped if isinstance(data, Images) else ()
    if left_out:
        more = f"; and {len(left_out) - MOST_NAMED:,} more files" if len(left_out) > MOST_NAMED else ""
        warnings.warn(f"{data.name}: left out {'; '.join(left_out[:MOST_NAMED])}{more}", Note, stacklevel=2)
    return data


def rows_like(
    source: Any, like: DataKind, beside: Schema | None = None, *, skip_broken: bool = False, name: str | None = None
) -> Content:
    """Rows that ``like`` can encode and, for the input columns of a run, ``beside``. A frame or an array stays as it is; anything
    else is read by :func:`load`, except that a word for missing is a label in a column that has this label, and stays as it is in
    a column that neither schema models."""
    if isinstance(source, pd.DataFrame) or (isinstance(source, np.ndarray) and like.pictured):
        return source
    schemas = [schema for schema in (like, beside) if isinstance(schema, Schema)]
    _check_width(source, schemas, name)
    words = {field.name: frozenset[str]() for schema in schemas for field in schema.fields if field.kind != "dropped"}
    words |= {name: labels for schema in schemas for name, labels in schema.words.items()}

    def words_that_are_text(column: str) -> Collection[str]:
        return words.get(column, MISSING - {""})

    data = with_note(load(source, skip_broken=skip_broken and like.pictured, levels=words_that_are_text, name=name))
    if isinstance(data, Images) != like.pictured:
        given, wanted = ("images", "a table") if isinstance(data, Images) else ("a table", "images")
        raise InputError(f"{data.name}: holds {given}, expected {wanted}; give data of the same kind")
    return rows_of(data)


def _check_width(source: Any, schemas: Sequence[Schema], name: str | None) -> None:
    """InputError for an array of more columns than the array that was learnt from: no names say which of them are meant."""
    learnt = sorted(field.name for schema in schemas for field in schema.fields)
    width = source.shape[1] if isinstance(source, np.ndarray | Tensor) and source.ndim == 2 else 0
    if width > len(learnt) and learnt == sorted(f"x{k}" for k in range(len(learnt))):
        raise InputError(f"{name or 'the array'}: has {width} columns, learnt from {len(learnt)}; give the same columns")


def learn(
    data: Data, *, kinds: Mapping[str, str] | None = None, columns: Iterable[str] | None = None,
    bounds: Mapping[str, Sequence[float | None]] | None = None,
) -> DataKind:  # fmt: skip
    """What the columns, or the pixels, of data mean. For tables, ``kinds`` overrides the kinds of columns, ``columns``
    chooses the columns, and ``bounds`` says where their values end."""
    if isinstance(data, Table):
        ends = {column: (low, high) for column, (low, high) in (bounds or {}).items()}
        return guess(data.frame, kinds=cast(Mapping[str, Kind], kinds or {}), columns=columns, bounds=ends)
    for flag, given in (("--kind", kinds), ("--columns", columns), ("--bounds", bounds)):
        if given:
            raise InputError(f"{flag}: is for tables, and these are images; leave it out")
    return images.guess_images(data)


def learn_both(
    first: Data, second: Data, *, kinds: Mapping[str, str] | None = None
) -> tuple[DataKind, Tensor, dict[str, str]]:
    """What the columns of two sets mean, learnt from the rows of both, ``kinds`` as :func:`learn` has them; these rows in tensor
    units, those of the first before those of the second; and column → why no entry is made of it (free text, identifiers), of
    which a :class:`Note` tells. InputError where the sets differ in kind, columns or sizes, where a column is numbers in one and
    text in the other, and where a cell cannot be used, of the set that it is in."""
    both = _together(first, second)
    try:
        learnt = learn(both, kinds=kinds)
        x = learnt.encode(rows_of(both), name=f"{first.name} and {second.name}")
    except InputError:
        for data in (first, second):  # which says which row of which file
            learn(data, kinds=kinds).encode(rows_of(data), name=data.name)
        raise
    if not isinstance(learnt, Schema):
        return learnt, x, {}
    left_out = {field.name: field.reason for field in learnt.fields if field.kind == "dropped"}
    if left_out:
        _refuse_numbers_beside_text(left_out, first, second)
        said = "; ".join(f"{column!r} {why}" for column, why in left_out.items())
        warnings.warn(f"columns that were not compared: {said}", Note, stacklevel=3)
    return learnt, x, left_out


def _refuse_numbers_beside_text(columns: Collection[str], first: Data, second: Data) -> None:
    numbers = [{f.name for f in cast(Schema, learn(data)).fields if f.kind in NUMBERS} for data in (first, second)]
    for name in columns:
        if (name in numbers[0]) != (name in numbers[1]):
            plain, other = (first.name, second.name) if name in numbers[0] else (second.name, first.name)
            raise InputError(f"column {name!r}: {plain} holds numbers and {other} does not; repair it or leave it out of both")


def _together(first: Data, second: Data) -> Data:
    """The rows of both, one after the other. A :class:`Note` names columns of the second that the first has not."""
    if isinstance(first, Images) and isinstance(second, Images):
        shapes = [data.pixels.shape[1:] for data in (first, second)]
        if shapes[0] != shapes[1]:
            raise InputError(f"{second.name}: images of {shapes[1]}, {first.name} has {shapes[0]}; resize them")
        return replace(first, pixels=np.concatenate([first.pixels, second.pixels]))
    if isinstance(first, Images) or isinstance(second, Images):
        given, wanted = ("a table", "images") if isinstance(first, Images) else ("images", "a table")
        raise InputError(f"{second.name}: holds {given}, expected {wanted} as {first.name}; give data of the same kind")
    rows = aligned(second.frame, header(first.frame), name=second.name, like=first.name)
    if rows.shape[1] != first.frame.shape[1]:
        raise InputError(
            f"{second.name}: has {rows.shape[1]} columns, {first.name} has {first.frame.shape[1]}; give the same columns"
        )
    rows = rows.set_axis(first.frame.columns, axis=1)
    return replace(first, frame=pd.concat([first.frame, rows], ignore_index=True))


def from_json(plain: Mapping[str, Any]) -> DataKind:
    """The inverse of :meth:`DataKind.to_json`. Raises InputError, or another error when a first row is decoded, for data that
    is no schema."""
    learnt = ImageSchema.from_json(dict(plain)) if plain.get("kind") == "images" else Schema.from_json(dict(plain))
    row = learnt.space.clamp(torch.zeros(1, *learnt.space.shape, dtype=torch.float64))
    learnt.encode(learnt.decode(row), name="schema")
    return learnt


def write(rows: Content, path: str | Path) -> None:
    """Rows to a file: a table's formats, or .npz, .npy, .zip or a folder for images."""
    if isinstance(rows, pd.DataFrame):
        tables.write(rows, path)
    else:
        images.write_images(rows, path)
