"""An encoding of images that turns the levels of every pixel into normal scores: :class:`PixelScores`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from mixtura.contracts import Space
from mixtura.ground.cells import Parts
from mixtura.ground.encode import Columns
from mixtura.ground.normal import SQRT_2PI

#: pixels with more levels than this are treated as plain numbers
MOST_LEVELS = 4096

#: how many choices n, n/4, … of pseudo-rows are tried for the histogram of a pixel
BORROWED = 10


class PixelScores(Columns):
    """The levels of every pixel as normal scores: level l of pixel j is the cell between Φ⁻¹(F_j(l − 1)) and Φ⁻¹(F_j(l)), where
    F_j is the distribution function of the pixel's smoothed histogram (:func:`histograms`). Under a standard Gaussian the
    masses of the cells are then that histogram. A value is the mean of the standard Gaussian in its cell.
    """

    cuts: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        column = space.columns[0]
        self.low, self.step = column.low, column.resolution
        self.levels = column.steps
        even = torch.arange(1, self.levels, dtype=torch.float64) / self.levels
        # (dims, levels − 1): the scores at which one level ends and the next begins
        self.register_buffer("cuts", torch.special.ndtri(even).repeat(space.dims, 1))

    @staticmethod
    def serves(space: Space) -> bool:
        """Whether observations are images with few enough levels for a histogram of every pixel."""
        return space.is_image and 0 < space.columns[0].steps <= MOST_LEVELS

    def prepare(self, x: Tensor) -> None:
        """Compute the histograms from fit rows (n, C, H, W) in data units."""
        mass = histograms(self._levels(x), self.levels, self.space.shape[0])
        below, above = mass.cumsum(1)[:, :-1], mass.flip(1).cumsum(1).flip(1)[:, 1:]
        # compute each tail from its own side, where it has relative precision
        self.cuts = torch.where(below < 0.5, torch.special.ndtri(below), -torch.special.ndtri(above))

    def _levels(self, x: Tensor) -> Tensor:
        """(n, C, H, W) in data units → (n, dims) level numbers 0, 1, …"""
        return ((self.space.flat(x) - self.low) / self.step).round().long()

    def steps(self, values: Tensor) -> Tensor:
        """(n, dims) scores → (n, dims) level numbers."""
        return torch.searchsorted(self.cuts, values.double().T.contiguous()).T

    def _cells(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """(n, dims) each: the scores at which a level begins and ends; an open cell has a width of 1."""
        edges = functional.pad(self.cuts, (1, 1))
        edges[:, 0], edges[:, -1] = edges[:, 1] - 1, edges[:, -2] + 1
        return edges.T.gather(0, level), edges.T.gather(0, level + 1)

    def split(self, x: Tensor) -> Parts:
        """(n, C, H, W) in data units → Parts. Rows must be on the support (``Space.clamp``)."""
        level = self._levels(x)
        low, high = self._cells(level)
        open_low, open_high = level == 0, level == self.levels - 1
        no = torch.zeros_like(open_low)
        return Parts(
            codes=level[:, :0],
            values=_normal_mean(torch.where(open_low, -math.inf, low), torch.where(open_high, math.inf, high)),
            present=~no,
            overlap=no,
            low=low,
            width=high - low,
            open_low=open_low,
            open_high=open_high,
            base=torch.full_like(low, -math.log(self.step)),
        )

    def join(self, codes: Tensor, values: Tensor) -> Tensor:
        """Scores (n, dims) → (n, C, H, W) in data units."""
        return (self.low + self.steps(values) * self.step).reshape(len(values), *self.space.shape)

    def blank(self, x: Tensor, known: Tensor) -> Tensor:
        """``x`` with a valid placeholder in every entry that is not known."""
        return torch.where(known, x, self.low)


def histograms(step: Tensor, steps: int, channels: int) -> Tensor:
    """The probabilities (dims, steps) of the levels of every pixel, from the levels (n, dims) of n images:

        p_j(l) = (count_jl + α_j q(l)) / (n + α_j),   q the mean histogram of the channel's other pixels, plus one,

    where α_j, the number of rows that pixel j borrows from the others, is one of n, n/4, …, chosen by leave-one-out likelihood.
    """
    n, dims = step.shape
    counts = torch.zeros(dims, steps, dtype=torch.float64, device=step.device)
    counts.scatter_add_(1, step.T, torch.ones_like(counts[:, :1]).expand(-1, n))
    of_channel = counts.reshape(channels, -1, steps)
    # the mean over pixels, not the sum: a row counts once, although many of its pixels may be alike
    others = (of_channel.sum(1, keepdim=True) - of_channel) / max(of_channel.shape[1] - 1, 1)
    q = ((others + 1) / (others.sum(2, keepdim=True) + steps)).flatten(0, 1)
    borrowed = torch.tensor([n * 4.0**-i for i in range(BORROWED)], dtype=torch.float64, device=step.device)
    left_out = (counts - 1).clamp(min=0)
    scores = [(counts * (left_out + α * q).log()).sum(1) - n * (n - 1 + α).log() for α in borrowed]
    α = borrowed[torch.stack(scores).argmax(0)].unsqueeze(1)
    return (counts + α * q) / (n + α)


def _normal_mean(low: Tensor, high: Tensor) -> Tensor:
    """The mean of a standard Gaussian between ``low`` and ``high``: (φ(low) − φ(high)) / (Φ(high) − Φ(low))."""
    flip = low + high > 0
    left, right = torch.where(flip, -high, low), torch.where(flip, -low, high)
    mass = torch.special.ndtr(right) - torch.special.ndtr(left)
    rise = ((-0.5 * left.square()).exp() - (-0.5 * right.square()).exp()) / SQRT_2PI
    # for a narrow interval take the middle, because the quotient would cancel
    mean = torch.where(right - left < 1e-3, (left + right) / 2, rise / mass.clamp(min=1e-300))
    return torch.where(flip, -mean, mean)
