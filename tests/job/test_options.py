"""What `mixtura.run` accepts as an option, and the sentence for what it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixtura
from mixtura.contracts import InputError
from mixtura.job.options import TABLE, Options, check_replay


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("steps", "many", "a whole number, 1 or more"),
        ("steps", "5", "a whole number, 1 or more"),
        ("steps", 2.5, "a whole number, 1 or more"),
        ("steps", np.int64(0), "a whole number, 1 or more"),
        ("steps", True, "a whole number, 1 or more"),
        ("seed", -1, "a whole number, 0 or more"),
        ("seed", None, "a whole number, 0 or more"),
        ("size", 0, "a whole number, 1 to 4,096"),
        ("workers", "two", "a whole number, 1 or more"),
        ("budget", [60], "a time such as 60s, 5m or 1h, or a number of seconds"),
        ("families", 5, "a name or a list of names"),
        ("families", {"kde": 1}, "a name or a list of names"),
        ("target", 3, "a name or a list of names"),
        ("columns", [0, 1], "a name or a list of names"),
        ("group", ["a"], "the name of one column"),
        ("time", 3, "the name of one column"),
        ("out", 5, "a path"),
        ("fresh", "yes", "True or False"),
        ("skip_broken", 1, "True or False"),
        ("models", [1], "{name: a callable that makes a Model for a Space}"),
        ("models", {3: len}, "{name: a callable that makes a Model for a Space}"),
        ("models", {"a": 3}, "{name: a callable that makes a Model for a Space}"),
        ("samples", ["a=f"], "{name: a file or a frame}"),
        ("samples", "f.csv", "{name: a file or a frame}"),
        ("bounds", 5, "{column: (low, high)}, with None for no end"),
        ("bounds", {"x": 5}, "{column: (low, high)}, with None for no end"),
        ("bounds", {"x": ("a", "b")}, "{column: (low, high)}, with None for no end"),
        ("kinds", "x", "{column: kind}"),
        ("kinds", {"x": 3}, "{column: kind}"),
        ("features", 3, "pixels, pca:64, conv:256, or the path of an .onnx network"),
        ("objective", 3, "nats or mmd"),
        ("device", 0, "auto, cpu or cuda"),
        ("ray", True, "auto, or the address of a Ray cluster"),
        ("executor", "threads", "a concurrent.futures.Executor"),
        ("stops", 3, "the recorded steps of each fit"),
    ],
)
def test_a_value_of_another_type_is_one_sentence(name, value, expected):
    with pytest.raises(InputError) as caught:
        mixtura.run("penguins", **{name: value})
    said = str(caught.value)
    assert said.startswith(f"{name}: expected {expected}") and said.endswith(f", got {value!r}") and "\n" not in said


@pytest.mark.parametrize("name", TABLE)
def test_no_option_takes_an_object_of_any_kind(name):
    with pytest.raises(InputError, match=f"^{name}: expected "):
        Options(**{name: object()})


def test_a_long_value_is_cut_in_the_sentence():
    with pytest.raises(InputError) as caught:
        Options(models=pd.DataFrame({"x": range(1000)}))
    assert len(str(caught.value)) < 180 and "\n" not in str(caught.value)


def test_values_of_numpy_are_values_of_python():
    given = {"steps": np.int64(2), "seed": np.int32(1), "workers": np.int8(1), "size": np.uint16(8), "fresh": np.bool_(True)}
    options = Options(**given, bounds={"x": np.array([0.0, 1.0])}, columns=pd.Index(["x", "y"]))
    assert [type(getattr(options, name)) for name in given] == [int, int, int, int, bool]
    assert options.bounds == {"x": [0.0, 1.0]} and options.columns == ["x", "y"]


def test_a_single_text_is_one_name():
    options = Options(families="kde", columns="size", target="size")
    assert (options.families, options.columns, options.targets) == (["kde"], ["size"], ("size",))


def test_none_is_an_empty_mapping_and_a_path_names_a_network():
    options = Options(models=None, samples=None, bounds=None, kinds=None, features=Path("net.onnx"))
    assert (options.models, options.samples, options.bounds, options.kinds, options.features) == ({}, {}, {}, {}, "net.onnx")


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(InputError, match="^stepz: a run has no such option; use steps$"):
        mixtura.run("penguins", stepz=3)


def test_a_replay_checks_what_it_is_given():
    with pytest.raises(InputError, match="^models: expected "):
        check_replay({"models": [1]})


def test_the_table_of_options_is_read_without_heavy_packages():
    heavy = "{'torch', 'pandas', 'numpy', 'pydantic'}"
    code = f"import sys, mixtura.job.options; sys.exit(str({heavy} & {{*sys.modules}}) if {heavy} & {{*sys.modules}} else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
