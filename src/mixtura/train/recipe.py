"""How to train: :class:`Recipe`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

from mixtura.contracts import InputError

#: steps at the full warm-up; also those over which the speed is measured
WARM_UP = 20


@dataclass(frozen=True)
class Recipe:
    """How to train. One of: steps, which shape the learning rate and which stages share; seconds, to plan as many steps as fit,
    measured over the first ``WARM_UP`` of a stage (the run also ends when they are over); plan, that of a run to repeat (see
    Step.plan). patience: validations without progress before the rate falls. average: decay of the exponential moving average of
    the parameters (scored and kept in place of the last ones), or None; of a stage without a stopping loss None is ``AVERAGE``.
    held_out: the share of the rows that is scored and not trained on; 0 for a learner whose stopping loss leaves rows out
    itself."""

    steps: int | None = None
    seconds: float | None = None
    plan: tuple[tuple[int, int], ...] | None = None
    batch: int = 256
    rate: float = 2e-3
    decay: float = 1e-5
    clip: float = 5.0
    every: int = 50
    patience: int = 6
    plateaus: int = 3
    average: float | None = None
    held_out: float = 0.12
    most_steps: int = 200_000

    def __post_init__(self) -> None:
        if (self.steps is not None) + (self.seconds is not None) + (self.plan is not None) != 1:
            raise InputError("fit: give either steps or seconds, or the plan of a run to repeat, and no two of them")
        for name, value in (("steps", 1 if self.steps is None else self.steps), ("batch", self.batch)):
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise InputError(f"{name}: expected a whole number, 1 or more, got {value!r}")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(f"seconds: expected a finite number above 0, got {self.seconds!r}")
        if self.every < 1 or not 0 <= self.held_out < 1 or not (self.average is None or 0 < self.average < 1):
            told = f"{self.every!r}, {self.held_out!r} and {self.average!r}"
            raise InputError(f"every, held_out, average: expected 1 or more, and shares below 1, got {told}")
        if not (isinstance(self.rate, Real) and 0 < self.rate < math.inf):
            raise InputError(f"rate: expected a number above 0, got {self.rate!r}")
