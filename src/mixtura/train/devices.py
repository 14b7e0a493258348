"""The device that training runs on, and the limit of one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from mixtura.contracts import InputError


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside this context torch and the libraries of scikit-learn use one thread. Measured: with two threads small matrices are
    slower (a mixture fit takes ten times as long) and no family is faster. Results also do not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def choose_device(name: str = "auto") -> torch.device:
    """The device with this name; "auto" is CUDA if torch finds it, else the CPU. InputError if the device is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: {name!r} is no torch device; use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device: models are not trained on {name!r}; use auto, cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device: got {name!r}, but torch sees {torch.cuda.device_count()} CUDA devices here; use auto or cpu")
    return device
