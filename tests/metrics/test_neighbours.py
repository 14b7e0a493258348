"""Memorisation: brute force, the floor at ½ with an error bar that holds, and copies."""

import numpy as np
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.metrics import memorisation
from mixtura.rng import generator


def brute_force(samples, train, held_out):
    """Share by direct distances, sets of equal size."""
    nearest = lambda reference: np.square(samples[:, None] - reference[None]).sum(2).min(1)  # noqa: E731
    seen, unseen = nearest(train), nearest(held_out)
    return np.mean((seen < unseen) + 0.5 * (seen == unseen))


@pytest.mark.parametrize("law", ["normal", "whole numbers", "far from zero"])
@pytest.mark.parametrize("tile", [1, 97, 2**22])
def test_agrees_with_brute_force(law, tile, monkeypatch):
    monkeypatch.setattr("mixtura.metrics.neighbours.TILE_ENTRIES", tile)
    rng = np.random.default_rng(0)
    x, train, held_out = (
        {"normal": z, "whole numbers": np.round(z), "far from zero": 1e6 + z}[law]
        for z in (rng.normal(size=(n, 2)) for n in (83, 31, 31))
    )
    assert memorisation(x, train, held_out, rng=generator(0)).value == brute_force(x, train, held_out)


def law(name, rng, n):
    if name == "heavy tails":
        return rng.standard_t(1.5, size=(n, 2))
    return rng.normal(size=(n, 10 if name == "ten dimensions" else 2))


@pytest.mark.parametrize(
    "name, sizes",
    [("plane", (300, 300, 300)), ("plane", (3000, 120, 60)), ("heavy tails", (200, 40, 300)), ("ten dimensions", (400, 400, 99))],
)
def test_equal_laws_give_one_half_within_the_error(name, sizes):
    scores = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = memorisation(*(law(name, rng, n) for n in sizes), rng=generator(seed))
        scores.append((found.value - 0.5) / found.error)
    assert np.mean(np.abs(scores) <= 3) >= 0.95
    assert abs(np.mean(scores)) < 0.6
    assert 0.7 < np.std(scores) < 1.4


def test_copies_give_one_and_copies_of_unseen_rows_zero():
    rng = np.random.default_rng(0)
    train, held_out = rng.normal(size=(2, 100, 3)) + 1000
    copied = memorisation(train[:50], train, held_out, rng=generator(0))
    assert copied.value == 1 and copied.n == 50 and 0 < copied.error < 0.1
    assert memorisation(held_out[:50] + 1e-9, train, held_out, rng=generator(0)).value == 0


def test_half_copies_give_three_quarters():
    rng = np.random.default_rng(0)
    train, held_out, fresh = rng.normal(size=(3, 2000, 4))
    found = memorisation(np.concatenate([train[:1000], fresh[:1000]]), train, held_out, rng=generator(0))
    assert abs(found.value - 0.75) < 3 * found.error < 0.1


def test_ties_count_one_half():
    same = np.arange(6.0).reshape(3, 2)
    assert memorisation(same + 0.25, same, same[::-1], rng=generator(0)).value == 0.5


def test_a_larger_training_set_is_no_advantage():
    """Without equal sizes nine samples of ten would be nearer to train."""
    rng = np.random.default_rng(0)
    found = memorisation(rng.normal(size=(2000, 2)), rng.normal(size=(900, 2)), rng.normal(size=(100, 2)), rng=generator(0))
    assert abs(found.value - 0.5) < 3 * found.error


def test_same_seed_same_bits_and_the_global_generator_is_left_alone():
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(50, 2)), rng.normal(size=(200, 2)), rng.normal(size=(40, 2))
    before = torch.get_rng_state()
    first, again, other = (memorisation(*arrays, rng=generator(seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "arrays, says",
    [
        ((np.zeros(3), np.zeros((2, 3)), np.zeros((2, 3))), "samples: expected shape"),
        ((np.zeros((2, 3)), np.zeros((0, 3)), np.zeros((2, 3))), "train: expected shape"),
        ((np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 4))), "held_out: expected 3 features"),
        ((np.array([[0.0, np.nan]]), np.zeros((2, 2)), np.zeros((2, 2))), "samples: row 0, column 1 is nan"),
    ],
)
def test_refusals(arrays, says):
    with pytest.raises(InputError, match=says):
        memorisation(*arrays, rng=generator(0))
