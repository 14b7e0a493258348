"""Arrays in, :class:`Weights` out: objectives, the solver of the simplex, and the policies that choose which arm to ask.

A policy is a class in ``bandit.py`` and one line in :data:`TABLE`.
"""

from __future__ import annotations

from mixtura.select.bandit import POLICIES as TABLE
from mixtura.select.simplex import Weights, stack

__all__ = ["TABLE", "Weights", "stack"]
