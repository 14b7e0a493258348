"""When a stage of training ends: progress on held-out rows, plateaus, and how long convergence would take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: the most held-out rows for which a stopping loss is computed at once
AT_ONCE = 1_000

#: the time to convergence is not predicted beyond this many doublings of the steps
MOST_DOUBLINGS = 12

#: a stopping loss must fall by this much to count as progress
PROGRESS = 1e-3
#: a plateau multiplies the learning rate by this
LOWER = 0.3


@dataclass
class StageProgress:
    """The scalars of a checkpoint.

    stage:   the number of the current stage. before, plan, settled: of the stages that have ended, their seconds, their steps
             (``fit.Step.plan``), and whether all of them converged.
    step, steps, seconds: of this stage, the last step, the steps planned (0: not yet planned) and the time so far.
    best:    the lowest stopping loss. curve: (step, stopping loss) of every validation.
    stale:   validations without progress. plateau: how often the rate was lowered; factor: of the rate, as a result.
    averaged: the number of steps in the moving average.
    pace:    (step, seconds so far) at every validation, or where one would be.
    """

    stage: int = 0
    before: float = 0.0
    plan: list[tuple[int, int]] = field(default_factory=list)
    settled: bool = True
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    best: float = math.inf
    stale: int = 0
    plateau: int = 0
    factor: float = 1.0
    averaged: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)
    pace: list[tuple[int, float]] = field(default_factory=list)

    def steps_until(self, seconds: float) -> float:
        """The step that is reached when the stage has had so many seconds, at the speed of the latter half of the steps so far:
        the first ones may have been slow, as may be those of another time on a machine that is shared."""
        steps, spent = next(((s, t) for s, t in reversed(self.pace) if 2 * s <= self.step), (0, 0.0))
        speed = (self.step - steps) / max(self.seconds - spent, 1e-9)
        return self.step + max(0.0, seconds - self.seconds) * speed

    def note(self, score: float) -> bool:
        """Record the stopping loss of this step; returns whether it is the lowest so far."""
        self.curve.append((self.step, score))
        self.stale = 0 if score < self.best - PROGRESS else self.stale + 1
        lowest = score < self.best
        self.best = score if lowest else self.best
        return lowest

    def begin_anew(self) -> None:
        """Count a plateau and lower the rate; training continues from the best state."""
        self.stale, self.plateau, self.factor = 0, self.plateau + 1, self.factor * LOWER


def seconds_to_converge(state: StageProgress) -> float | None:
    """Predict how many seconds a converged run would take, assuming that the gain of each doubling of the steps shrinks by a
    constant ratio until a doubling gains less than 0.01 nats. None if the curve is too short or the end too far."""
    scores = dict(state.curve)
    steps = sorted(scores)
    if len(steps) < 4:
        return None

    def best(until: float) -> float:
        return min(v for s, v in scores.items() if s <= until)

    last = steps[-1]
    gain, before = best(last / 2) - best(last), best(max(last / 4, steps[0])) - best(last / 2)
    if gain <= 0.01:
        return state.seconds
    ratio = min(0.7, max(0.2, gain / before)) if before > 0 else 0.7
    doublings = math.ceil(math.log(0.01 / gain) / math.log(ratio))
    return state.seconds * 2**doublings if doublings <= MOST_DOUBLINGS else None
