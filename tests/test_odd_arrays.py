"""Arrays and tensors of every dtype, given to `mix`, `evaluate` and `select`: they work, or one sentence names them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import mixtura
from mixtura.contracts import InputError

ROWS = 60
NUMBERS = np.random.default_rng(0).integers(-300, 300, (ROWS, 2)) / 128.0  # float16 holds them exactly
OTHERS = NUMBERS[::-1] + 1
IMAGES = np.random.default_rng(1).integers(0, 256, (ROWS, 6, 6)).astype(np.uint8)

#: the same numbers as float64, in other types
SAME = {
    "foreign float64": NUMBERS.astype(">f8"),
    "foreign float16": NUMBERS.astype(">f2"),
    "float16": NUMBERS.astype(np.float16),
    "long double": NUMBERS.astype(np.longdouble),
    "half tensor": torch.tensor(NUMBERS).half(),
    "tensor with a gradient": torch.tensor(NUMBERS, requires_grad=True),
}

#: what cannot be used → what the sentence says of it, in mix and evaluate, and in select
UNUSABLE = {
    "complex": (NUMBERS + 1j, "array of complex128", "complex128 of shape (60, 2)"),
    "complex tensor": (torch.tensor(NUMBERS + 1j), "array of complex128", "complex128 of shape (60, 2)"),
    "conjugate tensor": (torch.tensor(NUMBERS + 1j).conj(), "array of complex128", "complex128 of shape (60, 2)"),
    "objects": (np.array([[{}, 2]] * ROWS, dtype=object), "array of object", "object of shape (60, 2)"),
    "bytes": (np.array([[b"a", b"b"]] * ROWS), "array of |S1", "|S1 of shape (60, 2)"),
    "durations": (NUMBERS.astype("m8[s]"), "array of timedelta64[s]", "timedelta64[s] of shape (60, 2)"),
    "complex images": (IMAGES + 1j, "images of dtype complex128", "complex128 of shape (60, 6, 6)"),
    "images of words": (IMAGES.astype(str), "images of dtype <U3", "<U3 of shape (60, 6, 6)"),
    "no rows": (NUMBERS[:0], "it has no rows of data", "float64 of shape (0, 2)"),
    "no columns": (NUMBERS[:, :0], "it has no rows of data", "float64 of shape (60, 0)"),
    "no images": (IMAGES[:0], "holds no pixels", "uint8 of shape (0, 6, 6)"),
    "images without pixels": (IMAGES[:, :0], "holds no pixels", "uint8 of shape (60, 0, 6)"),
    "sparse": (torch.tensor(NUMBERS).to_sparse(), "a sparse layout; convert it", "a sparse layout; convert it"),
    "without values": (torch.empty(ROWS, 2, device="meta"), "no values; convert it", "no values; convert it"),
}


def refused(name, call):
    """The sentence, which begins with the name of what was given."""
    with pytest.raises(InputError) as caught:
        call()
    said = str(caught.value)
    assert said.startswith(f"{name}: ") and "\n" not in said and "; " in said, said
    return said


def mixed(first):
    return mixtura.mix({"a": first, "b": OTHERS}, "mmd", reference=NUMBERS, bandwidth=1.0)


def selected(first):
    return mixtura.select({"a": first, "b": OTHERS}, bandwidth=1.0, pulls=30)


@pytest.mark.parametrize("kind", SAME)
def test_the_same_numbers_in_another_type_give_the_same_result(kind):
    assert mixed(SAME[kind]).weights == pytest.approx(mixed(NUMBERS).weights, abs=1e-6)
    assert selected(SAME[kind]).weights == selected(NUMBERS).weights
    value = mixtura.evaluate(NUMBERS, OTHERS, features=None).set_index("metric").value
    assert mixtura.evaluate(SAME[kind], OTHERS).set_index("metric").value.to_dict() == pytest.approx(value.to_dict(), rel=1e-5)


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_holds_no_numbers_is_named(kind):
    given, said, said_in_select = UNUSABLE[kind]
    assert said in refused("a", lambda: mixed(given))
    assert said in refused("reference", lambda: mixtura.mix([NUMBERS, OTHERS], "mmd", reference=given))
    assert said in refused("real", lambda: mixtura.evaluate(given, OTHERS))
    assert said in refused("generated", lambda: mixtura.evaluate(NUMBERS, given))
    assert said in refused("train", lambda: mixtura.evaluate(NUMBERS, OTHERS, train=given))
    assert said_in_select in refused("a", lambda: selected(given))
    assert said in refused("reference", lambda: mixtura.select({"a": NUMBERS, "b": OTHERS}, "mmd", reference=given))


def test_words_are_a_table_of_levels_for_mix_and_no_samples_for_select():
    rng = np.random.default_rng(0)
    red, blue, even = (rng.choice(["red", "blue"], (ROWS, 1), p=[p, 1 - p]) for p in (0.9, 0.1, 0.5))
    assert mixtura.mix([red, blue], "mmd", reference=even).weights == pytest.approx((0.5, 0.5), abs=0.15)
    assert "<U4 of shape (60, 1)" in refused("a", lambda: selected(red))
    assert mixed(NUMBERS.astype(str)).weights == pytest.approx(mixed(NUMBERS).weights, abs=1e-6)  # numbers written as text


def test_what_a_mask_hides_is_missing():
    with pytest.raises(InputError, match="^a: row 3, column 1 is nan, which is not finite"):
        mixed(np.ma.masked_array(NUMBERS, np.arange(2 * ROWS).reshape(ROWS, 2) == 7))


def test_empty_images_beside_real_ones_are_named():
    for name, given in (("generated", IMAGES[:0]), ("generated", torch.tensor(IMAGES[:0]))):
        assert "no " in refused(name, lambda given=given: mixtura.evaluate(IMAGES, given))


@pytest.mark.parametrize("odd", [NUMBERS[:, :1], IMAGES, np.where(NUMBERS > 2, np.nan, NUMBERS)])
def test_an_arm_whose_samples_cannot_be_compared_is_closed_and_the_other_is_used(odd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mixtura.select({"a": OTHERS, "odd": odd}, pulls=30, seed=1)
    assert found.pulls == 30 and ("odd" in found.closed) == (odd.shape != NUMBERS.shape)
