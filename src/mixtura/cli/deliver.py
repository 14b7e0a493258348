"""Results go out: rows into a file or on the screen, JSON on standard output, notes on standard error."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixtura.cli.errors import fail
from mixtura.cli.work import at_work
from mixtura.ground.shown import visible


def emit(result: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Print ``result``, a dataclass or a dictionary, as one JSON object; without --json, call ``show``."""
    if not as_json:
        show()
        return
    from dataclasses import asdict, is_dataclass

    record = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    print(_json_text(record))


def _json_text(record: Any) -> str:
    from mixtura.data.files.printed import json_text
    from mixtura.folder.io import plain

    return _encodable(json_text(plain(record)))


def _encodable(text: str) -> str:
    """JSON with escapes for the characters that standard output may not be able to write; they mean the same."""
    if (sys.stdout.encoding or "utf-8").lower().startswith("utf"):
        return text
    return re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)


def deliver(
    rows: Any, output: Path | None, as_json: bool, about: dict[str, Any], summary: str = "", at_most: int | None = None
) -> None:
    """Write the rows, a frame or images, into ``output``, or print them, ``at_most`` so many, after one line of ``summary``.

    With --json one object is printed: ``about``, and without ``output`` all rows as a .json file has them."""
    import pandas as pd

    from mixtura.data.files.delimited import csv_lines
    from mixtura.data.files.json_records import json_rows
    from mixtura.data.source import write

    if output is not None:
        with at_work(f"writing {output.name}"):
            write(rows, output)
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(index=range(len(rows)))
    if as_json:
        head = _json_text({**about, "rows": len(frame), "output": None if output is None else str(output)})
        data = "null" if output is not None else _encodable(f"[{', '.join(json_rows(frame))}]")
        print(f'{head[:-1]}, "data": {data}}}')
        return
    if output is not None:
        kind = "rows" if isinstance(rows, pd.DataFrame) else "images"
        print(*map(visible, filter(None, [summary, f"{len(frame):,} {kind} written to {output}"])), sep="\n")
        return
    if summary:  # rows that go into a pipe are not mixed with words
        print(visible(summary), file=sys.stdout if at_most else sys.stderr)
    shown = visible if sys.stdout.isatty() else str
    for line in csv_lines(frame.head(at_most or len(frame))):
        print(shown(line), end="")
    if at_most and len(frame) > at_most:
        print(f"… {len(frame) - at_most:,} more rows; -o FILE.csv writes them all")


def show_note(message: Any) -> None:
    """Print a note about a result on standard error."""
    print(visible(f"note: {message}"), file=sys.stderr)


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """Notes about a result, which are given as warnings: each is printed on standard error, and is in the list for --json."""
    from mixtura.contracts import Note

    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Note)
        yield notes
    for warning in caught:
        if issubclass(warning.category, Note):
            notes.append(str(warning.message))
            show_note(warning.message)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def check_output(output: Path | None, *, images: bool = False, arrays: bool = True) -> None:
    """Refuse a path that cannot be written before any work is done."""
    if output is None:
        return
    from mixtura.data.files import DOORS

    doors = {e: d for e, d in DOORS.items() if (d.write_images if images else d.write_table) and (arrays or not d.only_numbers)}
    known = tuple(doors)
    if output.suffix.lower() not in known:
        shown = f"{', '.join(filter(None, known))}{' or a folder' if images else ''}"
        fail(f"{output}: cannot write {output.suffix or 'a file without an ending'}; use one of {shown}")
    if output.is_dir() and not (images and output.suffix == ""):
        fail(f"{output}: is a folder, expected a file; name a file in it")
    if not output.parent.is_dir():
        fail(f"{output}: there is no folder {output.parent}; make it first")
    if (check_library := doors[output.suffix.lower()].check_library) is not None:
        check_library()


def check_array(output: Path | None, made: Any, own: Any = None) -> None:
    """Refuse an array file before anything is computed, if it would have to hold columns that are not numeric: columns that
    ``made``, a study or a model, makes, or columns of the person's ``own`` rows, which stand beside them."""
    from mixtura.data.files import DOORS
    from mixtura.data.files.arrays import matrix

    if output is None:
        return
    made.schema.check_output(output)
    if own is not None and DOORS[output.suffix.lower()].only_numbers:
        matrix(own)
