"""Tables read from any kind of file, or from memory, within bounds."""

from __future__ import annotations

import contextlib
import csv
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch

from mixtura.contracts import InputError
from mixtura.data.files import DOORS, text_files
from mixtura.data.files.door import BLOCK_CELLS, Door, Levels
from mixtura.data.memory import in_memory
from mixtura.data.names import named
from mixtura.data.paths import find, hash_file, named_path
from mixtura.ground.machine import drafted

#: a table keeps at most so many cells, and so many bytes of a text file
MOST_CELLS = 10_000_000

MOST_BYTES = 500 * 2**20

#: and has at most so many columns: as many as an image of 64 × 64 has pixels
MOST_COLUMNS = 4_096


@dataclass(frozen=True)
class Table:
    """A table that was read.

    frame:       the rows kept, in file order; columns have text names (x0, x1, … without a header).
    name:        of the file, the example or the variable's type, to show.
    rows_total:  how many rows there were; more than ``len(frame)`` if a sample was kept.
    fingerprint: sha256 of the file (and of the key inside it) or of the values in memory.
    """

    frame: pd.DataFrame
    name: str
    rows_total: int
    fingerprint: str


def read(
    source: str | Path | pd.DataFrame | np.ndarray | torch.Tensor, *, rows: int = 200_000, seed: int = 0,
    levels: Levels | None = None, name: str | None = None,
) -> Table:  # fmt: skip
    """The table in ``source``: a path (.csv .tsv .parquet .json .jsonl .npy .npz, ``file.npz:key``), the name
    of an example ("penguins"), a DataFrame, or a 2-D (1-D: one column) array or tensor.

    Of more than ``rows`` rows, 10 million cells or 500 MiB of text, an even random sample is kept, in order, the same for
    the same ``seed``. Memory stays bounded for every format but .json. Raises InputError for whatever cannot be read as a table.
    ``levels``: of a column's name, the words that are text there, though elsewhere they mean missing. ``name``: what a table in
    memory is called in messages.

    Text files may be in UTF-8, UTF-16, UTF-32 or Windows-1252. In .csv and .tsv a word for missing is text where it stands in
    quotes; an empty cell in quotes is, unless all of its column stands in quotes. docs/files.md has the rest.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise InputError(f"rows: expected a whole number of rows to keep, 1 or more, got {rows!r}")
    if isinstance(source, str | Path):
        path, key = find(str(source))
        door, name = _door(path), path.name if key is None else f"{path.name}:{key}"
        opened = cast(Any, door.open_table)(path, key, levels or _no_words)
        fingerprint = hash_file(path, key)
    else:
        opened, name, fingerprint = in_memory(source, name)
    if opened.rows == 0 or opened.columns == 0:
        raise InputError(f"{name}: it has no rows of data; give a table with at least one row under its header")
    if opened.columns > MOST_COLUMNS:
        raise InputError(
            f"{name}: has {opened.columns:,} columns, more than the {MOST_COLUMNS:,} that are modelled; give those that matter "
            "(if the names are values, such as dates or identifiers, write them as a column)"
        )
    keep = min(rows, max(1, MOST_CELLS // opened.columns), max(1, MOST_BYTES * opened.rows // max(1, opened.bytes)))
    name = text_files.printable(name)
    frame = named(opened.take(choose(opened.rows, keep, seed)), name=name)
    return Table(frame.reset_index(drop=True), name, opened.rows, fingerprint)


def _no_words(column: str) -> Collection[str]:
    return ()


#: bytes of a text file from which on it is worth saying how long it takes, and bytes that tell how fast it is read
LARGE, TRIAL = 64 * 2**20, 4 * 2**20

#: a text file is gone through twice, hashed, and the rows kept made into columns: times what counting its rows takes
PASSES = 3.5


def seconds_to_read(source: str) -> float | None:
    """About how long :func:`read` takes for a large text file, by how long its beginning takes; None for anything else."""
    path, _ = named_path(source)
    door = DOORS.get(path.suffix.lower())
    if door is None or door.read_lines is None or not path.is_file() or path.stat().st_size < LARGE:
        return None
    with path.open("rb") as file:
        lines = file.read(TRIAL).decode("latin-1").splitlines()[:-1]
    began = time.perf_counter()
    with contextlib.suppress(ValueError, csv.Error, RecursionError):  # the reader says what is wrong with it
        door.read_lines(lines)
    return (time.perf_counter() - began) * PASSES * path.stat().st_size / TRIAL


def choose(total: int, keep: int, seed: int) -> np.ndarray:
    """Sorted positions of an even sample of ``keep`` of ``total`` rows: those with the smallest random keys."""
    rng = np.random.default_rng(seed)
    chosen, keys = np.empty(0, dtype=np.int64), np.empty(0)
    for start in range(0, total, BLOCK_CELLS):
        chosen = np.concatenate([chosen, np.arange(start, min(start + BLOCK_CELLS, total))])
        keys = np.concatenate([keys, rng.random(len(chosen) - len(keys))])
        if len(chosen) > keep:
            least = np.argpartition(keys, keep)[:keep]
            chosen, keys = chosen[least], keys[least]
    return np.sort(chosen)


def _door(path: Path) -> Door:
    """That of a file to be read. InputError where there is none for tables, or the file is a folder or empty."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected a file; give one of the tables in it")
    door = DOORS.get(path.suffix.lower())
    if door is None or door.open_table is None:
        readable = " ".join(ending for ending, door in DOORS.items() if door.open_table is not None)
        raise InputError(
            f"{path.name}: {path.suffix or 'a name without ending'} is not read here, expected {readable}; "
            "save the table as one of them"
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty, expected a table; check how it was written")
    return door


def write(frame: pd.DataFrame, path: str | Path) -> None:
    """Write ``frame`` as its ending says (.csv .tsv .parquet .json .jsonl; .npy and .npz for numbers alone),
    all of it or nothing: a reader never sees half a file. Raises InputError for another ending, a folder
    that is not there or takes no file, or cells that the format cannot hold, naming their column."""
    path = Path(path)
    door = DOORS.get(path.suffix.lower())
    if door is None or door.write_table is None:
        writable = " ".join(ending for ending, door in DOORS.items() if door.write_table is not None)
        raise InputError(
            f"{path.name}: {path.suffix or 'a name without ending'} is not written here, expected {writable}; name the file so"
        )
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    frame = named(frame, name=path.name)
    with drafted(path) as draft, draft.open("wb") as file:
        door.write_table(frame, file)
