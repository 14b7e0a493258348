"""PixelCNN (van den Oord, Kalchbrenner & Kavukcuoglu 2016): convolutions that see only earlier pixels, and their evaluation
value by value for sampling.

Values are ordered pixel by pixel in raster order, and within a pixel channel by channel. Features are split into as many groups
as the image has channels, and group g may see

    every value of the pixels above, every value of the pixels to the left in its own row, and at its own pixel the
    values of channels below g (the first layer, mask A) or features of groups up to g (all others, mask B).

With square kernels some pixels above and to the right are never seen (van den Oord et al. 2016b, section 2.1): the model is
still a valid density, with fewer dependencies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class CausalConv(nn.Module):
    """(n, in, H, W) → (n, out, H, W): a pixel sees at most ``reach · dilation`` rows above and columns to either side.

    Inputs and outputs are ``groups`` equal groups of channels. strict: at its own pixel a group sees the groups below it
    (mask A); otherwise it also sees itself (mask B).
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
        """Weight (taps · in, out / groups) and bias of the outputs of group g, with the taps in the order of :meth:`window`."""
        rows = slice(g * len(self.bias) // self.groups, (g + 1) * len(self.bias) // self.groups)
        weight = (self.weight * self.mask)[rows].permute(2, 3, 1, 0)
        taps = weight.flatten(0, 1)[: self.reach * (2 * self.reach + 1) + self.reach + 1]
        return taps.flatten(0, 1), self.bias[rows]

    def window(self, padded: Tensor, i: int, j: int) -> Tensor:
        """The inputs that pixel (i, j) sees in a padded image (n, H + margin, W + 2 margin, in): (n, taps · in)."""
        m, d = self.margin, self.dilation
        above = padded[:, i : i + m : d, j : j + 2 * m + 1 : d].flatten(1)
        left = padded[:, i + m, j : j + m + 1 : d].flatten(1)
        return torch.cat([above, left], 1)


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
    """Computes ``outputs`` numbers for every value of an image from the values before it.

    shape: (C, H, W). width: number of features, in C equal groups. dilations: one for each residual block. context: numbers
    in addition to the image, which every pixel sees. Every pixel has its own bias, in the first layer and in the outputs.
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
        """(n, C, H, W) and (n, context) → (n, C·H·W, outputs), with values in the memory order of the image."""
        n, (channels, height, breadth) = len(x), self.shape
        h = self.first(x.contiguous(memory_format=torch.channels_last)) + self.place
        if self.context is not None:
            h = h + self.context(context)[:, :, None, None]
        for block in self.blocks:
            h = block(h)
        out = self.head(functional.silu(h)).reshape(n, channels, self.outputs, height, breadth)
        return (out.permute(0, 1, 3, 4, 2) + self.level).reshape(n, -1, self.outputs)


class PixelWalk:
    """Evaluates a :class:`PixelNet` one value after the other, for sampling. Every feature is computed once, as soon as all
    values that it sees are known, so all values together cost about one forward pass."""

    def __init__(self, net: PixelNet, n: int, context: Tensor | None = None) -> None:
        self.net, self.n = net, n
        self.blocks = cast(list[_Block], list(net.blocks))
        self.of_context = None if net.context is None else net.context(context)
        (channels, height, breadth), like = net.shape, net.place

        def padded(conv: CausalConv, inputs: int) -> Tensor:
            return like.new_zeros(n, height + conv.margin, breadth + 2 * conv.margin, inputs)

        self.image = padded(net.first, channels)
        self.seen = [padded(block.look, net.width) for block in self.blocks]
        # the inputs of the 1×1 layers, for the current pixel only
        self.looked = [like.new_zeros(n, net.width) for _ in self.blocks]
        self.last = like.new_zeros(n, net.width)
        self.first = [net.first.group(g) for g in range(channels)]
        self.look = [[block.look.group(g) for g in range(channels)] for block in self.blocks]
        self.mix = [[block.mix.group(g) for g in range(channels)] for block in self.blocks]
        self.head = [net.head.group(g) for g in range(channels)]

    @torch.no_grad()
    def outputs(self, c: int, i: int, j: int) -> Tensor:
        """(n, outputs) for channel c of pixel (i, j), after all values before it have been set."""
        net, size = self.net, self.net.width // self.net.shape[0]
        group = slice(c * size, (c + 1) * size)

        def apply(layer: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
            return torch.addmm(layer[1], x, layer[0])

        h = apply(self.first[c], net.first.window(self.image, i, j)) + net.place[group, i, j]
        if self.of_context is not None:
            h = h + self.of_context[:, group]
        for b, block in enumerate(self.blocks):
            margin = block.look.margin
            self.seen[b][:, i + margin, j + margin, group] = functional.silu(h)
            self.looked[b][:, group] = functional.silu(apply(self.look[b][c], block.look.window(self.seen[b], i, j)))
            h = h + apply(self.mix[b][c], self.looked[b])
        self.last[:, group] = functional.silu(h)
        return apply(self.head[c], self.last) + net.level[c, i, j]

    def set(self, c: int, i: int, j: int, value: Tensor) -> None:
        """Set the value (n,) of channel c at pixel (i, j)."""
        margin = self.net.first.margin
        self.image[:, i + margin, j + margin, c] = value.to(self.image)
