"""Memorisation: brute force, the floor at ½ with an error bar that holds, copies. Precision to coverage: their definition."""

import numpy as np
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.ground.rng import generator
from mixtura.metrics import TABLE, memorisation
from mixtura.metrics.neighbours import manifold, shared_rows


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


# ------------------------------------------------------------------------------------ how two sets cover one another


def by_definition(x, y, k):
    """Precision, recall, density, coverage with closed balls, from all float64 distances."""
    squares = lambda a, b: np.square(a[:, None].astype(float) - b[None]).sum(2)  # noqa: E731
    radius = lambda a: np.sort(squares(a, a) + np.diag([np.inf] * len(a)), 1)[:, k - 1]  # noqa: E731
    between = squares(x, y)
    real, generated = between <= radius(x)[:, None], between <= radius(y)[None]
    return real.any(0).mean(), generated.any(1).mean(), real.sum() / k / len(y), real.any(1).mean()


def values(found):
    return tuple(estimate.value for estimate in found)


@pytest.mark.parametrize("law", ["normal", "whole numbers", "far from zero", "copies", "one point"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n, m, k, tile", [(120, 90, 5, 1024), (90, 120, 3, 32), (60, 60, 1, 7), (8, 50, 6, 16)])
def test_manifold_is_its_definition(law, dtype, n, m, k, tile, monkeypatch):
    """Ties at the radius included: whole numbers make them everywhere, copies at every neighbour."""
    monkeypatch.setattr("mixtura.metrics.neighbours.TILE", tile)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) * 1.2 + 0.3
    x, y = {
        "normal": (x, y),
        "whole numbers": (x.round(), y.round()),
        "far from zero": (100 + x, 100 + y),
        "copies": (x, x[rng.integers(n, size=m)]),
        "one point": (np.ones_like(x), np.ones_like(y)),
    }[law]
    x, y = x.astype(dtype), y.astype(dtype)
    assert values(manifold(x, y, k=k)) == pytest.approx(by_definition(x, y, k), abs=1e-12)


@pytest.mark.parametrize("x", [np.ones((20, 4)), np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)])
def test_a_set_and_itself_cover_one_another(x):
    """Open balls give the repeated row 0, 0, 0, 0 (prdc); float32 distances from a row to itself that are not 0 lose some."""
    found = manifold(x, x[::-1].copy())
    assert (found.precision.value, found.recall.value, found.coverage.value) == (1, 1, 1)


def test_precision_is_not_recall():
    """One mode of two: every sample is good, half the real rows are missed. One package had the two swapped."""
    rng = np.random.default_rng(0)
    real, one = np.concatenate([rng.normal(size=(200, 2)), 50 + rng.normal(size=(200, 2))]), rng.normal(size=(300, 2))
    found = manifold(real, one)
    assert found.precision.value > 0.95 and abs(found.recall.value - 0.5) < 0.05 and found.coverage.value < 0.55
    assert found.density.value == pytest.approx(1, abs=0.2)
    assert [TABLE[name].function(real, one, rng=generator(0)) for name in found._fields] == list(found)


def test_quality_falls_with_a_shift():
    x, y = np.random.default_rng(0).normal(size=(2, 400, 4))
    series = np.array([values(manifold(x, y + shift)) for shift in (0, 0.5, 1, 2, 9)])
    assert (np.diff(series, axis=0) < 0).all() and (series[-1] == 0).all()


@pytest.mark.parametrize("d, n, m, shift, scale", [(10, 300, 300, 0, 1), (10, 300, 150, 0.3, 0.8), (64, 150, 300, 0.1, 0.95)])
def test_errors_are_the_spread_over_fresh_draws(d, n, m, shift, scale):
    """Within a third here; in the plane, and where shares are near 0 or 1, they are up to 1.6 times too wide."""
    found = []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        found.append(manifold(rng.normal(size=(n, d)), scale * rng.normal(size=(m, d)) + shift))
    for each in zip(*found, strict=True):
        measured = [e.value for e in each]
        if 0.05 < np.mean(measured) < 0.95 or np.mean(measured) > 1:
            assert 0.7 < np.mean([e.error for e in each]) / np.std(measured) < 1.5


@pytest.mark.parametrize(
    "x, y, k, says",
    [
        (np.zeros((2, 3)), np.zeros((9, 3)), 1, "real: expected 3 rows or more, got 2"),
        (np.zeros((9, 3)), np.zeros((5, 3)), 4, "k: expected a whole number from 1 to 3"),
        (np.zeros((9, 3)), np.zeros((9, 3)), 0, "k: expected a whole number"),
        (np.zeros((9, 3)), np.zeros((9, 4)), 5, "generated: expected 3 features"),
    ],
)
def test_refusals_of_manifold(x, y, k, says):
    with pytest.raises(InputError, match=says):
        manifold(x, y, k=k)


# --------------------------------------------------------------------------------------------------- rows in both sets


@pytest.mark.parametrize(
    ("levels", "columns", "n", "m"), [(2, 6, 300, 300), (2, 12, 500, 200), (10, 3, 60, 600), (1000, 1, 100, 900)]
)
def test_rows_that_repeat_by_chance_are_expected(levels, columns, n, m):
    """The standardised excess over fresh draws of one law has mean 0 and deviation 1 or so, and is never too many."""
    rng, excess = np.random.default_rng(0), []
    chances = rng.dirichlet(np.full(levels, 0.5))
    for _ in range(100):
        x, y = (rng.choice(levels, (rows, columns), p=chances) for rows in (n, m))
        found = shared_rows(x, y)
        excess.append((found.count - found.expected) / found.spread)
        assert not found.too_many
    assert found.count == sum(row.tolist() in x.tolist() for row in y)
    assert abs(np.mean(excess)) < 0.5 and 0.3 < np.std(excess) < 1.5


def test_rows_that_were_copied_are_too_many():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 200, 3))
    x[:, 0] = y[:, 0] = np.nan
    assert shared_rows(x, y).count == 0 and not shared_rows(x, y).too_many
    y[:9] = x[10:19]
    found = shared_rows(x, y)
    assert (found.count, found.expected, found.too_many, found.same) == (9, 0.0, True, False)
    binary = rng.integers(0, 2, (200, 3))  # every row is there many times: the file given twice is known by its order
    assert not shared_rows(binary, binary[::-1]).too_many and shared_rows(binary, binary).same
    assert not shared_rows(np.ones((50, 2)), np.ones((50, 2))).too_many
    assert shared_rows([[0.0, np.nan]], [[-0.0, -np.nan]]).count == 1
