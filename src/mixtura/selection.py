"""Online selection: a policy that chooses, arms that are asked, features of what they give, and the ledger of it all.

:meth:`Session.conduct` is the long process, an iterator of :class:`Round`. It can be stopped at any moment, killed included, and
goes on from its ledger; two processes may work on one.
"""

from __future__ import annotations

import functools
import math
import operator
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mixtura.arms import Arm, ArmError, Exhausted, Pool
from mixtura.contracts import Estimate, InputError
from mixtura.features import extractors as features
from mixtura.ground.machine import passes
from mixtura.ground.rng import generator
from mixtura.ledger import Ledger, Pull
from mixtura.objectives.objective import Objective, QuadraticTerm, parse
from mixtura.policies.selector import Certificate, Selector
from mixtura.simplex.quadratic import minimise_quadratic

#: an arm that fails so often in a row is asked no more
FAILURES = 3
#: points of the curve that a selection of so many pulls shows
POINTS = 100
#: the record of a selection, in its folder; and what images are looked at by where nothing was asked for
LEDGER, IMAGE_FEATURES = "ledger.sqlite", "pca:64"
#: samples of all pools together up to which the truth about them is worked out
MOST_KNOWN = 20_000
#: seconds between two looks at what another process is doing
WAIT = 0.05


