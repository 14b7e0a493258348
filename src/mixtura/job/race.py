"""Which models go on training. The budget of a run is a race: every model that trains has a small share of it first, and the rest
goes to those that can still win, alone or in the blend.

A fit pauses after each of :data:`LOOKS`, and is looked at again before it is scored on all select rows. It goes on unless even a
hopeful forecast of what it would reach adds nothing worth having to the blend of what the others have reached and may well reach.
That is in nats a row, so only a run whose verdict speaks of nats is a race. One in folds is none, because every row there is
learnt from in most of its fits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mixtura.simplex.stacking import stack

#: a fit pauses at its second validation, and when it has trained for these shares of the seconds that it would have from then
#: on if all went on
LOOKS = (0.0, 0.15, 0.3, 0.5)
#: nats a row that a model has to add to the blend
LEAST_GAIN = 0.01
#: the part in the blend from which on time is kept to fit a model again
LEADS = 0.1
#: the part of its forecast that a model which is still in the race is thought to reach, when another is measured against it
LIKELY = 0.5


def forecast(curve: Sequence[tuple[int, float]], times: float) -> float:
    """Nats a row that a fit with the ``curve`` of (step, nats a row) would gain if it trained ``times`` as long as it has, and
    its loss went on to fall as 1/√steps, which is slow: networks that have begun to flatten gain less. Infinite where the curve
    is too short to tell. With L(t) = a + b/√t and what was gained since step h, b is known, and a is not needed.

    >>> round(forecast([(25, -9.0), (100, -7.0)], times=4.0), 3)
    1.0
    """
    steps = [step for step, _ in curve]
    if len(steps) < 2 or not all(math.isfinite(nats) for _, nats in curve[-1:]):
        return math.inf
    best = max(nats for _, nats in curve)
    half = max(step for step in steps if step <= max(steps[-1] / 2, steps[0]))
    before = max(nats for step, nats in curve if step <= half)
    return (best - before) / (math.sqrt(steps[-1] / half) - 1) * (1 - 1 / math.sqrt(max(1.0, times)))


def leading(nats: Mapping[str, Tensor]) -> set[str]:
    """The models with a part of ``LEADS`` or more in the blend of models with these ``nats`` (n,) of the same rows."""
    possible = {name: of for name, of in nats.items() if of.isfinite().all()}
    if not possible:
        return set()
    weights = stack(torch.stack([*possible.values()], 1).numpy()).weights
    return {name for name, weight in zip(possible, weights, strict=True) if weight >= LEADS}


def why_stopped(mine: Tensor, hoped: float, others: Mapping[str, Tensor], trained: float) -> str | None:
    """Why a fit that has ``trained`` for so many seconds is not worth more, be it of training or of scoring; None where it is. As
    :func:`hopelessly_behind`."""
    behind = hopelessly_behind(mine, hoped, others)
    return behind and f"adds nothing to the blend after {trained:.1f} s of training, {behind}"


def hopelessly_behind(mine: Tensor, hoped: float, others: Mapping[str, Tensor]) -> str | None:
    """How far a model is behind the best of the others, in words, if it can neither be the best nor add to the blend
    (``simplex.stacking``) with what it may still gain; else None. ``mine``, ``others``: nats (n,) of the same rows under the
    model and the others, as they are now or may come to be. ``hoped``: nats a row that it may still gain."""
    others = {name: nats for name, nats in others.items() if nats.isfinite().all()}
    if not others or not math.isfinite(hoped) or not mine.isfinite().all():
        return None
    best = max(others, key=lambda name: float(others[name].mean()))
    behind = float((others[best] - mine).mean())
    without = torch.stack([*others.values()], 1)
    gained = stack(torch.cat([without, mine[:, None] + hoped], 1).numpy()).value - stack(without.numpy()).value
    if behind <= hoped or gained >= LEAST_GAIN:
        return None
    return f"{behind:.1f} nats behind {best}"
