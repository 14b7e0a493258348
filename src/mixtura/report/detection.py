"""The page of a detection: what ``mixtura detect --json`` prints → one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixtura.folder.io import plain, write_document
from mixtura.ground.shown import all_visible
from mixtura.report.page import filled

#: columns of a row that are shown
MOST_COLUMNS = 12


def build(found: Mapping[str, Any], output: Path) -> Path:
    """Write the page of what :meth:`mixtura.estimators.detection.Detection.to_json` returned to ``output``."""
    write_document(output, render(found))
    return output


def render(found: Mapping[str, Any]) -> str:
    """The page as text."""
    data = all_visible(plain(found))
    data["title"] = f"{data['names'][1]} beside {data['names'][0]}"
    rows, examples = [], data["examples"] or [{}] * len(data["strangest"])
    for k, (strange, example) in enumerate(zip(data["strangest"], examples, strict=True)):
        reasons = {reason["column"]: j for j, reason in enumerate(strange["reasons"])}
        columns = [*reasons, *(name for name in data["columns"] if name not in reasons)][:MOST_COLUMNS]
        cells = [(name, "" if example.get(name) is None else str(example[name]), reasons.get(name)) for name in columns]
        rows.append({"k": k, "cells": cells})
    return filled("detection", data, rows=rows)
