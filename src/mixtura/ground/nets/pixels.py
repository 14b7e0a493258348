"""Convolutions that see only earlier pixels: PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016), and its walk.

Values are ordered pixel by pixel in raster order, and within a pixel channel by channel. Features come in as many groups
as the image has channels, and group g may see

    every value of the pixels above, every value of the pixels to the left in its own row, and at its own pixel the
    values of channels below g (the first layer, mask A) or features of groups up to g (all others, mask B).

With square kernels some pixels above and to the right are never seen (van den Oord et al. 2016b, section 2.1): the model
is a proper one all the same, with fewer dependencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class CausalConv(nn.Module):
    """(n, in, H, W) → (n, out, H, W), each pixel from those at most ``reach · dilation`` rows above and columns beside it.

    Inputs and outputs are ``groups`` equal groups of channels. strict: at its own pixel a group sees those below it
    (mask A), else itself too (mask B).
    """

    mask: Tensor

    def __init__(
        self, inputs: int, outputs: int, groups: int, *, reach: int = 1, dilation: int = 1, strict: bool = False
    ) -> None:
        super().__init__()
        self.reach, self.dilation, self.groups = reach, dilation, groups
        self.weight = nn.Parameter(torch.empty(outputs, inputs, reach + 1, 2 * reach + 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=1 / math.sqrt(inputs * (2 * reach * (reach + 1) + 1)))
        mask = torch.ones_like(self.weight)
        mask[:, :, -1, reach + 1 :] = 0
        out_group = torch.arange(groups).repeat_interleave(outputs // groups)[:, None]
        in_group = torch.arange(groups).repeat_interleave(inputs // groups)[None, :]
        mask[:, :, -1, reach] = (in_group < out_group if strict else in_group <= out_group).float()
        self.register_buffer("mask", mask, persistent=False)

    @property
    def margin(self) -> int:
        """Rows above, and columns to either side, that a pixel sees."""
        return self.reach * self.dilation

    def forward(self, x: Tensor) -> Tensor:
        """(n, in, H, W) → (n, out, H, W)."""
        m = self.margin
        padded = functional.pad(x, (m, m, m, 0)) if m else x
        return functional.conv2d(padded, self.weight * self.mask, self.bias, dilation=self.dilation)

    def group(self, g: int) -> tuple[Tensor, Tensor]:
        """Weight (taps · in, out / groups) and bias of the outputs of group g, taps in the order of :meth:`window`."""
        rows = slice(g * len(self.bias) // self.groups, (g + 1) * len(self.bias) // self.groups)
        weight = (self.weight * self.mask)[rows].permute(2, 3, 1, 0)
        taps = weight.flatten(0, 1)[: self.reach * (2 * self.reach + 1) + self.reach + 1]
        return taps.flatten(0, 1), self.bias[rows]

    def window(self, padded: Tensor, i: int, j: int) -> Tensor:
        """What pixel (i, j) sees of (n, H + margin, W + 2 margin, in): (n, taps · in)."""
        m, d = self.margin, self.dilation
        above = padded[:, i : i + m : d, j : j + 2 * m + 1 : d].flatten(1)
        beside = padded[:, i + m, j : j + m + 1 : d].flatten(1)
        return torch.cat([above, beside], 1)


class _Block(nn.Module):
    """h + mix(silu(look(silu(h))))."""

    def __init__(self, width: int, groups: int, dilation: int) -> None:
        super().__init__()
        self.look = CausalConv(width, width, groups, dilation=dilation)
        self.mix = CausalConv(width, width, groups, reach=0)
        nn.init.zeros_(self.mix.weight)

    def forward(self, h: Tensor) -> Tensor:
        return h + self.mix(functional.silu(self.look(functional.silu(h))))


class PixelNet(nn.Module):
    """Images in, ``outputs`` numbers a value out, each from the values before it.

    shape: (C, H, W). width: features, in C equal groups. dilations: of the residual blocks, one each. context: numbers
    beside the image, seen everywhere. Every pixel has a bias of its own, in the first layer and in the outputs.
    """

    def __init__(self, shape: Sequence[int], width: int, dilations: Sequence[int], outputs: int, context: int = 0) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.shape, self.width, self.outputs = (channels, height, breadth), width, outputs
        self.first = CausalConv(channels, width, channels, reach=min(3, max(height - 1, breadth - 1, 1)), strict=True)
        self.place = nn.Parameter(torch.zeros(width, height, breadth))
        self.context = nn.Linear(context, width, bias=False) if context else None
        self.blocks = nn.ModuleList(_Block(width, channels, d) for d in dilations)
        self.head = CausalConv(width, channels * outputs, channels, reach=0)
        nn.init.zeros_(self.head.weight)
        self.level = nn.Parameter(torch.zeros(channels, height, breadth, outputs))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """(n, C, H, W) and (n, context) → (n, C·H·W, outputs), values in the order of the image's memory."""
        n, (channels, height, breadth) = len(x), self.shape
        h = self.first(x.contiguous(memory_format=torch.channels_last)) + self.place
        if self.context is not None:
            h = h + self.context(context)[:, :, None, None]
        for block in self.blocks:
            h = block(h)
        out = self.head(functional.silu(h)).reshape(n, channels, self.outputs, height, breadth)
        return (out.permute(0, 1, 3, 4, 2) + self.level).reshape(n, -1, self.outputs)


