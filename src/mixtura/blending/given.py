"""Draws of any model given a context, with missing entries drawn again: :func:`draw_given`."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mixtura.contracts import Model

#: rows of context for which draws are made at a time
DRAWN_AT_ONCE = 2**15
#: how many times the number of requested rows may be drawn again because of missing entries: to replace single entries, and to
#: replace whole rows
REDRAWS, REDRAWS_OF_ROWS = 4, 100
#: how often one row may be drawn again
ATTEMPTS = 100


@torch.no_grad()
def draw_given(
    model: Model, context: Tensor, draws: int, *, gaps: Literal["entries", "rows", "kept"] = "entries", rng: torch.Generator
) -> Tensor:
    """(draws, n, *shape) rows in data units: ``draws`` of them for each row of the context (n, …).

    gaps: what is done with missing entries. "entries": each entry is drawn again by itself (for use of one column at a time);
    "rows": its whole row is drawn again; "kept": it stays missing. If ``ATTEMPTS`` draws, or ``REDRAWS`` (``REDRAWS_OF_ROWS``)
    times the requested rows, are not enough, a missing entry is copied from another draw of the same row; it stays missing only
    if it is missing in all of them.
    """
    asked = context.repeat(draws, *(1,) * (context.dim() - 1))
    x = model.space.flat(_drawn(model, asked, rng))
    # even for few draws per row, which have little to copy from, allow some draws in every attempt
    times = {"kept": 0, "entries": REDRAWS, "rows": REDRAWS_OF_ROWS}[gaps]
    left = times * max(len(asked), ATTEMPTS // 4 * len(context))
    gone = torch.isnan(x).any(1).nonzero().squeeze(1)
    for _ in range(ATTEMPTS):  # do not wait for a row whose targets are nearly always missing
        gone = gone[torch.isnan(x[gone]).any(1)][:left]
        if len(gone) == 0:
            break
        again = model.space.flat(_drawn(model, asked[gone], rng))
        x[gone] = again if gaps == "rows" else torch.where(torch.isnan(x[gone]), again, x[gone])
        left -= len(gone)
    x = x.reshape(draws, len(context), -1)
    if gaps != "kept":
        x = _filled_from_other_draws(x)
    return x.reshape(draws, len(context), *model.space.shape)


def _filled_from_other_draws(x: Tensor) -> Tensor:
    """Draws (s, n, D) in which missing entries are copied from the other draws of the row, in turn."""
    gone = torch.isnan(x)
    if not gone.any():
        return x
    present_first = gone.to(torch.uint8).argsort(dim=0, stable=True)
    turn = torch.arange(len(x), device=x.device)[:, None, None] % (~gone).sum(0).clamp(min=1)
    return torch.where(gone, x.gather(0, present_first.gather(0, turn)), x)


def _drawn(model: Model, context: Tensor, rng: torch.Generator) -> Tensor:
    pieces = context.split(DRAWN_AT_ONCE)
    return torch.cat([model.sample(len(piece), context=piece, rng=rng) for piece in pieces])
