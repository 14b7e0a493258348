"""From scores to a verdict: the weights, the gain over the best single model, and one sentence.

Two objectives, each with its own blend. In **nats** the blend is a density, and the models are those that have one. In
**MMD²** it is a source of samples, and every model takes part. Weights and best single model are chosen on select rows;
the gain is measured on report rows, which chose nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mixtura.contracts import Estimate
from mixtura.families import with_role
from mixtura.folder.records import Conditioning, Refit, Verdict, digits_of
from mixtura.ground.kernels import Gaussian, KernelSums, sums
from mixtura.metrics.likelihood import Gain, gain, mean_nats
from mixtura.simplex.quadratic import minimise_quadratic
from mixtura.simplex.stacking import stack
from mixtura.simplex.weights import Weights

Objective = Literal["nats", "mmd"]
UNITS: dict[str, str] = {"nats": "nats a row", "mmd": "MMD²"}
#: a gain has to exceed so many standard errors to be one
SURE = 2.0
#: and this part of the numbers that it is a difference of: networks, and sums over pairs, round to it
ROUNDING = float(np.finfo(np.float32).eps)
#: inputs that a sentence names; of more it tells the number
SPELT_OUT = 3


def sure(g: Estimate | Gain, scale: float) -> bool:
    """Whether a gain is one: the difference of numbers of size ``scale``."""
    return g.value > SURE * g.error and g.value > ROUNDING * scale


# ------------------------------------------------------------------------------------------------------------ nats


def in_nats(
    select: Mapping[str, Tensor], report: Mapping[str, Tensor], kinds: Mapping[str, str], nouns: str = "rows",
    gate: Tensor | None = None,
) -> Verdict:  # fmt: skip
    """Stack the (n,) nats of the select rows, judge the blend on those of the report rows. ``kinds``: exact or bound.
    ``gate``: instead, log-weights (n, K) of the report rows that depend on their inputs."""
    share, gap, best = weigh(select)
    if gate is not None:
        share = dict(zip(share, gate.exp().mean(0).tolist(), strict=True))
    used = [n for n, w in share.items() if w > 0]
    mixed = blended(report, share, gate)
    kind = "bound" if "bound" in {kinds[n] for n in (*used, best)} else "exact"
    g, scale = gain(mixed.numpy(), report[best].numpy()), _size(report[best].numpy())
    better = g.value == math.inf or (sure(g, scale) and g.trimmed > ROUNDING * scale)
    caveat = ", in lower bounds" if kind == "bound" else ""
    if not better and sure(g, scale):
        caveat += ", but none without the 1 % that differ most"
    sentence = _sentence(better, share, best, Estimate(g.value, g.error, g.n), "nats", nouns, caveat)
    chosen = mixed if better else report[best]
    return Verdict(
        "nats", UNITS["nats"], "blend" if better else best, best, kind, share, gap, g.value, g.error, g.trimmed,
        g.trimmed_error, float(chosen.mean()), float(chosen.std() / math.sqrt(len(chosen))), g.n, sentence,
    )  # fmt: skip


def weigh(select: Mapping[str, Tensor]) -> tuple[dict[str, float], float, str]:
    """Of the (n,) nats of the select rows: the share of each model, their gap, and the best single model. A row that every model
    holds impossible says nothing of their shares."""
    names, nats = list(select), torch.stack([*select.values()], 1).numpy()
    nats = nats[(nats > -np.inf).any(1)]
    if len(nats) < 2:
        return {n: float(n == names[0]) for n in names}, math.inf, names[0]
    best = names[int(np.argmax(nats.mean(0)))]
    weights = _weigh(nats, names, best)
    return dict(zip(names, weights.weights, strict=True)), weights.gap, best


def of_inputs(
    v: Verdict, report: Mapping[str, Tensor], constant: Mapping[str, float], gate: Tensor | None,
    target: Sequence[str], given: Sequence[str],
) -> tuple[Verdict, Conditioning]:  # fmt: skip
    """What a verdict in nats of ``target`` given the columns ``given`` says beside, and the verdict with a sentence that says
    it too. ``constant``: the shares of :func:`weigh`; ``gate``: as :func:`in_nats` had it. The gate itself and the
    calibration are for the caller to add."""
    chosen = blended(report, v.weights, gate) if v.choice == "blend" else report[v.choice]
    floor = floor_of(report)
    worth = None if floor is None else gain(chosen.numpy(), report[floor].numpy())
    turned = None if gate is None else gain(blended(report, v.weights, gate).numpy(), blended(report, constant).numpy())
    inputs = _listed(given) if len(given) <= SPELT_OUT else f"its {len(given)} inputs"
    said = f"{pm(v.value, v.value_error)} nats of {_listed(target)} given {inputs}"
    if worth is not None and v.choice != floor:
        said += f", {pm(worth.value, worth.error)} more than {floor}, which ignore the inputs"
    if turned is not None:
        said += f"; weights that depend on the inputs gain {pm(turned.value, turned.error)} over constant ones"
    beside = Conditioning(
        list(target), list(given), worth and worth.value, worth and worth.error, None, turned and turned.value,
        turned and turned.error, {},
    )  # fmt: skip
    return replace(v, sentence=f"{v.sentence}; {said}"), beside


def floor_of(names: Collection[str]) -> str | None:
    """The name of the floor among these models: the family that makes nothing impossible; None where it is not there."""
    return next((name for name in with_role("floor") if name in names), None)


def blended(nats: Mapping[str, Tensor], share: Mapping[str, float], gate: Tensor | None = None) -> Tensor:
    """(n,) nats of the blend of models with (n,) ``nats``, by constant shares, or log-weights (n, K) of each row."""
    used = [n for n, w in share.items() if w > 0]
    if gate is None:
        return torch.logsumexp(torch.stack([nats[n] + math.log(share[n]) for n in used]), 0)
    return torch.logsumexp(torch.stack([nats[n] for n in share], 1) + gate, 1)


def _size(nats: np.ndarray) -> float:
    """Mean size of (n,) nats that are finite, and the 1 that the logarithms of weights are of."""
    return 1 + float(np.abs(nats[np.isfinite(nats)]).sum()) / len(nats)


def _weigh(select: np.ndarray, names: Sequence[str], best: str) -> Weights:
    """Stack the (n, K) select nats. A stacking that does not beat the best single model by 2 standard errors where it
    was chosen is not worth its noise: then the best model stands alone. One that does keeps at least 1 part in n + 1 for
    the smoothed floor, so that an unseen category costs nats and not −∞."""
    weights = stack(select)
    w, alone = np.array(weights.weights), list(names).index(best)

    def mixed(w: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduce(select + np.log(np.maximum(w, 1e-300)), axis=1)

    g = gain(mixed(w), select[:, alone])
    if not (g.value == math.inf or sure(g, _size(select[:, alone]))):
        w = np.eye(len(names))[alone]
    elif (name := floor_of(names)) is not None:
        least, floor = 1 / (len(select) + 1), list(names).index(name)
        if w[floor] < least:
            w *= (1 - least) / (1 - w[floor])
            w[floor] = least
    value = float(np.mean(mixed(w)))
    return Weights(tuple(float(v) for v in w), value, weights.gap + max(0.0, weights.value - value))


# ------------------------------------------------------------------------------------------------------------ MMD²


@dataclass(frozen=True)
class ComparedSamples:
    """Features (n, d) of real rows and of every model's samples; the models that made them never saw the real rows."""

    real: Tensor
    samples: Mapping[str, Tensor]

    def sums(self, kernel: Gaussian) -> KernelSums:
        """One pass over all pairs; the real rows are the last set."""
        return sums([*self.samples.values(), self.real], kernel)


