"""JSON files: a list of records (.json), or one record a line (.jsonl)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from mixtura.contracts import InputError
from mixtura.data.files import text_files
from mixtura.data.files.door import Door, Levels, OpenTable, pick, reading
from mixtura.data.files.printed import escaped, float_holds, json_text, printed_cells, row_blocks

#: a .json file is parsed in one piece; more bytes than these belong in .jsonl
MOST_JSON = 256 * 2**20


def _open_json(path: Path, _: str | None, levels: Levels) -> OpenTable:
    if path.stat().st_size > MOST_JSON:
        raise InputError(
            f"{path.name} is larger than {MOST_JSON // 2**20} MiB, too much to parse in one piece; "
            "write it as .jsonl, one record a line"
        )
    with reading(path, "JSON"):
        records = _parsed(text_files.text_of(path), path.name)
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise InputError(
            f'{path.name}: expected a list of records, [{{"a": 1, "b": "x"}}, …], got {_shape_of(records)}; '
            "write one record a row"
        )
    columns = list(dict.fromkeys(name for record in records for name in record))
    return OpenTable(len(records), len(columns), lambda chosen: _from_records([records[i] for i in chosen], columns))


def _parsed(text: str, name: str) -> Any:
    """Parsed JSON. InputError for half a letter (``"\\ud800"``), which can be written to no file and no terminal."""
    data = json.loads(text)
    if "\\ud" in text.lower():
        refuse_half_letters(json.dumps(data, ensure_ascii=False), name)
    return data


def refuse_half_letters(text: str, name: str) -> None:
    """InputError, showing the place, where a text holds a surrogate, which is half of a letter."""
    if half := re.search("[\ud800-\udfff]", text):
        near = text[max(0, half.start() - 20) : half.start() + 20]
        raise InputError(f"{name}: half a letter, {ascii(half[0])}, stands in {ascii(near)}; repair the cell")


def _shape_of(data: Any) -> str:
    if isinstance(data, list):
        return f"a list that holds a {next(type(r).__name__ for r in data if not isinstance(r, dict))}"
    return f"a {type(data).__name__}"


def _open_json_lines(path: Path, _: str | None, levels: Levels) -> OpenTable:
    columns: dict[str, None] = {}
    count, encoding = 0, text_files.encoding_of(path)
    for record in _jsonl_rows(path, encoding):
        columns.update(dict.fromkeys(record))
        count += 1

    def take(chosen: np.ndarray) -> pd.DataFrame:
        return _from_records(list(pick(_jsonl_rows(path, encoding), chosen)), list(columns))

    return OpenTable(count, len(columns), take, path.stat().st_size)


def _jsonl_rows(path: Path, encoding: str) -> Iterator[dict[str, Any]]:
    with path.open(encoding=encoding) as file:
        with reading(path, "JSON lines"):
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


def json_rows(frame: pd.DataFrame) -> Iterator[str]:
    """The rows as JSON objects, as .json and .jsonl files and ``--json`` have them: numbers with all their digits, infinity as
    1e999, which every JSON parser reads as infinity, missing cells as null. Raises InputError for cells that text cannot hold."""
    keys = [_json_text(str(c)) for c in frame]
    for block in row_blocks(frame):
        columns = [_json_cells(column) for _, column in block.items()]
        for row in zip(*columns, strict=True) if columns else ["" for _ in range(len(block))]:
            yield "{" + ", ".join(f"{key}: {cell}" for key, cell in zip(keys, row, strict=True)) + "}"


def _json_text(text: str) -> str:
    return escaped(json.dumps(text, ensure_ascii=False))


def _json_cells(column: pd.Series) -> list[str]:
    known: dict[tuple[type, Any], str] = {}
    exact = all(float_holds(v) for v in column if isinstance(v, Decimal))
    out = []
    for value, printed in printed_cells(column):
        if value is None or isinstance(value, float | int | list | dict):
            out.append(_json_number(value) if not isinstance(value, list | dict) else json_text(value))
        elif isinstance(value, Decimal) and exact:
            out.append(printed)
        else:
            out.append(known.setdefault((type(value), printed), _json_text(printed)))
    return out


def _json_number(value: float | None) -> str:
    if isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    return json.dumps(value)


def _write_json(frame: pd.DataFrame, file: IO[bytes]) -> None:
    for number, row in enumerate(json_rows(frame)):
        file.write((",\n " if number else "[").encode() + row.encode())
    file.write(b"]\n" if len(frame) else b"[]\n")


def _write_json_lines(frame: pd.DataFrame, file: IO[bytes]) -> None:
    file.writelines(row.encode() + b"\n" for row in json_rows(frame))


def _read_lines(lines: list[str]) -> None:
    for line in lines:
        json.loads(line)


JSON = Door(open_table=_open_json, write_table=_write_json)
JSON_LINES = Door(open_table=_open_json_lines, write_table=_write_json_lines, read_lines=_read_lines)
