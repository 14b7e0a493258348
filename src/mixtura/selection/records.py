"""The records of an online selection: a round, when to stop, and its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from mixtura.contracts import Estimate
from mixtura.policies.selector import Certificate
from mixtura.simplex.weights import Weights


@dataclass(frozen=True)
class Round:
    """The record of one pull.

    number: of the pull. status: "told", "failed" or "unknown", with its reason. pulls: samples so far. spent: cost so far.
    seconds: time of the arm for this pull. overhead: seconds so far outside the arms. Every so many pulls: weights, value: the
    present mixture and its objective, in its own unit; single: the best single arm and its value.
    """

    number: int
    arm: str
    status: str
    reason: str
    pulls: int
    spent: float
    seconds: float
    overhead: float
    weights: dict[str, float] | None = None
    value: Estimate | None = None
    single: tuple[str, Estimate] | None = None


@dataclass(frozen=True)
class Stop:
    """Stop before all pulls are made as soon as the bound of this ``mode`` on the excess is at most ``tolerance``."""

    tolerance: float
    mode: str = "asymptotic"
    risk: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Selected(Weights):
    """The end of a selection: the :class:`Weights` of the best mixture, and how they were found.

    value ± error: in the objective's own ``unit``; ``higher``: whether a higher value is better. single: the best single arm.
    pulls: number of samples. spent: cost of all requests. why: why the selection ended. certificates: bounds on how far the
    mixture is from the best one, in both modes if both apply. gain, p_value: weights are chosen on one half of each arm's samples
    and compared, on the other half, with the single arm that they beat least surely; None for few samples. sums: which pairs of
    samples were summed. closed: arm → why it is not asked any more. counts: arm → status → number of pulls.
    """

    unit: str
    higher: bool
    single: tuple[str, Estimate]
    pulls: int
    spent: float
    why: str
    certificates: tuple[Certificate, ...]
    gain: Estimate | None = None
    p_value: float | None = None
    sums: str
    closed: dict[str, str]
    counts: dict[str, dict[str, int]]

    @property
    def sentence(self) -> str:
        """What to use, in one sentence. Weights and values come from the same samples; the errors do not know that."""
        name, single = self.single
        used = sorted(((w, arm) for arm, w in self.by_name.items() if w > 0), reverse=True)
        blend = " + ".join(f"{w:.2f} {arm}" for w, arm in used)
        if max(self.weights) == 1:
            return f"use {name} alone: no mixture of these arms is better"
        mixed, alone = (f"{x.value:.4g} ± {x.error:.2g}" for x in (self.estimate, single))
        ends = f"{mixed} {self.unit}, {alone} for {name} alone, after {self.pulls:,} samples"
        better = self.value - single.value if self.higher else single.value - self.value
        if not better > 2 * math.hypot(self.estimate.error, single.error):
            return f"no sure gain over {name} alone; the best mixture is {blend}: {ends}"
        return f"use {blend}: {ends}"

    @property
    def estimate(self) -> Estimate:
        """The value with its error and the number of samples behind it."""
        return Estimate(self.value, math.nan if self.error is None else self.error, self.pulls)

    @property
    def judged(self) -> dict[str, Any] | None:
        """The gain as plain data, or None."""
        if self.gain is None:
            return None
        return {**asdict(self.gain), "p_value": self.p_value}

    def record(self) -> dict[str, Any]:
        """The plain data that ``mixtura select --json`` prints, without the folder (docs/cli-json.md)."""
        return {
            "weights": self.by_name, "gap": self.gap, "value": asdict(self.estimate),
            "unit": self.unit, "higher": self.higher, "single": (self.single[0], asdict(self.single[1])), "pulls": self.pulls,
            "spent": self.spent, "why": self.why, "certificates": [asdict(c) for c in self.certificates],
            "intervals": self.intervals_by_name, "sums": self.sums, "closed": self.closed, "counts": self.counts,
            "sentence": self.sentence, "gain": self.judged,
        }  # fmt: skip


def added_columns(arms: Sequence[str]) -> list[str]:
    """The columns that :meth:`SelectedByContext.table` has besides those of the contexts."""
    return [*(f"weight {arm}" for arm in arms), "value"]


@dataclass(frozen=True)
class SelectedByContext:
    """The end of a selection with contexts.

    contexts: column → value of each. weights: the :class:`Weights` at each context, ``value`` in the objective's own ``unit``.
    The other fields are those of :class:`Selected`.
    """

    contexts: tuple[Mapping[str, Any], ...]
    weights: tuple[Weights, ...]
    unit: str
    higher: bool
    pulls: int
    spent: float
    why: str
    closed: dict[str, str]
    counts: dict[str, dict[str, int]]

    @property
    def mean_weights(self) -> dict[str, float]:
        """Arm → its weight, averaged over the contexts."""
        mean = np.mean([found.weights for found in self.weights], axis=0)
        return dict(zip(self.weights[0].names, mean.tolist(), strict=True))

    @property
    def sentence(self) -> str:
        """Which arms are used, in one sentence."""
        n = len(self.contexts)
        mean = sorted(((w, arm) for arm, w in self.mean_weights.items() if w > 0.005), reverse=True)
        used = " + ".join(f"{w:.2f} {arm}" for w, arm in mean)
        over = f"over {n:,} contexts" if n > 1 else "at the one context"
        return f"use the weights of each context; averaged {over} they are {used}, after {self.pulls:,} samples"

    def table(self) -> pd.DataFrame:
        """One row for each context: its columns, the weight of each arm, the value of that mixture."""
        rows = [dict(context) for context in self.contexts]
        added = added_columns(self.weights[0].names)
        for row, found in zip(rows, self.weights, strict=True):
            row |= dict(zip(added, (*found.weights, found.value), strict=True))
        return pd.DataFrame(rows)

    def record(self) -> dict[str, Any]:
        """The plain data that ``mixtura select --contexts --json`` prints, without the folder (docs/cli-json.md)."""
        at = [
            {"context": dict(context), "weights": found.by_name, "value": found.value, "gap": found.gap}
            for context, found in zip(self.contexts, self.weights, strict=True)
        ]
        return {
            "contexts": at, "mean_weights": self.mean_weights, "unit": self.unit, "higher": self.higher, "pulls": self.pulls,
            "spent": self.spent, "why": self.why, "closed": self.closed, "counts": self.counts, "sentence": self.sentence,
        }  # fmt: skip
