"""A tree of hidden codes: one latent Z_j with K states for each of D columns, and messages along the edges of the tree.

    p(x) = Σ_z p(z_r) Π_{j ≠ r} p(z_j | z_π(j)) Π_j p(x_j | z_j),   π(j) the parent of j, r the root.

The tree has the most mutual information that a tree can have between the columns (Chow & Liu 1968); :func:`chow_liu` finds it
from discretised columns. The sum over z is exact, by messages from the leaves to the root (:meth:`LatentTree.upward`), and so are
the expected counts of EM, by messages back (:meth:`Upward.downward`). A message is a few operations on (n, K) tensors and one
product with a (K, K) matrix. With λ_j(z) the log probability of all that hangs on Z_j = z, its own x_j included,

    λ_j(z) = log p(x_j | z) + Σ_{children c} log Σ_{z'} p(z' | z) e^{λ_c(z')}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixtura.ground import rng as random
from mixtura.ground.cells import Parts
from mixtura.ground.encode import Columns

#: numeric columns are cut into this many bins of equal count to find the tree
BINS = 8
#: the most multiplications, in rows × indicators², that the mutual information of all pairs may take; fewer rows are used beyond
MOST_PRODUCTS = 4e10
#: indicators that are compared with all others at a time
BLOCK = 256


# ------------------------------------------------------------------------------------------------ the tree


def discretise(columns: Columns, parts: Parts) -> tuple[Tensor, list[int]]:
    """(n, D) codes and their numbers: the codes of :class:`Columns`, where "a value" is replaced by ``BINS`` bins of about equal
    count."""
    codes, sizes = [], []
    for j in range(columns.space.dims):
        code = torch.zeros(len(parts.codes), dtype=torch.int64, device=parts.codes.device)
        size = 1
        if j in columns.value_of:
            v = columns.value_of[j]
            y, present = parts.values[:, v].contiguous(), parts.present[:, v]
            if present.any():
                inner = torch.linspace(0, 1, BINS + 1, dtype=y.dtype, device=y.device)[1:-1]
                edges = torch.quantile(y[present][:100_000], inner).unique()
                code, size = torch.searchsorted(edges, y, right=True), len(edges) + 1
            if j in columns.code_of:
                s = columns.code_of[j]
                code = torch.where(present, code, size + parts.codes[:, s] - 1)
                size += columns.cardinalities[s] - 1
        else:
            code, size = parts.codes[:, columns.code_of[j]], columns.cardinalities[columns.code_of[j]]
        codes.append(code)
        sizes.append(size)
    return torch.stack(codes, 1), sizes


def mutual_information(codes: Tensor, sizes: Sequence[int]) -> Tensor:
    """(D, D) mutual information in nats between all pairs of columns of (n, D) codes, less its bias (Miller 1955), which is
    (r − 1)(c − 1)/2n for columns with r and c codes in use."""
    size = torch.tensor(sizes, device=codes.device)
    codes = codes[: max(1_000, int(MOST_PRODUCTS / float(size.sum()) ** 2))]
    n, d = codes.shape
    hot = torch.zeros(n, int(size.sum()), device=codes.device).scatter_(1, codes + size.cumsum(0) - size, 1.0)
    share = torch.zeros(d, d, dtype=torch.float64, device=codes.device)
    column = torch.arange(d, device=codes.device).repeat_interleave(size)
    frequency = hot.mean(0, dtype=torch.float64)
    for i in range(0, len(column), BLOCK):
        block = slice(i, i + BLOCK)
        joint = (hot[:, block].T @ hot).double() / n  # (codes of the block, all codes)
        nats = torch.where(joint > 0, joint * (joint / (frequency[block].unsqueeze(1) * frequency)).log(), 0.0)
        by_column = torch.zeros(len(joint), d, dtype=torch.float64, device=codes.device).index_add_(1, column, nats)
        share.index_add_(0, column[block], by_column)
    used = torch.zeros(d, dtype=torch.float64, device=codes.device).index_add_(0, column, (frequency > 0).double()) - 1
    return share - used.unsqueeze(1) * used / (2 * n)


def chow_liu(information: Tensor) -> tuple[list[int], list[int]]:
    """The spanning tree with the most information (Prim's algorithm): the columns, each after its parent, and the parent of each
    column (−1 of the root, which shares the most information with all others)."""
    d = len(information)
    share = information.clone().fill_diagonal_(0)
    order, parent = [int(share.clamp(min=0).sum(0).argmax())], [-1] * d
    best, nearest = share[order[0]].clone(), torch.full((d,), order[0], device=share.device)
    best[order[0]] = -torch.inf
    while len(order) < d:
        j = int(best.argmax())
        parent[j] = int(nearest[j])
        order.append(j)
        closer = (share[j] > best) & (best > -torch.inf)
        best, nearest = torch.where(closer, share[j], best), torch.where(closer, j, nearest)
        best[j] = -torch.inf
    return order, parent


# ---------------------------------------------------------------------------------------------- its codes


@dataclass(frozen=True)
class TreeCounts:
    """Expected counts: ``root`` (K,) of the states of the root, ``edges`` (D, K, K) of the states of parent and child."""

    root: Tensor
    edges: Tensor


@dataclass(frozen=True)
class LatentTree:
    """The distribution of the codes. ``order`` and ``parent`` as :func:`chow_liu` gives them; log_root (K,); log_edges (D, K, K),
    where entry (j, a, b) is log p(Z_j = b | parent = a), unused for the root."""

    order: Sequence[int]
    parent: Sequence[int]
    log_root: Tensor
    log_edges: Tensor

    def upward(self, leaves: Sequence[Tensor]) -> Upward:
        """Messages to the root from D leaves (n, K), log p(x_j | Z_j = k). Differentiable."""
        λ, edges = list(leaves), self.log_edges.to(leaves[0].dtype).exp()
        scaled, received, total = list(leaves), list(leaves), leaves[0].new_zeros(len(leaves[0]))
        for j in reversed(self.order):
            top = λ[j].detach().amax(1, keepdim=True)
            scaled[j], total = (λ[j] - top).exp(), total + top.squeeze(1)
            if self.parent[j] >= 0:
                received[j] = scaled[j] @ edges[j].T
                λ[self.parent[j]] = λ[self.parent[j]] + received[j].log()
        evidence = (scaled[self.order[0]] @ self.log_root.to(total.dtype).exp()).log() + total
        return Upward(self, edges, λ, scaled, received, evidence)

    def sample(self, n: int, rng: torch.Generator) -> Tensor:
        """(n, D) states."""
        z = torch.zeros(n, len(self.order), dtype=torch.int64, device=self.log_root.device)
        for j in self.order:
            if self.parent[j] < 0:
                z[:, j] = draw_of_rows(self.log_root.unsqueeze(0), z[:, j], rng)
            else:
                z[:, j] = draw_of_rows(self.log_edges[j], z[:, self.parent[j]], rng)
        return z


@dataclass(frozen=True)
class Upward:
    """What :meth:`LatentTree.upward` computed, D of (n, K) each: λ up to a constant a row, λ as ``scaled`` = e^{λ − its maximum},
    and the message that the parent ``received``, up to the same factor; log_evidence (n,) is log p(x)."""

    tree: LatentTree
    edges: Tensor
    λ: Sequence[Tensor]
    scaled: Sequence[Tensor]
    received: Sequence[Tensor]
    log_evidence: Tensor

    def downward(self, counts: TreeCounts) -> list[Tensor]:
        """The posteriors p(Z_j = k | x), D of (n, K); expected counts are added to ``counts`` in place."""
        tree, posterior = self.tree, list(self.scaled)
        for j in tree.order:
            if tree.parent[j] < 0:
                joint = self.scaled[j] * tree.log_root.to(self.edges.dtype).exp()
                posterior[j] = joint / joint.sum(1, keepdim=True)
                counts.root.add_(posterior[j].sum(0))
            else:
                # p(parent | all of x) without what came from j
                outside = posterior[tree.parent[j]] / self.received[j]
                counts.edges[j].add_(self.edges[j] * (outside.T @ self.scaled[j]))
                posterior[j] = self.scaled[j] * (outside @ self.edges[j])
        return posterior

    def log_conditionals(self, leaves: Sequence[Tensor]) -> Tensor:
        """(n, D) log p(x_j | all other x), from the leaves of :meth:`LatentTree.upward`, which must be finite: with m the law of
        Z_j given the rest, which comes from above and from λ_j without x_j, log Σ_z m(z) p(x_j | z)."""
        tree, posterior, found = self.tree, list(self.scaled), [self.log_evidence] * len(self.scaled)
        for j in tree.order:
            if tree.parent[j] < 0:
                above = tree.log_root.to(self.edges.dtype).exp().expand_as(self.scaled[j])
            else:
                above = (posterior[tree.parent[j]] / self.received[j]) @ self.edges[j]
            joint = self.scaled[j] * above
            posterior[j] = joint / joint.sum(1, keepdim=True)
            claim = above.log() + self.λ[j]
            found[j] = torch.logsumexp(claim, 1) - torch.logsumexp(claim - leaves[j], 1)
        return torch.stack(found, 1)

    def sample(self, draws: int, rng: torch.Generator) -> Tensor:
        """(draws, n, D) states given x, from the root to the leaves."""
        tree, n = self.tree, len(self.log_evidence)
        z = torch.zeros(draws, n, len(tree.order), dtype=torch.int64, device=self.log_evidence.device)
        for j in tree.order:
            if tree.parent[j] < 0:
                z[:, :, j] = random.categoricals(self.λ[j] + tree.log_root, draws, rng)
            else:
                for one in z:  # one draw of all rows at a time bounds the memory
                    one[:, j] = random.categorical(self.λ[j] + tree.log_edges[j][one[:, tree.parent[j]]], rng)
        return z


def draw_of_rows(log_table: Tensor, row: Tensor, rng: torch.Generator) -> Tensor:
    """(n,) draws, one from each of the rows ``row`` (n,) of a table (r, k) of unnormalised log probabilities: the distribution
    functions of all rows are laid end to end and inverted at once."""
    r, k = log_table.shape
    below = torch.softmax(log_table, 1).cumsum(1)
    below = below / below[:, -1:] + torch.arange(r, device=row.device).unsqueeze(1)
    # u + row stays inside its row when it is rounded
    u = random.uniform((len(row),), rng, below).clamp(max=1 - 1e-12)
    return (torch.searchsorted(below.flatten(), u + row, right=True) - k * row).clamp(0, k - 1)
