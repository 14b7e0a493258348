"""What `mixtura.select` accepts as arms, options and contexts, and the sentence for what it does not."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mixtura
from mixtura.arms import Pool
from mixtura.contracts import InputError, Note


def three(seed):
    return [float(seed % 3)]


def five(seed):
    return [float(seed % 5)]


def in_light(seed, context):
    return [seed % 3 * context["light"]]


def in_dark(seed, context):
    return [seed % 5 * (1 - context["light"])]


ARMS = {"three": three, "five": five}
IN_CONTEXTS = {"light": in_light, "dark": in_dark}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pull": 3}, "pull: a selection has no such option; use pulls"),
        ({"pulls": 2.5}, "pulls: expected a whole number, 1 or more, got 2.5"),
        ({"pulls": "x"}, "pulls: expected a whole number, 1 or more, got 'x'"),
        ({"pulls": 0}, "pulls: expected a whole number, 1 or more, got 0"),
        ({"objective": 3}, "objective: expected text such as mmd or rke+0.2*precision, got 3"),
        ({"bandwidth": "a"}, "bandwidth: expected a number from 1e-19 to 1e+150, got 'a'"),
        ({"bandwidth": -1}, "bandwidth: expected a number from 1e-19 to 1e+150, got -1; leave it out to choose it from samples"),
        ({"reach": "far"}, "reach: expected a number from 1e-19 to 1e+150, got 'far'"),
        ({"bandwidth": 1e-300}, "bandwidth: expected a number from 1e-19 to 1e+150, got 1e-300; leave it out to choose it from "
         "samples"),
        ({"stop": [1]}, "stop: expected a number above 0, got [1]"),
        ({"seed": -1}, "seed: expected a whole number, 0 or more, got -1"),
        ({"policy": 3}, "policy: expected the name of a policy, such as variance_ucb, got 3"),
        ({"features": 3}, "features: expected pixels, pca:64, conv:256, or the path of an .onnx network, got 3"),
        ({"out": 5}, "out: expected a path, got 5"),
        ({"certified": "x"}, "certified: expected True or False, got 'x'"),
        ({"fresh": 1}, "fresh: expected True or False, got 1"),
    ],
)
def test_an_option_that_does_not_fit_is_one_sentence(options, said):
    with pytest.raises(InputError) as caught:
        mixtura.select(ARMS, **options)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (None, "arms: expected a file, or {name: function or array of samples}, got None"),
        (three, "arms: expected a file, or {name: function or array of samples}, got <function three"),
        (np.zeros((3, 2)), "arms: expected a file, or {name: function or array of samples}, got array"),
        ([three, five], "stands in a list and has no name; give a mapping, {name: function or array of samples}"),
        ({"b": 3}, "b: expected an array of samples or a function of a seed, got 3"),
        ({"b": "b.csv"}, "b: expected an array of samples or a function of a seed, got 'b.csv'"),
        ({"b\n\ud800": np.ones(9)}, "arms: expected names of one or more printable characters, got 'b\\n\\ud800'; rename it"),
        ({"b": [[1], [1, 2]]}, "b: expected an array of samples or a function of a seed, got [[1], [1, 2]]"),
    ],
)
def test_what_is_no_arm_is_one_sentence(arms, said):
    with pytest.raises(InputError) as caught:
        mixtura.select(arms)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("contexts", "said"),
    [
        (5, "contexts: expected a file, a frame, an array or {column: a list of values}, got 5"),
        ({"light": 1}, "contexts: expected {column: a list of values}, all of one length, got {'light': 1}"),
        ({"light": [1, 2], "x": [1]}, "contexts: expected {column: a list of values}, all of one length, got "),
        ({}, "contexts: the table has no rows; give one row for each context"),
        (pd.DataFrame({"light": []}), "contexts: the table has no rows; give one row for each context"),
        (pd.DataFrame({"light": pd.array([True, None])}), "contexts: row 1, column 'light' is no finite number"),
    ],
)
def test_contexts_that_do_not_fit_are_one_sentence(contexts, said):
    with pytest.raises(InputError) as caught:
        mixtura.select(IN_CONTEXTS, contexts=contexts)
    assert str(caught.value).startswith(said)


def test_contexts_are_a_mapping_or_hold_truth_values_in_memory_and_in_a_file(tmp_path):
    frame = pd.DataFrame({"light": [True, False], "prompt": ["day", "night"]})
    frame.to_csv(tmp_path / "contexts.csv", index=False)
    numbers = {"light": [1, 0], "prompt": ["day", "night"]}
    found = [mixtura.select(IN_CONTEXTS, contexts=c, pulls=12) for c in (numbers, frame, tmp_path / "contexts.csv")]
    assert found[0].contexts == ({"light": 1, "prompt": "day"}, {"light": 0, "prompt": "night"})
    assert all(other.contexts == found[0].contexts and other.weights == found[0].weights for other in found[1:])


def test_numbers_of_numpy_and_any_list_of_arms_are_taken():
    arms = iter([Pool(name, np.random.default_rng(k).normal(size=(30, 1))) for k, name in enumerate("ab")])
    assert mixtura.select(arms, pulls=np.int64(12), bandwidth=np.float32(1.0), seed=np.int8(1)).pulls == 12


def raises(seed):
    raise OSError("no power")


def exits(seed):
    raise SystemExit(3)


def gives_nothing(seed):
    return None


def gives_nan(seed):
    return [np.nan]


@pytest.mark.parametrize(
    ("bad", "arms", "options", "reason"),
    [
        (raises, ARMS, {}, "raised OSError: no power"),
        (exits, ARMS, {}, "raised SystemExit: 3"),
        (gives_nothing, ARMS, {}, "gave values of type object, expected numbers"),
        (gives_nan, ARMS, {}, "gave nan at index [0], expected finite numbers"),
        (raises, IN_CONTEXTS, {"contexts": {"light": [1, 0]}}, "raised TypeError: raises() got an unexpected keyword argument "
         "'context'"),
    ],
)
def test_an_arm_that_always_fails_is_closed_and_noted_once(bad, arms, options, reason):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Note)
        found = mixtura.select({**arms, "bad": bad}, pulls=20, **options)
    notes = [str(w.message) for w in caught if w.category is Note]
    assert notes == [f"bad: failed 3 times in a row and was not asked again; the last time: {reason}"]
    assert found.closed == {"bad": f"bad: {reason}"} and found.pulls == 20


def test_an_exhausted_pool_is_no_failure():
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        found = mixtura.select({"small": rng.normal(size=(8, 1)), "three": three}, pulls=30)
    assert found.closed["small"].startswith("exhausted")


def test_arms_that_all_fail_are_named_with_their_reasons():
    with pytest.raises(InputError, match=r"^arms: no arm gave a sample .*\(a: raised OSError: no power; b: gave nan"):
        mixtura.select({"a": raises, "b": gives_nan})
