"""Draws of any model given a context, each row asked as often as it takes: :func:`draw_given`."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mixtura.contracts import Model

#: rows of context that are drawn for at a time; how many times as many rows may be drawn because some were missing, for entries
#: one by one and for whole rows, and how often one of them
DRAWN_AT_ONCE, REDRAWS, REDRAWS_OF_ROWS, ATTEMPTS = 2**15, 4, 100, 100

@torch.no_grad()
def draw_given(
    model: Model, context: Tensor, draws: int, *, gaps: Literal["entries", "rows", "kept"] = "entries", rng: torch.Generator
) -> Tensor:
    """(draws, n, *shape) rows in data units: so many for each row of the context (n, …).

    gaps: what becomes of missing entries. Each is drawn again on its own ("entries", for whoever looks at one column at a
    time), or its whole row is ("rows"), or they are "kept". Where ``ATTEMPTS``, or ``REDRAWS`` times as many rows as were asked
    for, are not enough, an entry takes that of another draw of its row; it stays missing only where it is so in all of them.
    """
    asked = context.repeat(draws, *(1,) * (context.dim() - 1))
    x = model.space.flat(_drawn(model, asked, rng))
    # one draw of a row cannot take another's entry: it may be tried as often as an attempt allows
    times = {"kept": 0, "entries": REDRAWS, "rows": REDRAWS_OF_ROWS}[gaps]
    left = times * max(len(asked), ATTEMPTS // 4 * len(context))
    gone = torch.isnan(x).any(1).nonzero().squeeze(1)
    for _ in range(ATTEMPTS):  # a row whose targets are nearly always missing is not waited for
        gone = gone[torch.isnan(x[gone]).any(1)][:left]
        if len(gone) == 0:
            break
        again = model.space.flat(_drawn(model, asked[gone], rng))
        x[gone] = again if gaps == "rows" else torch.where(torch.isnan(x[gone]), again, x[gone])
        left -= len(gone)
    x = x.reshape(draws, len(context), -1)
    if gaps != "kept":
        x = _borrowed(x)
    return x.reshape(draws, len(context), *model.space.shape)


def _borrowed(x: Tensor) -> Tensor:
    """Draws (s, n, D) whose missing entries are those of other draws, in turn."""
    gone = torch.isnan(x)
    if not gone.any():
        return x
    present_first = gone.to(torch.uint8).argsort(dim=0, stable=True)
    turn = torch.arange(len(x), device=x.device)[:, None, None] % (~gone).sum(0).clamp(min=1)
    return torch.where(gone, x.gather(0, present_first.gather(0, turn)), x)


def _drawn(model: Model, context: Tensor, rng: torch.Generator) -> Tensor:
    pieces = context.split(DRAWN_AT_ONCE)
    return torch.cat([model.sample(len(piece), context=piece, rng=rng) for piece in pieces])
