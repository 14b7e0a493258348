"""Tables and images behind one door: what a person names becomes data with a schema, whichever of the two it is."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mixtura.contracts import InputError, Note
from mixtura.data import images, read, schema
from mixtura.data import write as tables
from mixtura.data.cells import MISSING
from mixtura.data.images import ImageSchema, Pictures
from mixtura.data.read import Table
from mixtura.data.schema import Kind, Schema
from mixtura.ground.inputs import Inputs

Data = Table | Pictures
#: files named in one sentence
FEW = 8
AnySchema = Schema | ImageSchema
#: what a fitted model takes and gives: rows of a table, or images (n, H, W) or (n, H, W, 3)
Content = pd.DataFrame | np.ndarray


@dataclass(frozen=True)
class InputColumns:
    """The columns that a conditional run is given, and what its models see of them."""

    schema: Schema
    inputs: Inputs

    @property
    def names(self) -> list[str]:
        """Of the columns that models see."""
        return [field.name for field in self.schema.modelled]

    def frame(self, source: Any) -> pd.DataFrame:
        """The inputs among rows that a person gave, numbered from 0: of a frame, or of anything :func:`load` reads, with every
        one of these columns."""
        return self.rows(source).loc[:, self.names]

    def rows(self, source: Any) -> pd.DataFrame:
        """As :meth:`frame`, with the columns that are not inputs too."""
        return self.schema.matched(cast(pd.DataFrame, contents(source, self.schema)), "given")

    def features(self, frame: pd.DataFrame) -> Tensor:
        """(n, width) float32, of the rows of :meth:`frame`. InputError as :meth:`Schema.encode` raises it."""
        return self.inputs(self.schema.encode(frame, name="given"))

    @staticmethod
    def restore(schema: Schema, state: Mapping[str, Tensor]) -> InputColumns:
        """From the schema and the ``inputs.state_dict()`` of a run. Raises ValueError if they are not of one another."""
        inputs = Inputs(schema.space)
        try:
            inputs.load_state_dict(dict(state))
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[-1].strip()) from error
        return InputColumns(schema, inputs)


def split_target(schema: AnySchema, target: Collection[str]) -> tuple[Schema, Schema]:
    """The schemas of the columns in ``target`` and of those that are given. InputError where one of them cannot be modelled."""
    if not isinstance(schema, Schema):
        raise InputError("--target: names columns, and images have none; leave it out")
    ours, others = schema.divide(target)
    odd = next((f for f in ours.fields if not f.modelled), None)
    if odd is not None:
        constant = f"{odd.name}: {odd.detail}, so there is nothing to learn about it; name a column that varies"
        raise InputError(f"--target: {odd.reason or constant}")
    if not others.modelled:
        said = "; ".join(f.reason or f"{f.name}: {f.detail}" for f in others.fields) or "every one is a target"
        raise InputError(f"--target: no column is left to be the input ({said}); leave a column that varies out of --target")
    return ours, others


def load(
    source: Any, *, seed: int = 0, skip_broken: bool = False, size: int | None = None,
    levels: read.Levels | None = None,
) -> Data:  # fmt: skip
    """A path, the name of an example, a frame, an array or a tensor → a table, or images. ``levels`` as
    :func:`mixtura.data.read.read` has them. Raises InputError."""
    if images.is_images(source):
        return images.read_images(source, seed=seed, skip_broken=skip_broken, size=size)
    for flag, given in (("--skip-broken", skip_broken), ("--size", size is not None)):
        if given:
            raise InputError(f"{flag}: is for images, and this is a table; leave it out")
    return read.read(source, seed=seed, levels=levels)


def content(data: Data) -> Content:
    """The rows of it."""
    return data.pixels if isinstance(data, Pictures) else data.frame


def said(data: Data) -> Data:
    """The same data; a Note says what was left out of images, where no plan does."""
    left_out = data.skipped if isinstance(data, Pictures) else ()
    if left_out:
        more = f"; and {len(left_out) - FEW:,} more files" if len(left_out) > FEW else ""
        warnings.warn(f"{data.name}: left out {'; '.join(left_out[:FEW])}{more}", Note, stacklevel=2)
    return data


def contents(source: Any, like: AnySchema, beside: Schema | None = None, *, skip_broken: bool = False) -> Content:
    """Rows to be encoded by ``like``, and by ``beside``: a frame or an array as it is, anything else as :func:`load` reads it,
    but that a word for missing is a label where one was learnt, and what it was in a column that was not learnt."""
    if isinstance(source, pd.DataFrame) or (isinstance(source, np.ndarray) and isinstance(like, ImageSchema)):
        return source
    schemas = [schema for schema in (like, beside) if isinstance(schema, Schema)]
    words = {field.name: frozenset[str]() for schema in schemas for field in schema.fields if field.kind != "dropped"}
    words |= {name: labels for schema in schemas for name, labels in schema.words.items()}
    levels = lambda name: words.get(name, MISSING - {""})  # noqa: E731
    data = said(load(source, skip_broken=skip_broken and isinstance(like, ImageSchema), levels=levels))
    if isinstance(data, Pictures) != isinstance(like, ImageSchema):
        given, learnt = ("images", "a table") if isinstance(data, Pictures) else ("a table", "images")
        raise InputError(f"{data.name}: holds {given}, but {learnt} was learnt; give data of the same kind")
    return content(data)


def learn(
    data: Data, *, kinds: Mapping[str, str] | None = None, columns: Iterable[str] | None = None,
    bounds: Mapping[str, Sequence[float | None]] | None = None,
) -> AnySchema:  # fmt: skip
    """What its columns, or its pixels, mean. ``kinds``, ``columns`` and ``bounds`` overrule, choose and limit, for tables."""
    if isinstance(data, Table):
        ends = {column: (low, high) for column, (low, high) in (bounds or {}).items()}
        return schema.guess(data.frame, kinds=cast(Mapping[str, Kind], kinds or {}), columns=columns, bounds=ends)
    for flag, given in (("--kind", kinds), ("--columns", columns), ("--bounds", bounds)):
        if given:
            raise InputError(f"{flag}: is for tables, and these are images; leave it out")
    return images.guess_images(data)


def encode(schema: AnySchema, rows: Content, *, name: str = "data") -> Tensor:
    """``schema.encode``, whichever it is: rows → (n, *shape) float64 in tensor units."""
    return cast(Any, schema).encode(rows, name=name)


def from_json(plain: Mapping[str, Any]) -> AnySchema:
    """The inverse of either schema's ``to_json``. What is no schema raises InputError, or fails in writing a first row."""
    learnt = ImageSchema.from_json(dict(plain)) if plain.get("kind") == "images" else Schema.from_json(dict(plain))
    row = learnt.space.clamp(torch.zeros(1, *learnt.space.shape, dtype=torch.float64))
    encode(learnt, learnt.decode(row), name="schema")
    return learnt


def write(rows: Content, path: str | Path) -> None:
    """Rows to a file: a table's formats, or .npz, .npy, .zip or a folder for images."""
    if isinstance(rows, pd.DataFrame):
        tables.write(rows, path)
    else:
        images.write_images(rows, path)
