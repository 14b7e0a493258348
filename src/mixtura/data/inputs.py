"""The input columns of a conditional run: the columns that its models are given, and their features."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd
from torch import Tensor

from mixtura.contracts import InputError
from mixtura.data.kind import DataKind
from mixtura.data.schema import Schema
from mixtura.data.source import rows_like
from mixtura.ground.inputs import Inputs


@dataclass(frozen=True)
class InputColumns:
    """The columns that the models of a conditional run are given, and the features that they see of them."""

    schema: Schema
    inputs: Inputs

    @property
    def names(self) -> list[str]:
        """The names of the columns that models see."""
        return [field.name for field in self.schema.modelled]

    def frame(self, source: Any) -> pd.DataFrame:
        """The input columns of rows that a person gave, numbered from 0: a frame, or anything that
        :func:`mixtura.data.source.load` reads. It must have every one of these columns."""
        return self.rows(source).loc[:, self.names]

    def rows(self, source: Any) -> pd.DataFrame:
        """As :meth:`frame`, with all other columns too."""
        return self.schema.matched(cast(pd.DataFrame, rows_like(source, self.schema)), "given")

    def features(self, frame: pd.DataFrame) -> Tensor:
        """(n, width) float32, of the rows of :meth:`frame`. InputError as :meth:`Schema.encode` raises it."""
        return self.inputs(self.schema.encode(frame, name="given"))

    @staticmethod
    def restore(schema: Schema, state: Mapping[str, Tensor]) -> InputColumns:
        """From the schema and the ``inputs.state_dict()`` of a run. Raises ValueError if they do not belong together."""
        inputs = Inputs(schema.space)
        try:
            inputs.load_state_dict(dict(state))
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[-1].strip()) from error
        return InputColumns(schema, inputs)


def split_target(schema: DataKind, target: Collection[str]) -> tuple[Schema, Schema]:
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
