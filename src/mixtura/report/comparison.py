"""The page of a comparison: what ``mixtura compare --json`` prints → one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixtura.folder.io import plain, write_document
from mixtura.ground.shown import all_visible
from mixtura.report.page import filled

#: columns of an example that are shown
MOST_COLUMNS = 12


def build(found: Mapping[str, Any], output: Path) -> Path:
    """Write the page of what :meth:`mixtura.Difference.to_json` returned to ``output``."""
    write_document(output, render(found))
    return output


def render(found: Mapping[str, Any]) -> str:
    """The page as text."""
    data = all_visible(plain(found))
    data["title"] = f"{data['names'][0]} and {data['names'][1]}"
    heading = "The same" if data["same_rows"] else "They differ" if data["differ"] else "No difference found"
    examples = []
    for of, (name, shown) in enumerate(zip(data["names"], data["most_like"], strict=True)):
        if shown["rows"]:
            columns = [*shown["rows"][0]][:MOST_COLUMNS]
            rows = [["" if row[column] is None else str(row[column]) for column in columns] for row in shown["rows"]]
            examples.append({"of": of, "title": f"of {name}", "columns": columns, "rows": rows})
    return filled("comparison", data, heading=heading, examples=examples)
