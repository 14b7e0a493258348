"""The settings of training: :class:`Recipe`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

from mixtura.contracts import InputError

#: the number of warm-up steps, over which the speed is measured too
WARM_UP = 20


@dataclass(frozen=True)
class Recipe:
    """The settings of training. Exactly one of three says how long it takes:

    steps:    the number of steps, which the stages share and the schedule of the learning rate follows.
    seconds:  a time limit; as many steps are planned as fit, by the speed of the first ``WARM_UP`` steps of each stage.
    plan:     the plan of an earlier run to repeat (``fit.Step.plan``).

    batch: rows of a minibatch. rate, decay, clip: learning rate, weight decay and largest gradient norm. every: steps between two
    validations. patience: validations without progress until the rate is lowered. plateaus: after so many of these a stage
    ends. average: decay of the exponential moving average of the parameters, which is scored and kept in place of the last
    parameters; None: no average, but ``average.AVERAGE`` in a stage without a stopping loss. held_out: the share of the rows
    that is scored and not trained on; 0 for a learner whose stopping loss itself leaves rows out. most_steps: a limit on the
    steps that are planned from seconds.
    """

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
            raise InputError("fit: expected exactly one of steps, seconds and plan, got none or several; give one of them")
        for name, value in (("steps", 1 if self.steps is None else self.steps), ("batch", self.batch)):
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise InputError(f"{name}: expected a whole number, 1 or more, got {value!r}")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(f"seconds: expected a finite number above 0, got {self.seconds!r}")
        if self.every < 1 or not 0 <= self.held_out < 1 or not (self.average is None or 0 < self.average < 1):
            got = f"{self.every!r}, {self.held_out!r} and {self.average!r}"
            raise InputError(f"every, held_out, average: expected 1 or more, and shares below 1, got {got}")
        if not (isinstance(self.rate, Real) and 0 < self.rate < math.inf):
            raise InputError(f"rate: expected a number above 0, got {self.rate!r}")
