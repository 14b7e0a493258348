"""What a model sees of the columns that it is given: :class:`Inputs`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mixtura.contracts import Space
from mixtura.ground.encode import Columns


class Inputs(nn.Module):
    """What a conditional model sees of the columns it is given: rows of their :class:`Space` → (n, ``width``) float32.

    A column's value is standardised as :class:`Columns` does it, 0 where absent; beside it stand indicators of its code (a
    level, an atom, "missing"), none of them 1 for a level never seen. A value further than a standard deviation beyond what
    the fit rows held counts as no further: nothing was learnt out there.
    """

    owner: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space, self.columns = space, Columns(space)
        self.width = sum(self.columns.cardinalities) + self.columns.continuous
        # which entry of the space each indicator tells of
        owners = [torch.full((count,), j) for j, count in zip(self.columns.coded, self.columns.cardinalities, strict=True)]
        self.register_buffer("owner", torch.cat([torch.zeros(0, dtype=torch.int64), *owners]), persistent=False)
        self.register_buffer("lowest", torch.zeros(self.columns.continuous, dtype=torch.float64))
        self.register_buffer("highest", torch.zeros(self.columns.continuous, dtype=torch.float64))

    def prepare(self, x: Tensor) -> None:
        """Learn centres, scales and ranges from fit rows (n, D) in data units."""
        self.columns.prepare(x)
        values = self.columns.split(x).values
        self.lowest, self.highest = values.amin(0) - 1, values.amax(0) + 1

    def forward(self, x: Tensor) -> Tensor:
        """Rows (n, D) in data units, NaN where missing, a code past the last for a level never seen."""
        parts = self.columns.split(self.space.clamp(x))
        levels = torch.tensor([c.kind == "levels" for c in self.space.columns], device=x.device)
        unseen = self.space.off(x) & levels
        indicators = self.columns.indicators(parts.codes).masked_fill(unseen[:, self.owner], 0.0)
        return torch.cat([indicators, parts.values.clamp(self.lowest, self.highest).float()], 1)
