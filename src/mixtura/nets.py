"""Networks. No probability here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MaskedLinear(nn.Linear):
    """A linear layer whose weight is zero where ``mask`` (out, in) is False.

    Masked weights start at zero and their gradient is masked, so training leaves them there and pays for the mask
    once a step; outside training the mask is applied as well, whatever was loaded.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float(), persistent=False)
        self.weight.data *= self.mask
        self.weight.register_hook(lambda gradient: gradient * self.mask)

    def forward(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """(n, in) → (n, rows of out)."""
        if self.training:
            return nn.functional.linear(x, self.weight, self.bias)
        return nn.functional.linear(x, self.weight[rows] * self.mask[rows], self.bias[rows])


#: weights of direct connections a net may have
MOST_DIRECT = 500_000


class MaskedNet(nn.Module):
    """Outputs at position p see the inputs at positions below p, and the context: MADE (Germain et al. 2015)
    with one position for a whole block of numbers (a column's indicators, a column's parameters).

    inputs, outputs: the position 0 .. positions-1 of every input and output number.
    Degrees of hidden units are spread evenly, so a net narrower than its input still sees all of it; direct
    connections run from inputs to outputs (section 4 of the paper) unless they would outweigh the net.
    """

    def __init__(self, inputs: Tensor, outputs: Tensor, hidden: Sequence[int], context: int = 0) -> None:
        super().__init__()
        last = int(max(inputs.max(), outputs.max()))
        before = torch.cat([inputs, torch.full((context,), -1)])
        lowest = -1 if context else 0
        layers: list[MaskedLinear] = []
        seen = before
        for width in hidden:
            degree = torch.linspace(lowest, max(last - 1, lowest), width).round().long()
            layers.append(MaskedLinear(seen[None, :] <= degree[:, None]))
            seen = degree
        self.layers = nn.ModuleList(layers)
        linked = before if len(before) * len(outputs) <= MOST_DIRECT else before[:0]
        self.linked = len(linked) > 0
        self.head = MaskedLinear(torch.cat([seen, linked])[None, :] < outputs[:, None])
        self.head.weight.data[:, len(seen) :] = 0
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, rows: slice = slice(None)) -> Tensor:
        """(n, inputs + context) → (n, the asked rows of the outputs)."""
        h = x
        for layer in self.layers:
            h = nn.functional.silu(layer(h))
        return self.head(torch.cat([h, x], 1) if self.linked else h, rows)


def one_hot(codes: Tensor, cardinalities: Sequence[int]) -> Tensor:
    """(n, S) codes → (n, Σ cardinalities) float32 indicators, one group a code."""
    out = torch.zeros(len(codes), sum(cardinalities), device=codes.device)
    return out.scatter_(1, codes + starts(cardinalities, codes.device), 1.0) if cardinalities else out


def starts(cardinalities: Sequence[int], device: torch.device) -> Tensor:
    """(S,) where each group of indicators begins."""
    sizes = torch.tensor(cardinalities, dtype=torch.int64, device=device)
    return sizes.cumsum(0) - sizes


def group_log_softmax(logits: Tensor, cardinalities: Sequence[int]) -> Tensor:
    """(n, Σ cardinalities) → the same, normalised inside each group."""
    if not cardinalities:
        return logits
    if len(set(cardinalities)) == 1:
        return torch.log_softmax(logits.reshape(len(logits), len(cardinalities), -1), -1).reshape(logits.shape)
    return torch.cat([torch.log_softmax(group, -1) for group in logits.split(list(cardinalities), 1)], 1)


def log_chosen(logits: Tensor, codes: Tensor, cardinalities: Sequence[int]) -> Tensor:
    """(n, Σ cardinalities) logits and (n, S) codes → (n, S) log probabilities of the codes."""
    if set(cardinalities) == {2}:
        pair = logits.reshape(len(logits), -1, 2)
        return nn.functional.logsigmoid((2 * codes - 1) * (pair[..., 1] - pair[..., 0]))
    if not cardinalities:
        return logits
    groups = logits.split(list(cardinalities), 1)
    return -torch.stack([nn.functional.cross_entropy(g, c, reduction="none") for g, c in zip(groups, codes.T, strict=True)], 1)