class PixelWalk:
    """A pass through a :class:`PixelNet` one value after the other, for sampling: what a layer makes of a value is computed
    once, when all it sees is there, so that all values together cost about one forward pass."""

    def __init__(self, net: PixelNet, n: int, context: Tensor | None = None) -> None:
        self.net, self.n = net, n
        self.blocks = cast(list[_Block], list(net.blocks))
        self.outer = None if net.context is None else net.context(context)
        (channels, height, breadth), like = net.shape, net.place

        def room(conv: CausalConv, inputs: int) -> Tensor:
            return like.new_zeros(n, height + conv.margin, breadth + 2 * conv.margin, inputs)

        self.image = room(net.first, channels)
        self.seen = [room(block.look, net.width) for block in self.blocks]
        # of the pixel in hand alone: what the 1×1 layers see
        self.looked = [like.new_zeros(n, net.width) for _ in self.blocks]
        self.last = like.new_zeros(n, net.width)
        self.first = [net.first.group(g) for g in range(channels)]
        self.look = [[block.look.group(g) for g in range(channels)] for block in self.blocks]
        self.mix = [[block.mix.group(g) for g in range(channels)] for block in self.blocks]
        self.head = [net.head.group(g) for g in range(channels)]

    @torch.no_grad()
    def outputs(self, c: int, i: int, j: int) -> Tensor:
        """(n, outputs) at channel c of pixel (i, j), once all values before it have been told."""
        net, each = self.net, self.net.width // self.net.shape[0]
        mine = slice(c * each, (c + 1) * each)

        def apply(layer: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
            return torch.addmm(layer[1], x, layer[0])

        h = apply(self.first[c], net.first.window(self.image, i, j)) + net.place[mine, i, j]
        if self.outer is not None:
            h = h + self.outer[:, mine]
        for b, block in enumerate(self.blocks):
            margin = block.look.margin
            self.seen[b][:, i + margin, j + margin, mine] = functional.silu(h)
            self.looked[b][:, mine] = functional.silu(apply(self.look[b][c], block.look.window(self.seen[b], i, j)))
            h = h + apply(self.mix[b][c], self.looked[b])
        self.last[:, mine] = functional.silu(h)
        return apply(self.head[c], self.last) + net.level[c, i, j]

    def tell(self, c: int, i: int, j: int, value: Tensor) -> None:
        """(n,) the value of channel c at pixel (i, j)."""
        margin = self.net.first.margin
        self.image[:, i + margin, j + margin, c] = value.to(self.image)
