"""Autoregressive networks (MADE), their evaluation position by position for sampling, and the layout of codes as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

#: a network with more direct connections than this has none
MOST_DIRECT = 1_000_000


class MaskedLinear(nn.Linear):
    """A linear layer whose weight is zero where ``mask`` (out, in) is False.

    Masked weights start at zero and their gradient is masked, so they stay zero in training, and the mask costs time only
    once a step. In evaluation mode the mask is applied to the weights, in case other weights were loaded.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.float(), persistent=False)
        self.weight.data *= self.mask
        self.weight.register_hook(lambda gradient: gradient * self.mask)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in) → (n, out)."""
        return nn.functional.linear(x, self.weight if self.training else self.weight * self.mask, self.bias)

    def part(self, x: Tensor, rows: slice, columns: slice = slice(None), *, bias: bool = True) -> Tensor:
        """Some of the outputs, computed from some of the inputs."""
        return nn.functional.linear(x, self.weight[rows, columns] * self.mask[rows, columns], self.bias[rows] if bias else None)


class MaskedNet(nn.Module):
    """MADE (Germain et al. 2015): outputs at position p depend on the inputs at positions below p, and on the context. A block
    of numbers (the indicators of a column, the parameters of a column) has one position.

    inputs, outputs: the position 0 .. positions-1 of every input and every output.
    The degrees of hidden units are spread evenly, so a network narrower than its input still sees all inputs. Inputs are also
    connected directly to outputs (section 4 of the paper), unless there would be more than ``MOST_DIRECT`` such weights.
    """

    def __init__(self, inputs: Tensor, outputs: Tensor, hidden: Sequence[int], context: int = 0) -> None:
        super().__init__()
        last = int(max(inputs.max(), outputs.max()))
        before = torch.cat([inputs, torch.full((context,), -1)])
        lowest = -1 if context else 0
        layers: list[MaskedLinear] = []
        degrees: list[Tensor] = []
        seen = before
        for width in hidden:
            degree = torch.linspace(lowest, max(last - 1, lowest), width).round().long()
            layers.append(MaskedLinear(seen[None, :] <= degree[:, None]))
            degrees.append(degree)
            seen = degree
        self.layers = nn.ModuleList(layers)
        linked = before if len(before) * len(outputs) <= MOST_DIRECT else before[:0]
        self.linked = len(linked) > 0
        self.head = MaskedLinear(torch.cat([seen, linked])[None, :] < outputs[:, None])
        self.head.weight.data[:, len(seen) :] = 0
        nn.init.zeros_(self.head.bias)
        # degrees ascend, so a position sees the first ``ready[layer][position]`` units of a layer
        positions = torch.arange(last + 1)
        self.ready = [torch.searchsorted(d, positions).tolist() for d in degrees]

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs + context) → (n, outputs)."""
        h = x
        for layer in self.layers:
            h = nn.functional.silu(layer(h))
        return self.head(torch.cat([h, x], 1) if self.linked else h)


class Walk:
    """Evaluates a :class:`MaskedNet` one position after the other, for sampling. Each hidden unit is computed once, as soon as
    all inputs that it sees are known, so all positions together cost about one forward pass."""

    def __init__(self, net: MaskedNet, x: Tensor) -> None:
        self.net, self.x = net, x
        self.layers = cast(list[MaskedLinear], list(net.layers))
        self.hidden = [x.new_zeros(len(x), layer.out_features) for layer in self.layers]
        self.done = [0] * len(self.hidden)

    @torch.no_grad()
    def outputs(self, position: int, rows: Sequence[slice]) -> list[Tensor]:
        """Some of the outputs at ``position``; x (n, inputs + context) must hold all inputs at lower positions."""
        source = self.x
        for i, layer in enumerate(self.layers):
            new = slice(self.done[i], self.net.ready[i][position])
            if new.start < new.stop:
                self.hidden[i][:, new] = nn.functional.silu(layer.part(source, new))
                self.done[i] = new.stop
            source = self.hidden[i]
        width = source.shape[1]
        head = self.net.head
        out = []
        for r in rows:
            nats = head.part(source, r, slice(0, width))
            out.append(nats + head.part(self.x, r, slice(width, None), bias=False) if self.net.linked else nats)
        return out


class CodeLayout(nn.Module):
    """The representation of codes at the input and output of a network: a code of two levels is one number (input 0 or 1,
    output a log-odds), any other code is a group of numbers (input indicators, output logits)."""

    columns: Tensor
    single: Tensor

    def __init__(self, cardinalities: Sequence[int]) -> None:
        super().__init__()
        self.cardinalities = tuple(cardinalities)
        self.widths = [1 if k == 2 else k for k in cardinalities]
        ends = torch.tensor(self.widths, dtype=torch.int64).cumsum(0)
        #: the slice of each code
        self.blocks = [slice(int(end) - width, int(end)) for end, width in zip(ends, self.widths, strict=True)]
        single = torch.tensor([k == 2 for k in cardinalities], dtype=torch.bool)
        self.register_buffer("single", single, persistent=False)
        # the column of level 0; for a two-level code the column before its single one
        self.register_buffer("columns", ends - torch.tensor(self.widths, dtype=torch.int64) - single.long(), persistent=False)
        self.binary = set(cardinalities) == {2}

    @property
    def width(self) -> int:
        """The number of inputs, and of outputs."""
        return sum(self.widths)

    def positions(self, position: Tensor) -> Tensor:
        """(S,) one number for each code → (width,), repeated for each input of the code."""
        return position.repeat_interleave(torch.tensor(self.widths, dtype=torch.int64))

    def inputs(self, codes: Tensor) -> Tensor:
        """(n, S) codes → (n, width) float32 inputs."""
        if self.binary:
            return codes.float()
        if not self.widths:
            return torch.zeros(len(codes), 0, device=codes.device)
        out = torch.zeros(len(codes), self.width + 1, device=codes.device)
        # level 0 of a two-level code has no column: write its 1 to a spare column
        at = torch.where(self.single & (codes == 0), self.width, codes + self.columns)
        return out.scatter_(1, at, 1.0)[:, : self.width]

    def input(self, s: int, codes: Tensor) -> Tensor:
        """(n,) codes of slot s → (n, w) float32 inputs."""
        if self.cardinalities[s] == 2:
            return codes.float().unsqueeze(1)
        return nn.functional.one_hot(codes, self.widths[s]).float()

    def logits(self, s: int, block: Tensor) -> Tensor:
        """(n, w) outputs of code s → (n, k) logits."""
        return nn.functional.pad(block, (1, 0)) if self.cardinalities[s] == 2 else block

    def log_chosen(self, out: Tensor, codes: Tensor) -> Tensor:
        """(n, width) outputs → (n, S) log probabilities of the codes."""
        if self.binary:
            return -nn.functional.binary_cross_entropy_with_logits(out, codes.to(out), reduction="none")
        if not self.widths:
            return out
        groups = (self.logits(s, out[:, block]) for s, block in enumerate(self.blocks))
        return -torch.stack(
            [nn.functional.cross_entropy(g, c, reduction="none") for g, c in zip(groups, codes.T, strict=True)], 1
        )
