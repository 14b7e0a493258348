"""The options of `mixtura run`, made from the one table of options in ``job/options.py``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer

from mixtura.cli.arguments import parse_bounds, parse_names, parse_pairs
from mixtura.job.options import TABLE, Option, Options, Written

#: how a value is written → the type that typer reads, and what makes the value of the text and the flag
READERS: dict[Written, tuple[Any, Callable[[Any, str], Any] | None]] = {
    "text": (str, None),
    "integer": (int, None),
    "switch": (bool, None),
    "path": (Path, None),
    "names": (list[str], parse_names),
    "pairs": (list[str], parse_pairs),
    "bounds": (list[str], parse_bounds),
}


def with_options_of_a_run(following: Mapping[str, str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace the ``**texts`` of a command by one parameter for each option of the table: typer asks for what a signature
    names. In ``--help``, ``source`` comes first, then the table, then the command's other parameters; ``following`` maps an
    option to the parameter of the command that is shown directly after it."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = {name: p.replace(kind=p.KEYWORD_ONLY) for name, p in inspect.signature(command, eval_str=True).parameters.items()}
        own.pop("texts")
        source = own.pop("source")
        moved = {after: own.pop(name) for after, name in following.items()}
        table = [p for o in fields(Options) if TABLE[o.name].flag for p in (_parameter(o), moved.get(o.name)) if p is not None]
        parameters = [source, *table, *own.values()]
        command.__signature__ = inspect.Signature(parameters)
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _parameter(field: Any) -> inspect.Parameter:
    """The parameter by which typer asks for one option."""
    row, default = TABLE[field.name], field.default if isinstance(field.default, str | int) else None
    read, _ = READERS[row.written]
    shown = typer.Option(default, str(row.flag), help=row.help, metavar=row.metavar, min=row.least, max=row.most)
    annotation = read | None if default is None else read
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=shown, annotation=annotation)


def values_of_options(texts: Mapping[str, Any]) -> dict[str, Any]:
    """Option → its value, from what typer has read."""
    return {name: _value(TABLE[name], text) for name, text in texts.items()}


def _value(row: Option, text: Any) -> Any:
    parse = READERS[row.written][1]
    return text if parse is None else parse(text, row.flag or "")
