"""Run folder → one self-contained HTML page, to look at offline or to send.

``collect`` reads the folder into plain data, the one source of every number on the page; ``render`` puts that data, the
style and the script into one file that asks the network for nothing; ``build`` does both and writes it.
"""

from __future__ import annotations

from pathlib import Path

from mixtura.folder import store
from mixtura.report.collect import collect
from mixtura.report.page import render

__all__ = ["build", "collect", "render"]


def build(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the page of a finished run to ``output``, by default ``report.html`` in the folder; returns where it is.

    Raises InputError if the folder is unfinished or damaged.
    """
    page = Path(folder) / "report.html" if output is None else Path(output)
    data = collect(folder)
    with store.content_of(Path(folder)):
        text = render(data)
    store.write(page, text)
    return page
