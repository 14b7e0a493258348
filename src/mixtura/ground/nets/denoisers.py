"""Denoising networks: they take a noisy row and its noise level, and return two numbers for each entry."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

#: the lowest and the highest frequency of the sines and cosines that embed the log noise level
WAVES = (0.25, 8.0)


class LevelEmbedding(nn.Module):
    """Embeds the log noise level (n,), or (1,) for all rows, and the context (n, c), if any: (n, width), or (1, width)."""

    waves: Tensor

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        low, high = (math.log(w) for w in WAVES)
        self.register_buffer("waves", torch.linspace(low, high, 16).exp(), persistent=False)
        self.net = nn.Sequential(nn.Linear(32 + context, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, log_level: Tensor, context: Tensor | None) -> Tensor:
        """(n,) and (n, c) → (n, width)."""
        if context is not None:
            log_level = log_level.expand(len(context))
        angle = log_level[:, None] * self.waves
        seen = [angle.cos(), angle.sin()] + ([] if context is None else [context.float().flatten(1)])
        return self.net(torch.cat(seen, 1))


class MlpDenoiser(nn.Module):
    """Residual blocks over the whole row, each scaled and shifted by the noise level (FiLM: Perez et al. 2018).

    The first output is a + b y for each entry, where the network predicts a and b: to remove the noise of an entry, the noisy
    entry itself is needed, and hidden layers narrower than the row could not pass all entries on.
    """

    def __init__(self, entries: int, width: int, depth: int, context: int = 0) -> None:
        super().__init__()
        self.level = LevelEmbedding(min(width, 128), context)
        self.enter = nn.Linear(entries, width)
        self.film = nn.ModuleList(nn.Linear(min(width, 128), 2 * width) for _ in range(depth))
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.outer = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.leave = nn.Linear(width, 3 * entries)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, y: Tensor, log_level: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, entries), (n,) or (1,), (n, c) → two of (n, entries)."""
        level, h = self.level(log_level, context), self.enter(y)
        for film, inner, outer in zip(self.film, self.inner, self.outer, strict=True):
            scale, shift = film(level).chunk(2, 1)
            h = h + outer(functional.silu(inner(functional.silu(h)) * (1 + scale) + shift))
        a, b, second = self.leave(functional.silu(h)).chunk(3, 1)
        return a + b * y, second


class _Block(nn.Module):
    """A residual block of two 3×3 convolutions, scaled and shifted by the noise level."""

    def __init__(self, channels: int, out: int, level: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(math.gcd(8, c), c) for c in (channels, out))
        self.film = nn.Linear(level, 2 * out)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        """(n, channels, H, W) → (n, out, H, W)."""
        scale, shift = self.film(level)[:, :, None, None].chunk(2, 1)
        inside = self.norms[1](self.first(functional.silu(self.norms[0](h)))) * (1 + scale) + shift
        return self.skip(h) + self.second(functional.silu(inside))


class UNet(nn.Module):
    """A small U-Net (Ronneberger et al. 2015; Ho et al. 2020): one block per scale on the way down and up; each scale has half
    the height and width of the one before and twice the channels. Images may have any height and width."""

    def __init__(self, channels: int, width: int, scales: int, context: int = 0) -> None:
        super().__init__()
        level = 4 * width
        widths = [width * 2**i for i in range(scales)]
        self.level = LevelEmbedding(level, context)
        self.enter = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(_Block(a, b, level) for a, b in zip([width, *widths], widths, strict=False))
        self.up = nn.ModuleList(_Block(a + b, b, level) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.leave = nn.Conv2d(width, 2 * channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, y: Tensor, log_level: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, channels, H, W), (n,) or (1,), (n, c) → two of (n, channels, H, W)."""
        level, h = self.level(log_level, context), self.enter(y)
        skips: list[Tensor] = []
        for i, block in enumerate(self.down):
            h = block(functional.avg_pool2d(h, 2, ceil_mode=True) if i else h, level)
            skips.append(h)
        skips.pop()
        for block in self.up:
            skip = skips.pop()
            h = block(torch.cat([functional.interpolate(h, size=skip.shape[2:]), skip], 1), level)
        first, second = self.leave(functional.silu(h)).chunk(2, 1)
        return first, second
