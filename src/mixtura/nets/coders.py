"""Plain networks between rows and hidden codes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def perceptron(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """(n, inputs) → (n, outputs) through SiLU layers of the widths ``hidden``; none makes it linear."""
    widths = [inputs, *hidden]
    layers: list[nn.Module] = []
    for a, b in zip(widths, hidden, strict=False):
        layers += [nn.Linear(a, b), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
