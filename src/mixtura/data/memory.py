"""Tables, arrays and tensors in memory."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.util import hash_pandas_object

from mixtura.contracts import InputError
from mixtura.data import dtypes
from mixtura.data.files.arrays import table_of_array
from mixtura.data.files.door import OpenTable
from mixtura.data.files.json_records import refuse_half_letters
from mixtura.data.names import named


def in_memory(source: Any) -> tuple[OpenTable, str, str]:
    """The table, what to call it, and its fingerprint, of a frame, an array or a tensor. InputError for anything else."""
    if isinstance(source, pd.DataFrame):
        frame = _native(named(source, name="table"))
        for name, column in frame.items():
            if dtypes.is_text(column.dtype):
                refuse_half_letters(" ".join([str(name), *{v for v in column if isinstance(v, str)}]), "table")
        return OpenTable(len(frame), frame.shape[1], lambda chosen: frame.iloc[chosen]), "table", _hash_frame(frame)
    if isinstance(source, torch.Tensor):
        source = to_numpy(source)
    if isinstance(source, np.ndarray):
        opened = table_of_array(source.shape, source.dtype, lambda chosen: dtypes.native(source[chosen]), "array")
        return opened, "array", hash_array(source)
    raise InputError(
        f"expected a path, an example, a DataFrame or an array, got {type(source).__name__}; convert it to one of these"
    )


def _native(frame: pd.DataFrame) -> pd.DataFrame:
    """With its columns in the byte order of this machine, as those taken from an array may not be."""
    other = [j for j, t in enumerate(frame.dtypes) if isinstance(t, np.dtype) and dtypes.native_dtype(t) != t]
    if other:
        frame = frame.copy(deep=False)
        for j in other:
            frame.isetitem(j, dtypes.native(frame.iloc[:, j].to_numpy()))
    return frame


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor, wherever it lives; bfloat16, which numpy has not, as float32."""
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def hash_array(array: np.ndarray) -> str:
    """sha256 of an array: its type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _hash_frame(frame: pd.DataFrame) -> str:
    try:
        rows = hash_pandas_object(frame, index=False)  # pyright: ignore[reportCallIssue]
    except TypeError as error:
        raise InputError(
            f"table: its cells cannot be told apart ({error}), expected one number or text a cell; flatten nested columns"
        ) from error
    head = json.dumps([[str(c), str(t)] for c, t in frame.dtypes.items()])
    return hashlib.sha256(head.encode() + rows.to_numpy().tobytes()).hexdigest()
