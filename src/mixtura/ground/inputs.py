"""The features that a conditional model computes from the columns it is given: :class:`Inputs`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mixtura.contracts import Space
from mixtura.ground.encode import Columns


class Inputs(nn.Module):
    """The input columns as features: rows of their :class:`Space` → (n, ``width``) float32.

    Each value is standardised as in :class:`Columns`, and 0 where absent. Each code (a level, an atom, "missing") is a group of
    indicators, all 0 for an unseen level. Values are clamped to the range of the fit rows, extended by one standard deviation,
    because nothing was learnt further out.
    """

    owner: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space, self.columns = space, Columns(space)
        self.width = sum(self.columns.cardinalities) + self.columns.continuous
        # the entry of the space that each indicator belongs to
        owners = [torch.full((count,), j) for j, count in zip(self.columns.coded, self.columns.cardinalities, strict=True)]
        self.register_buffer("owner", torch.cat([torch.zeros(0, dtype=torch.int64), *owners]), persistent=False)
        self.register_buffer("lowest", torch.zeros(self.columns.continuous, dtype=torch.float64))
        self.register_buffer("highest", torch.zeros(self.columns.continuous, dtype=torch.float64))

    def prepare(self, x: Tensor) -> None:
        """Compute centres, scales and ranges from fit rows (n, D) in data units."""
        self.columns.prepare(x)
        values = self.columns.split(x).values
        self.lowest, self.highest = values.amin(0) - 1, values.amax(0) + 1

    def forward(self, x: Tensor) -> Tensor:
        """Features of rows (n, D) in data units: NaN where missing, a code ≥ levels for an unseen level."""
        parts = self.columns.split(self.space.clamp(x))
        levels = torch.tensor([c.kind == "levels" for c in self.space.columns], device=x.device)
        unseen = self.space.off(x) & levels
        indicators = self.columns.indicators(parts.codes).masked_fill(unseen[:, self.owner], 0.0)
        return torch.cat([indicators, parts.values.clamp(self.lowest, self.highest).float()], 1)
