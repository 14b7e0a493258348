"""Information: how much two things tell of each other, and how few nats a description needs.

Mutual information I(X; Y) = KL(p(x, y) ‖ p(x) p(y)) is a divergence of pairs from pairs drawn apart, so a ratio f = log p(x, y) /
p(x) p(y) gives it; three ways are shown side by side, measured at rows that f has not learnt from:

    plug-in   E f
    NWJ       E f − E_apart e^f + 1                          (Nguyen, Wainwright & Jordan 2010), a lower bound
    InfoNCE   E log e^{f(x, y)} / (1/K) Σ_k e^{f(x, y_k)}    (van den Oord et al. 2018), a lower bound, at most log K

:func:`blahut_arimoto` and :func:`capacity` are the rate–distortion function and the capacity of discrete laws (Blahut 1972;
Arimoto 1972), in nats.
"""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mixtura import ratio
from mixtura.contracts import Estimate, InputError
from mixtura.ground.rng import generator
from mixtura.ratio.divergences import divergence

#: rows that InfoNCE compares with each other
GROUP = 64
#: the gap, in nats, at which an iteration ends, and the most iterations
GAP, ITERATIONS = 1e-9, 100_000

Array = NDArray[np.float64]


def mutual_information(x: Tensor, y: Tensor, *, seed: int = 0, method: str | None = None) -> dict[str, Estimate]:
    """I(X; Y) in nats from rows x (n, d) and y (n, e), as "plug_in", "nwj" and "info_nce". One half of the rows learns the ratio,
    by ``method`` or the best of those tried; the other half measures. InputError on rows of different numbers."""
    x, y = _numbers(x, "x"), _numbers(y, "y")
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y) or 0 in (*x.shape, *y.shape):
        raise InputError(f"x and y: expected as many rows (n, d) of each, got {tuple(x.shape)} and {tuple(y.shape)}")
    rng, pairs = generator(seed, "information"), torch.cat([x, y], 1)
    # information does not depend on units; methods do. First by the largest number: its square may be none
    pairs = pairs / pairs.abs().amax(0).clamp(min=1e-300)
    pairs = (pairs - pairs.mean(0)) / pairs.std(0).clamp(min=1e-300)
    order = torch.randperm(len(x), generator=rng)
    learnt, unseen = pairs[order[: len(x) // 2]], pairs[order[len(x) // 2 :]]
    f = ratio.learn(learnt, _apart(learnt, x.shape[1], rng), seed, method).ratio.log_ratio
    at_pairs, at_apart = f(unseen), f(_apart(unseen, x.shape[1], rng))
    k = min(GROUP, len(unseen))
    groups = unseen[: len(unseen) // k * k].reshape(-1, k, unseen.shape[1])
    terms = []
    for group in groups:
        first, second = group[:, : x.shape[1]], group[:, x.shape[1] :]
        crossed = torch.cat([first.repeat_interleave(k, 0), second.repeat(k, 1)], 1)
        scores = f(crossed).reshape(k, k)
        terms.append((scores.diagonal() - torch.logsumexp(scores, 1) + math.log(k)).mean())
    contrast = torch.stack(terms)
    error = float(contrast.std()) / math.sqrt(len(contrast)) if len(contrast) > 1 else math.nan
    return {
        "plug_in": divergence("kl", at_pairs, at_apart), "nwj": divergence("kl_bound", at_pairs, at_apart),
        "info_nce": Estimate(float(contrast.mean()), error, len(contrast) * k),
    }  # fmt: skip


def _numbers(x: Tensor | ArrayLike, name: str) -> Tensor:
    """An array as float64. InputError where it holds anything but finite numbers."""
    try:
        found = x if isinstance(x, Tensor) else torch.as_tensor(np.ascontiguousarray(x))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected an array of numbers, got {type(x).__name__}") from error
    if found.is_complex() or not torch.isfinite(found).all():
        raise InputError(f"{name}: expected finite real numbers; drop or replace the rows that hold others")
    return found.double()


def _apart(pairs: Tensor, d: int, rng: torch.Generator) -> Tensor:
    """Pairs whose second parts are those of other rows: shifted along a random order, so that none stays with its own."""
    order = torch.randperm(len(pairs), generator=rng)
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return torch.cat([pairs[:, :d], pairs[other, d:]], 1)


def blahut_arimoto(p: ArrayLike, distortion: ArrayLike, slope: float) -> tuple[float, float]:
    """A point of the rate–distortion function of a source p (k,) with distortions (k, m): (rate in nats, distortion), where the
    function has the slope −``slope`` < 0. InputError on a p that is no law."""
    p, distortion = _law(p, "p"), _numbers(distortion, "distortion").numpy()
    finite = distortion.ndim == 2 and distortion.size > 0
    if not finite or len(distortion) != len(p) or not (isinstance(slope, Real) and math.isfinite(slope) and slope > 0):
        raise InputError(f"distortion, slope: expected ({len(p)}, m) and a number above 0, got {distortion.shape} and {slope!r}")
    # what every answer costs to one input changes nothing but the distortion
    kernel = np.exp(-slope * (distortion - distortion.min(1, keepdims=True)))
    q = np.full(distortion.shape[1], 1 / distortion.shape[1])
    for _ in range(ITERATIONS):
        sums = kernel @ q
        gains = p / sums @ kernel
        q = q * gains
        if np.log(gains[q > 0].max()) - np.sum(q * np.log(np.maximum(gains, 1e-300))) < GAP:
            break
    channel = kernel * q / (kernel @ q)[:, None]
    rate = float(np.sum(p[:, None] * channel * np.log(np.where(channel > 0, channel / np.maximum(p @ channel, 1e-300), 1.0))))
    return rate, float(np.sum(p[:, None] * channel * distortion))


def capacity(channel: ArrayLike) -> tuple[float, Array]:
    """The capacity in nats of a channel p(y | x) (k, m), and the law of the input that reaches it. InputError on rows that are no
    laws."""
    table = _numbers(channel, "channel")
    if table.dim() != 2 or not table.numel():
        raise InputError(f"channel: expected rows (k, m) of probabilities, got {tuple(table.shape)}")
    channel = np.stack([_law(row, "channel") for row in table.numpy()])
    p = np.full(len(channel), 1 / len(channel))
    low = 0.0
    for _ in range(ITERATIONS):
        q = p @ channel
        information = np.sum(channel * np.log(np.where(channel > 0, channel / np.maximum(q, 1e-300), 1.0)), 1)
        low = float(np.log(np.sum(p * np.exp(information))))
        if information.max() - low < GAP:
            break
        p = p * np.exp(information - low)
    return low, p


def _law(p: ArrayLike, name: str) -> Array:
    law = _numbers(p, name).numpy()
    if law.ndim != 1 or not len(law) or (law < 0).any() or abs(law.sum() - 1) > 1e-9:
        raise InputError(f"{name}: expected probabilities that add up to 1, got {np.round(law, 4).tolist()}")
    return law
