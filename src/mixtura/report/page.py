"""Plain data → HTML. The fixed parts are written here and in ``run.html``; ``run.js`` draws what reacts to the reader.
``frame.html`` and ``kit.js`` belong to every page, that of a selection too.

Every number on a page that comes from its data carries its path there (``data-key``), so that the tests can compare the page with
its data. Names and labels are inserted as text, never as HTML, so that any character is allowed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mixtura.folder.io import plain
from mixtura.folder.records import digits_of
from mixtura.ground.shown import all_visible
from mixtura.metrics import TABLE

HERE = Path(__file__).parent
#: colours of models in ``style.css``
COLOURS = 8

Where = Sequence[str | int]


def render(data: Mapping[str, Any]) -> str:
    """The page of what :func:`mixtura.report.collect` returned."""
    data = all_visible(plain(data))
    judged = [s["name"] for s in data["scores"] if s["status"] in ("fitted", "samples only")]
    return filled(
        "run", data, "given.js" if data["given"] else None, title=title, board=board(data),
        whisker=whisker, colour=lambda name: f"c{judged.index(name) % COLOURS}", judged=judged,
    )  # fmt: skip


def filled(page: str, data: Mapping[str, Any], script: str | None = None, **words: Any) -> str:
    """``page``.html in the frame, with its script after those of the kit. ``words``: name in the page → its
    text."""
    style, scripts = _text("style.css"), Markup().join(_text(name) for name in ("kit.js", script, f"{page}.js") if name)
    frame = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    frame.globals.update(num=partial(number, data), pm=partial(with_error, data), **words)
    return frame.get_template(f"{page}.html").render(
        data=data, json=as_json(data), style=style, script=scripts, style_hash=hash_of(style), script_hash=hash_of(scripts)
    )


def _text(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))


def as_json(data: Any) -> Markup:
    """Strict JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def hash_of(text: str) -> str:
    """The hash by which a Content-Security-Policy allows an inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


# --------------------------------------------------------------------------------------------------------- numbers


def at(data: Any, path: Where) -> Any:
    """The entry of the data at a path; None below what is absent."""
    return reduce(lambda value, key: None if value is None else value[key], path, data)


def number(data: Any, path: Where, digits: int = 0, *, percent: bool = False) -> Markup:
    """The number at a path, to so many decimals, as a span with that path."""
    value = at(data, path)
    text = "–" if value is None else f"{100 * value if percent else value:,.{digits}f}".replace("-", "−") + " %" * percent
    scale = Markup(' data-scale="100"') if percent else ""
    return Markup('<span class="num" data-key="{}"{}>{}</span>').format(json.dumps(path), scale, text)


def with_error(data: Any, path: Where, error: Where) -> Markup:
    """A number and its standard error, to two digits of the error, as on the command line."""
    digits = digits_of(at(data, error))
    if at(data, error) is None:
        return number(data, path, digits)
    return number(data, path, digits) + Markup(' <span class="error">± {}</span>').format(number(data, error, digits))


def whisker(gain: float | None, error: float | None) -> tuple[float, float, float] | None:
    """The low end, the middle and the high end of gain ± 2 errors on a line from 0 to 200, where 100 is no gain."""
    if gain is None or not error:
        return None
    reach = 1.1 * max(abs(gain) + 2 * error, 3 * error)
    low, middle, high = (round(100 + 100 * end / reach, 1) for end in (gain - 2 * error, gain, gain + 2 * error))
    return low, middle, high


def title(metric: str) -> str:
    """The heading of a metric, by its name in the table; the name of a target may stand behind a colon."""
    name, _, target = metric.partition(":")
    return TABLE[name].heading + (f" of {target}" if target else "")


# ----------------------------------------------------------------------------------------------------- leaderboard


@dataclass(frozen=True)
class Heading:
    """One column of the leaderboard.

    explanation: what it is, shown when a pointer rests on the title. better: "higher", "lower", or None where no value is the
    best. minor: whether it is shown only with every measure. field: score → the path of the number in it, or None where the score
    has none.
    """

    title: str
    explanation: str
    better: str | None
    minor: bool
    field: Callable[[Mapping[str, Any]], tuple[str, ...] | None]
    digits: int | None = None

    def error(self, field: Sequence[str]) -> tuple[str, ...]:
        """The path of its standard error."""
        return (*field[:-1], "error") if field[-1] == "value" else (*field[:-1], f"{field[-1]}_error")


@dataclass(frozen=True)
class Cell:
    """One number of the leaderboard: its HTML, the value it is sorted by, whether it is the best of its column."""

    shown: Markup
    value: float | None
    best: bool


def board(data: Mapping[str, Any]) -> dict[str, Any]:
    """The leaderboard: ``columns``, and for each score, in the data's order, its ``rows`` entry, a cell a column."""
    columns = [c for c in _columns(data) if any(_value(c, s) is not None for s in data["scores"])]
    best = [_best(c, [v for s in data["scores"] if (v := _value(c, s)) is not None]) for c in columns]
    rows = [
        [_cell(data, i, c, b) for c, b in zip(columns, best, strict=True)] for i in range(len(data["scores"]))
    ]  # fmt: skip
    return {"columns": columns, "rows": rows}


def _columns(data: Mapping[str, Any]) -> list[Heading]:
    bits = any(s["bits"] is not None for s in data["scores"])
    metrics = [
        Heading(title(m["name"]), f"{m['summary']}; {m['unit']}", m["direction"], _minor(m["name"]), _of_metric(m["name"]))
        for m in data["metrics"]
    ]
    copies = TABLE["memorisation"]
    return [
        Heading("bits/dim, exact", "bits per dimension", "lower", False, _of_kind("exact", "bits")),
        Heading("bits/dim, bound ≤", "upper bound on bits per dimension", "lower", False, _of_kind("bound", "bits")),
        Heading("nats, exact", "mean log-density of a row", "higher", bits, _of_kind("exact", "nats")),
        Heading("nats, bound ≥", "lower bound on the mean log-density of a row", "higher", bits, _of_kind("bound", "nats")),
        *metrics,
        Heading(copies.heading, copies.summary, None, False, lambda s: ("memorisation",)),
        Heading("fit, s", "seconds of training", None, False, lambda s: ("seconds",), 1),
        Heading("draw 1,000, ms", "milliseconds to draw 1,000", None, True, lambda s: ("sample_ms",), 0),
    ]


def _minor(metric: str) -> bool:
    """Whether it is shown only with every measure."""
    return "page" not in TABLE[metric.partition(":")[0]].shown


def _of_kind(kind: str, field: str) -> Callable[[Mapping[str, Any]], tuple[str, ...] | None]:
    return lambda s: (field,) if s["kind"] == kind else None


def _of_metric(name: str) -> Callable[[Mapping[str, Any]], tuple[str, ...] | None]:
    return lambda s: ("metrics", name, "value") if name in s["metrics"] else None


def _value(column: Heading, score: Mapping[str, Any]) -> float | None:
    field = column.field(score)
    return None if field is None else at(score, field)


def _best(column: Heading, values: Sequence[float]) -> float:
    return {"higher": max, "lower": min}[column.better](values) if column.better else math.nan


def _cell(data: Mapping[str, Any], i: int, column: Heading, best: float) -> Cell:
    score = data["scores"][i]
    field, value = column.field(score), _value(column, score)
    if field is None or value is None:
        return Cell(Markup(""), None, False)
    path = ("scores", i, *field)
    if column.digits is not None:
        return Cell(number(data, path, column.digits), value, False)
    return Cell(with_error(data, path, ("scores", i, *column.error(field))), value, value == best)
