"""p-values, thresholds and false discoveries: exact counts, and rates over many draws."""

import numpy as np
import pytest

from mixtura.detectors.conformal import discoveries, least_level, needed, p_values, threshold


def test_p_values_count_ties_against_the_row():
    assert p_values(np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.0, 1.0, 2.0, 3.0, 5.0, 6.0])).tolist() == [
        1.0, 1.0, 0.8, 0.4, 0.4, 0.2,
    ]  # fmt: skip


@pytest.mark.parametrize("level", [0.01, 0.05, 0.1, 0.5, 1 / 3])
@pytest.mark.parametrize("m", [99, 100, 19, 3, 1000])
def test_the_threshold_says_what_the_p_values_say(level, m):
    rng = np.random.default_rng(0)
    calibration = rng.integers(0, 30, m).astype(float)  # with ties
    scores = np.concatenate([calibration, rng.uniform(-5, 40, 200)])
    if level < least_level(m) - 1e-12:
        with pytest.raises(ValueError, match="carry no rate"):
            threshold(calibration, level)
    else:
        assert ((scores > threshold(calibration, level)) == (p_values(calibration, scores) <= level + 1e-12)).all()


def test_how_many_rows_carry_a_level():
    assert [needed(level) for level in (0.01, 0.05, 0.5, 1 / 3)] == [99, 19, 1, 2]
    assert all(least_level(needed(level)) <= level + 1e-12 for level in (0.01, 0.03, 0.05, 0.2))


def test_normal_rows_have_uniform_p_values():
    rng, levels = np.random.default_rng(1), np.array([0.05, 0.2, 0.5])
    drawn = [p_values(rng.normal(size=39), rng.normal(size=40)) for _ in range(2_000)]
    found = np.mean([(p[:, None] <= levels).mean(0) for p in drawn], 0)
    assert np.abs(found - np.floor(levels * 40) / 40).max() < 0.008


def test_benjamini_and_hochberg():
    p = np.array([0.001, 0.9, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212])
    assert np.flatnonzero(discoveries(p, 0.05)).tolist() == [0, 2]
    assert discoveries(np.array([0.9, 0.5]), 0.1).sum() == 0 and discoveries(np.zeros(0), 0.1).shape == (0,)
    # a p-value that is too large by itself is called when those after it are small enough
    assert discoveries(np.array([0.04, 0.05]), 0.05).all()


def test_at_most_the_asked_share_of_discoveries_is_normal():
    rng, wrong = np.random.default_rng(2), []
    for _ in range(400):
        p = p_values(rng.normal(size=400), np.concatenate([rng.normal(size=80), rng.normal(4, 1, 20)]))
        called = discoveries(p, 0.1)
        wrong.append(called[:80].sum() / max(1, called.sum()))
    assert 0.05 < np.mean(wrong) < 0.1 + 2 * np.std(wrong) / 20
