"""Check the arguments that a person gives in Python against their annotations, and write a value in a message."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import numpy as np

#: most characters of a value in a message
MOST_SHOWN = 80


def conform(value: Any, annotation: Any) -> Any:
    """``value`` as a value of its annotation. TypeError where it is none.

    Numbers and truth values of numpy become those of Python, any iterable becomes a list where a sequence is expected, and a
    single text becomes a list of one text where a sequence of texts is expected. Nothing is rounded or parsed.
    """
    kind, parts = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Any:
        return value
    if kind in (Union, UnionType):
        return _conform_to_one(value, parts)
    if kind is Sequence and isinstance(value, str) and parts == (str,):
        return [value]
    if kind is Sequence and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return [conform(part, parts[0]) for part in value]
    if kind is Mapping and isinstance(value, Mapping):
        return {conform(key, parts[0]): conform(part, parts[1]) for key, part in value.items()}
    if kind is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    if kind is int and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if kind is float and isinstance(value, Real) and not isinstance(value, bool):
        return value if isinstance(value, int | float) else float(value)
    if kind is Path and isinstance(value, PathLike):
        return Path(value)
    if kind not in (Sequence, Mapping, int, float) and isinstance(value, kind):
        return value
    raise TypeError(f"expected {annotation}, got {type(value)}")


def _conform_to_one(value: Any, annotations: Collection[Any]) -> Any:
    for annotation in annotations:
        try:
            return conform(value, annotation)
        except TypeError:
            continue
    raise TypeError(f"expected one of {annotations}, got {type(value)}")


def shown(value: Any) -> str:
    """A value on one line, short enough for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} …"


def nearest(name: str, names: Collection[str]) -> str:
    """The one of ``names`` that is most like ``name``, or all of them, for a message."""
    near = difflib.get_close_matches(name, names, 1)
    return near[0] if near else "one of " + ", ".join(names)
