"""The run folder: all that the command line, the report and a colleague's machine share.

    config.json           what was asked, of which data, on which machine; written first
    schema.json           the columns; in a run with targets, which these are
    state.json            how far the run has come: seconds, and the steps of every fit (what a replay needs)
    models/NAME/          config.json (family and configuration) and model.safetensors
    samples/              rows of outside generators
    encoding.safetensors  the encoding that all models share: warps, centres, scales
    nats.safetensors      log-densities of select and report rows, per model
    inputs.safetensors, calibration.safetensors, portraits.json    in a run with targets: what models see of the inputs, ranks
                          of truths among draws, densities of the verdict's choice; its gallery has inputs beside targets
    gallery.safetensors   unseen real rows, samples, training rows nearest to some samples
    quadratic.json        MMD² of any blend on the report rows, w'Qw − 2 b'w + c
    history.jsonl         training records        scores.jsonl   one line a model
    verdict.json          verdicts by objective: weights, gain, sentence; written last
    samples.csv           rows of the verdict's choice (.jsonl: labels that text cannot tell apart; .npz: images)
    README.md             the model card
    report.html           the page, written by the command line
    work/                 checkpoints and folds, while it runs; kept where a family is to be tried again

Nothing in it is executable. Files are written whole or not at all. Reading trusts nothing: a file that is not
what it should be is an InputError of one sentence.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mixtura.contracts import InputError, Model, Space
from mixtura.families import TABLE
from mixtura.ground.machine import out_of_memory, write
from mixtura.ground.rng import generator

T = TypeVar("T")
FORMAT = 5


@contextmanager
def content_of(path: Path) -> Iterator[None]:
    """One door for what is done with the content of a file, or of a folder, of a run: whatever it raises because the file was
    cut, edited or mixed up with another's is an InputError that names it."""
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
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:120]}" if said else type(error).__name__


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
    """JSON as :func:`as_json` writes it: a number that is none, or that no float holds, is damage, and so is half a letter."""
    data = json.loads(text, parse_constant=_finite, parse_float=_finite)
    if "\\ud" in text.lower():
        json.dumps(data, ensure_ascii=False).encode()
    return data


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def checked(kind: type[T], plain: Any, path: Path) -> T:
    """``plain``, read from a file, as a dataclass whose fields have the types that they are declared with. InputError names the
    file, the field and what is wrong with it."""
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


def check_format(out: Path) -> None:
    """InputError where a run folder was written by another version, whose schema and options meant something else."""
    config = read_json(out / "config.json")
    found = config.get("format") if isinstance(config, dict) else None
    if found != FORMAT and isinstance(found, int):
        raise InputError(
            f"{out}: was written by another version of mixtura (format {found}, this one reads {FORMAT}); run again with --fresh"
        )


def save_model(folder: Path, model: Model, family: str | None, config: Mapping[str, Any] | None) -> None:
    """One model's folder; ``family`` None marks a person's own model. The tensors are written last."""
    tensors = as_safetensors(model.state_dict())
    write_json(
        folder / "config.json",
        {
            "format": FORMAT, "family": family, "config": config, "class": type(model).__name__, "context": model.context_shape,
            "sha256": _digest(tensors), "space": _digest(repr(model.space).encode()),
        },
    )  # fmt: skip
    write(folder / "model.safetensors", tensors)


def load_model(folder: Path, space: Space, own: Mapping[str, Callable[..., Model]]) -> Model:
    """Rebuild a model on the CPU from known classes only; a person's own model must be passed in ``own``."""
    config, numbers = read_json(folder / "config.json"), folder / "model.safetensors"
    name = folder.name
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{folder}/config.json: expected format {FORMAT}; the folder was written by another version, run again")
    if config.get("space") != _digest(repr(space).encode()):
        raise InputError(f"{folder}: was fitted on other columns than schema.json has; one was edited, run again with --fresh")
    family = config.get("family")
    if family is None:
        if name not in own:
            raise InputError(
                f"{name}: this run used a model of your own ({config.get('class')}); "
                f"pass it as models={{{name!r}: {config.get('class')}}}"
            )
        shape = _shape(config.get("context"), folder)
        model = own[name](space) if shape is None else own[name](space, shape)
    elif isinstance(family, str) and family in TABLE:
        try:
            settings = TABLE[family].config.model_validate(config.get("config"))
        except ValidationError as error:
            raise InputError(
                f"{folder}/config.json: not a configuration of {family} ({error.errors()[0]['msg']}); run again with --fresh"
            ) from error
        with content_of(folder / "config.json"):
            model = TABLE[family].build(
                space, context_shape=_shape(config.get("context"), folder), config=settings, rng=generator(0)
            )
    else:
        raise InputError(
            f"{folder}/config.json: no family {family!r} here, there are {', '.join(TABLE)}; "
            "the folder was written by another version"
        )
    tensors = read_tensors(numbers)
    # no rule tells a number that was edited from one that was learnt
    if _digest(numbers.read_bytes()) != config.get("sha256"):
        raise InputError(f"{numbers}: not the file that the run wrote, as {folder}/config.json has it; run again with --fresh")
    _take_state(model, tensors, folder)
    return model.eval()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _shape(plain: Any, folder: Path) -> tuple[int, ...] | None:
    """Of a context, as config.json has it."""
    if plain is not None and not (isinstance(plain, list) and all(type(n) is int and 0 < n < 2**31 for n in plain)):
        raise InputError(f"{folder}/config.json: a context that is no shape; the file is damaged, run again with --fresh")
    return None if plain is None else tuple(plain)


def _take_state(model: Model, state: dict[str, Tensor], folder: Path) -> None:
    expected = model.state_dict()
    if set(state) != set(expected):
        odd = sorted(set(state) ^ set(expected))[0]
        raise InputError(
            f"{folder}/model.safetensors: {odd!r} is {'unexpected' if odd in state else 'missing'}; "
            "it is not of the model in config.json, run again with --fresh"
        )
    parameters = dict(model.named_parameters())
    for key, tensor in state.items():
        # a fit decides how long buffers are (components, centres); parameters have the shape the configuration says
        alike = (
            tensor.shape == expected[key].shape
            if key in parameters
            else tensor.dim() == expected[key].dim() or key.endswith("covariance")
        )
        if tensor.dtype != expected[key].dtype or not alike or (tensor.is_floating_point() and torch.isnan(tensor).any()):
            raise InputError(
                f"{folder}/model.safetensors: {key!r} is {tensor.dtype} {tuple(tensor.shape)}, "
                "which does not fit the configuration; run again with --fresh"
            )
    for key, tensor in state.items():
        if key in parameters:
            parameters[key].data.copy_(tensor)
        else:
            owner, _, leaf = key.rpartition(".")
            setattr(model.get_submodule(owner), leaf, tensor)
