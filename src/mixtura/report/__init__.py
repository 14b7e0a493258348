"""Run folder → one self-contained HTML page, to look at offline or to send.

``collect`` reads the folder into plain data, the one source of every number on the page; ``render`` puts that data, the
style and the script into one file that asks the network for nothing; ``build`` does both and writes it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mixtura import folder as store
from mixtura.report.collect import collect

__all__ = ["build", "collect", "render"]

HERE = Path(__file__).parent


def build(folder: str | Path, output: str | Path | None = None) -> Path:
    """Write the page of a finished run to ``output``, by default ``report.html`` in the folder; returns where it is.

    Raises InputError if the folder is unfinished or damaged.
    """
    page = Path(folder) / "report.html" if output is None else Path(output)
    store.write(page, render(collect(folder)))
    return page


def render(data: dict[str, Any]) -> str:
    """The page of what :func:`collect` returned. Names in it may hold anything: they never become markup."""
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        (HERE / "template.html").read_text(encoding="utf-8")
    )
    return template.render(
        data=data, json=_inert(data), style=Markup(style), script=Markup(script),
        style_hash=_hash(style), script_hash=_hash(script),
    )  # fmt: skip


def _inert(data: dict[str, Any]) -> Markup:
    """Strict JSON that cannot end the script element it stands in."""
    text = json.dumps(store.plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _hash(text: str) -> str:
    """What a Content-Security-Policy names an inline text by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
