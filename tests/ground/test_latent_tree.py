"""The tree has the most information of all trees, and messages equal the sum over all hidden codes."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy.sparse.csgraph import minimum_spanning_tree

from mixtura.contracts import Column, Space
from mixtura.ground import latent_tree
from mixtura.ground.encode import Columns
from mixtura.ground.latent_tree import (
    LatentTree,
    TreeCounts,
    chow_liu,
    discretise,
    draw_of_rows,
    mutual_information,
)
from mixtura.ground.rng import generator

torch.set_num_threads(1)


def normalised(shape, seed):
    return torch.log_softmax(torch.randn(shape, generator=generator(seed), dtype=torch.float64), -1)


#: five columns: 2 is the root, with the children 0 and 4; 0 has the children 1 and 3
ORDER, PARENT, K = [2, 0, 4, 1, 3], [2, 0, -1, 0, 2], 3


@pytest.fixture
def tree():
    return LatentTree(ORDER, PARENT, normalised((K,), 1), normalised((5, K, K), 2))


def log_joint(tree, leaves):
    """(n, K⁵) log p(z, x) of all z, and the z."""
    z = torch.tensor(list(itertools.product(range(K), repeat=5)))
    prior = tree.log_root[z[:, 2]]
    for j in ORDER[1:]:
        prior = prior + tree.log_edges[j, z[:, PARENT[j]], z[:, j]]
    return prior + sum(leaf[:, z[:, j]] for j, leaf in enumerate(leaves)), z


def leaves_of(n, seed):
    """Far apart, as densities of rows far away are: some states are e^-900 as likely as others."""
    return [300 * torch.randn(n, K, generator=generator(seed, j), dtype=torch.float64) for j in range(5)]


def test_messages_are_the_sum_over_all_hidden_codes(tree):
    leaves = leaves_of(40, 3)
    joint, z = log_joint(tree, leaves)
    up = tree.upward(leaves)
    torch.testing.assert_close(up.log_evidence, torch.logsumexp(joint, 1), rtol=1e-12, atol=1e-9)


def test_counts_are_the_posteriors_of_codes_and_pairs(tree):
    leaves = [leaf / 300 for leaf in leaves_of(40, 4)]
    joint, z = log_joint(tree, leaves)
    p = torch.softmax(joint, 1)
    counts = TreeCounts(torch.zeros(K).double(), torch.zeros(5, K, K).double())
    posterior = tree.upward(leaves).downward(counts)
    for j in range(5):
        expected = torch.stack([p[:, z[:, j] == k].sum(1) for k in range(K)], 1)
        torch.testing.assert_close(posterior[j], expected)
        if PARENT[j] >= 0:
            pairs = [[p[:, (z[:, PARENT[j]] == a) & (z[:, j] == b)].sum() for b in range(K)] for a in range(K)]
            torch.testing.assert_close(counts.edges[j], torch.tensor(pairs))
    torch.testing.assert_close(counts.root, posterior[2].sum(0))


def test_codes_are_drawn_from_their_law_with_and_without_rows(tree):
    leaves = [leaf[:1] / 300 for leaf in leaves_of(1, 5)]
    n = 40_000
    for leaf, drawn in (
        ([0 * leaf for leaf in leaves], tree.sample(n, generator(6))),
        (leaves, tree.upward(leaves).sample(n, generator(7)).flatten(0, 1)),
    ):
        joint, z = log_joint(tree, leaf)
        p = torch.softmax(joint[0], 0)
        count = torch.bincount((drawn * K ** torch.arange(4, -1, -1)).sum(1), minlength=K**5)
        often = p * n >= 5
        chi2 = ((count - n * p) ** 2 / (n * p))[often].sum()
        assert float(chi2) < float(often.sum()) + 5 * float(2 * often.sum()) ** 0.5


def test_draws_of_rows_follow_their_row_and_leave_out_what_is_impossible():
    table = torch.tensor([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]).double().log()
    row = torch.tensor([0, 1, 2]).repeat(20_000)
    drawn = draw_of_rows(table, row, generator(8))
    shares = torch.stack([torch.bincount(drawn[row == r], minlength=3) / 20_000 for r in range(3)]).double()
    assert ((shares - table.exp()).abs() <= 0.015 * (table > -torch.inf)).all()


# ------------------------------------------------------------------------------------------------ the tree


def test_the_tree_is_the_one_with_the_most_information():
    """Against a library's maximum spanning tree; every column comes after its parent."""
    share = torch.rand(9, 9, generator=generator(9), dtype=torch.float64)
    share = share + share.T
    order, parent = chow_liu(share)
    best = {frozenset(edge) for edge in minimum_spanning_tree(3 - share.numpy()).todok().keys()}
    assert {frozenset((j, parent[j])) for j in order[1:]} == best
    assert sorted(order) == list(range(9)) and all(order.index(parent[j]) < order.index(j) for j in order[1:])
    assert chow_liu(torch.zeros(1, 1).double()) == ([0], [-1])


def test_mutual_information_by_its_definition(monkeypatch):
    monkeypatch.setattr(latent_tree, "BLOCK", 4)  # so that blocks cut columns
    rng, n = generator(10), 700
    first = torch.randint(3, (n,), generator=rng)
    second = (first + torch.randint(2, (n,), generator=rng)) % 4
    third = torch.randint(2, (n,), generator=rng)
    codes, sizes = torch.stack([first, second, third], 1), [3, 5, 2]  # code 4 of the second is never used
    found = mutual_information(codes, sizes)
    for i, j in itertools.combinations(range(3), 2):
        joint = torch.zeros(sizes[i], sizes[j]).double().index_put_((codes[:, i], codes[:, j]), torch.ones(n).double(), True) / n
        alone = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
        nats = float(torch.where(joint > 0, joint * (joint / alone).log(), 0.0).sum())
        used = [len(codes[:, k].unique()) - 1 for k in (i, j)]
        assert float(found[i, j]) == pytest.approx(nats - used[0] * used[1] / (2 * n), abs=1e-6)
        assert float(found[i, j]) == pytest.approx(float(found[j, i]))


def test_a_chain_is_found_through_atoms_gaps_and_levels():
    rng, n = generator(11), 4_000
    a = torch.randn(n, generator=rng, dtype=torch.float64)
    b = a + torch.randn(n, generator=rng)
    c = (b + torch.randn(n, generator=rng) > 0).double()
    d = (c + (torch.rand(n, generator=rng) < 0.2)) % 2
    a, b = a.masked_fill(torch.rand(n, generator=rng) < 0.2, torch.nan), b.masked_fill(torch.rand(n, generator=rng) < 0.2, 9.0)
    space = Space.table((Column("levels", 2), Column(missing=True), Column("levels", 2), Column(atoms=(9.0,))))
    columns = Columns(space)
    x = torch.stack([d, a, c, b], 1)
    columns.prepare(x)
    codes, sizes = discretise(columns, columns.split(x))
    assert sizes == [2, 9, 2, 9] and all(len(codes[:, j].unique()) == sizes[j] for j in range(4))
    order, parent = chow_liu(mutual_information(codes, sizes))
    assert {frozenset((j, parent[j])) for j in order[1:]} == {frozenset(e) for e in ((1, 3), (3, 2), (2, 0))}