class Weighed(NamedTuple):
    """What the select rows choose in MMD²: the weights w (k,) of the models in ``names``, their gap, which of them is the best
    ``alone``, and whether a blend is ``worth`` it; else all weight is that model's."""

    names: list[str]
    w: np.ndarray
    gap: float
    alone: int
    worth: bool


def weigh_in_mmd(choosing: Sequence[ComparedSamples], kernel: Gaussian) -> Weighed:
    """Weights that minimise MMD² to the real rows, V-form, averaged over the ``choosing`` pools (one, or one a fold)."""
    names = list(choosing[0].samples)
    k = len(names)
    passes = [pool.sums(kernel) for pool in choosing]
    Q, linear, _ = (np.mean(part, 0) for part in zip(*(p.quadratic(k) for p in passes), strict=True))
    weights = minimise_quadratic(Q, linear)
    corners = np.eye(k)
    best = min(range(k), key=lambda a: np.mean([p.mmd2(corners[a], k).value for p in passes]))
    w = np.array(weights.weights)
    gains = [p.gain(w, corners[best], k) for p in passes]
    chosen_gain = float(np.mean([g.value for g in gains]))
    chosen_error = math.sqrt(float(np.sum([g.error**2 for g in gains]))) / len(gains)
    worth = sure(Estimate(chosen_gain, chosen_error, len(gains)), kernel.bound)
    if not worth:
        w = corners[best]
    return Weighed(names, w, weights.gap + max(0.0, float(w @ Q @ w - 2 * linear @ w) - weights.value), best, worth)


