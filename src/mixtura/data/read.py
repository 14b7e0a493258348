"""Files to tables and back.

Text files are read as text, so that no digit is lost before the schema has seen how numbers are written.
A file is gone through twice, first to count and check its rows, then to take the ones that were chosen, so
that memory is bounded by the rows kept and not by the file.
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import hashlib
import json
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import torch
from pandas.util import hash_pandas_object

from mixtura.contracts import InputError
from mixtura.data import cells, examples
from mixtura.data.schema import named, text_dtype
from mixtura.machine import drafted

MISSING = frozenset(["", "NA", "N/A", "nan", "NaN", "null", "NULL", "None"])
#: a table keeps at most so many cells
MOST_CELLS = 10_000_000
#: a .json file is parsed in one piece; more bytes than these belong in .jsonl
MOST_JSON = 256 * 2**20
_BLOCK_CELLS = 500_000


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


@dataclass(frozen=True)
class _Source:
    """A file open for going through: its size, and what takes the rows at sorted positions."""

    rows: int
    columns: int
    take: Callable[[np.ndarray], pd.DataFrame]


def read(source: str | Path | pd.DataFrame | np.ndarray | torch.Tensor, *, rows: int = 200_000, seed: int = 0) -> Table:
    """The table in ``source``: a path (.csv .tsv .parquet .json .jsonl .npy .npz, ``file.npz:key``), the name
    of an example ("penguins"), a DataFrame, or a 2-D (1-D: one column) array or tensor.

    Of more than ``rows`` rows, or 10 million cells, an even random sample is kept, in order, the same for
    the same ``seed``. Memory stays bounded for every format but .json and .npz. Raises InputError for
    whatever cannot be read as a table.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise InputError(f"rows: expected a whole number of rows to keep, 1 or more, got {rows!r}")
    if isinstance(source, str | Path):
        path, key = find(str(source))
        _refuse_other(path)
        opened, name = _open(path, key), path.name if key is None else f"{path.name}:{key}"
        fingerprint = hash_file(path, key)
    else:
        opened, name, fingerprint = _in_memory(source)
    if opened.rows == 0 or opened.columns == 0:
        raise InputError(f"{name}: it has no rows of data; give a table with at least one row under its header")
    keep = min(rows, max(1, MOST_CELLS // opened.columns))
    frame = named(opened.take(choose(opened.rows, keep, seed)), name=name)
    return Table(frame.reset_index(drop=True), name, opened.rows, fingerprint)


#: bytes of a text file from which on it is worth saying how long it takes, and bytes that tell how fast it is read
LARGE, TRIAL = 64 * 2**20, 4 * 2**20
#: a text file is gone through twice, hashed, and the rows kept made into columns: times what counting its rows takes
PASSES = 3.5


def seconds_to_read(source: str) -> float | None:
    """About how long :func:`read` takes for a large text file, by how long its beginning takes; None for anything else."""
    path, _ = named_path(source)
    ending = path.suffix.lower()
    if ending not in (".csv", ".tsv", ".jsonl") or not path.is_file() or path.stat().st_size < LARGE:
        return None
    with path.open("rb") as file:
        lines = file.read(TRIAL).decode("latin-1").splitlines()[:-1]
    began = time.perf_counter()
    with contextlib.suppress(ValueError, csv.Error, RecursionError):  # the reader says what is wrong with it
        for _ in map(json.loads, lines) if ending == ".jsonl" else csv.reader(lines, delimiter="\t" if ending == ".tsv" else ","):
            pass
    return (time.perf_counter() - began) * PASSES * path.stat().st_size / TRIAL


def choose(total: int, keep: int, seed: int) -> np.ndarray:
    """Sorted positions of an even sample of ``keep`` of ``total`` rows: those with the smallest random keys."""
    rng = np.random.default_rng(seed)
    chosen, keys = np.empty(0, dtype=np.int64), np.empty(0)
    for start in range(0, total, _BLOCK_CELLS):
        chosen = np.concatenate([chosen, np.arange(start, min(start + _BLOCK_CELLS, total))])
        keys = np.concatenate([keys, rng.random(len(chosen) - len(keys))])
        if len(chosen) > keep:
            least = np.argpartition(keys, keep)[:keep]
            chosen, keys = chosen[least], keys[least]
    return np.sort(chosen)


# ----------------------------------------------------------------------------------------- finding a file


def named_path(source: str) -> tuple[Path, str | None]:
    """What ``source`` names, there or not: an example, a path, or ``file.npz:key`` as a path and its key."""
    if source in examples.names():
        return examples.path(source), None
    front, key = source.rpartition(".npz:")[::2]
    return (Path(f"{front}.npz"), key) if front else (Path(source), None)


def find(source: str) -> tuple[Path, str | None]:
    """As :func:`named_path`. Raises InputError, with what is named nearly so, if it is not there."""
    path, key = named_path(source)
    if not path.exists():
        raise InputError(
            f"no file {source!r}{_nearest(path)}; give the path of a table or an example ({', '.join(examples.names())})"
        )
    return path, key


def _refuse_other(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected a file; give one of the tables in it")
    if path.suffix.lower() not in _READERS:
        raise InputError(
            f"{path.name}: {path.suffix or 'a name without ending'} is not read here, expected {_ENDINGS}; "
            "save the table as one of them"
        )
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty, expected a table; check how it was written")


def _nearest(path: Path) -> str:
    near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    found = difflib.get_close_matches(path.name, [*near, *examples.names()], n=2, cutoff=0.6)
    return f" (close: {', '.join(found)})" if found else ""


def _open(path: Path, key: str | None) -> _Source:
    try:
        return _open_npz(path, key) if path.suffix.lower() == ".npz" else _READERS[path.suffix.lower()](path)
    except PermissionError as error:
        raise InputError(f"{path.name}: this account may not read it; change its permissions") from error


def hash_file(path: Path, key: str | None) -> str:
    """sha256 of a file, and of the key inside it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(b"" if key is None else key.encode())
    return digest.hexdigest()


def _broken(path: Path, what: str, error: Exception) -> InputError:
    said = " ".join(str(error).split())[:120]
    return InputError(
        f"{path.name} cannot be read as {what} ({said}); it may be cut short or of another format, so write it again"
    )


# --------------------------------------------------------------------------------------------- text tables


def _open_csv(path: Path) -> _Source:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else None
    try:
        return _count_csv(path, "utf-8-sig", delimiter)
    except UnicodeDecodeError:  # every byte is a Latin-1 character, so nothing is lost
        return _count_csv(path, "latin-1", delimiter)


def _count_csv(path: Path, encoding: str, delimiter: str | None) -> _Source:
    delimiter = delimiter or _sniff(path, encoding)
    lines = _csv_rows(path, encoding, delimiter)
    header = next(lines, (0, []))[1]
    if any(cells.is_number(h) and not h.strip().isdecimal() for h in header) and all(map(cells.is_number, header)):
        raise InputError(
            f"{path.name}: its first line is {delimiter.join(header[:4])}…, expected column names; add a header line"
        )
    count = 0
    for line, row in lines:
        if len(row) != len(header):
            raise InputError(
                f"{path.name}: line {line} has {len(row)} fields, but the header has {len(header)}; repair the line or its quotes"
            )
        count += 1
    header = [h or f"Unnamed: {j}" for j, h in enumerate(header)]

    def take(chosen: np.ndarray) -> pd.DataFrame:
        rows = (row for _, row in _pick(_csv_rows(path, encoding, delimiter), chosen + 1))
        blocks = [_text_block(block) for block in _blocks(rows, max(1, _BLOCK_CELLS // len(header)))]
        return pd.concat(blocks, ignore_index=True).set_axis(header, axis=1)

    return _Source(count, len(header), take)


def _csv_rows(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of every line that is not blank, the header too."""
    with path.open(encoding=encoding, newline="") as file:
        if "\0" in file.read(2**16):
            raise InputError(f"{path.name} holds binary data, expected text; give it the ending of its format ({_ENDINGS})")
        file.seek(0)
        lines = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            for row in lines:
                if row:
                    yield lines.line_num, row
        except csv.Error as error:
            raise InputError(f"{path.name}: line {lines.line_num} cannot be read ({error}); repair its quotes") from error


def _sniff(path: Path, encoding: str) -> str:
    """The delimiter that cuts the first lines into the same number of fields, the most of them."""
    with path.open(encoding=encoding, newline="") as file:
        head = file.read(2**16).splitlines()[:51]
    head = head[:-1] if len(head) > 1 else head  # the last line may be cut
    widths = {d: {len(row) for row in csv.reader(head, delimiter=d) if row} for d in ",;\t|"}
    even = [d for d, found in widths.items() if len(found) == 1 and found != {1}]
    return max(even, key=lambda d: max(widths[d]), default=",")


def _text_block(rows: list[list[str]]) -> pd.DataFrame:
    columns = ([None if cell in MISSING else cell for cell in column] for column in zip(*rows, strict=True))
    return pd.DataFrame({j: pd.Series(column, dtype=text_dtype()) for j, column in enumerate(columns)})


def _pick(items: Iterator[Any], chosen: np.ndarray) -> Iterator[Any]:
    """The items at sorted positions; what follows the last is not read."""
    wanted = iter(chosen.tolist())
    want = next(wanted, None)
    for position, item in enumerate(items):
        if position == want:
            yield item
            want = next(wanted, None)
            if want is None:
                return


def _blocks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    block: list[Any] = []
    for item in items:
        block.append(item)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


# ------------------------------------------------------------------------------------------------- records


def _open_json(path: Path) -> _Source:
    if path.stat().st_size > MOST_JSON:
        raise InputError(
            f"{path.name} is larger than {MOST_JSON // 2**20} MiB, too much to parse in one piece; "
            "write it as .jsonl, one record a line"
        )
    try:
        records = _parsed(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise _broken(path, "JSON", error) from error
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise InputError(
            f'{path.name}: expected a list of records, [{{"a": 1, "b": "x"}}, …], got {_shape_of(records)}; '
            "write one record a row"
        )
    columns = list(dict.fromkeys(name for record in records for name in record))
    return _Source(len(records), len(columns), lambda chosen: _from_records([records[i] for i in chosen], columns))


def _parsed(text: str) -> Any:
    """JSON whose texts are texts: ``"\\ud800"`` is half a letter, which no file and no terminal can be given."""
    data = json.loads(text)
    if "\\ud" in text.lower():
        json.dumps(data, ensure_ascii=False).encode()
    return data


def _shape_of(data: Any) -> str:
    if isinstance(data, list):
        return f"a list that holds a {next(type(r).__name__ for r in data if not isinstance(r, dict))}"
    return f"a {type(data).__name__}"


def _open_jsonl(path: Path) -> _Source:
    columns: dict[str, None] = {}
    count = 0
    for record in _jsonl_rows(path):
        columns.update(dict.fromkeys(record))
        count += 1
    return _Source(count, len(columns), lambda chosen: _from_records(list(_pick(_jsonl_rows(path), chosen)), list(columns)))


def _jsonl_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = _parsed(line)
                    if not isinstance(record, dict):
                        raise InputError(
                            f'{path.name}: line {number} is no record like {{"a": 1, "b": "x"}}; write one record a line'
                        )
                    yield record
        except InputError:
            raise
        except (ValueError, RecursionError) as error:
            raise _broken(path, "JSON lines", error) from error


def _from_records(records: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    # Objects stay objects next to a gap: pandas would turn whole numbers there into floats and lose digits.
    objects = {c: pd.Series([r.get(c) for r in records], dtype=object) for c in columns}
    return pd.DataFrame({c: s if s.isna().any() else s.infer_objects() for c, s in objects.items()})


# ------------------------------------------------------------------------------------------ parquet, arrays


def _open_parquet(path: Path) -> _Source:
    pa, parquet = _pyarrow()
    with _parquet_errors(path, pa):
        file = parquet.ParquetFile(path)
        rows, columns = file.metadata.num_rows, len(file.schema_arrow)

    def take(chosen: np.ndarray) -> pd.DataFrame:
        pieces, start = [], 0
        with _parquet_errors(path, pa):
            for batch in file.iter_batches(batch_size=max(1, _BLOCK_CELLS // columns)):
                inside = chosen[(chosen >= start) & (chosen < start + len(batch))] - start
                pieces.append(pa.Table.from_batches([batch]).take(pa.array(inside)))
                start += len(batch)
            table = pa.concat_tables(pieces).unify_dictionaries()
            table.validate(full=True)  # bytes that are no text are found now, not wherever they are first looked at
            frame = table.to_pandas(integer_object_nulls=True)
            return frame if frame.index.names == [None] else frame.reset_index()

    return _Source(rows, columns, take)


@contextmanager
def _parquet_errors(path: Path, pa: Any) -> Iterator[None]:
    """Whatever a damaged file raises, or a value that Python has not (a date after 9999, bytes that are no text)."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise _broken(path, "Parquet", error) from error


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet files need pyarrow, which is not installed; pip install pyarrow, or use .csv") from error
    return pyarrow, pyarrow.parquet


def _open_npy(path: Path) -> _Source:
    with numpy_errors(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path.name} holds several named arrays, expected one; give it the ending .npz")
    return _from_array(array, path.name)


def _open_npz(path: Path, key: str | None) -> _Source:
    with numpy_errors(path):
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise InputError(f"{path.name} holds one array without a name, expected an archive; give it the ending .npy")
        if key is None and len(archive.files) != 1:
            example = f"{path.name}:{archive.files[0]}" if archive.files else "file.npz:key"
            raise InputError(
                f"{path.name} holds {len(archive.files)} arrays ({', '.join(archive.files)}), expected one; "
                f"say which, as in {example}"
            )
        if key is not None and key not in archive.files:
            raise InputError(f"{path.name} has no array {key!r}; it holds {', '.join(archive.files)}")
        array = archive[key or archive.files[0]]
    return _from_array(array, path.name)


@contextmanager
def numpy_errors(path: Path) -> Iterator[None]:
    """Whatever a damaged or hostile numpy file raises, as an InputError."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise InputError(
                f"{path.name} holds Python objects, which are never loaded; save an array of numbers or text"
            ) from error
        raise _broken(path, "a numpy file", error) from error


def _from_array(array: np.ndarray, name: str) -> _Source:
    if array.ndim not in (1, 2):
        raise InputError(
            f"{name}: expected a table (rows, columns) or images (n, H, W) or (n, H, W, 3), got shape {array.shape}; reshape it"
        )
    if array.dtype.kind not in "biufUM":
        raise InputError(f"{name}: expected numbers or text, got an array of {array.dtype}; convert it")
    wide = array[:, None] if array.ndim == 1 else array
    return _Source(wide.shape[0], wide.shape[1], lambda chosen: pd.DataFrame(wide[chosen]))


def _in_memory(source: Any) -> tuple[_Source, str, str]:
    if isinstance(source, pd.DataFrame):
        frame = named(source, name="table")
        return _Source(len(frame), frame.shape[1], lambda chosen: frame.iloc[chosen]), "table", _hash_frame(frame)
    if isinstance(source, torch.Tensor):
        source = to_numpy(source)
    if isinstance(source, np.ndarray):
        return _from_array(source, "array"), "array", hash_array(source)
    raise InputError(
        f"expected a path, an example, a DataFrame or an array, got {type(source).__name__}; convert it to one of these"
    )


def to_numpy(x: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor, wherever it lives; bfloat16, which numpy has not, as float32."""
    x = x.detach().cpu()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def hash_array(array: np.ndarray) -> str:
    """sha256 of an array: its type, shape and values."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
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


_READERS: dict[str, Callable[[Path], _Source]] = {
    ".csv": _open_csv,
    ".tsv": _open_csv,
    ".parquet": _open_parquet,
    ".json": _open_json,
    ".jsonl": _open_jsonl,
    ".npy": _open_npy,
    ".npz": lambda path: _open_npz(path, None),
}
_ENDINGS = " ".join(_READERS)


# ------------------------------------------------------------------------------------------------- writing


def write(frame: pd.DataFrame, path: str | Path) -> None:
    """Write ``frame`` as its ending says (.csv .tsv .parquet .json .jsonl; .npy and .npz for numbers alone),
    all of it or nothing: a reader never sees half a file. Raises InputError for another ending, a folder
    that is not there or takes no file, or cells that the format cannot hold."""
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise InputError(
            f"{path.name}: {path.suffix or 'a name without ending'} is not written here, expected {_ENDINGS}; name the file so"
        )
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    frame = named(frame, name=path.name)
    with drafted(path) as draft, draft.open("wb") as file:
        WRITERS[path.suffix.lower()](frame, file)


def _write_parquet(frame: pd.DataFrame, file: IO[bytes]) -> None:
    _pyarrow()
    frame.to_parquet(file, index=False)


def _write_json(frame: pd.DataFrame, file: IO[bytes]) -> None:
    file.write(b"[" + b",\n ".join(_json_rows(frame)) + b"]\n")


def _write_jsonl(frame: pd.DataFrame, file: IO[bytes]) -> None:
    file.writelines(row + b"\n" for row in _json_rows(frame))


def _json_rows(frame: pd.DataFrame) -> Iterator[bytes]:
    # Not DataFrame.to_json, which keeps 15 digits of a number.
    columns = [[None if gone else cells.label(v) for v, gone in zip(frame[c], frame[c].isna(), strict=True)] for c in frame]
    for row in zip(*columns, strict=True):
        yield json.dumps(dict(zip(frame.columns, row, strict=True)), ensure_ascii=False).encode()


def _matrix(frame: pd.DataFrame) -> np.ndarray:
    for column in frame:
        if not pd.api.types.is_numeric_dtype(frame[column].dtype):
            raise InputError(f"column {column!r} holds no numbers, which is all an array can; write .csv, .jsonl or .parquet")
    return frame.to_numpy(dtype=np.float64, na_value=np.nan) if frame.isna().any(axis=None) else frame.to_numpy()


WRITERS: dict[str, Callable[[pd.DataFrame, IO[bytes]], Any]] = {
    ".csv": lambda frame, file: frame.to_csv(file, index=False),
    ".tsv": lambda frame, file: frame.to_csv(file, index=False, sep="\t"),
    ".parquet": _write_parquet,
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".npy": lambda frame, file: np.save(file, _matrix(frame), allow_pickle=False),
    ".npz": lambda frame, file: np.savez(file, data=_matrix(frame)),
}
