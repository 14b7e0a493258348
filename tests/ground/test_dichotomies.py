"""The tree over options reaches each of them; bins hold about equal counts; their laws integrate to one and are drawn from."""

import pytest
import torch

from mixtura.ground.dichotomies import decays, divide, inner_ends, log_smooth, smooth_quantile


def test_the_tree_over_options_reaches_each_of_them_once():
    for counts, apart in (([5, 1, 0, 9], 4), ([3, 10, 10, 10, 10, 0, 7], 1), ([4], 0), ([0, 0, 0], 0), ([1, 2, 3, 4], 2)):
        tree = divide(counts, apart)
        assert sorted(tree.place.tolist()) == list(range(len(counts))) and len(tree.split) == len(counts) - 1
        for option in range(len(counts)):
            node, steps = 0 if len(counts) > 1 else -1 - option, 0
            while node >= 0:
                node, steps = int(tree.child[node, int(tree.place[option] >= tree.split[node])]), steps + 1
            assert node == -1 - option and steps < len(counts)
        if 0 < apart < len(counts):
            assert int(tree.split[0]) == apart


def test_bins_have_about_equal_counts_and_a_frequent_value_has_its_own():
    x = torch.cat([torch.arange(1_000.0), torch.full((60,), 500.0)]).double()
    values, counts = x.unique(return_counts=True)
    ends = inner_ends(values, counts, 16, True)
    assert {500.0, 501.0} <= set(ends.tolist()) and bool((ends.diff() > 0).all())
    held = torch.bincount(torch.searchsorted(ends, values, right=True), weights=counts.double())
    assert len(held) <= 20 and float(held.max()) < 2 * 1_060 / 16


def test_a_single_value_has_two_bins_and_nothing_has_as_well():
    for values, counts in ((torch.tensor([7.0]).double(), torch.tensor([9])), (torch.zeros(0).double(), torch.zeros(0).long())):
        ends = inner_ends(values, counts, 16, True)
        assert len(ends) == 1 and bool((decays(values, counts.double(), ends) > 0).all())


def test_the_laws_of_bins_are_those_of_their_quantiles():
    cut, decay = torch.tensor([-1.0, 0.5, 2.0]).double(), torch.tensor([0.4, 3.0]).double()
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    shut = torch.zeros(1, dtype=torch.bool)
    for b in range(4):
        y = smooth_quantile(u, torch.full((99,), b), cut, decay)
        assert bool((y.diff() > 0).all()) and torch.equal(torch.searchsorted(cut, y, right=True), torch.full((99,), b))
        # the mass between two quantiles, and the density as the mass of a narrow cell
        mass = log_smooth(y[:-1], y.diff(), shut, shut, torch.full((98,), b), cut, decay).exp()
        assert mass.tolist() == pytest.approx([0.01] * 98)
        dense = log_smooth(y, torch.zeros(99).double(), shut, shut, torch.full((99,), b), cut, decay)
        narrow = log_smooth(y, torch.full((99,), 1e-7).double(), shut, shut, torch.full((99,), b), cut, decay)
        torch.testing.assert_close(dense.exp(), narrow.exp() / 1e-7, rtol=1e-4, atol=0)
    # an open cell holds all beyond it
    low, wide = torch.tensor([5.0, -3.0]).double(), torch.ones(2).double()
    ends = torch.tensor([True, False]), torch.tensor([False, True])
    tails = log_smooth(low, wide, ends[1], ends[0], torch.tensor([3, 0]), cut, decay)
    assert tails.tolist() == pytest.approx([-(5 - 2) / 3.0, -(-1 - -2) / 0.4])
