"""Encoder and decoder networks between observations and latent codes: perceptrons, an autoencoder, convolutions of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def perceptron(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """A network (n, inputs) → (n, outputs) with SiLU layers of widths ``hidden``; without hidden layers it is linear."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for a, b in zip(widths, hidden, strict=False):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


class Autoencoder(nn.Module):
    """Perceptrons (n, d) → (n, latent) → (n, d); with ``sphere`` the codes lie on the unit sphere."""

    def __init__(self, entries: int, latent: int, hidden: Sequence[int], sphere: bool) -> None:
        super().__init__()
        self.sphere = sphere
        self.encoder = perceptron(entries, hidden, latent)
        self.decoder = perceptron(latent, hidden[::-1], entries)

    def project(self, z: Tensor) -> Tensor:
        """z on the sphere, or as it is."""
        return functional.normalize(z, dim=1) if self.sphere else z

    def encode(self, x: Tensor) -> Tensor:
        """f_e."""
        return self.project(self.encoder(x))

    def error(self, x: Tensor) -> Tensor:
        """(n,) mean squared error over the entries."""
        return (x - self.decoder(self.encode(x))).square().mean(1)


class ImageEncoder(nn.Module):
    """(n, C·H·W + context) → (n, outputs): a 4×4 convolution of stride 2 for each of ``channels``, which halves height and width,
    then a linear layer that also takes the context. H and W must be multiples of 2^len(channels)."""

    def __init__(self, shape: Sequence[int], channels: Sequence[int], outputs: int, context: int = 0) -> None:
        super().__init__()
        self.shape = tuple(shape)
        layers: list[nn.Module] = []
        for a, b in zip([shape[0], *channels], channels, strict=False):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.SiLU()]
        self.halving = nn.Sequential(*layers, nn.Flatten())
        self.leave = nn.Linear(math.prod(smallest(shape, channels)) + context, outputs)

    def forward(self, x: Tensor) -> Tensor:
        pixels, context = x.tensor_split([math.prod(self.shape)], 1)
        return self.leave(torch.cat([self.halving(pixels.reshape(-1, *self.shape)), context], 1))


class ImageDecoder(nn.Module):
    """(n, inputs) → (n, outputs · C·H·W), the mirror image of :class:`ImageEncoder`: ``outputs`` images, one after the other."""

    def __init__(self, inputs: int, channels: Sequence[int], shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        small = smallest(shape, channels)
        layers: list[nn.Module] = [nn.Linear(inputs, math.prod(small)), nn.Unflatten(1, small)]
        for a, b in zip(channels[::-1], [*channels[-2::-1], outputs * shape[0]], strict=True):
            layers += [nn.SiLU(), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)]
        self.doubling = nn.Sequential(*layers, nn.Flatten())

    def forward(self, z: Tensor) -> Tensor:
        return self.doubling(z)


def smallest(shape: Sequence[int], channels: Sequence[int]) -> tuple[int, int, int]:
    """The shape of the features of an image (C, H, W) after one halving for each of ``channels``."""
    return channels[-1], shape[1] >> len(channels), shape[2] >> len(channels)
