"""The loop of an online selection: choose an arm, ask it, record its sample, map it to features, tell the selector.

:meth:`Session.conduct` is an iterator of :class:`Round`. It can be stopped or killed at any moment and continues from its ledger;
several processes may use one ledger.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixtura.arms import Arm, ArmError, Exhausted
from mixtura.contracts import InputError
from mixtura.features.space import FeatureSpace
from mixtura.ground.machine import passes
from mixtura.ledger import Ledger, Pull
from mixtura.policies.by_context import ContextualSelector
from mixtura.policies.selector import LONGEST, Selector, comparable
from mixtura.selection.records import Round

#: an arm that fails so often in a row is asked no more
FAILURES = 3
#: seconds between two checks of what another process is doing
WAIT = 0.05
#: how the reason of a pull begins that found a pool empty
EXHAUSTED = "exhausted: "


class Failures:
    """Which arms fail for good, from the pulls in the order in which they ended."""

    def __init__(self) -> None:
        self._in_a_row: dict[str, int] = {}

    def close(self, pull: Pull) -> bool:
        """Whether the arm of this pull is not asked after it."""
        failed = pull.status == "failed"
        self._in_a_row[pull.arm] = self._in_a_row.get(pull.arm, 0) + 1 if failed else 0
        return failed and (self._in_a_row[pull.arm] == FAILURES or pull.reason.startswith(EXHAUSTED))


class Session(ABC):
    """The arms, the selector, the ledger and the feature space of a selection."""

    selector: Selector | ContextualSelector

    def __init__(self, arms: Sequence[Arm], ledger: Ledger, features: FeatureSpace, *, pulls: int) -> None:
        self.arms = {arm.name: arm for arm in arms}
        self.ledger, self.features, self.pulls = ledger, features, pulls
        self.closed: dict[str, str] = {}
        self._failures, self._place, self._spent = Failures(), -1, ledger.spent()
        #: numbers of the pulls that this object chose and that have not ended
        self._chosen: set[int] = set()
        for name, shape in ledger.shapes().items():
            if name in self.arms and self.arms[name].shape is None:
                self.arms[name].shape = shape
        self.overhead = 0.0

    # --------------------------------------------------------------------- what differs with and without contexts

    @abstractmethod
    def _choose(self, number: int) -> str:
        """The arm that pull ``number`` asks."""

    @abstractmethod
    def _learn(self, pull: Pull, features: Tensor) -> None:
        """Tell the selector the features (d,) of a pull."""

    def _repeat_choice(self, pull: Pull) -> None:  # noqa: B027  only a policy that remembers needs it
        """Repeat the choice of a pull that this object did not choose, before its end is taken in."""

    def _context(self, number: int) -> Mapping[str, Any] | None:
        """The context of a pull, or None."""
        return None

    def _stopped(self) -> str | None:
        """Why the stopping rule ends the selection, or None."""
        return None

    def _current(self) -> dict[str, Any]:
        """The present mixture, as fields of :class:`Round`."""
        return {}

    # -------------------------------------------------------------------------------------------------------- rounds

    def conduct(self) -> Iterator[Round]:
        """Ask arms until all pulls are made, the stopping rule ends the selection, or no arm is left."""
        try:
            self._catch_up()
            for pull in self.ledger.orphans():
                yield self._recover(pull)
            yield from self._ask_on()
        finally:  # if this was stopped during a request, the next process repeats it
            self.ledger.release()

    def _ask_on(self) -> Iterator[Round]:
        self._catch_up()
        while self.why is None:
            began = time.perf_counter()
            with self.ledger.dealing():
                self._catch_up()
                awaited = sum(self.ledger.in_flight().values())
                if self.selector.pulls + awaited >= self.pulls or not self.selector.open.any():
                    pull = None
                else:
                    pull = self.ledger.intend(self._choose(self.ledger.next_number()))
                    self._chosen.add(pull.number)
            self.overhead += time.perf_counter() - began
            if pull is None:
                time.sleep(WAIT)  # another process waits for the last samples
                if not self.ledger.in_flight():
                    self._catch_up()
                    break
                continue
            yield self._pull(pull)

    @property
    def why(self) -> str | None:
        """Why the selection has ended, or None."""
        if self.selector.pulls >= self.pulls:
            return f"all {self.pulls:,} pulls are made"
        if not self.selector.open.any():
            return "no arm is left to be asked"
        return self._stopped()

    def _recover(self, pull: Pull) -> Round:
        """Complete a request that was in flight when its process ended."""
        arm = self.arms[pull.arm]
        if pull.sample is not None:
            return self._tell(pull, pull.sample, 0.0)
        if arm.takes_key or arm.repeatable:
            self.selector.asked[self.selector.names.index(pull.arm)] += 1
            return self._pull(pull)
        reason = "the process ended while it was awaited; this arm cannot be asked for it again"
        self._spent += arm.cost
        self.ledger.fail(pull, reason, arm.cost, "unknown")
        return self._round(pull, "unknown", reason, 0.0)

    def _pull(self, pull: Pull) -> Round:
        arm, began = self.arms[pull.arm], time.perf_counter()
        try:
            sample = np.asarray(arm.ask(pull.draw, pull.key, self._context(pull.number)))
        except ArmError as error:
            exhausted = isinstance(error, Exhausted)
            cost = 0.0 if exhausted else arm.cost
            self._spent += cost
            return self._fail(pull, (EXHAUSTED if exhausted else "") + str(error), cost, time.perf_counter() - began)
        seconds = time.perf_counter() - began
        self.ledger.receive(pull, sample, arm.cost)
        self._spent += arm.cost
        return self._tell(pull, sample, seconds)

    def _tell(self, pull: Pull, sample: NDArray[Any], seconds: float) -> Round:
        began = time.perf_counter()
        try:
            seen, width = self.features.of_one(sample), self.selector.width
            if seen.dim() != 1 or width not in (None, len(seen)):
                raise InputError(f"{len(seen)} features, the others have {width}")
            if not comparable(seen[None]):
                raise InputError(f"its features are not finite, or their length is above {LONGEST:g}")
        except (InputError, RuntimeError, ValueError) as error:
            if passes(error):  # not the fault of the sample, which is kept and mapped again later
                raise
            reason = f"its sample cannot be compared: {str(error).splitlines()[0]}"
            return self._fail(pull, reason, self.arms[pull.arm].cost, seconds)
        self.ledger.tell(pull, seen.numpy())
        self._catch_up()
        self.overhead += time.perf_counter() - began
        return self._round(pull, "told", "", seconds)

    def _fail(self, pull: Pull, reason: str, cost: float, seconds: float) -> Round:
        self.ledger.fail(pull, reason, cost)
        self._catch_up()
        return self._round(pull, "failed", reason, seconds)

    def _round(self, pull: Pull, status: str, reason: str, seconds: float) -> Round:
        began = time.perf_counter()
        current = self._current() if status == "told" else {}
        self.overhead += time.perf_counter() - began if current else 0.0
        return Round(
            pull.number, pull.arm, status, reason, self.selector.pulls, self._spent, seconds, self.overhead, **current
        )

    # ------------------------------------------------------------------------------------------------------- the ledger

    def _catch_up(self) -> None:
        """Take in the pulls of the ledger that ended since, of this process and of others, in the order in which they ended: tell
        the selector their samples, and close an arm where it failed for good. So the selector is the same in every sitting."""
        for pull in self.ledger.ended_after(self._place):
            self._place = pull.place if pull.place is not None else self._place
            self.selector.asked[:] = self.selector.told
            if pull.number in self._chosen:
                self._chosen.remove(pull.number)
            else:
                self._repeat_choice(pull)
            if pull.features is not None:
                self._learn(pull, torch.as_tensor(pull.features))
            if self._failures.close(pull) and pull.arm not in self.closed:
                self.closed[pull.arm] = pull.reason
                self.selector.close(pull.arm)
        awaited = self.ledger.in_flight()
        for i, name in enumerate(self.selector.names):
            self.selector.asked[i] = self.selector.told[i] + awaited.get(name, 0)

    def close(self) -> None:
        """Close the arms and the ledger."""
        for arm in self.arms.values():
            arm.close()
        self.ledger.close()