@dataclass(frozen=True)
class Round:
    """What a pull left behind.

    number: of the pull. status: "told", "failed" or "unknown", with its reason. pulls: samples so far. spent: cost so far.
    weights, value: the mixture now and its objective, in the objective's own unit, every so many pulls. single: the best single
    arm and its value then. seconds: the arm took; overhead: all that is not an arm.
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
    """When to stop before all pulls are made: at an excess of ``tolerance`` or less, by a bound of this ``mode``."""

    tolerance: float
    mode: str = "asymptotic"
    risk: float = 0.05


@dataclass(frozen=True)
class Selected:
    """The end of a selection.

    weights, gap: the mixture. value: in the objective's own ``unit``, higher or lower is better. single: the best single arm.
    why: it ended. certificates: how far from the best mixture it can be, both modes where both apply. sums: how pairs were
    summed.
    """

    weights: dict[str, float]
    gap: float
    value: Estimate
    unit: str
    higher: bool
    single: tuple[str, Estimate]
    pulls: int
    spent: float
    why: str
    certificates: tuple[Certificate, ...]
    intervals: dict[str, tuple[float, float]] | None
    sums: str
    closed: dict[str, str]
    counts: dict[str, dict[str, int]]

    @property
    def sentence(self) -> str:
        """What to use, in one sentence. Weights and values come from the same samples; the errors do not know that."""
        name, single = self.single
        used = sorted(((w, arm) for arm, w in self.weights.items() if w > 0), reverse=True)
        blend = " + ".join(f"{w:.2f} {arm}" for w, arm in used)
        if max(self.weights.values()) == 1:
            return f"use {name} alone: no mixture of these arms is better"
        mixed, alone = (f"{x.value:.4g} ± {x.error:.2g}" for x in (self.value, single))
        ends = f"{mixed} {self.unit}, {alone} for {name} alone, after {self.pulls:,} samples"
        better = self.value.value - single.value if self.higher else single.value - self.value.value
        if not better > 2 * math.hypot(self.value.error, single.error):
            return f"no sure gain over {name} alone; the best mixture is {blend}: {ends}"
        return f"use {blend}: {ends}"


class Session:
    """Arms, a selector and a ledger. ``look``: a sample as an arm gave it → features (d,)."""

    def __init__(
        self, arms: Sequence[Arm], objective: Objective, ledger: Ledger, *, policy: str = "variance_ucb", seed: int = 0,
        pulls: int = 1000, look: Callable[[NDArray[Any]], Tensor] | None = None, stop: Stop | None = None,
    ) -> None:  # fmt: skip
        self.arms = {arm.name: arm for arm in arms}
        self.selector = Selector([arm.name for arm in arms], objective, policy=policy, seed=seed, horizon=pulls)
        self._objective, self._policy = objective, policy
        self.ledger, self.pulls, self.look, self.stop = ledger, pulls, look or Look(None, None), stop
        self.closed: dict[str, str] = {}
        self._place, self._spent = -1, ledger.spent()
        self.overhead = 0.0

    # -------------------------------------------------------------------------------------------------------- rounds

    def conduct(self) -> Iterator[Round]:
        """Ask until the pulls are made, the stopping rule says so, or no arm is left."""
        try:
            self._catch_up()
            for pull in self.ledger.orphans():
                yield self._recover(pull)
            yield from self._ask_on()
        finally:  # stopped while an arm was awaited, or by a fault that passes: the request is taken up by whoever goes on
            self.ledger.release()

    def _ask_on(self) -> Iterator[Round]:
        self._catch_up()
        while self.why is None:
            began = time.perf_counter()
            with self.ledger.dealing():
                self._catch_up()
                flying = sum(self.ledger.flying().values())
                if self.selector.pulls + flying >= self.pulls or not self.selector.open.any():
                    pull = None
                else:
                    pull = self.ledger.intend(self.selector.ask())
            self.overhead += time.perf_counter() - began
            if pull is None:
                time.sleep(WAIT)  # another process awaits the last ones
                if not self.ledger.flying():
                    self._catch_up()
                    break
                continue
            yield self._pull(pull)

    @property
    def why(self) -> str | None:
        """Why it is over, or None."""
        if self.selector.pulls >= self.pulls:
            return f"all {self.pulls:,} pulls are made"
        if not self.selector.open.any():
            return "no arm is left to be asked"
        # a bound looked at after every pull would be looked at too often: its risk is that of one look
        if self.stop is not None and self.selector.tally is not None and self._due:
            found = self.selector.certificate(self.stop.mode, risk=self.stop.risk)
            if found.excess <= self.stop.tolerance:
                return f"the excess is at most {found.excess:.3g}, {self.stop.mode}"
        return None

    @property
    def _due(self) -> bool:
        return self.selector.pulls % max(1, self.pulls // POINTS) == 0

    def _recover(self, pull: Pull) -> Round:
        """A request that a process left behind."""
        arm = self.arms.get(pull.arm)
        if pull.sample is not None:
            return self._tell(pull, pull.sample, 0.0)
        if arm is not None and (arm.takes_key or arm.repeatable):
            self.selector.asked[self.selector.names.index(pull.arm)] += 1
            return self._pull(pull)
        reason = "the process ended while it was awaited; this arm cannot be asked for it again"
        self.ledger.fail(pull, reason, 0.0 if arm is None else arm.cost, "unknown")
        return self._round(pull, "unknown", reason, 0.0)

    def _pull(self, pull: Pull) -> Round:
        arm, began = self.arms[pull.arm], time.perf_counter()
        try:
            sample = np.asarray(arm.ask(pull.draw, pull.key))
        except ArmError as error:
            seconds = time.perf_counter() - began
            self._failed(pull, str(error), exhausted=isinstance(error, Exhausted))
            return self._round(pull, "failed", str(error), seconds)
        seconds = time.perf_counter() - began
        self.ledger.receive(pull, sample, arm.cost)
        self._spent += arm.cost
        return self._tell(pull, sample, seconds)

    def _tell(self, pull: Pull, sample: NDArray[Any], seconds: float) -> Round:
        began = time.perf_counter()
        try:
            seen = self.look(sample).numpy().astype(np.float32)
            width = self.selector.width
            if seen.ndim != 1 or not np.isfinite(seen).all() or width not in (None, len(seen)):
                raise InputError(f"{pull.arm}: {len(seen)} features, the others have {width}")
        except (InputError, RuntimeError, ValueError) as error:
            if passes(error):  # no property of the sample, which is kept and looked at again
                raise
            self._failed(pull, f"its sample cannot be looked at: {str(error).splitlines()[0]}", exhausted=False)
            return self._round(pull, "failed", str(error), seconds)
        self.ledger.tell(pull, seen)
        self._catch_up()
        self.overhead += time.perf_counter() - began
        return self._round(pull, "told", "", seconds)

    def _failed(self, pull: Pull, reason: str, *, exhausted: bool) -> None:
        arm = self.arms[pull.arm]
        cost = 0.0 if exhausted else arm.cost
        self.ledger.fail(pull, ("exhausted: " if exhausted else "") + reason, cost)
        self._spent += cost
        self._catch_up()

    def _round(self, pull: Pull, status: str, reason: str, seconds: float) -> Round:
        said: dict[str, Any] = {}
        if status == "told" and self._due and self.selector.tally is not None:
            began = time.perf_counter()
            weights, value, single = self.selector.current()
            said = {"weights": weights, "value": value, "single": single}
            self.overhead += time.perf_counter() - began
        return Round(
            pull.number, pull.arm, status, reason, self.selector.pulls, self._spent, seconds, self.overhead, **said
        )

    # ------------------------------------------------------------------------------------------------------- the ledger

    def _catch_up(self) -> None:
        """Take in what the ledger holds and the selector does not know yet, this process's pulls and others'."""
        told = self.ledger.told_after(self._place)
        for pull in told:
            if pull.arm in self.arms and pull.features is not None:
                self.selector.asked[:] = self.selector.told
                self.selector.notice()
                self.selector.tell(pull.arm, pull.features)
            self._place = pull.place if pull.place is not None else self._place
        self._settle()

    def _settle(self) -> None:
        """Counts of what was asked, and arms that are closed, as the ledger has them."""
        flying = self.ledger.flying()
        for i, name in enumerate(self.selector.names):
            self.selector.asked[i] = self.selector.told[i] + flying.get(name, 0)
        for name, reason in self.ledger.hopeless(FAILURES).items():
            if name in self.arms and name not in self.closed:
                self.closed[name] = reason
                self.selector.close(name)

    def finish(self) -> Selected:
        """The mixture, its value, and how sure."""
        self._catch_up()
        selector = self.selector
        weights = selector.weights
        found = [selector.certificate("asymptotic", tolerance=self.stop.tolerance if self.stop else None)]
        try:
            found.append(selector.certificate("certified", tolerance=self.stop.tolerance if self.stop else None))
        except InputError:
            pass  # this objective has no bound; the asymptotic certificate stands alone
        return Selected(
            dict(zip(selector.names, weights.weights, strict=True)), weights.gap, selector.value, selector.objective.unit,
            selector.objective.higher, selector.single(), selector.pulls, self.ledger.spent(), self.why or "it was stopped",
            tuple(found), selector.intervals(), selector.settled().how, dict(self.closed), self.ledger.counts(selector.names),
        )  # fmt: skip

    def record(self, selected: Selected, title: str, seconds: float) -> dict[str, Any]:
        """Everything the report shows, as plain data (docs/cli-json.md)."""
        selector, told = self.selector, selected.counts
        tally = selector.settled()
        K, f = tally.form(unbiased=True)
        alone = {name: selector.alone(name) for name in selector.names}
        arms = []
        for name, arm in self.arms.items():
            low, high = (selected.intervals or {}).get(name, (None, None))
            counts, own = told[name], alone[name]
            arms.append({
                "name": name, "weight": selected.weights[name], "low": low, "high": high, "told": counts["told"],
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
            "policy": self._policy, "features": self.look.name, "sums": selected.sums, "seed": selector.seed,
            "pulls": selected.pulls,
            "spent": selected.spent, "seconds": seconds, "why": selected.why, "sentence": selected.sentence,
            "value": selected.value.value, "error": selected.value.error, "gap": selected.gap,
            "single": {"name": name, "value": single.value, "error": single.error}, "truth": self.truth(),
            "certificates": [asdict(c) for c in selected.certificates], "arms": arms, "curve": points,
            "quadratic": {"names": selector.names, "K": (K / unit).tolist(), "f": (f / unit).tolist(), "c": tally.constant / unit,
                "own": own},
            "gain": None,
        }  # fmt: skip

    def samples(self) -> dict[str, Tensor]:
        """Features (n, d) of every arm that gave any, in the order of telling."""
        found: dict[str, list[Tensor]] = {}
        for pull in self.ledger.told_after(-1):
            found.setdefault(pull.arm, []).append(torch.as_tensor(pull.features))
        return {name: torch.stack(found[name]) for name in self.selector.names if name in found}

    def truth(self) -> dict[str, Any] | None:
        """The best mixture of all samples there are, and its value, where every arm is a pool small enough; None otherwise."""
        pools = [arm for arm in self.arms.values() if isinstance(arm, Pool)]
        if len(pools) < len(self.arms) or sum(len(pool.samples) for pool in pools) > MOST_KNOWN:
            return None
        samples = [torch.stack([self.look(np.array(row)) for row in pool.samples]) for pool in pools]
        if min(map(len, samples)) < 2:
            return None
        parts = [term.on(samples) * scale for scale, term in self.selector.objective.terms if isinstance(term, QuadraticTerm)]
        whole = functools.reduce(operator.add, parts)
        K, f = whole.form(unbiased=False)
        a = minimise_quadratic(K, -f / 2, psd=True).weights
        value = self.selector.objective.own(whole.loss(a)).value
        return {"value": value, "weights": dict(zip(self.selector.names, a, strict=True))}

    def curve(self) -> list[Round]:
        """The mixture after every so many pulls, from the ledger alone: what :meth:`conduct` showed, over all sittings."""
        again, points = Selector(self.selector.names, self._objective, policy=self._policy, seed=self.selector.seed), []
        told = self.ledger.told_after(-1)
        for name in self.closed:  # an arm that never came to its first samples is not waited for
            if self.selector.told[self.selector.names.index(name)] < again.first:
                again.close(name)
        every, spent, cost = max(1, self.pulls // POINTS), 0.0, {name: arm.cost for name, arm in self.arms.items()}
        for n, pull in enumerate(told, 1):
            again.tell(pull.arm, pull.features)  # type: ignore[arg-type]
            spent += cost.get(pull.arm, 0.0)
            if again.tally is not None and (n % every == 0 or n == len(told)):
                weights, value, single = again.current()
                points.append(Round(pull.number, pull.arm, "told", "", n, spent, 0.0, 0.0, weights, value, single))
        return points

    def close(self) -> None:
        """Let go of the arms and of the ledger."""
        for arm in self.arms.values():
            arm.close()
        self.ledger.close()


class Look:
    """Samples as arms give them, and real ones, → features (d,). Vectors are taken as they are; images are mapped by ``asked``
    (mixtura.features), fitted on the reference, or flattened where there is none."""

    def __init__(self, reference: Tensor | None, asked: str | None) -> None:
        self._features = None
        self._shape = tuple(reference.shape[1:]) if reference is not None and reference.dim() == 4 else None
        if reference is not None and (self._shape or asked is not None):
            self._features = features.parse(asked or IMAGE_FEATURES)
            self._features.fit(reference.float(), generator(0, "features"))
        elif asked is not None:
            raise InputError("features: are fitted on real rows; give --reference too")
        self.name = "as given" if self._features is None else self._features.name

    def all(self, rows: Tensor) -> Tensor:
        """(n, …) → (n, d)."""
        return rows.flatten(1) if self._features is None else self._features(rows)

    def __call__(self, sample: NDArray[Any]) -> Tensor:
        x = torch.as_tensor(np.ascontiguousarray(sample, dtype=np.float64))
        if self._shape is None:
            return self.all(x.flatten().unsqueeze(0))[0]
        image = _as_image(x)
        if tuple(image.shape) != self._shape:
            raise InputError(f"an image of shape {tuple(image.shape)}, the reference holds {self._shape}")
        return self.all(image.unsqueeze(0))[0]


def _as_image(x: Tensor) -> Tensor:
    """(H, W), (H, W, 1 or 3) or (1 or 3, H, W) → (C, H, W)."""
    if x.dim() == 2:
        return x.unsqueeze(0)
    if x.dim() == 3 and x.shape[0] not in (1, 3) and x.shape[2] in (1, 3):
        return x.permute(2, 0, 1).contiguous()
    return x


def begin(
    arms: Sequence[Arm], out: Path, objective: str, *, reference: Tensor | None = None, name: str | None = None,
    extractor: str | None = None, bandwidth: float | None = None, policy: str = "variance_ucb", seed: int = 0, pulls: int = 1000,
    stop: Stop | None = None,
) -> Session:  # fmt: skip
    """A session in a folder: begun, or taken up where it stopped. ``name``: what the reference is called, to be held to.

    Raises InputError where the folder holds a selection of other arms or another objective. More pulls may be asked for later.
    """
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names) or not names:
        raise InputError(f"arms: expected one or more with names of their own, got {', '.join(names) or 'none'}")
    if isinstance(pulls, bool) or pulls < 1:
        raise InputError(f"pulls: expected 1 or more, got {pulls}")
    if stop is not None and not stop.tolerance > 0:
        raise InputError(f"stop: expected a number above 0, got {stop.tolerance}")
    look = Look(reference, extractor)
    real = None if reference is None else look.all(reference)
    costs = [arm.cost for arm in arms]
    wanted = parse(objective, reference=real, bandwidth=bandwidth, costs=costs)
    Selector(names, wanted, policy=policy, seed=seed, horizon=pulls)  # says what is wrong before a file is made
    ledger = Ledger(out / LEDGER)
    question = {
        "arms": names, "objective": objective, "bandwidth": bandwidth, "features": extractor, "policy": policy, "seed": seed,
        "reference": name, "costs": costs,
    }  # fmt: skip
    ledger.agree({**question, "identity": ledger.about().get("identity", uuid.uuid4().hex[:12])})
    return Session(arms, wanted, ledger, policy=policy, seed=seed, pulls=pulls, look=look, stop=stop)


__all__ = ["Look", "Round", "Selected", "Session", "Stop", "begin"]
