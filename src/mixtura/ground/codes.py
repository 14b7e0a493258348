"""The discrete part of a column as one code: levels, atoms and "missing"."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from mixtura.contracts import Column


def count_codes(column: Column) -> int:
    """How many codes a column has: its levels, or "a value" and its atoms for a numeric column; and "missing" where allowed."""
    base = column.levels if column.kind == "levels" else 1 + len(column.atoms)
    return base + column.missing


@cache
def _tolerances(column: Column) -> tuple[float, ...]:
    """For each atom, the distance up to which a value counts as the atom: it allows for rounding errors, but includes neither
    the next step nor the next atom."""
    tolerances = []
    for atom in column.atoms:
        others = [abs(atom - other) / 2 for other in column.atoms if other != atom]
        near = 1 / 4 if column.resolution == 0 or column.on_steps(atom) else column.off_steps(atom) / 2
        tolerances.append(min(column.resolution * near, *others, math.inf))
    return tuple(tolerances)


def is_atom(values: Tensor, column: Column) -> Tensor:
    """(n,) bool: which values are atoms of a numeric column."""
    hit = torch.zeros_like(values, dtype=torch.bool)
    for atom, tolerance in zip(column.atoms, _tolerances(column), strict=True):
        hit |= (values - atom).abs() <= tolerance
    return hit


def column_codes(values: Tensor, column: Column) -> Tensor:
    """(n,) values in data units → (n,) int64 codes."""
    missing = torch.isnan(values)
    if column.kind == "levels":
        code = torch.where(missing, float(column.levels), values).long()
    else:
        code = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        for a, (atom, tolerance) in enumerate(zip(column.atoms, _tolerances(column), strict=True)):
            code[(values - atom).abs() <= tolerance] = 1 + a
        code[missing] = 1 + len(column.atoms)
    return code


def column_values(code: Tensor, values: Tensor, column: Column) -> Tensor:
    """(n,) codes, and (n,) values that a numeric column has where its code is 0 → (n,) values in data units."""
    if column.kind == "levels":
        values = code.double()
        absent = column.levels
    else:
        for a, atom in enumerate(column.atoms):
            values = torch.where(code == 1 + a, atom, values)
        absent = 1 + len(column.atoms)
    return torch.where(code == absent, math.nan, values) if column.missing else values
