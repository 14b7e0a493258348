"""One model's folder: its family, its configuration and its tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from mixtura.contracts import InputError, Model, Space
from mixtura.families import TABLE, with_role
from mixtura.folder.io import as_safetensors, content_of, read_json, read_tensors, write_json
from mixtura.ground.machine import write
from mixtura.ground.rng import generator

#: of the whole folder and of each model's; a folder of another format is refused
FORMAT = 9


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
    # only the digest shows that a number was edited
    if _digest(numbers.read_bytes()) != config.get("sha256"):
        raise InputError(f"{numbers}: not the file that the run wrote, as {folder}/config.json has it; run again with --fresh")
    _take_state(model, tensors, folder)
    return model.eval()


def proposals(names: Collection[str]) -> list[str]:
    """Those of these models that may propose values for missing entries, by the roles of their families, the best first."""
    return [name for name in with_role("proposal") if name in names]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _shape(plain: Any, folder: Path) -> tuple[int, ...] | None:
    """The shape of a context, as config.json has it."""
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