def in_mmd(
    weighed: Weighed, report: ComparedSamples, kernel: Gaussian, nouns: str = "rows"
) -> tuple[Verdict, dict[str, Any], dict[str, Estimate]]:
    """What the report rows say of the weights: the gain of the blend over the best single model, in U-form. Also the quadratic of
    this pool as plain data: MMD²(w) = w'Qw − 2 b'w + c, in U-form; and MMD² of each model."""
    names, w, gap, best, worth = weighed
    k, alone = len(names), np.eye(len(names))[best]
    report = ComparedSamples(report.real, {name: report.samples[name] for name in names})
    final = report.sums(kernel)
    g = final.gain(w, alone, k)
    better = worth and sure(g, kernel.bound)
    share = dict(zip(names, (float(v) for v in w), strict=True))
    value = final.mmd2(w if better else alone, k)
    sentence = _sentence(better, share, names[best], g, "MMD²", nouns, "")
    verdict = Verdict(
        "mmd", UNITS["mmd"], "blend" if better else names[best], names[best], "samples", share, gap, g.value, g.error,
        None, None, value.value, value.error, len(report.real), sentence,
    )  # fmt: skip
    quadratic = _plain(final, k) | {"names": names, "weights": w.tolist(), "gap": gap, "rows": len(report.real)}
    return verdict, quadratic, {name: final.mmd2(corner, k) for name, corner in zip(names, np.eye(k), strict=True)}


def refit_in_nats(
    v: Verdict, report: Mapping[str, Tensor], again: Mapping[str, Tensor], gate: Tensor | None = None
) -> Refit | None:
    """The choice of a verdict in nats as it is delivered; None where none of its models was fitted again. ``report``, ``again``:
    the (n,) nats of the report rows under all models as they were weighed, and under those that were fitted again."""
    chosen = [name for name, share in v.weights.items() if share > 0] if v.choice == "blend" else [v.choice]
    if not set(chosen) & set(again):
        return None

    def nats(of: Mapping[str, Tensor]) -> np.ndarray:
        return (blended(of, v.weights, gate) if v.choice == "blend" else of[v.choice]).numpy()

    after = nats({**report, **again})
    value, more = mean_nats(after), gain(after, nats(report))
    return Refit("", value.value, value.error, more.value, more.error)


def refit_in_mmd(v: Verdict, report: ComparedSamples, again: Mapping[str, Tensor], kernel: Gaussian) -> Refit | None:
    """The same of a verdict in MMD². ``again``: features (n, d) of samples of the models that were fitted again."""
    share = v.weights if v.choice == "blend" else {v.choice: 1.0}
    chosen = [name for name, weight in share.items() if weight > 0]
    if not set(chosen) & set(again):
        return None
    changed = [name for name in chosen if name in again]
    sets = [*(report.samples[name] for name in chosen), *(again[name] for name in changed), report.real]
    before = [*(share[name] for name in chosen), *(0.0 for _ in changed)]
    after = [*(0.0 if name in again else share[name] for name in chosen), *(share[name] for name in changed)]
    found, k = sums(sets, kernel), len(before)
    value, more = found.mmd2(after, k), found.gain(after, before, k)
    return Refit("", value.value, value.error, more.value, more.error)


def _plain(final: KernelSums, k: int) -> dict[str, Any]:

    def block(a: int, b: int) -> float:
        return final.block(a, b, unbiased=True)

    Q = [[block(a, b) for b in range(k)] for a in range(k)]
    return {"unit": UNITS["mmd"], "Q": Q, "b": [block(a, k) for a in range(k)], "c": block(k, k)}


# ------------------------------------------------------------------------------------------------------- sentences


def _sentence(
    better: bool, share: Mapping[str, float], best: str, g: Estimate, unit: str, nouns: str, caveat: str
) -> str:
    parts = " + ".join(f"{w:.2f} {n}" for n, w in sorted(share.items(), key=lambda item: -item[1]) if w >= 0.005)
    if better and g.value == math.inf:
        return f"gain without bound on {g.n:,} unseen {nouns}, some impossible under {best} alone: use the blend {parts}"
    if math.isnan(g.value):
        return f"no gain: use {best} (some of the {g.n:,} unseen {nouns} are impossible under it, and some under the blend)"
    digits = digits_of(g.error)
    unsure = f" ± {g.error:.{digits}f} {unit} on {g.n:,} unseen {nouns}{caveat}"
    if better:
        return f"gain {g.value:.{digits}f}{unsure} over {best}: use the blend {parts}"
    if share[best] == 1:
        why = f"where the weights were chosen no blend beat it by 2 standard errors; {g.n:,} unseen {nouns}"
        return f"no gain: use {best} ({why})"
    return f"no gain: use {best} (the blend differs by {g.value:+.{digits}f}{unsure})"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def pm(value: float | None, error: float | None) -> str:
    """A number and its standard error, to two digits of the error."""
    digits = digits_of(error)
    return f"{math.nan if value is None else value:.{digits}f} ± {math.nan if error is None else error:.{digits}f}"


def choose_objective(
    *, density: bool, asked: str | None, images: bool, outside: Sequence[str]
) -> tuple[str, str]:
    """The objective the verdict speaks of, and why. ``density``: whether any model has one."""
    if asked is not None:
        return asked, "you asked for it"
    if not density:
        return "mmd", "no model has a density, so samples are compared"
    if outside:
        return "mmd", f"{' and '.join(outside)} can only be judged by samples, so samples are compared"
    if images:
        return "mmd", "images are wanted as samples; the nats of pixels mostly measure their noise"
    return "nats", "a density is wanted: it scores rows, fills gaps, and sees what samples cannot"
