"""Verdicts on laws whose best mixture is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mixtura.kernels import Gaussian
from mixtura.rng import generator
from mixtura.verdict import Pool, Verdict, digits_of, in_mmd, in_nats, which


def halves(n, seed):
    """n rows of a two-humped law: half at 100 − 6, half at 100 + 6."""
    rng = generator(seed)
    side = torch.randint(2, (n, 1), generator=rng) * 12.0 - 6
    return 100 + side + 3 * torch.randn(n, 1, generator=rng)


def hump(n, centre, seed):
    return centre + 3 * torch.randn(n, 1, generator=generator(seed))


def pool(seed, n=600):
    centres = {"left": 94.0, "right": 106.0, "far": 150.0}
    return Pool(halves(n, seed), {name: hump(n, c, seed + 1 + i) for i, (name, c) in enumerate(centres.items())})


@pytest.mark.parametrize("folds", [1, 3])
def test_two_humps_are_blended_in_halves(folds):
    v, quadratic = in_mmd([pool(10 * k, 600 // folds) for k in range(1, folds + 1)], pool(500), Gaussian(3.0))
    assert v.choice == "blend" and v.gap < 1e-9 and v.kind == "samples" and v.objective == "mmd"
    assert v.weights["left"] == pytest.approx(0.5, abs=0.08) and v.weights["far"] < 0.02
    assert v.gain > 2 * v.error > 0 and abs(v.value) < 5 * v.value_error
    assert v.sentence.startswith(f"gain {v.gain:.{digits_of(v.error)}f} ±")
    # the plain numbers give the verdict's own value and gain
    Q, b, w = (np.array(quadratic[k]) for k in ("Q", "b", "weights"))
    at = lambda w: w @ Q @ w - 2 * b @ w + quadratic["c"]  # noqa: E731
    alone = np.array([name == v.best for name in quadratic["names"]], float)
    assert at(w) == pytest.approx(v.value, rel=1e-6, abs=1e-9) and at(alone) - at(w) == pytest.approx(v.gain, rel=1e-6)


def test_the_right_model_beside_wrong_ones_stands_alone():
    made = lambda seed: Pool(  # noqa: E731
        halves(500, seed), {"right": halves(500, seed + 1), "left": hump(500, 94.0, seed + 2), "far": hump(500, 150.0, seed + 3)}
    )
    choices = [in_mmd([made(10 * s)], made(10 * s + 5), Gaussian(3.0))[0] for s in range(1, 6)]
    assert sum(v.choice == "right" for v in choices) >= 4
    assert all("no gain: use right" in v.sentence for v in choices if v.choice == "right")


def normal_nats(x, centre, scale):
    return -0.5 * ((x - centre) / scale) ** 2 - math.log(scale * math.sqrt(2 * math.pi))


def test_nats_of_two_humps():
    def nats(seed):
        x = halves(2_000, seed).double().squeeze(1)
        return {"left": normal_nats(x, 94, 3), "right": normal_nats(x, 106, 3), "marginals": normal_nats(x, 100, 6.7)}

    v = in_nats(nats(1), nats(2), {"left": "exact", "right": "bound", "marginals": "exact"}, "pictures")
    assert v.choice == "blend" and v.best == "marginals" and v.kind == "bound"
    assert v.weights["left"] == pytest.approx(0.5, abs=0.05) and v.weights["marginals"] >= 1 / 2_001
    assert "in lower bounds over marginals: use the blend" in v.sentence and "2,000 unseen pictures" in v.sentence


def test_a_blend_that_was_not_better_where_it_was_chosen_is_not_used():
    x = halves(300, 1).double().squeeze(1)
    same = {"a": normal_nats(x, 100, 6.7), "b": normal_nats(x, 100, 6.8)}
    v = in_nats(same, same, dict.fromkeys(same, "exact"))
    assert v.choice == v.best and v.weights[v.best] == 1 and v.gain == 0 and "no gain" in v.sentence


@pytest.mark.parametrize(
    ("there", "asked", "images", "outside", "objective", "because"),
    [
        (("nats", "mmd"), None, False, [], "nats", "a density is wanted"),
        (("nats", "mmd"), None, True, [], "mmd", "images are wanted as samples"),
        (("nats", "mmd"), None, False, ["gan"], "mmd", "gan can only be judged by samples"),
        (("nats", "mmd"), "nats", True, ["gan"], "nats", "you asked"),
        (("mmd",), None, False, [], "mmd", "no model has a density"),
    ],
)
def test_the_verdict_says_which_objective_it_speaks_of(there, asked, images, outside, objective, because):
    blank = Verdict("", "", "", "", "", {}, 0, 0, 0, None, None, None, None, 0, "")
    spoken, why = which(dict.fromkeys(there, blank), asked=asked, images=images, outside=outside)
    assert spoken == objective and because in why


@pytest.mark.parametrize(
    ("error", "digits"), [(0.062, 3), (0.2, 2), (3.0, 2), (0.00031, 5), (1e-12, 7), (math.nan, 3), (0, 3), (None, 3)]
)
def test_two_digits_of_the_error_are_shown(error, digits):
    assert digits_of(error) == digits
