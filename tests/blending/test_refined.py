"""Samples refined by a learned ratio against laws whose ratio is known."""

import math

import pytest
import torch

from mixtura.blending.refined import MOST_DRAWN, Refined
from mixtura.contracts import Column, InputError, Model, Space
from mixtura.ground.rng import generator
from mixtura.ground.trees import Forest


class Normal(Model):
    """N(100, 9) in two columns, the first of which is missing in a part of the rows."""

    def __init__(self, missing=0.0):
        super().__init__(Space.table((Column(missing=True), Column())))
        self.missing = missing

    def stages(self):
        return ()

    def _sample(self, n, context, rng):
        x = 100 + 3 * torch.randn(n, 2, generator=rng, dtype=torch.float64)
        return x.masked_fill(torch.stack([torch.rand(n, generator=rng) < self.missing, torch.zeros(n) > 1], 1), math.nan)


def halves(x):
    return x[: len(x) // 2], x[len(x) // 2 :]


def test_a_moved_gaussian_is_moved_back():
    """Real rows are N(101.5, 9) in the first column: log r = (x − 100) / 6 − 1 / 8."""
    base, rng = Normal(), generator(0)
    real = base.sample(12_000, rng=rng) + torch.tensor([1.5, 0.0])
    refined = Refined.learn(base, halves(real), halves(base.sample(12_000, rng=rng)))
    x = torch.tensor([[96.0, 100.0], [100.0, 98.0], [104.0, 101.0]], dtype=torch.float64)
    assert (refined.f(x) - ((x[:, 0] - 100) / 6 - 0.125)).abs().max() < 0.25
    made = refined.sample(6_000, rng=rng)
    assert abs(float(made[:, 0].mean()) - 101.5) < 0.3 and abs(float(made[:, 1].mean()) - 100) < 0.15
    assert abs(float(made[:, 0].std()) - 3) < 0.15 and len(made.unique(dim=0)) == 6_000


def test_the_share_of_missing_entries_is_mended_too():
    base, rng = Normal(0.4), generator(1)
    real, made = Normal(0.1).sample(8_000, rng=rng), base.sample(8_000, rng=rng)
    refined = Refined.learn(base, halves(real), halves(made))
    assert abs(float(refined.sample(4_000, rng=rng)[:, 0].isnan().double().mean()) - 0.1) < 0.03


@pytest.mark.parametrize("seed", range(5))
def test_a_model_that_is_right_has_nothing_to_be_refined(seed):
    base, rng = Normal(), generator(2, seed)
    assert Refined.learn(base, halves(base.sample(4_000, rng=rng)), halves(base.sample(4_000, rng=rng))) is None


def test_of_a_steep_ratio_a_tenth_of_the_rows_is_kept_at_least():
    base, rng = Normal(), generator(3)
    real = base.sample(8_000, rng=rng) * 0.2 + 80
    refined = Refined.learn(base, halves(real), halves(base.sample(8_000, rng=rng)))
    tilted = refined.tilted(1_000, rng=rng)
    assert tilted.drawn < 1.5 * MOST_DRAWN * 1_000 and tilted.x[:, 0].std() < 1.5


def test_columns_without_a_value_and_fewer_rows_of_one_kind_are_no_matter():
    base, rng = Normal(1.0), generator(4)
    real = base.sample(3_000, rng=rng) + torch.tensor([0.0, 2.0])
    refined = Refined.learn(base, halves(real), halves(base.sample(2_000, rng=rng)))
    assert abs(float(refined.sample(2_000, rng=rng)[:, 1].mean()) - 102) < 0.4


def test_what_is_kept_gives_it_back():
    base, rng = Normal(), generator(5)
    real = base.sample(4_000, rng=rng) + torch.tensor([1.5, 0.0])
    refined = Refined.learn(base, halves(real), halves(base.sample(4_000, rng=rng)))
    again = Refined.restore(base, refined.tensors())
    assert torch.equal(again.sample(50, rng=generator(6)), refined.sample(50, rng=generator(6))) and again.trees == refined.trees


def test_numbers_that_are_not_finite_are_refused():
    for most, value in ((math.nan, 0.0), (0.0, math.nan)):
        with pytest.raises(InputError, match="numbers that are not finite"):
            Refined(Normal(), Forest.blank(2).holding(torch.full((1,), value, dtype=torch.float64)), most)


def test_nothing_is_told_apart_where_nothing_has_a_value():
    nothing = torch.full((40, 2), math.nan, dtype=torch.float64)
    assert Refined.learn(Normal(), (nothing, nothing), (nothing, nothing)) is None


def test_trees_of_other_columns_are_refused():
    with pytest.raises(InputError, match="expected trees over 2 columns, got 3"):
        Refined(Normal(), Forest.blank(3), 0.0)
