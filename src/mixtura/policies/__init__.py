"""Arrays in, :class:`Weights` out: objectives, the solver of the simplex, and the policies that choose which arm to ask.

A policy is a class with ``choose``, and one line in :data:`TABLE`.
"""

from __future__ import annotations

from mixtura.policies.bandit import POLICIES as TABLE
from mixtura.policies.bandit import Row
from mixtura.policies.sparse import Sparse
from mixtura.simplex.quadratic import Weights, stack

__all__ = ["TABLE", "Row", "Sparse", "Weights", "stack"]

TABLE |= {
    row.name: row
    for row in (Row("sparse", Sparse, True, False, "the default with at most three arms in the mixture"),)
}
