"""Where training runs: the device, and one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from mixtura.contracts import InputError


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch and for scikit-learn's libraries inside: measured, two fight over small matrices (a mixture fit takes
    ten times as long) and no family gains; and the bits do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is the accelerator torch finds, else the CPU. InputError if the named one is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: {name!r} is no torch device; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device: {name!r} was asked for, but torch sees no CUDA device here; use auto or cpu")
    return device
