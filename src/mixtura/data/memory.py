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


def in_memory(source: Any, name: str | None = None) -> tuple[OpenTable, str, str]:
    """The table, what to call it (``name``, if one is given), and its fingerprint, of a frame, an array or a tensor. InputError
    for anything else."""
    if isinstance(source, pd.DataFrame):
        called = name or "table"
        frame = _native(named(source, name=called))
        for column, cells in frame.items():
            if dtypes.is_text(cells.dtype):
                refuse_half_letters(" ".join([str(column), *{v for v in cells if isinstance(v, str)}]), called)
        return OpenTable(len(frame), frame.shape[1], lambda chosen: frame.iloc[chosen]), called, _hash_frame(frame, called)
    called = name or "array"
    if isinstance(source, torch.Tensor):
        source = to_numpy(source, called)
    if isinstance(source, np.ndarray):
        opened = table_of_array(source.shape, source.dtype, lambda chosen: dtypes.native(source[chosen]), called)
        return opened, called, hash_array(source)
    of = "" if name is None else f"{name}: "
    raise InputError(
        f"{of}expected a path, an example, a DataFrame or an array, got {type(source).__name__}; convert it to one of these"
    )


def _native(frame: pd.DataFrame) -> pd.DataFrame:
    """With its columns in the byte order of this machine, as those taken from an array may not be."""
    other = [j for j, t in enumerate(frame.dtypes) if isinstance(t, np.dtype) and dtypes.native_dtype(t) != t]
    if other:
        frame = frame.copy(deep=False)
        for j in other:
            frame.isetitem(j, dtypes.native(frame.iloc[:, j].to_numpy()))
    return frame


def to_numpy(x: torch.Tensor, name: str = "tensor") -> np.ndarray:
    """The numbers of a tensor, wherever it lives; bfloat16, which numpy does not have, as float32. InputError for a tensor that
    is sparse or quantised, or has no values."""
    if x.layout is not torch.strided or x.is_quantized or x.is_meta:
        kind = "no values" if x.is_meta else "quantised values" if x.is_quantized else "a sparse layout"
        raise InputError(f"{name}: expected a dense tensor of numbers, got one with {kind}; convert it, as with to_dense")
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy(force=True)


def hash_array(array: np.ndarray) -> str:
    """sha256 of an array: its type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _hash_frame(frame: pd.DataFrame, name: str) -> str:
    try:
        rows = hash_pandas_object(frame, index=False)  # pyright: ignore[reportCallIssue]
    except TypeError as error:
        raise InputError(
            f"{name}: its cells cannot be told apart ({error}), expected one number or text a cell; flatten nested columns"
        ) from error
    head = json.dumps([[str(c), str(t)] for c, t in frame.dtypes.items()])
    return hashlib.sha256(head.encode() + rows.to_numpy().tobytes()).hexdigest()
