"""Explicit random generators, draws that use them, and seeded construction of layers.

Only :func:`seeded`, and a draw whose ``rng`` is None, use torch's global generator.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_global_generator = threading.RLock()


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for ``seed`` and a path of names, independent of every other path.

    >>> a, b = generator(0, "flow"), generator(0, "flow")
    >>> bool(torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b)))
    True
    """
    return torch.Generator().manual_seed(child_seed(seed, *names))


def child_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed computed from ``seed`` and all names."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside this context, layers that torch builds (it draws their weights from the global generator) depend on ``seed`` alone;
    afterwards the state of the global generator is restored. One thread at a time: there is one global generator."""
    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def normal(shape: tuple[int, ...], rng: torch.Generator | None, like: Tensor) -> Tensor:
    """Standard normal draws with the dtype and device of ``like``, drawn on the device of ``rng``. Here and below, an ``rng`` of
    None means torch's global generator, as users of torch distributions expect; the library itself never passes None."""
    where = like.device if rng is None else rng.device
    return torch.randn(shape, generator=rng, dtype=like.dtype, device=where).to(like.device)


def uniform(shape: tuple[int, ...], rng: torch.Generator | None, like: Tensor) -> Tensor:
    """Uniform draws in [0, 1) with the dtype and device of ``like``."""
    where = like.device if rng is None else rng.device
    return torch.rand(shape, generator=rng, dtype=like.dtype, device=where).to(like.device)


def inverted(logits: Tensor, u: Tensor) -> Tensor:
    """The codes (...) at which the distribution function of (..., k) unnormalised log-probabilities passes the uniform numbers u
    (...)."""
    cdf = torch.softmax(logits.double(), -1).cumsum(-1)
    return (u.to(cdf).unsqueeze(-1) * cdf[..., -1:] >= cdf).sum(-1).clamp(max=logits.shape[-1] - 1)


def categorical(logits: Tensor, rng: torch.Generator | None) -> Tensor:
    """Draw (...) codes from (..., k) unnormalised log-probabilities, by inverting the distribution function."""
    return inverted(logits, uniform(tuple(logits.shape[:-1]), rng, logits.double()))


def categoricals(logits: Tensor, draws: int, rng: torch.Generator | None) -> Tensor:
    """Draw (draws, n) codes from (n, k) unnormalised log-probabilities, by bisection, as ``draws`` and k may both be large."""
    cdf = torch.softmax(logits.double(), -1).cumsum(-1)
    u = uniform((len(cdf), draws), rng, cdf) * cdf[:, -1:]
    return torch.searchsorted(cdf, u, right=True).clamp(max=cdf.shape[1] - 1).T
