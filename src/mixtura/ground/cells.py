"""The mass that a distribution gives to the cell of a rounded value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mixtura.ground.normal import LOG_SQRT_2PI


@dataclass(frozen=True)
class Parts:
    """n rows as S codes and C standardised values; the values' cells are [low, low + width].

    codes:     (n, S) int64.
    values:    (n, C), 0 where absent.
    present:   (n, C) bool.
    overlap:   (n, C) bool: absent, but its atom has a cell (low, width) that a value can land in too.
    low:       (n, C) lower edge of the cell (the value itself where the column is not rounded).
    width:     (n, C) width of the cell, 0 where the column is not rounded.
    open_low:  (n, C) bool: the cell ends at a wall, and holds everything below it; open_high: everything above.
    base:      (n, C) nats to add to log p(codes, values), where a rounded value enters as the *mass* of its cell.
    """

    codes: Tensor
    values: Tensor
    present: Tensor
    overlap: Tensor
    low: Tensor
    width: Tensor
    open_low: Tensor
    open_high: Tensor
    base: Tensor

    @property
    def log_base(self) -> Tensor:
        """(n,) the whole row's base."""
        return self.base.sum(1)

    def pack(self) -> Tensor:
        """(n, S + 8C) float32, for training; :meth:`Columns.unpack` undoes it."""
        return torch.cat([getattr(self, name).float() for name in self.__dataclass_fields__], 1)

    def __getitem__(self, rows: Tensor | slice) -> Parts:
        return Parts(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def log_logistic_mass(parts: Parts, location: Tensor, log_scale: Tensor) -> Tensor:
    """log mass of each cell, or log density where there is no cell, under logistic distributions.

    ``location`` and ``log_scale`` broadcast against (n, C, …); parts are (n, C). With a = (low − μ)/s,
    b = a + width/s:  log(σ(b) − σ(a)) = log σ(b) + log σ(−a) + log(1 − e^{a−b}), exact in both tails.
    """

    def expand(t: Tensor) -> Tensor:
        return t.reshape(*t.shape, *(1,) * (location.dim() - t.dim()))

    inverse = torch.exp(-log_scale)
    a = (expand(parts.low) - location) * inverse
    left = nn.functional.logsigmoid(-a)
    cell = expand(parts.width > 0)
    # what no value needs is not computed: in training it would be half of the cost
    some, every = bool(cell.any()), bool(cell.all())
    density = left if every else 2 * left + a - log_scale  # log σ(a) = log σ(−a) + a
    if not some:
        return density
    width = expand(parts.width) * inverse
    safe = width if every else torch.where(cell, width, 1.0)
    right = nn.functional.logsigmoid(a + safe)
    open_low, open_high = expand(parts.open_low), expand(parts.open_high)
    inner = torch.where(open_low | open_high, 0.0, torch.log(-torch.expm1(-safe.clamp(min=1e-30))))
    mass = torch.where(open_low, 0.0, left) + torch.where(open_high, 0.0, right) + inner
    return mass if every else torch.where(cell, mass, density)


def log_normal_mass(low: Tensor, width: Tensor, open_low: Tensor, open_high: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """As :func:`log_logistic_mass` for Gaussians; all arguments broadcast. float64 is expected."""
    a = (low - location) / scale
    w = width / scale
    cell = width > 0
    safe = torch.where(cell, w, 1.0)
    b = a + safe
    # work in the left tail, where log Φ has relative precision
    flip = a + b > 0
    left, right = torch.where(flip, -b, a), torch.where(flip, -a, b)
    log_left, log_right = torch.special.log_ndtr(left), torch.special.log_ndtr(right)
    wide = log_right + torch.log(-torch.expm1((log_left - log_right).clamp(max=-1e-300)))
    middle = (a + b) / 2
    narrow = -0.5 * middle**2 - LOG_SQRT_2PI + safe.log() + torch.log1p((middle**2 - 1) * safe**2 / 24)
    # second-order midpoint rule: relative error below 1e-9 for these widths, where the difference would cancel
    inner = torch.where((safe < 1e-2) & (safe * middle.abs() < 1e-2), narrow, wide)
    mass = torch.where(open_low, torch.special.log_ndtr(b), torch.where(open_high, torch.special.log_ndtr(-a), inner))
    mass = torch.where(open_low & open_high, 0.0, mass)
    density = -0.5 * a**2 - LOG_SQRT_2PI - scale.log()
    return torch.where(cell, mass, density)
