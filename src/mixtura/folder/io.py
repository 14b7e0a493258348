"""Checked reading and writing of the files of a run folder: JSON, lines of JSON, tensors.

Files are written whole or not at all, and nothing in them is executable. Reading trusts nothing: a file that is not what it
should be is an InputError of one sentence that names it."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mixtura.contracts import InputError
from mixtura.ground.machine import out_of_memory, write

T = TypeVar("T")


@contextmanager
def content_of(path: Path) -> Iterator[None]:
    """For work with the content of a file, or of a folder, of a run: errors that it raises because the file was cut, edited or
    taken from another run become an InputError that names the file."""
    try:
        yield
    except InputError as error:
        if path.name in str(error):
            raise
        raise InputError(f"{path}: damaged ({_brief(error)}); run again with --fresh") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise InputError(f"{path}: damaged ({_brief(error)}); run again with --fresh") from error


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


def write_document(path: Path, text: str) -> None:
    """Text for people, whole or not at all."""
    write(path, text)


def write_json(path: Path, data: Any) -> None:
    """JSON with infinities and NaN as null."""
    write(path, as_json(data))


def as_json(data: Any) -> str:
    """The text that :func:`write_json` writes."""
    return json.dumps(plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line."""
    write(path, "".join(json.dumps(plain(r), ensure_ascii=False, allow_nan=False) + "\n" for r in records))


def plain(data: Any) -> Any:
    """Numbers, text, lists and dicts only, fit for strict JSON."""
    if isinstance(data, Mapping):
        return {str(k): plain(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(v) for v in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data


def read_json(path: Path) -> Any:
    """InputError if it is absent or no JSON."""
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path.parent}: no {path.name} there, so it is no finished run folder; run `mixtura run` first"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as JSON ({_brief(error)}); it is damaged, run again with --fresh") from error


def _parsed(text: str) -> Any:
    """JSON as :func:`as_json` writes it. NaN, infinities, numbers that no float holds and halves of characters are damage."""
    data = json.loads(text, parse_constant=_finite, parse_float=_finite)
    if "\\ud" in text.lower():
        json.dumps(data, ensure_ascii=False).encode()
    return data


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def checked(kind: type[T], plain: Any, path: Path) -> T:
    """``plain``, read from a file, as a dataclass whose fields have their declared types. The InputError names the file, the
    field and what is wrong with it."""
    try:
        strangers = sorted(set(plain) - {field.name for field in fields(cast(Any, kind))}) if isinstance(plain, dict) else []
        if strangers:
            raise InputError(f"{path}: {strangers[0]!r} is no part of it; the file is damaged, run again with --fresh")
        return _adapter(kind).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{path}: {where}: {first['msg']}; the file is damaged, run again with --fresh") from error


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The inverse of :func:`write_lines`."""
    try:
        records = [_parsed(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except FileNotFoundError as error:
        raise InputError(f"{path.parent}: no {path.name} there; the run folder is incomplete, run again with --fresh") from error
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: not readable as lines of JSON ({_brief(error)}); the file is damaged, run again with --fresh"
        ) from error
    if not all(isinstance(r, dict) for r in records):
        raise InputError(f"{path}: expected one JSON object a line; the file is damaged, run again with --fresh")
    return records


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file."""
    write(path, as_safetensors(tensors))


def as_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes that :func:`write_tensors` writes."""
    return save({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()})  # two names may share numbers


def read_tensors(path: Path) -> dict[str, Tensor]:
    """InputError if it is absent or damaged."""
    try:
        return load(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path.parent}: no {path.name} there; the run folder is incomplete, run again with --fresh") from error
    except (OSError, SafetensorError, struct.error, LookupError, ValueError, TypeError, OverflowError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise InputError(f"{path}: not a safetensors file ({_brief(error)}); it is damaged, run again with --fresh") from error
