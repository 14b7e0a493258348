"""A column as a choice among options, levels or bins: the binary tree that divides the options, and the laws within bins.

The tree is one of nested dichotomies (Frank & Kramer 2004): every node divides its options into two parts of about equal count,
so a model of the column is a model of "which part" at every node. Bins are intervals of the values. The first and the last have
no outer end and an exponential law, the others a uniform one; frequent values of a rounded column are bins of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

#: rows of a bin at least; a value that has this share of the rows is a bin of its own
BIN_ROWS, HEAVY = 20, 1 / 128
#: the least scale of the exponential law of an outer bin, in standardised units
LEAST_DECAY = 1e-3


@dataclass(frozen=True)
class Tree:
    """The binary tree over the options of one column. place (O,): the options in the order in which nodes divide them. split
    (M,): a node sends the options of a place ≥ split to its upper child. child (M, 2): the lower and the upper child; a node, or
    −1 − o for option o."""

    place: Tensor
    split: Tensor
    child: Tensor


def divide(counts: Sequence[int], apart: int) -> Tree:
    """The tree over options with these counts, of which the first ``apart`` are codes. Codes are apart from bins, and in order of
    their counts; every node divides its options into parts of about equal count."""
    order = sorted(range(apart), key=lambda o: -counts[o]) + list(range(apart, len(counts)))
    upto = np.concatenate([[0.0], np.cumsum([counts[o] + 1e-3 for o in order])])
    split, child = [], []
    waiting = [(0, len(order))]
    for low, high in waiting:
        if high - low < 2:
            continue
        half = (upto[low] + upto[high]) / 2
        at = apart if low < apart < high else low + 1 + int(np.abs(upto[low + 1 : high] - half).argmin())
        split.append(at)
        child.append([(low, at), (at, high)])
        waiting += child[-1]
    number = {part: node for node, part in enumerate(part for part in waiting if part[1] - part[0] > 1)}
    children = [[number.get(part, -1 - order[part[0]]) for part in both] for both in child]
    place = torch.empty(len(order), dtype=torch.int64)
    place[order] = torch.arange(len(order))
    return Tree(place, torch.tensor(split, dtype=torch.int64), torch.tensor(children, dtype=torch.int64).reshape(-1, 2))


def inner_ends(values: Tensor, counts: Tensor, most: int, rounded: bool) -> Tensor:
    """(B − 1,) the inner ends of at most ``most`` bins of about equal count of the ascending values (D,), two bins at least. In a
    rounded column values are step numbers, and a frequent one is a bin of its own."""
    if len(values) < 2:
        return values if len(values) else torch.zeros(1, dtype=torch.float64)
    n = int(counts.sum())
    room = max(n / most, min(BIN_ROWS, n / 2))
    between = (values[:-1] + values[1:]) / 2
    between = between.floor() + 1 if rounded else between
    ends, held = [], 0
    for d, count in enumerate(counts.tolist()):
        heavy = rounded and count > max(HEAVY * n, BIN_ROWS)
        if heavy:
            ends += [float(values[d]), float(values[d]) + 1]
            held = 0
            continue
        # the middle of the count of the value decides, so that a large count does not always end a bin late
        if held and held + count / 2 > room and d:
            ends.append(float(between[d - 1]))
            held = 0
        held += count
    ends = sorted({end for end in ends if float(values[0]) < end <= float(values[-1])})
    return torch.tensor(ends or [float(between[len(between) // 2])], dtype=torch.float64)


def decays(y: Tensor, counts: Tensor, cut: Tensor) -> Tensor:
    """(2,) the scales of the exponential laws of the first and the last bin: the mean distance of their values y (D,) from their
    inner end, with one more row as far as the bin beside is wide."""
    beside = (cut[1:2] - cut[:1], cut[-1:] - cut[-2:-1]) if len(cut) > 1 else (cut.new_ones(1),) * 2
    scales = []
    for distance, width in zip((cut[0] - y, y - cut[-1]), beside, strict=True):
        inside = distance > 0
        rows = counts[inside]
        scales.append((float((rows * distance[inside]).sum()) + float(width)) / (float(rows.sum()) + 1))
    return torch.tensor(scales, dtype=torch.float64).clamp(min=LEAST_DECAY)


def log_smooth(
    low: Tensor, width: Tensor, open_low: Tensor, open_high: Tensor, b: Tensor, cut: Tensor, decay: Tensor
) -> Tensor:
    """(n,) log mass of cells, or log density where the width is 0, under the smooth laws of their bins b (n,): uniform between
    the inner ends ``cut`` (B − 1,), exponential below the first and above the last."""
    last, safe = len(cut), torch.where(width > 0, width, 1.0)
    ends = functional.pad(cut, (1, 1), value=0.0)
    inner = (torch.where(width > 0, width, 1.0) / (ends[b + 1] - ends[b]).clamp(min=1e-300)).log()

    def tail(near: Tensor, far_open: Tensor, scale: Tensor) -> Tensor:
        """Of a cell whose nearer end is so far from the inner end of an outer bin."""
        mass = torch.where(far_open, 0.0, torch.log(-torch.expm1(-safe / scale)))
        return -near.clamp(min=0) / scale + torch.where(width > 0, mass, -scale.log())

    lower = tail(cut[0] - (low + width), open_low, decay[0])
    upper = tail(low - cut[-1], open_high, decay[1])
    return torch.where(b == 0, lower, torch.where(b == last, upper, inner))


def smooth_quantile(u: Tensor, b: Tensor, cut: Tensor, decay: Tensor) -> Tensor:
    """(n,) the quantiles u (n,) of the smooth laws of bins b (n,), in standardised units."""
    ends = functional.pad(cut, (1, 1), value=0.0)
    inner = ends[b] + u * (ends[b + 1] - ends[b])
    lower, upper = cut[0] + decay[0] * u.log(), cut[-1] - decay[1] * torch.log1p(-u)
    return torch.where(b == 0, lower, torch.where(b == len(cut), upper, inner))
