"""A checkpoint of training: tensors by name and the scalars of its progress in one file, written whole or not at all; and
parameters that a training goes on from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from mixtura.contracts import InputError
from mixtura.ground.machine import read, write
from mixtura.train.stopping import StageProgress

#: the errors that reading and restoring a damaged checkpoint, or one of another learner, may raise
DAMAGED = (KeyError, IndexError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError, SafetensorError)


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], progress: StageProgress) -> None:
    """Write both to one file. Raises CannotWrite if the disk refuses."""
    # make copies, because two names may share memory (tied weights)
    copies = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    write(path, save(copies, {"state": json.dumps(asdict(progress))}))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], StageProgress]:
    """Read what :func:`save_checkpoint` wrote; raises one of ``DAMAGED`` on any other file."""
    content = read(path)
    tensors = load(content)
    size = int.from_bytes(content[:8], "little")
    state = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["state"])
    pairs = {key: [tuple(pair) for pair in state[key]] for key in ("curve", "plan", "pace")}
    return tensors, StageProgress(**(state | pairs))


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix``, by the rest of their names."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


@contextmanager
def named_if_damaged(path: Path, name: str) -> Iterator[None]:
    """Inside this context, errors of a checkpoint that does not fit become one InputError with the file and the learner."""
    try:
        yield
    except DAMAGED as error:
        raise InputError(
            f"{path}: not a checkpoint of this {name} ({type(error).__name__}); remove it or start over with --fresh"
        ) from error


def set_parameters(learner: nn.Module, given: Mapping[str, Tensor], name: str) -> None:
    """Give a learner the parameters ``given`` by name. InputError where they do not fit."""
    mine = dict(learner.named_parameters())
    if {key: p.shape for key, p in mine.items()} != {key: p.shape for key, p in given.items()}:
        raise InputError(f"{name}: its parameters depend on its rows in name or shape, so it cannot go on from those it had")
    with torch.no_grad():
        for key, parameter in mine.items():
            parameter.copy_(given[key])
