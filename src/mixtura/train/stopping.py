"""When a stage of training ends: progress on rows held out, plateaus, and how long convergence would take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: rows of the held-out slice that a stopping loss sees at once
AT_ONCE = 1_000

#: doublings of the steps that a guess looks ahead
MOST_DOUBLINGS = 12

#: a score must fall by this many nats to count as progress
PROGRESS = 1e-3
#: what a plateau multiplies the learning rate by
LOWER = 0.3


@dataclass
class Progress:
    """Everything scalar that a checkpoint holds. stage: its number. before: seconds of the stages that have ended, plan: their
    steps (Step.plan), settled: whether all of them converged. The rest is of this stage."""

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

    def note(self, score: float) -> bool:
        """Take in the stopping loss of this step; whether it is the lowest so far."""
        self.curve.append((self.step, score))
        self.stale = 0 if score < self.best - PROGRESS else self.stale + 1
        lowest = score < self.best
        self.best = score if lowest else self.best
        return lowest

    def begin_anew(self) -> None:
        """A plateau: from the best state at a lower rate."""
        self.stale, self.plateau, self.factor = 0, self.plateau + 1, self.factor * LOWER


def seconds_to_converge(state: Progress) -> float | None:
    """Seconds a converged run would take: the gain of each doubling of the steps shrinks by a constant ratio,
    followed until a doubling brings less than 0.01 nats. None where the curve is too short, or the end too far, to tell."""
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
