"""An ensemble of perceptrons trained at once: every weight has a leading axis of members, and a layer is one batched product."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Bins(nn.Module):
    """Piecewise-linear encoding of numbers (Gorishniy et al. 2022, section 3.1): with edges e_0 < … < e_T at quantiles of the fit
    rows, entry t of a number x is (x − e_{t−1}) / (e_t − e_{t−1}), clamped to [0, 1]. Functions that are far from linear in x,
    such as steps between a few distinct values, are linear in the encoding."""

    low: Tensor
    width: Tensor

    def __init__(self, inputs: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(inputs, bins))
        # an unused bin has infinite width, so its entry is always 0
        self.register_buffer("width", torch.full((inputs, bins), math.inf))

    @property
    def outputs(self) -> int:
        """The number of entries of an encoded row."""
        return self.low.numel()

    def prepare(self, x: Tensor) -> None:
        """Compute the edges from fit rows (n, inputs); a column that does not vary has no bins."""
        bins = self.low.shape[1]
        q = torch.linspace(0, 1, bins + 1, dtype=x.dtype, device=x.device)
        self.low.zero_()
        self.width.fill_(math.inf)
        for j in range(x.shape[1] if bins else 0):
            edges = torch.quantile(x[:100_000, j], q).unique()
            if len(edges) > 1:
                self.low[j, : len(edges) - 1], self.width[j, : len(edges) - 1] = edges[:-1], edges.diff()

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs) → (n, outputs)."""
        return ((x.unsqueeze(-1) - self.low) / self.width).clamp(0, 1).flatten(1)


class Members(nn.Module):
    """``members`` linear layers side by side: (members, n, inputs) → (members, n, outputs)."""

    def __init__(self, members: int, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        reach = gain / math.sqrt(max(inputs, 1))
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-1, 1) * reach)
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-1, 1) * reach)

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


class Ensemble(nn.Module):
    """Perceptrons with residual SiLU layers and a direct linear path: (n, inputs) → (members, n, outputs).

    sees: (members, inputs) bool, the inputs that each member sees; the others are replaced by 0.
    """

    sees: Tensor

    def __init__(self, sees: Tensor, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        members, inputs = sees.shape
        self.register_buffer("sees", sees.float().unsqueeze(1), persistent=False)
        widths = [inputs, *hidden]
        self.layers = nn.ModuleList(Members(members, a, b) for a, b in zip(widths, hidden, strict=False))
        # small weights: the initial outputs are nearly the bias, for every row
        self.leave = Members(members, widths[-1], outputs, 0.1)
        self.direct = Members(members, inputs, outputs, 0.0)

    def begin(self, bias: Tensor) -> None:
        """Set the bias of the last layer, so that every member initially predicts nearly ``bias`` (outputs,)."""
        self.leave.bias.data.copy_(bias.expand_as(self.leave.bias))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.sees
        h = x
        for layer in self.layers:
            new = functional.silu(layer(h))
            h = h + new if h.shape == new.shape and h is not x else new
        return self.leave(h) + self.direct(x)
