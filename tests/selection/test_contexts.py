"""A table of contexts: how they are compared, in which order they are asked, and what a resumed selection must agree on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import mixtura
from mixtura.arms import Function
from mixtura.contracts import InputError
from mixtura.selection.contexts import begin_in_contexts, read_contexts

pytestmark = pytest.mark.filterwarnings("ignore::mixtura.contracts.Note")

TABLE = pd.DataFrame({"prompt": [f"prompt {k}" for k in range(8)], "grams": np.linspace(0, 7000, 8)})


def begun(out, **options):
    arms = [Function(name, lambda seed, context: np.zeros(2), takes_context=True) for name in "ab"]
    contexts = read_contexts(TABLE, reach=options.pop("reach", 0.5))
    return begin_in_contexts(arms, out, "rke", contexts, bandwidth=1.0, **options)


def asked(out, requests, **options):
    session = begun(out, **options)
    try:
        return [session._context(number)["prompt"] for number in range(requests)]
    finally:
        session.close()


def test_the_units_of_a_column_do_not_count():
    grams = read_contexts(TABLE)
    kilograms = read_contexts(TABLE.assign(grams=TABLE["grams"] / 1000 + 3))
    torch.testing.assert_close(grams.vectors, kilograms.vectors)
    torch.testing.assert_close(grams.vectors.std(0, correction=0), torch.ones(1, dtype=torch.float64))
    assert abs(float(grams.vectors.mean())) < 1e-12


def test_the_reach_is_half_of_the_median_distance_unless_it_is_given():
    two = pd.DataFrame({"x": [10.0, 30.0]})  # at −1 and 1: 2 apart
    assert read_contexts(two).reach == pytest.approx(1.0)
    assert read_contexts(two, reach=0.3).reach == 0.3


def test_every_context_is_asked_in_turn_in_an_order_of_the_seed(tmp_path):
    orders = [asked(tmp_path / f"{k}", 16, seed=seed) for k, seed in enumerate((0, 0, 1, 2))]
    assert all(order[:8] == order[8:] and sorted(order[:8]) == sorted(TABLE["prompt"]) for order in orders)
    assert orders[0] == orders[1] and len({tuple(order) for order in orders}) == 3
    assert [*TABLE["prompt"]] not in [order[:8] for order in orders]


@pytest.mark.parametrize("column", ["value", "weight a"])
def test_a_column_of_the_table_of_weights_is_no_column_of_contexts(tmp_path, column):
    contexts = {"light": [0.0, 1.0], column: [1.0, 2.0]}
    arms = {"a": lambda seed, context: [0.0], "b": lambda seed, context: [1.0]}
    with pytest.raises(InputError, match=f"contexts: the column '{column}' has the name of a column of the table of weights;"):
        mixtura.select(arms, contexts=contexts, bandwidth=1.0, pulls=20, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    found = mixtura.select(arms, contexts={"light": [0.0, 1.0], "weight c": [1.0, 2.0]}, bandwidth=1.0, pulls=20)
    assert [*found.table()] == ["light", "weight c", "weight a", "weight b", "value"]


@pytest.mark.parametrize("size", [1e300, 5e18])
def test_features_that_are_too_large_close_their_arm_alone(tmp_path, size):
    rng = np.random.default_rng(0)
    arms = {name: lambda seed, context, m=m: m + context["x"] * rng.normal(size=2) for name, m in (("a", 0.0), ("b", 3.0))}
    arms["big"] = lambda seed, context: [size, 0.0]
    found = mixtura.select(arms, contexts={"x": [0.5, 1.0]}, bandwidth=1.0, pulls=24, out=tmp_path)
    assert "its features are not finite" in found.closed["big"] and found.pulls == 24
    assert all(np.isfinite([*w.weights, w.value]).all() and w.by_name["big"] == 0 for w in found.weights)
    assert mixtura.select(arms, contexts={"x": [0.5, 1.0]}, bandwidth=1.0, pulls=24, out=tmp_path).weights == found.weights


def test_it_ends_where_every_arm_has_failed(tmp_path):
    """After enough samples, or before: what was given counts."""

    def fails_from(call):
        def f(seed, context):
            if seed >= call:
                raise OSError("no power")
            return [seed * context["x"], 1.0]

        return f

    for call, told in ((8, 16), (3, 6)):
        arms = {"a": fails_from(call), "b": fails_from(call)}
        found = mixtura.select(arms, contexts={"x": [0.5, 1.0]}, pulls=40, out=tmp_path / str(call))
        assert found.pulls == told and found.why == "no arm is left to be asked" and len(found.closed) == 2
        again = mixtura.select(arms, contexts={"x": [0.5, 1.0]}, pulls=40, out=tmp_path / str(call))
        assert again.weights == found.weights


def test_a_selection_with_another_reach_is_another_selection(tmp_path):
    begun(tmp_path).close()
    begun(tmp_path).close()
    with pytest.raises(InputError, match="holds a selection with reach 0.5, not 0.7"):
        begun(tmp_path, reach=0.7)
