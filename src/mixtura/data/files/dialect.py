"""How a text table is written: its encoding, its delimiter, blanks beside it, and what stands above the header."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mixtura.contracts import InputError
from mixtura.data import numerals
from mixtura.data.files import text_files

#: characters that a line without cells may hold: blanks, and the end-of-file mark of DOS
BLANK = " \t\x1a"


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    skip:   lines before the header ("sep=;").
    spaced: whether a blank follows every delimiter.
    padded: whether a blank precedes it; cells are then stripped of blanks.
    fits:   how well the delimiter divides the lines, as :func:`fit_of_rows` says it, 0 to 2.
    """

    encoding: str
    delimiter: str
    skip: int = 0
    spaced: bool = False
    padded: bool = False
    fits: int = 2


def dialect_of(path: Path, delimiter: str | None) -> Dialect:
    """How the file is written. Its delimiter is the one that divides the first lines into the most fields, the same number in
    each, or one more than in the header. A first line "sep=;", as Excel writes it, names it."""
    encoding = text_files.encoding_of(path)
    with path.open(encoding=encoding, newline="") as file:
        head = file.read(2**16)
    said = re.match(r'"?sep=([^\r\n])"?(?:\r\n|\r|\n)', head, re.IGNORECASE)
    if said is not None:
        head, delimiter = head[said.end() :], said[1]
    candidates = []
    for mark in delimiter or ",;\t|":
        rows, loose = (_first_rows(head, mark, spaced=spaced) for spaced in (False, True))
        spaced = _blank_beside(rows, after=True) or fit_of_rows(rows)[0] < fit_of_rows(loose)[0]
        rows = loose if spaced else rows
        fits, width = fit_of_rows(rows)
        dialect = Dialect(encoding, mark, int(said is not None), spaced, _blank_beside(rows, after=False), fits)
        candidates.append((fits, width, dialect))
    return max(candidates, key=lambda candidate: candidate[:2])[2]


def fit_of_rows(rows: list[list[str]]) -> tuple[int, int]:
    """(2 if all lines have as many fields as the header, 1 if they have one more, else 0, also for a single field; how many
    fields)."""
    first, widths = len(rows[0]) if rows else 0, {len(row) for row in rows[1:] or rows}
    if len(widths) != 1 or widths == {1}:
        return 0, 0
    return 2 if widths == {first} else int(widths == {first + 1} and first > 1), max(widths)


def refuse_misread(path: Path, dialect: Dialect) -> None:
    """InputError where this delimiter divides the lines unevenly and the cause can be named."""
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
        if mark == dialect.delimiter or {len(row) for row in rows} != {1} or not fit_of_rows(others)[0]:
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
        if above == 1 and len(rows[1]) == 2 and not rows[0][0].startswith("#") and all(map(is_one_number, rows[1:])):
            return
        raise InputError(
            f"{path.name}: its first line is {rows[0][0][:40]!r}, and those below have {len(rows[above])} fields; "
            "remove what stands above the names of the columns"
        )

#: delimiters, and their names in messages
_MARKS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar", ":": "a colon", "^": "^", "~": "~", " ": "a blank"}


def is_one_number(row: list[str]) -> bool:
    """Whether the fields of a line are those of one number with a decimal comma."""
    return len(row) == 2 and re.fullmatch(r"-?[0-9]+", row[0]) is not None and row[1].isdecimal()


def _first_rows(head: str, delimiter: str, *, spaced: bool) -> list[list[str]]:
    """The fields of the first 50 lines that are not blank."""
    lines = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter, skipinitialspace=spaced)
    rows = [row for row in islice(lines, 51) if row and (len(row) > 1 or row[0].strip(BLANK))]
    return rows[:-1] if len(rows) > 1 else rows  # the last may be cut


def _blank_beside(rows: list[list[str]], *, after: bool) -> bool:
    """Whether a blank follows (or precedes) every delimiter of the header, or of all lines below it."""
    near = [row[1:] if after else row[:-1] for row in rows]
    blank = [len(row) > 0 and all(_has_blank(cell, after) or not cell for cell in row) and any(row) for row in near]
    return bool(blank) and (blank[0] or (len(blank) > 1 and all(blank[1:])))


def _has_blank(cell: str, at_its_front: bool) -> bool:
    return cell.startswith(" ") if at_its_front else cell.endswith(" ")
