"""CSV and TSV files. A file is gone through twice, first to count and check its rows, then to take the ones that were chosen, so
that memory is bounded by the rows kept and not by the file.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from pandas.api import types

from mixtura.contracts import InputError
from mixtura.data import cells, numerals
from mixtura.data.cells import MISSING, MOST_CHARACTERS, Label
from mixtura.data.dtypes import text_dtype
from mixtura.data.files.dialect import BLANK, Dialect, dialect_of, is_one_number, refuse_misread
from mixtura.data.files.door import BLOCK_CELLS, Door, Levels, OpenTable, pick
from mixtura.data.files.printed import cannot_hold, printed_cells, row_blocks

#: lines whose row names are looked at for equal ones, and for the words of the first line
_NAMES_CHECKED = 100_000


def _open_table(path: Path, key: str | None, levels: Levels) -> OpenTable:
    dialect = dialect_of(path, "\t" if path.suffix.lower() == ".tsv" else None)
    if dialect.fits < 2:
        refuse_misread(path, dialect)
    lines = _csv_rows(path, dialect)
    header = next(lines, (0, [], []))[1]
    numbers = [j for j, h in enumerate(header) if numerals.is_number(h)]
    no_names = len(numbers) == len(header) and any(not h.strip().isdecimal() for h in header)
    # a first line is data if its numbers stand above numbers and each of its words occurs again below
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
            comma = len(header) == 1 and dialect.delimiter == "," and is_one_number(row)
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
        lines = ((row, "".join(written)) for _, row, written in pick(_csv_rows(path, dialect, keep=True), chosen + 1))
        words = [levels(name) for name in header]
        return _text_columns(lines, dialect, words).set_axis(header, axis=1).iloc[:, given]

    return OpenTable(count, len(header[given]), take, path.stat().st_size)


def _names(header: list[str]) -> list[str]:
    """A name for every column: a column without one is "Unnamed: 0" by its place, as pandas names it, or "Unnamed: 0.1" if
    that name is taken, as in a table that was saved twice with its index."""
    names: list[str] = []
    for j, name in enumerate(header):
        made = name or f"Unnamed: {j}"
        while not name and made in (*header, *names):
            made += ".1"
        names.append(made)
    return names


def _csv_rows(path: Path, dialect: Dialect, *, keep: bool = False) -> Iterator[tuple[int, list[str], list[str]]]:
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
                if dialect.fits and len(row) == 1 and not row[0].strip(BLANK):
                    row = []
                if row and first:  # a second byte-order mark, as in a file that was written twice
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


def _text_columns(lines: Iterable[tuple[list[str], str]], dialect: Dialect, levels: list[Collection[str]]) -> pd.DataFrame:
    """A table of cells as text, None where they are missing, from pairs (fields of a line, the line as it is written).
    ``levels``: by column, the words for missing that are text.

    A word in quotes is text. An empty cell in quotes is text only where others of its column are not in quotes, as many programs
    put all cells in quotes. Where a word stands in quotes and without them, only that in quotes is a level.
    """
    blank, mark = " *" if dialect.spaced else "", re.escape(dialect.delimiter)
    fields = re.compile(rf'{blank}(?:("[^"]*(?:""[^"]*)*")|[^{mark}\r\n]*)(?:{mark}|$)')
    bare = [False] * len(levels)  # whether a cell of the column is not in quotes
    quoted: list[set[str]] = [set() for _ in levels]
    learnt: list[dict[int, str]] = [{} for _ in levels]
    empty: list[list[int]] = [[] for _ in levels]

    def cells_or_none() -> Iterator[list[str | None]]:
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
                if not cells.is_missing_word(cell):
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

    size = max(1, BLOCK_CELLS // len(levels))
    frame = pd.concat(
        [
            pd.DataFrame({j: pd.Series(column, dtype=text_dtype()) for j, column in enumerate(zip(*block, strict=True))})
            for block in _in_blocks(cells_or_none(), size)
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


_MISSING = frozenset(word.lower() for word in MISSING)


def _in_blocks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    block: list[Any] = []
    for item in items:
        block.append(item)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def csv_lines(frame: pd.DataFrame, delimiter: str = ",") -> Iterator[str]:
    """The lines of a CSV file. A missing cell is empty, or NA in a table of one column; text that would be read as missing is in
    quotes. Raises InputError for cells that text cannot hold, naming their column."""
    odd = re.compile(rf'[{re.escape(delimiter)}"\r\n]|^\s|\s$')

    def quoted(text: str) -> str:
        if "\0" in text:
            raise InputError(f"{text!r} holds a zero byte, which no reader takes; write .json or .jsonl, or repair the cell")
        return '"' + text.replace('"', '""') + '"' if odd.search(text) or text.lower() in _MISSING else text

    def shown(value: Any, text: str) -> str:
        return gap if value is None else text if isinstance(value, int | float) else quoted(text)

    gap = "" if frame.shape[1] > 1 else "NA"
    if frame.shape[1]:
        yield delimiter.join(quoted(str(c)) for c in frame) + "\n"
    for _, column in frame.items():
        _refuse_alike(column)
    for block in row_blocks(frame):
        columns = ([shown(value, text) for value, text in printed_cells(column)] for _, column in block.items())
        yield from (delimiter.join(row) + "\n" for row in zip(*columns, strict=True))


def _refuse_alike(column: pd.Series) -> None:
    """InputError for labels that differ in the table but not as text, such as 1 and "1"."""
    if not (types.is_object_dtype(column.dtype) or isinstance(column.dtype, pd.CategoricalDtype)):
        return
    kinds: dict[str, Any] = {}
    for value, text in printed_cells(pd.Series(list(_distinct(column)), dtype=object, name=column.name)):
        twin = kinds.setdefault(text, value)
        if type(twin) is not type(value):
            raise cannot_hold(column.name, f"holds {twin!r} and {value!r}, which text cannot tell apart", ".json or .jsonl")


def _distinct(column: pd.Series) -> Iterable[Any]:
    return {(type(v), v): v for v in column if isinstance(v, Label) and not (isinstance(v, float) and math.isnan(v))}.values()


def _writer(delimiter: str) -> Callable[[pd.DataFrame, IO[bytes]], None]:
    def write(frame: pd.DataFrame, file: IO[bytes]) -> None:
        for line in csv_lines(frame, delimiter):
            try:
                file.write(line.encode())
            except UnicodeEncodeError as error:
                half = re.search("[\ud800-\udfff]", line)
                said = f"a line holds half a character ({ascii(half[0]) if half else error.reason})"
                raise InputError(f"{said}, which is no text; write .json or .jsonl, or repair the cell") from error

    return write


def _line_reader(delimiter: str) -> Callable[[list[str]], None]:
    def read(lines: list[str]) -> None:
        for _ in csv.reader(lines, delimiter=delimiter):
            pass

    return read


CSV = Door(open_table=_open_table, write_table=_writer(","), read_lines=_line_reader(","))
TSV = Door(open_table=_open_table, write_table=_writer("\t"), read_lines=_line_reader("\t"))
