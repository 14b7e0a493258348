"""The selection of one mixture: its session in a folder, its end, and all that its report shows."""

from __future__ import annotations

import functools
import hashlib
import operator
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixtura.arms import Arm, Pool
from mixtura.contracts import InputError
from mixtura.features.space import FeatureSpace
from mixtura.folder.selection import SelectionFolder
from mixtura.ledger import Ledger, Pull
from mixtura.objectives.expression import Objective, QuadraticTerm
from mixtura.objectives.mixture import gain_of_halves
from mixtura.objectives.terms import parse
from mixtura.policies.selector import Selector, comparable
from mixtura.selection.records import Round, Selected, Stop
from mixtura.selection.session import Failures, Session
from mixtura.simplex.quadratic import minimise_quadratic

#: points of the curve that a selection of so many pulls shows
POINTS = 100
#: samples of all pools together up to which the truth about them is worked out
MOST_KNOWN = 20_000


class MixtureSession(Session):
    """Learns the best mixture, by a :class:`Selector`."""

    selector: Selector

    def __init__(
        self, arms: Sequence[Arm], objective: Objective, ledger: Ledger, *, policy: str = "variance_ucb", seed: int = 0,
        pulls: int = 1000, features: FeatureSpace | None = None, stop: Stop | None = None,
    ) -> None:  # fmt: skip
        super().__init__(arms, ledger, features or FeatureSpace.of_samples(None, None), pulls=pulls)
        self.selector = Selector([arm.name for arm in arms], objective, policy=policy, seed=seed, horizon=pulls)
        self._objective, self._policy, self.stop = objective, policy, stop

    def _choose(self, number: int) -> str:
        return self.selector.ask()

    def _learn(self, pull: Pull, features: Tensor) -> None:
        self.selector.tell(pull.arm, features)

    def _repeat_choice(self, pull: Pull) -> None:
        self.selector.notice()

    def _stopped(self) -> str | None:
        tally = self.selector.tally
        # a check adds the samples that wait to the sums, which changes later choices: so it is made where none waits
        if self.stop is None or tally is None or tally.waits:
            return None
        # a bound checked after every pull would be checked too often: its risk is that of one check
        if tally.t // self._every > (tally.t - tally.latest) // self._every:
            found = self.selector.certificate(self.stop.mode, risk=self.stop.risk)
            if found.excess <= self.stop.tolerance:
                return f"the excess is at most {found.excess:.3g}, {self.stop.mode}"
        return None

    def _current(self) -> dict[str, Any]:
        if self.selector.pulls % self._every or self.selector.tally is None:
            return {}
        weights, value, single = self.selector.current()
        return {"weights": weights, "value": value, "single": single}

    @property
    def _every(self) -> int:
        """Pulls between two points of the curve, and between two checks of the stopping rule."""
        return max(1, self.pulls // POINTS)

    def finish(self) -> Selected:
        """The mixture, its value, and how sure they are."""
        self._catch_up()
        selector = self.selector
        weights, value, intervals = selector.weights, selector.value, selector.intervals()
        tolerance = self.stop.tolerance if self.stop else None
        found = [selector.certificate("asymptotic", tolerance=tolerance)]
        try:
            found.append(selector.certificate("certified", tolerance=tolerance))
        except InputError:
            pass  # this objective has no bound; the asymptotic certificate stands alone
        gain, p = gain_of_halves(self.samples(), selector.objective, seed=selector.seed) or (None, None)
        return Selected(
            weights.weights, value.value, weights.gap, names=tuple(selector.names), error=value.error,
            intervals=None if intervals is None else tuple(intervals.values()), unit=selector.objective.unit,
            higher=selector.objective.higher, single=selector.single(), pulls=selector.pulls, spent=self.ledger.spent(),
            why=self.why or "it was stopped", certificates=tuple(found), gain=gain, p_value=p, sums=selector.settled().how,
            closed=dict(self.closed), counts=self.ledger.counts(selector.names),
        )  # fmt: skip

    def record(self, selected: Selected, title: str) -> dict[str, Any]:
        """Everything the report shows, as plain data (docs/cli-json.md)."""
        selector, counted, weights = self.selector, selected.counts, selected.by_name
        tally = selector.settled()
        K, f = tally.form(unbiased=True)
        alone = {name: selector.alone(name) for name in selector.names}
        arms = []
        for name, arm in self.arms.items():
            low, high = (selected.intervals_by_name or {}).get(name, (None, None))
            counts, own = counted[name], alone[name]
            arms.append({
                "name": name, "weight": weights[name], "low": low, "high": high, "told": counts["told"],
                "failed": counts["failed"], "unknown": counts["unknown"], "cost": arm.cost, "spent": self.ledger.spent(name),
                "closed": selected.closed.get(name, ""), "alone": own.value if own else None,
                "alone_error": own.error if own else None,
            })  # fmt: skip
        points = [
            {
                "pulls": r.pulls, "spent": r.spent, "value": r.value.value, "error": r.value.error, "single": r.single[0],
                "single_value": r.single[1].value, "weights": r.weights,
            }
            for r in self.curve() if r.value is not None and r.single is not None
        ]  # fmt: skip
        name, single = selected.single
        lone = selector.objective.alone
        own = "same" if lone is None or not lone.higher else "inverse" if lone.name == "rke" else "negative"
        unit = 1.0 if lone is None else selector.objective.terms[0][0]  # the own value of a single term knows no scale
        return {
            "title": title, "objective": selector.objective.name, "unit": selected.unit, "higher": selected.higher,
            "policy": self._policy, "features": self.features.name, "sums": selected.sums, "seed": selector.seed,
            "pulls": selected.pulls, "spent": selected.spent, "why": selected.why, "sentence": selected.sentence,
            "value": selected.value, "error": selected.error, "gap": selected.gap,
            "single": {"name": name, "value": single.value, "error": single.error}, "truth": self.truth(),
            "certificates": [asdict(c) for c in selected.certificates], "arms": arms, "curve": points,
            "quadratic": {"names": selector.names, "K": (K / unit).tolist(), "f": (f / unit).tolist(), "c": tally.constant / unit,
                "own": own},
            "gain": selected.judged,
        }  # fmt: skip

    def samples(self) -> dict[str, Tensor]:
        """Features (n, d) of every arm that gave any, in the order of telling."""
        found: dict[str, list[Tensor]] = {}
        for pull in self.ledger.ended_after(-1):
            if pull.features is not None:
                found.setdefault(pull.arm, []).append(torch.as_tensor(pull.features))
        return {name: torch.stack(found[name]) for name in self.selector.names if name in found}

    def truth(self) -> dict[str, Any] | None:
        """The best mixture of all samples of all pools, and its value; None where an arm is no pool, they hold too many, or some
        that cannot be compared."""
        pools = [arm for arm in self.arms.values() if isinstance(arm, Pool)]
        if len(pools) < len(self.arms) or sum(len(pool.samples) for pool in pools) > MOST_KNOWN:
            return None
        try:
            samples = [torch.stack([self.features.of_one(np.array(row)) for row in pool.samples]) for pool in pools]
        except InputError:
            return None
        alike = {x.shape[1] for x in samples} == {self.selector.width}
        if min(map(len, samples)) < 2 or not alike or not all(map(comparable, samples)):
            return None
        parts = [term.on(samples) * scale for scale, term in self.selector.objective.terms if isinstance(term, QuadraticTerm)]
        whole = functools.reduce(operator.add, parts)
        K, f = whole.form(unbiased=False)
        a = minimise_quadratic(K, -f / 2, psd=True).weights
        value = self.selector.objective.own(whole.loss(a)).value
        return {"value": value, "weights": dict(zip(self.selector.names, a, strict=True))}

    def curve(self) -> list[Round]:
        """The mixture after every so many pulls, from the ledger alone: what :meth:`conduct` showed, over all runs of it."""
        names, seed = self.selector.names, self.selector.seed
        again, failures = Selector(names, self._objective, policy=self._policy, seed=seed, horizon=self.pulls), Failures()
        points, spent = [], 0.0
        for pull in self.ledger.ended_after(-1):
            spent += pull.cost
            again.notice()
            if pull.features is not None:
                again.tell(pull.arm, pull.features)
            if failures.close(pull):
                again.close(pull.arm)
            shown = again.pulls % self._every == 0 or again.pulls == self.selector.pulls
            if pull.features is not None and again.tally is not None and shown:
                weights, value, single = again.current()
                points.append(Round(pull.number, pull.arm, "told", "", again.pulls, spent, 0.0, 0.0, weights, value, single))
        return points


def begin(
    arms: Sequence[Arm], out: Path, objective: str, *, reference: Tensor | None = None, name: str | None = None,
    extractor: str | None = None, bandwidth: float | None = None, policy: str = "variance_ucb", seed: int = 0, pulls: int = 1000,
    stop: Stop | None = None,
) -> MixtureSession:  # fmt: skip
    """A session in a folder: begun, or taken up where it stopped. ``name``: of the reference, which must be the same next time.

    Raises InputError where the folder holds a selection of other arms or another objective. More pulls may be asked for later.
    """
    names = checked_names(arms, pulls)
    if stop is not None and not stop.tolerance > 0:
        raise InputError(f"stop: expected a number above 0, got {stop.tolerance}")
    features = FeatureSpace.of_samples(reference, extractor)
    real = None if reference is None else features(reference)
    costs = [arm.cost for arm in arms]
    wanted = parse(objective, reference=real, bandwidth=bandwidth, costs=costs)
    Selector(names, wanted, policy=policy, seed=seed, horizon=pulls)  # says what is wrong before a file is made
    ledger = Ledger(SelectionFolder(out).ledger_path)
    ledger.agree({
        "arms": names, "objective": objective, "bandwidth": bandwidth, "features": extractor, "policy": policy, "seed": seed,
        "reference": described(name, reference), "costs": costs,
    })  # fmt: skip
    return MixtureSession(arms, wanted, ledger, policy=policy, seed=seed, pulls=pulls, features=features, stop=stop)


def described(name: str | None, reference: Tensor | None) -> str | None:
    """What the ledger knows a reference by: its name and a hash of its rows, which both must be the same next time."""
    if reference is None:
        return None
    rows = reference.contiguous().numpy()
    return f"{name}, {rows.dtype} {list(rows.shape)} {hashlib.sha256(rows.tobytes()).hexdigest()[:16]}"


def checked_names(arms: Sequence[Arm], pulls: int) -> list[str]:
    """The names of the arms. InputError where two are the same, one cannot be printed, there are none, or no pulls are asked
    for."""
    names = [arm.name for arm in arms]
    odd = next((name for name in names if not name or not name.isprintable()), None)
    if odd is not None:
        raise InputError(f"arms: expected names of one or more printable characters, got {odd!a}; rename it")
    if len(set(names)) < len(names) or not names:
        raise InputError(f"arms: expected one or more with names of their own, got {', '.join(names) or 'none'}")
    if isinstance(pulls, bool) or not isinstance(pulls, int) or pulls < 1:
        raise InputError(f"pulls: expected a whole number, 1 or more, got {pulls}")
    return names
