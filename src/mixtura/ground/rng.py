"""Explicit generators and seeded construction. Nothing here touches torch's global generator unasked."""

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
    """A 63-bit seed that depends on ``seed`` and on every name."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, layers built by torch (which draw from the global generator) are a function of ``seed``;
    afterwards the global generator is as it was. One thread at a time: there is one global generator."""
    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def normal(shape: tuple[int, ...], rng: torch.Generator | None, like: Tensor) -> Tensor:
    """Standard normal draws with the dtype and device of ``like`` (drawn where ``rng`` lives). None, here and below, is torch's
    global generator, for the callers of a torch distribution, who expect that; nothing of ours passes it."""
    where = like.device if rng is None else rng.device
    return torch.randn(shape, generator=rng, dtype=like.dtype, device=where).to(like.device)


def uniform(shape: tuple[int, ...], rng: torch.Generator | None, like: Tensor) -> Tensor:
    """Uniform draws in [0, 1) with the dtype and device of ``like``."""
    where = like.device if rng is None else rng.device
    return torch.rand(shape, generator=rng, dtype=like.dtype, device=where).to(like.device)


def categorical(logits: Tensor, rng: torch.Generator | None) -> Tensor:
    """(..., k) unnormalised log-probabilities → (...) codes, by inverting the distribution function."""
    cdf = torch.softmax(logits.double(), -1).cumsum(-1)
    u = uniform(tuple(logits.shape[:-1]), rng, cdf).unsqueeze(-1) * cdf[..., -1:]
    return (u >= cdf).sum(-1).clamp(max=logits.shape[-1] - 1)


def categoricals(logits: Tensor, draws: int, rng: torch.Generator | None) -> Tensor:
    """(n, k) unnormalised log-probabilities → (draws, n) codes. By bisection, as ``draws`` and k may both be large."""
    cdf = torch.softmax(logits.double(), -1).cumsum(-1)
    u = uniform((len(cdf), draws), rng, cdf) * cdf[:, -1:]
    return torch.searchsorted(cdf, u, right=True).clamp(max=cdf.shape[1] - 1).T
