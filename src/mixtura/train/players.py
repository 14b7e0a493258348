"""The players of a stage: whether a stage can be trained, and the settings of each player's optimiser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from mixtura.contracts import InputError, Optimiser, Stage
from mixtura.train.recipe import Recipe


@dataclass(frozen=True)
class Moves:
    """An :class:`Optimiser` in which the recipe has replaced every None."""

    rate: float
    betas: tuple[float, float]
    clip: float
    decay: float


def with_defaults(optimiser: Optimiser, recipe: Recipe) -> Moves:
    """The settings of an optimiser, those of the recipe where it has none of its own."""
    rate = recipe.rate if optimiser.rate is None else optimiser.rate
    clip = recipe.clip if optimiser.clip is None else optimiser.clip
    return Moves(rate, optimiser.betas, clip, recipe.decay if optimiser.decay is None else optimiser.decay)


def check_stages(stages: Sequence[Stage], name: str) -> None:
    """InputError on stages that cannot be trained. Names must be unique, because the random streams are keyed by them."""
    if not stages:
        raise InputError(f"{name}: nothing to train; this model is fitted by fit_closed")
    twice = [name for name, often in Counter(stage.name for stage in stages).items() if often > 1]
    for stage in stages:
        twice += [phase for phase, often in Counter(phase.name for phase in stage.phases).items() if often > 1]
        if not stage.phases or not all(len(phase.parameters) for phase in stage.phases):
            raise InputError(f"{name}: stage {stage.name!r} has no player, or one without parameters; leave it out")
        odd = next((phase for phase in stage.phases if phase.every < 1 or phase.repeats < 1), None)
        if odd is not None:
            got = f"every={odd.every}, repeats={odd.repeats}"
            raise InputError(f"{name}: phase {odd.name!r} has {got}, expected 1 or more of each")
    if twice:
        raise InputError(f"{name}: two stages, or two players of a stage, are called {twice[0]!r}; give each its own name")
