"""Selection in contexts by names and features: what each objective asks for, arms that close, what is refused."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.objectives.terms import KID, MMD, RKE, Cost, LogLikelihood, Precision, Vendi
from mixtura.policies.by_context import ContextualSelector
from mixtura.policies.contextual import ContextualMixture, KernelRidgeUcb
from mixtura.policies.selector import FIRST

CONTEXTS = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
REAL = torch.randn(100, 2, generator=generator(0), dtype=torch.float64)


def draw(arm, context, t):
    """Arm "a" is varied at −1, "b" at 1, "c" nowhere."""
    rng = np.random.default_rng([t, "abc".index(arm)])
    varied = {"a": context < 0, "b": context > 0, "c": False}[arm]
    return torch.as_tensor(rng.normal(0, 1 if varied else 0.05, 2))


def played(selector, rounds, close=None):
    asked = []
    for t in range(rounds):
        if close is not None and t == close[0]:
            selector.close(close[1])
        context = CONTEXTS[t % 2]
        arm = selector.ask(context)
        asked.append(arm)
        selector.tell(context, arm, draw(arm, float(context), t))
    return asked


def test_rke_asks_for_the_most_diverse_mixture_at_each_context():
    selector = ContextualSelector(["a", "b", "c"], RKE(0.5) * 1.0, reach=0.5)
    asked = played(selector, 150)
    left, right = (selector.weights(context) for context in CONTEXTS)
    assert left.by_name["a"] > 0.8 and right.by_name["b"] > 0.8 and left.names == ("a", "b", "c")
    assert left.value > 3 and 0 <= left.gap < 1e-12  # modes
    assert asked.count("c") < 30 and selector.pulls == 150


def test_a_bandwidth_left_open_is_chosen_from_the_first_samples_and_a_scale_changes_no_choice():
    selector = ContextualSelector(["a", "b", "c"], RKE() * 1.0, reach=0.5)
    asked = played(selector, 3 * FIRST)
    assert sorted(asked) == sorted(["a", "b", "c"] * FIRST) and selector.objective.terms[0][1].bandwidth > 0
    chosen = []
    for scale in (1.0, 3.0):
        selector = ContextualSelector(["a", "b", "c"], scale * RKE(0.5), reach=0.5)
        chosen.append((played(selector, 60), selector.weights(CONTEXTS[0]).value))
    assert chosen[0] == chosen[1]  # the own unit of a single term knows no scale


def test_rewards_join_in_units_of_the_kernel():
    """Costs make the varied arm too dear."""
    terms = RKE(0.5) + 1.0 * Cost((5.0, 0.0, 0.0))
    selector = ContextualSelector(["a", "b", "c"], terms, reach=0.5)
    played(selector, 90)
    assert selector.weights(CONTEXTS[0]).by_name["a"] == 0 < selector.weights(CONTEXTS[1]).by_name["b"]


def test_without_rke_it_is_the_best_arm_at_each_context():
    def near(arm, context, t):
        good = {"a": context < 0, "b": context > 0}[arm]
        return torch.as_tensor(np.random.default_rng([t, "ab".index(arm)]).normal(0 if good else 9, 1, 2))

    selector = ContextualSelector(["a", "b"], 2.0 * Precision(REAL), reach=0.5)
    for t in range(60):
        arm = selector.ask(CONTEXTS[t % 2])
        selector.tell(CONTEXTS[t % 2], arm, near(arm, float(CONTEXTS[t % 2]), t))
    left, right = (selector.weights(context) for context in CONTEXTS)
    assert left.weights == (1, 0) and right.weights == (0, 1) and math.isnan(left.gap)
    assert 0.7 < left.value < 1.05  # the share of precise samples, which the ridge draws towards 0 a little


@pytest.mark.parametrize("at", [0, 1, 20])
def test_a_closed_arm_is_asked_no_more_and_what_it_gave_counts_on(at):
    selector = ContextualSelector(["a", "b", "c"], RKE(0.5) * 1.0, reach=0.5)
    asked = played(selector, 90, close=(at, "a"))
    given = asked[:at].count("a")
    assert "a" not in asked[at:] and asked.count("a") == given
    weight = selector.weights(CONTEXTS[0]).by_name["a"]
    assert weight > 0.5 if given >= 2 else weight == 0


def test_a_closed_arm_without_samples_gets_no_weight_from_rewards_either():
    selector = ContextualSelector(["a", "b"], Precision(REAL) * 1.0, reach=0.5)
    selector.close("a")
    for t in range(4):
        assert selector.ask(CONTEXTS[t % 2]) == "b"
        selector.tell(CONTEXTS[t % 2], "b", torch.full((2,), 50.0))
    assert selector.weights(CONTEXTS[0]).weights == (0, 1)


def test_policies_ask_only_among_the_arms_they_are_given():
    ridge = KernelRidgeUcb(3, RKE(1.0).kernel)
    assert ridge.ask([0.0], among=torch.tensor([False, False, True])) == 2
    ridge.tell([0.0], 2, 1.0)
    assert ridge.ask([0.0], among=torch.tensor([False, False, True])) == 2 and ridge.ask([0.0]) == 0
    mixture = ContextualMixture(3, RKE(1.0).kernel, RKE(1.0).kernel)
    assert mixture.ask([0.0], among=torch.tensor([False, True, True])) == 1


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: ContextualSelector(["a"], MMD(REAL) * 1.0, reach=1.0), "mmd compares with real rows, and each context has its"),
        (lambda: ContextualSelector(["a"], RKE(1.0) + KID(REAL), reach=1.0), "kid compares with real rows"),
        (lambda: ContextualSelector(["a"], RKE(1.0) + RKE(2.0), reach=1.0), "rke is given twice"),
        (lambda: ContextualSelector(["a"], LogLikelihood(REAL) * 1.0, reach=1.0), "loglik has no bound"),
        (lambda: ContextualSelector(["a"], Vendi(1.0) * 1.0, reach=1.0), "vendi is not quadratic"),
        (lambda: ContextualSelector(["a"], RKE() * 1.0, reach=1.0).weights(CONTEXTS[0]), "0 samples are too few for weights"),
        (lambda: ContextualSelector(["a"], Precision(REAL) * 1.0, reach=1.0).weights(CONTEXTS[0]), "no sample was told"),
    ],
)
def test_what_does_not_fit_is_one_sentence(ask, says):
    with pytest.raises(InputError, match=re.escape(says)):
        ask()


def test_no_arm_is_left():
    selector = ContextualSelector(["a"], RKE(1.0) * 1.0, reach=1.0)
    selector.close("a")
    with pytest.raises(InputError, match="no arm is left"):
        selector.ask(CONTEXTS[0])
