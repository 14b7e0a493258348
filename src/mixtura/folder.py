"""The run folder: all that the command line, the report and a colleague's machine share.

    config.json           what was asked, of which data, on which machine; written first
    schema.json           the columns; in a run with targets, which these are
    state.json            how far the run has come: seconds, and the steps of every fit (what a replay needs)
    models/NAME/          config.json (family and configuration) and model.safetensors
    samples/              rows of outside generators
    nats.safetensors      log-densities of select and report rows, per model
    inputs.safetensors, calibration.safetensors, portraits.json    in a run with targets: what models see of the inputs, ranks
                          of truths among draws, densities of the verdict's choice; its gallery has inputs beside targets
    gallery.safetensors   unseen real rows, samples, training rows nearest to some samples
    quadratic.json        MMD² of any blend on the report rows, w'Qw − 2 b'w + c
    history.jsonl         training records        scores.jsonl   one line a model
    verdict.json          verdicts by objective: weights, gain, sentence; written last
    samples.csv           rows of the verdict's choice (samples.npz: images)      README.md   the model card
    report.html           the page, written by the command line
    work/                 checkpoints and folds, while it runs; kept where a family is to be tried again

Nothing in it is executable. Files are written whole or not at all. Reading trusts nothing: a file that is not
what it should be is an InputError of one sentence.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mixtura.contracts import InputError, Model, Space
from mixtura.families import TABLE
from mixtura.machine import write
from mixtura.rng import generator

FORMAT = 3


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
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{path.parent}: no {path.name} there, so it is no finished run folder; run `mixtura run` first"
        ) from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            f"{path}: not readable as JSON ({type(error).__name__}); the file is damaged, run again with --fresh"
        ) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The inverse of :func:`write_lines`."""
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            f"{path}: not readable as lines of JSON ({type(error).__name__}); the file is damaged, run again with --fresh"
        ) from error
    if not all(isinstance(r, dict) for r in records):
        raise InputError(f"{path}: expected one JSON object a line; the file is damaged, run again with --fresh")
    return records


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file."""
    write(path, as_safetensors(tensors))


def as_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes that :func:`write_tensors` writes."""
    return save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """InputError if it is absent or damaged."""
    try:
        return load(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path.parent}: no {path.name} there; the run folder is incomplete, run again with --fresh") from error
    except (OSError, SafetensorError, struct.error, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: not a safetensors file ({type(error).__name__}); the file is damaged, run again with --fresh"
        ) from error


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
    write_json(
        folder / "config.json",
        {"format": FORMAT, "family": family, "config": config, "class": type(model).__name__, "context": model.context_shape},
    )
    write_tensors(folder / "model.safetensors", model.state_dict())


def load_model(folder: Path, space: Space, own: Mapping[str, Callable[..., Model]]) -> Model:
    """Rebuild a model on the CPU from known classes only; a person's own model must be passed in ``own``."""
    config = read_json(folder / "config.json")
    name = folder.name
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{folder}/config.json: expected format {FORMAT}; the folder was written by another version, run again")
    family = config.get("family")
    if family is None:
        if name not in own:
            raise InputError(
                f"{name}: this run used a model of your own ({config.get('class')}); "
                f"pass it as models={{{name!r}: {config.get('class')}}}"
            )
        shape = config.get("context")
        model = own[name](space) if shape is None else own[name](space, tuple(shape))
    elif family in TABLE:
        try:
            settings = TABLE[family].config.model_validate(config.get("config"))
        except ValidationError as error:
            raise InputError(
                f"{folder}/config.json: not a configuration of {family} ({error.errors()[0]['msg']}); run again with --fresh"
            ) from error
        context = config.get("context")
        model = TABLE[family].build(
            space, context_shape=None if context is None else tuple(context), config=settings, rng=generator(0)
        )
    else:
        raise InputError(
            f"{folder}/config.json: no family {family!r} here, there are {', '.join(TABLE)}; "
            "the folder was written by another version"
        )
    _take_state(model, read_tensors(folder / "model.safetensors"), folder)
    return model.eval()


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
