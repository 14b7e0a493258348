"""Run folder → one self-contained HTML page, to look at offline or to send.

``collect`` reads the folder into plain data, the only source of numbers on the page; ``render`` puts that data, the style and the
script into one file that needs no network; ``build`` does both and writes the file.
"""

from __future__ import annotations

from pathlib import Path

from mixtura.folder.io import content_of, write_document
from mixtura.folder.layout import RunFolder
from mixtura.report.page import render
from mixtura.report.reading import collect

__all__ = ["build", "collect", "render"]


def build(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the page of a finished run to ``output``, by default ``report.html`` in the folder; returns where it is.

    Raises InputError if the folder is unfinished or damaged.
    """
    page = RunFolder(Path(folder)).page_path if output is None else Path(output)
    data = collect(folder)
    with content_of(Path(folder)):
        text = render(data)
    write_document(page, text)
    return page
