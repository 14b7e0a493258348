"""Files to tables and back.

Text files are read as text, so that no digit is lost before the schema has seen how numbers are written.
A file is gone through twice, first to count and check its rows, then to take the ones that were chosen, so
that memory is bounded by the rows kept and not by the file.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import difflib
import hashlib
import io
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.api import types
from pandas.util import hash_pandas_object

from mixtura.contracts import InputError
from mixtura.data import arrays, cells, dtypes, examples, numerals, texts
from mixtura.data.cells import MISSING, MOST_CHARACTERS
from mixtura.data.dtypes import text_dtype
from mixtura.data.schema import named

#: a table keeps at most so many cells, and so many bytes of a text file
MOST_CELLS = 10_000_000
MOST_BYTES = 500 * 2**20
#: and has at most so many columns: as many as an image of 64 × 64 has pixels
MOST_COLUMNS = 4_096
#: a .json file is parsed in one piece; more bytes than these belong in .jsonl
MOST_JSON = 256 * 2**20
_BLOCK_CELLS = 500_000
#: lines whose row names are looked at for equal ones, and for the words of the first line
_NAMES_CHECKED = 100_000


#: a column's name → the words that are text there
Levels = Callable[[str], Collection[str]]


def _no_level(_: str) -> Collection[str]:
    return ()


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
    """A file open for going through: its size, and what takes the rows at sorted positions. bytes: of its text, if it is text."""

    rows: int
    columns: int
    take: Callable[[np.ndarray], pd.DataFrame]
    bytes: int = 0


def read(
    source: str | Path | pd.DataFrame | np.ndarray | torch.Tensor, *, rows: int = 200_000, seed: int = 0,
    levels: Levels | None = None,
) -> Table:  # fmt: skip
    """The table in ``source``: a path (.csv .tsv .parquet .json .jsonl .npy .npz, ``file.npz:key``), the name
    of an example ("penguins"), a DataFrame, or a 2-D (1-D: one column) array or tensor.

    Of more than ``rows`` rows, 10 million cells or 500 MiB of text, an even random sample is kept, in order, the same for
    the same ``seed``. Memory stays bounded for every format but .json. Raises InputError for whatever cannot be read as a table.
    ``levels``: of a column's name, the words that are text there, though elsewhere they mean missing.

    Text files may be in UTF-8, UTF-16, UTF-32 or Windows-1252. In .csv and .tsv a word for missing is text where it stands in
    quotes; an empty cell in quotes is, unless all of its column stands in quotes. docs/files.md has the rest.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise InputError(f"rows: expected a whole number of rows to keep, 1 or more, got {rows!r}")
    if isinstance(source, str | Path):
        path, key = find(str(source))
        _refuse_other(path)
        opened, name = _open(path, key, levels or _no_level), path.name if key is None else f"{path.name}:{key}"
        fingerprint = hash_file(path, key)
    else:
        opened, name, fingerprint = _in_memory(source)
    if opened.rows == 0 or opened.columns == 0:
        raise InputError(f"{name}: it has no rows of data; give a table with at least one row under its header")
    if opened.columns > MOST_COLUMNS:
        raise InputError(
            f"{name}: has {opened.columns:,} columns, more than the {MOST_COLUMNS:,} that are modelled; give those that matter "
            "(if the names are values, such as dates or identifiers, write them as a column)"
        )
    keep = min(rows, max(1, MOST_CELLS // opened.columns), max(1, MOST_BYTES * opened.rows // max(1, opened.bytes)))
    name = texts.printable(name)
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


def _open(path: Path, key: str | None, levels: Levels) -> _Source:
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return _open_csv(path, levels)
        return _open_array(path, key) if path.suffix.lower() == ".npz" else _READERS[path.suffix.lower()](path)
    except PermissionError as error:
        raise InputError(f"{path.name}: this account may not read it; change its permissions") from error


def hash_file(path: Path, key: str | None) -> str:
    """sha256 of a file, and of the key inside it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(b"" if key is None else key.encode())
    return digest.hexdigest()


# --------------------------------------------------------------------------------------------- text tables


@dataclass(frozen=True)
class _Dialect:
    """How a text table is written. skip: lines before the header ("sep=;"). spaced: whether a blank follows every delimiter.
    padded: whether one stands before it; then cells are what is between blanks. fits: how well the delimiter does, 0 to 2."""

    encoding: str
    delimiter: str
    skip: int = 0
    spaced: bool = False
    padded: bool = False
    fits: int = 2


def _open_csv(path: Path, levels: Levels) -> _Source:
    dialect = _sniff(path, "\t" if path.suffix.lower() == ".tsv" else None)
    if dialect.fits < 2:
        _refuse_misread(path, dialect)
    lines = _csv_rows(path, dialect)
    header = next(lines, (0, [], []))[1]
    numbers = [j for j, h in enumerate(header) if numerals.is_number(h)]
    no_names = len(numbers) == len(header) and any(not h.strip().isdecimal() for h in header)
    # words of a first line that is one of data: above numbers stand numbers, and each word comes again below
    words = {j for j, h in enumerate(header) if j not in numbers and h.strip()}
    like_data = bool(numbers) and bool(words)
    count, width, ends_empty, row_names = 0, len(header), True, set()
    for line, row, _ in lines:
        if like_data and count < _NAMES_CHECKED and len(row) == len(header):
            like_data = all(numerals.is_number(row[j]) or not row[j] for j in numbers)
            words -= {j for j in words if row[j] == header[j]}
        if count == 0 and len(row) == len(header) + 1 > 2:
            width = len(row)
        if len(row) != width:
            what = f"the header has {width}" if width == len(header) else f"those above have {width}"
            comma = len(header) == 1 and dialect.delimiter == "," and _halves(row)
            repair = f"put {','.join(row)} in quotes if it is one number" if comma else "repair the line or its quotes"
            raise InputError(f"{path.name}: line {line} has {len(row)} fields, but {what}; {repair}")
        count, ends_empty = count + 1, ends_empty and not row[-1]
        if width > len(header) and count <= _NAMES_CHECKED:
            row_names.add(row[0])
    if no_names or (like_data and not words):
        raise InputError(
            f"{path.name}: its first line is {dialect.delimiter.join(header[:4])}…, expected column names; add a header line"
        )
    given = slice(None)
    if width > len(header) and ends_empty:  # every line ends with a delimiter
        header, given = [*header, ""], slice(len(header))
    elif width > len(header):  # R writes no name above the names of rows
        if len(row_names) < min(count, _NAMES_CHECKED):
            raise InputError(
                f"{path.name}: its lines have {width} fields, but the header has {len(header)}, and the first are no row names, "
                "as some are equal; give every column a name, and put quotes around numbers with a comma"
            )
        header = ["", *header]
    header = _names(header)

    def take(chosen: np.ndarray) -> pd.DataFrame:
        lines = ((row, "".join(written)) for _, row, written in _pick(_csv_rows(path, dialect, keep=True), chosen + 1))
        words = [levels(name) for name in header]
        return _text_columns(lines, dialect, words).set_axis(header, axis=1).iloc[:, given]

    return _Source(count, len(header[given]), take, path.stat().st_size)


def _names(header: list[str]) -> list[str]:
    """With a name for every column: "Unnamed: 0" for the first without one, as pandas writes it; an index that was saved twice
    has that name already, so that the newer one is "Unnamed: 0.1"."""
    names: list[str] = []
    for j, name in enumerate(header):
        made = name or f"Unnamed: {j}"
        while not name and made in (*header, *names):
            made += ".1"
        names.append(made)
    return names


#: what a line without cells may hold: blanks, and the end that DOS writes
_BLANK = " \t\x1a"


def _csv_rows(path: Path, dialect: _Dialect, *, keep: bool = False) -> Iterator[tuple[int, list[str], list[str]]]:
    """(line number, fields, and to ``keep`` the lines they were written in, until the next is asked for) of every line that is
    not blank, the header too."""
    csv.field_size_limit(MOST_CHARACTERS)
    with path.open(encoding=dialect.encoding, newline="") as file:
        for _ in range(dialect.skip):
            next(file, "")
        written: list[str] = []
        first = True

        def kept() -> Iterator[str]:
            for line in file:
                written.append(line)
                yield line

        lines = csv.reader(kept() if keep else file, delimiter=dialect.delimiter, strict=True, skipinitialspace=dialect.spaced)
        try:
            for row in lines:
                if dialect.padded:
                    row = [cell.strip(" ") for cell in row]
                if dialect.fits and len(row) == 1 and not row[0].strip(_BLANK):
                    row = []
                if row and first:  # a second mark of the byte order, as a file written twice has
                    row[0], first = row[0].lstrip("\ufeff"), False
                if row:
                    yield lines.line_num + dialect.skip, row, written
                written.clear()
        except csv.Error as error:
            where = f"{path.name}: line {lines.line_num + dialect.skip}"
            if "field larger" in str(error):
                what = f"holds a text of more than {MOST_CHARACTERS:,} characters"
                raise InputError(f"{where} {what}; leave it out, or close the quote that is open") from error
            raise InputError(f"{where} cannot be read ({error}); repair its quotes") from error


def _sniff(path: Path, delimiter: str | None) -> _Dialect:
    """The delimiter that cuts the first lines into the same number of fields, the most of them, or else into one more than the
    header. Excel may name it in a line of its own."""
    encoding = texts.encoding_of(path, _ENDINGS)
    with path.open(encoding=encoding, newline="") as file:
        head = file.read(2**16)
    said = re.match(r'"?sep=([^\r\n])"?(?:\r\n|\r|\n)', head, re.IGNORECASE)
    if said is not None:
        head, delimiter = head[said.end() :], said[1]
    candidates = []
    for mark in delimiter or ",;\t|":
        rows, loose = (_first_rows(head, mark, spaced=spaced) for spaced in (False, True))
        spaced = _blank_beside(rows, after=True) or _fits(rows)[0] < _fits(loose)[0]
        rows = loose if spaced else rows
        fits, width = _fits(rows)
        dialect = _Dialect(encoding, mark, int(said is not None), spaced, _blank_beside(rows, after=False), fits)
        candidates.append((fits, width, dialect))
    return max(candidates, key=lambda candidate: candidate[:2])[2]


def _fits(rows: list[list[str]]) -> tuple[int, int]:
    """2 if all lines have as many fields as the header, 1 if one more, else 0, as for one field; and how many."""
    first, widths = len(rows[0]) if rows else 0, {len(row) for row in rows[1:] or rows}
    if len(widths) != 1 or widths == {1}:
        return 0, 0
    return 2 if widths == {first} else int(widths == {first + 1} and first > 1), max(widths)


def _refuse_misread(path: Path, dialect: _Dialect) -> None:
    """InputError where the lines do not go together by this delimiter, and it can be told why."""
    with path.open(encoding=dialect.encoding, newline="") as file:
        head = file.read(2**16)
    # a line of dashes is drawn under the names by some programs
    lines = [line for line in head.splitlines()[dialect.skip : dialect.skip + 51] if line.strip(" -=+|:")]
    text = "\n".join([*(lines[:-1] if len(head) == 2**16 else lines), "the last line, which is taken for cut"])
    rows = _first_rows(text, dialect.delimiter, spaced=dialect.spaced)
    if len(rows) < 2:
        return
    for mark in _MARKS:
        others = _first_rows(text, mark, spaced=True)
        if mark == dialect.delimiter or {len(row) for row in rows} != {1} or not _fits(others)[0]:
            continue
        if mark not in ",;\t|" and not any(all(numerals.is_number(row[j]) for row in others[1:]) for j in range(len(others[0]))):
            continue  # words with a blank between them, or the like
        shown, ours = (_MARKS.get(m, repr(m)) for m in (mark, dialect.delimiter))
        named_so = "leave out its line sep=" if dialect.skip else "name it .csv" if path.suffix.lower() == ".tsv" else ""
        raise InputError(
            f"{path.name}: its lines have {len(others[1])} fields with {shown} between them, and one by {ours}; "
            + (named_so if named_so and mark in ",;|" else "write it with commas, and nothing between the names and the rows")
        )
    remarks = next((j for j, row in enumerate(rows) if not row[0].lstrip().startswith("#")), 0)
    above = remarks if remarks and len(rows[remarks]) > 1 else next((j for j, row in enumerate(rows) if len(row) > 1), 0)
    if above and len({len(row) for row in rows[above:]}) == 1 and len(rows) > above + 1:
        if above == 1 and len(rows[1]) == 2 and not rows[0][0].startswith("#") and all(map(_halves, rows[1:])):
            return
        raise InputError(
            f"{path.name}: its first line is {rows[0][0][:40]!r}, and those below have {len(rows[above])} fields; "
            "remove what stands above the names of the columns"
        )


#: what may stand between fields, and how it is shown
_MARKS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar", ":": "a colon", "^": "^", "~": "~", " ": "a blank"}


def _halves(row: list[str]) -> bool:
    """Whether the fields of a line are those of one number with a decimal comma."""
    return len(row) == 2 and re.fullmatch(r"-?[0-9]+", row[0]) is not None and row[1].isdecimal()


def _first_rows(head: str, delimiter: str, *, spaced: bool) -> list[list[str]]:
    lines = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter, skipinitialspace=spaced)
    rows = [row for row in islice(lines, 51) if row and (len(row) > 1 or row[0].strip(_BLANK))]
    return rows[:-1] if len(rows) > 1 else rows  # the last may be cut


def _blank_beside(rows: list[list[str]], *, after: bool) -> bool:
    """Whether a blank follows, or precedes, every delimiter of the header, or of all lines below it."""
    near = [row[1:] if after else row[:-1] for row in rows]
    beside = lambda cell: cell.startswith(" ") if after else cell.endswith(" ")  # noqa: E731
    blank = [len(row) > 0 and all(beside(cell) or not cell for cell in row) and any(row) for row in near]
    return bool(blank) and (blank[0] or (len(blank) > 1 and all(blank[1:])))


def _text_columns(lines: Iterable[tuple[list[str], str]], dialect: _Dialect, levels: list[Collection[str]]) -> pd.DataFrame:
    """Cells as text, None where they say that there is nothing, of the fields of lines and the lines as they are written.
    ``levels``: by column, the words that are text.

    A word in quotes is text. An empty cell in quotes is text only where others of its column are not in quotes, as many programs
    put all cells in quotes. Where a word stands in quotes and without them, only that in quotes is a level.
    """
    blank, mark = " *" if dialect.spaced else "", re.escape(dialect.delimiter)
    fields = re.compile(rf'{blank}(?:("[^"]*(?:""[^"]*)*")|[^{mark}\r\n]*)(?:{mark}|$)')
    bare = [False] * len(levels)  # whether a cell of the column is not in quotes
    quoted: list[set[str]] = [set() for _ in levels]
    learnt: list[dict[int, str]] = [{} for _ in levels]
    empty: list[list[int]] = [[] for _ in levels]

    def looked_at() -> Iterator[list[str | None]]:
        unsure = True
        for position, (row, line) in enumerate(lines):
            odd = not MISSING.isdisjoint(row) or any(map(str.isspace, row))
            # csv.reader does not tell what stood in quotes; where it matters, the line is cut again
            within = [False] * len(levels)
            if '"' in line and (odd or unsure):
                within = [field[1] is not None for field in fields.finditer(line.rstrip("\r\n"))]
            if unsure:
                bare[:] = [known or not inside for known, inside in zip(bare, within, strict=False)]
                unsure = not all(bare)
            cells_of: list[str | None] = [*row]
            for j, cell in enumerate(row) if odd else ():
                if not cells.says_nothing(cell):
                    continue
                if within[j] and cell:
                    quoted[j].add(cell)
                    continue
                cells_of[j] = None
                if within[j]:
                    empty[j].append(position)
                elif cell in levels[j]:
                    learnt[j][position] = cell
            yield cells_of

    size = max(1, _BLOCK_CELLS // len(levels))
    frame = pd.concat(
        [
            pd.DataFrame({j: pd.Series(column, dtype=text_dtype()) for j, column in enumerate(zip(*block, strict=True))})
            for block in _blocks(looked_at(), size)
        ],
        ignore_index=True,
    )
    for j in range(len(levels)):
        there = {i: cell for i, cell in learnt[j].items() if cell not in quoted[j]}
        if empty[j] and (bare[j] or "" in levels[j]):
            there = {i: cell for i, cell in there.items() if cell} | dict.fromkeys(empty[j], "")
        if there:
            column = frame[j].astype(object)
            column.iloc[list(there)] = list(there.values())
            frame[j] = column.astype(text_dtype())
    return frame


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
    with arrays.opened(path, "JSON"):
        records = _parsed(texts.text_of(path), path.name)
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise InputError(
            f'{path.name}: expected a list of records, [{{"a": 1, "b": "x"}}, …], got {_shape_of(records)}; '
            "write one record a row"
        )
    columns = list(dict.fromkeys(name for record in records for name in record))
    return _Source(len(records), len(columns), lambda chosen: _from_records([records[i] for i in chosen], columns))


def _parsed(text: str, name: str) -> Any:
    """JSON whose texts are texts: ``"\\ud800"`` is half a letter, which no file and no terminal can be given."""
    data = json.loads(text)
    if "\\ud" in text.lower():
        _refuse_half_letters(json.dumps(data, ensure_ascii=False), name)
    return data


def _refuse_half_letters(text: str, name: str) -> None:
    if half := re.search("[\ud800-\udfff]", text):
        near = text[max(0, half.start() - 20) : half.start() + 20]
        raise InputError(f"{name}: half a letter, {ascii(half[0])}, stands in {ascii(near)}; repair the cell")


def _shape_of(data: Any) -> str:
    if isinstance(data, list):
        return f"a list that holds a {next(type(r).__name__ for r in data if not isinstance(r, dict))}"
    return f"a {type(data).__name__}"


def _open_jsonl(path: Path) -> _Source:
    columns: dict[str, None] = {}
    count, encoding = 0, texts.encoding_of(path)
    for record in _jsonl_rows(path, encoding):
        columns.update(dict.fromkeys(record))
        count += 1

    def take(chosen: np.ndarray) -> pd.DataFrame:
        return _from_records(list(_pick(_jsonl_rows(path, encoding), chosen)), list(columns))

    return _Source(count, len(columns), take, path.stat().st_size)


def _jsonl_rows(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    with path.open(encoding=encoding) as file:
        with arrays.opened(path, "JSON lines"):
            for number, line in enumerate(file, 1):
                if line.strip():
                    record = _parsed(line, f"{path.name}, line {number}")
                    if not isinstance(record, dict):
                        raise InputError(
                            f'{path.name}: line {number} is no record like {{"a": 1, "b": "x"}}; write one record a line'
                        )
                    yield record


def _from_records(records: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    # Objects stay objects next to a gap: pandas would turn whole numbers there into floats and lose digits.
    objects = {c: pd.Series([r.get(c) for r in records], dtype=object) for c in columns}
    return pd.DataFrame({c: s if s.isna().any() else s.infer_objects() for c, s in objects.items()})


# ------------------------------------------------------------------------------------------ parquet, arrays


def _open_parquet(path: Path) -> _Source:
    pa = dtypes.pyarrow()
    with arrays.opened(path, "Parquet"):
        file = pa.parquet.ParquetFile(path)
        rows, columns = file.metadata.num_rows, len(file.schema_arrow)
    name, often = Counter(file.schema_arrow.names).most_common(1)[0] if columns else ("", 1)
    if often > 1:
        raise InputError(f"{path.name}: has {often} columns called {name!r}; give every column a name of its own")

    def take(chosen: np.ndarray) -> pd.DataFrame:
        pieces, start = [], 0
        with arrays.opened(path, "Parquet"):
            for batch in file.iter_batches(batch_size=max(1, _BLOCK_CELLS // columns)):
                inside = chosen[(chosen >= start) & (chosen < start + len(batch))] - start
                pieces.append(_plain_text(pa.Table.from_batches([batch])).take(pa.array(inside)))
                start += len(batch)
            table = pa.concat_tables(pieces).unify_dictionaries()
            table.validate(full=True)  # bytes that are no text are found now, not wherever they are first looked at
            frame = table.to_pandas(integer_object_nulls=True)
            frame = frame if frame.index.names == [None] else frame.reset_index()
            for column in table.schema:  # whole numbers beside gaps came as objects
                if column.name in frame and pa.types.is_integer(column.type) and types.is_object_dtype(frame[column.name].dtype):
                    frame[column.name] = frame[column.name].astype(str(column.type).replace("i", "I").replace("u", "U"))
            for _, column in frame.items():
                if types.is_datetime64_any_dtype(column.dtype):
                    _refuse_strange_years(path, column, chosen)
            return dtypes.keep_stored(frame, dtypes.stored_types(table.schema))

    return _Source(rows, columns, take)


def _plain_text(table: Any) -> Any:
    """Text and bytes that are kept as views, which Arrow can neither take rows of nor hand to pandas, as they are elsewhere."""
    pa = dtypes.pyarrow()
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return table.cast(pa.schema([field.with_type(plain.get(field.type, field.type)) for field in table.schema]))


def _refuse_strange_years(path: Path, column: pd.Series, rows: np.ndarray) -> None:
    """Arrow has dates of any year; text and Python have those of the years 1 to 9999."""
    years = column.dt.year
    strange = (column.notna() & ~years.between(datetime.MINYEAR, datetime.MAXYEAR)).to_numpy().nonzero()[0]
    if len(strange):
        raise InputError(
            f"{path.name}: column {column.name!r}, row {rows[strange[0]]} is a date in the year {years.iloc[strange[0]]:.0f}, "
            f"expected the years {datetime.MINYEAR} to {datetime.MAXYEAR}; correct it, or write the column as numbers"
        )


def _open_array(path: Path, key: str | None) -> _Source:
    array = arrays.stored(path, key)
    return _from_array(array.shape, array.dtype, array.take, array.name)


def _from_array(shape: tuple[int, ...], dtype: np.dtype, take: Callable[[np.ndarray], np.ndarray], name: str) -> _Source:
    if len(shape) not in (1, 2):
        raise InputError(
            f"{name}: expected a table (rows, columns) or images (n, H, W) or (n, H, W, 3), got shape {shape}; reshape it"
        )
    if dtype.kind not in "biufUM":
        raise InputError(f"{name}: expected numbers or text, got an array of {dtype}; convert it")

    def frame(chosen: np.ndarray) -> pd.DataFrame:
        rows = take(chosen)
        if dtype.kind == "U":
            letters = np.ascontiguousarray(rows).view(np.uint32)
            if ((letters > 0x10FFFF) | (letters >= 0xD800) & (letters < 0xE000)).any():
                raise InputError(f"{name} holds text that is no Unicode, expected letters; it may be damaged, so write it again")
        try:
            return pd.DataFrame(rows)
        except (ValueError, TypeError, OverflowError) as error:  # times beyond those of a frame or without a unit, odd text
            raise InputError(f"{name}: its values of {dtype} cannot be read ({error}); write them as text") from error

    return _Source(shape[0], shape[1] if len(shape) == 2 else 1, frame)


def _in_memory(source: Any) -> tuple[_Source, str, str]:
    if isinstance(source, pd.DataFrame):
        frame = _native(named(source, name="table"))
        for name, column in frame.items():
            if dtypes.is_text(column.dtype):
                _refuse_half_letters(" ".join([str(name), *{v for v in column if isinstance(v, str)}]), "table")
        return _Source(len(frame), frame.shape[1], lambda chosen: frame.iloc[chosen]), "table", _hash_frame(frame)
    if isinstance(source, torch.Tensor):
        source = to_numpy(source)
    if isinstance(source, np.ndarray):
        opened = _from_array(source.shape, source.dtype, lambda chosen: arrays.native(source[chosen]), "array")
        return opened, "array", hash_array(source)
    raise InputError(
        f"expected a path, an example, a DataFrame or an array, got {type(source).__name__}; convert it to one of these"
    )


def _native(frame: pd.DataFrame) -> pd.DataFrame:
    """With its columns in the byte order of this machine, as those taken from an array may not be."""
    other = [j for j, t in enumerate(frame.dtypes) if isinstance(t, np.dtype) and arrays.native_dtype(t) != t]
    if other:
        frame = frame.copy(deep=False)
        for j in other:
            frame.isetitem(j, arrays.native(frame.iloc[:, j].to_numpy()))
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


_READERS: dict[str, Callable[[Path], _Source]] = {
    ".csv": lambda path: _open_csv(path, _no_level),
    ".tsv": lambda path: _open_csv(path, _no_level),
    ".parquet": _open_parquet,
    ".json": _open_json,
    ".jsonl": _open_jsonl,
    ".npy": lambda path: _open_array(path, None),
    ".npz": lambda path: _open_array(path, None),
}
_ENDINGS = " ".join(_READERS)
