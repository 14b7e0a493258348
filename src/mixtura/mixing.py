"""The best mixture of several generators, from samples at hand.

:func:`mix` does all steps: samples → features → an objective on the simplex → weights with a certificate, intervals, and the gain
over each single generator on samples that the weights were not chosen on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mixtura.contracts import InputError
from mixtura.features.samples import gather
from mixtura.ground.rng import generator
from mixtura.objectives.expression import Expression, Objective
from mixtura.objectives.mixture import Problem
from mixtura.objectives.terms import parse
from mixtura.simplex import intervals
from mixtura.simplex.polytope import Polytope
from mixtura.simplex.weights import Weights


@dataclass(frozen=True, kw_only=True)
class BestMixture(Weights):
    """The :class:`Weights` of the best mixture of samples at hand, with its value, gain and intervals.

    value ± error: the objective in its own ``unit`` on all samples, which the weights were also chosen on; unbiased if it is
    quadratic. Values of frechet, vendi and fld depend on the number of samples: do not compare that of a mixture, which has more
    samples than one arm, with ``best_value``. intervals: None if there are too few samples or reference rows.

    higher: whether more of the objective is better. terms: name → (value, error) of each term, in its own unit. best,
    best_value: the best single arm. gain ± gain_error, p_value (one-sided): weights are chosen on one half of each arm's samples
    and compared, on the other half, with the single arm that they beat least surely; for frechet, vendi and fld at equal numbers
    of samples. None if there are too few samples or reference rows. flat: pairs of arms (a, b) for which the samples do not show
    that moving all weight of a to b makes the objective worse. samples: number of samples of each arm. features: name of the
    features that were compared.
    """

    objective: str
    unit: str
    higher: bool
    terms: dict[str, tuple[float, float]]
    best: str
    best_value: float
    best_error: float
    gain: float | None
    gain_error: float | None
    p_value: float | None
    flat: list[tuple[str, str]]
    samples: dict[str, int]
    features: str
    bandwidth: float | None
    sentence: str = ""

    def record(self) -> dict[str, Any]:
        """The plain data that ``mixtura mix --json`` prints (docs/cli-json.md)."""
        return {
            "objective": self.objective, "unit": self.unit, "higher": self.higher, "weights": self.by_name,
            "intervals": self.intervals_by_name, "value": self.value, "error": self.error, "gap": self.gap, "terms": self.terms,
            "best": self.best, "best_value": self.best_value, "best_error": self.best_error, "gain": self.gain,
            "gain_error": self.gain_error, "p_value": self.p_value, "flat": self.flat, "samples": self.samples,
            "features": self.features, "bandwidth": self.bandwidth, "exact": self.exact, "sentence": self.sentence,
        }  # fmt: skip


def mix(
    samples: Mapping[str, Any] | Sequence[Any], objective: str | Expression = "rke", *, reference: Any = None,
    features: str | None = None, bandwidth: float | None = None, costs: Sequence[float] | None = None, cap: float | None = None,
    floor: float | None = None, at_most: float | None = None, size: int | None = None, seed: int = 0, skip_broken: bool = False,
) -> BestMixture:  # fmt: skip
    """The best mixture of generators, given samples of each: anything :func:`mixtura.run` reads, or arrays of features (n, d).

    objective: text such as "rke+0.2*precision", or terms such as ``RKE(1.0) + 0.2 * Precision(real)``, which use the arrays as
    they are. reference: real rows. features: the features to compare, as in ``run``. bandwidth: of the Gaussian kernels. costs:
    the cost of a sample of each arm; at_most: the largest mean cost of a sample of the mixture. cap, floor: the largest and
    smallest weight. size: most arms in the mixture. Raises InputError on samples of different kinds or widths, and on constraints
    that no weights satisfy.
    """
    named = dict(samples) if isinstance(samples, Mapping) else {f"arm {i}": s for i, s in enumerate(samples)}
    if not named:
        raise InputError("mix: no samples were given; name one file for each generator")
    arms, real, features_name = gather(named, reference, features, seed=seed, skip_broken=skip_broken)
    if isinstance(objective, str):
        wanted = parse(objective, reference=real, bandwidth=bandwidth, costs=costs)
    else:
        wanted = Objective(objective.parts)
    wanted = wanted.ready(list(arms.values()), generator(seed, "bandwidth"))
    within = _polytope(len(arms), costs, cap, floor, at_most)
    if size is not None and (within is not None or not wanted.quadratic):
        raise InputError("size: works only with quadratic objectives, without cap, floor and at_most; leave it or them out")
    return _solved(Problem(list(arms), list(arms.values()), wanted, within, size, seed), features_name)


def _solved(problem: Problem, features: str) -> BestMixture:
    """The best mixture with its value, gain, intervals and sentence."""
    names, objective, loss = problem.names, problem.objective, problem.loss()
    found = loss.solve(problem.within, problem.size)
    a = np.array(found.weights)
    value = problem.value(loss, a)
    best = int(np.argmin(loss.singles()))
    best_value = problem.value(loss, np.eye(len(names))[best])
    own = {term.name: term.own(loss.of_term(k, a)) for k, (_, term) in enumerate(objective.terms)}
    gain, p = problem.gain()
    mixture = BestMixture(
        found.weights, value.value, found.gap, exact=found.exact, names=tuple(names), error=value.error,
        intervals=problem.intervals(loss, a), objective=objective.name, unit=objective.unit, higher=objective.higher,
        terms={name: (estimate.value, estimate.error) for name, estimate in own.items()}, best=names[best],
        best_value=best_value.value, best_error=best_value.error, gain=None if gain is None else gain.value,
        gain_error=None if gain is None else gain.error, p_value=p, flat=problem.flat(loss, a),
        samples={name: len(x) for name, x in zip(names, problem.samples, strict=True)}, features=features,
        bandwidth=next((b for _, term in objective.terms if (b := term.chosen_bandwidth) is not None), None),
    )  # fmt: skip
    return replace(mixture, sentence=_sentence(mixture))


def pareto(
    samples: Mapping[str, Any], objective: str, scales: Sequence[float], *, reference: Any = None, **options: Any
) -> pd.DataFrame:
    """The best mixture for each scale of the last term of the objective: one row for each of ``scales``, with the value of each
    term, the weights and the gap. The rows show the trade-off between the terms."""
    head, _, last = objective.rpartition("+")
    if not head:
        raise InputError(f"pareto: {objective!r} has one term, expected two or more; write them as in rke+precision")
    term = last.split("*")[-1].strip()
    rows = []
    for scale in scales:
        found = mix(samples, f"{head}+{scale:g}*{term}" if scale > 0 else head, reference=reference, **options)
        values = {name: value for name, (value, _) in found.terms.items()}
        rows.append({"scale": scale, **values, **found.by_name, "gap": found.gap})
    return pd.DataFrame(rows)


def _polytope(
    m: int, costs: Sequence[float] | None, cap: float | None, floor: float | None, at_most: float | None
) -> Polytope | None:
    if cap is None and floor is None and at_most is None:
        return None
    if at_most is not None and (costs is None or len(costs) != m):
        raise InputError(f"at_most: needs the cost of a sample of each of the {m} arms; give --costs")
    budget = {} if at_most is None else {"A": np.array([costs], dtype=np.float64), "b": np.array([at_most])}
    return Polytope(lower=floor or 0.0, upper=1.0 if cap is None else cap, **budget)


def _sentence(o: BestMixture) -> str:
    used = sorted(((w, name) for name, w in o.by_name.items() if w > 0), reverse=True)
    blend = " + ".join(f"{w:.2f} {name}" for w, name in used)
    if o.gain is None or o.p_value is None:
        return f"use {blend}; too few samples to say whether it beats {o.best}, so no p-value is given"
    gain = f"{o.gain:+.3g} ± {o.gain_error:.2g} {o.unit}"
    if not (o.p_value < 0.05 and o.gain > 0):
        return f"no gain: use {o.best} (the mixture differs by {gain} on samples that chose nothing)"
    return f"gain {gain} over any one arm on samples that chose nothing ({intervals.p_in_words(o.p_value)}): use {blend}"


def name_of(path: str) -> str:
    """The name of an arm whose samples are at ``path``: the key in the file, or else the stem of its name."""
    file, _, key = path.partition(".npz:")
    return key or Path(file).stem
