"""The discrete part of a column: levels, missing, atoms and values beyond an end as one code."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from mixtura.contracts import Column


def count_codes(column: Column) -> int:
    """How many codes a column has: of levels these, of numbers "a value" and its atoms; and "missing"."""
    base = column.levels if column.kind == "levels" else 1 + len(column.atoms)
    return base + column.missing


@cache
def _reaches(column: Column) -> tuple[float, ...]:
    """How far from each atom a value is taken for it: rounding errors, not the next step, nor the next atom."""
    reaches = []
    for atom in column.atoms:
        others = [abs(atom - other) / 2 for other in column.atoms if other != atom]
        near = 1 / 4 if column.resolution == 0 or column.on_steps(atom) else column.off_steps(atom) / 2
        reaches.append(min(column.resolution * near, *others, math.inf))
    return tuple(reaches)


def is_atom(values: Tensor, column: Column) -> Tensor:
    """(n,) bool: which values are atoms of a numeric column."""
    hit = torch.zeros_like(values, dtype=torch.bool)
    for atom, reach in zip(column.atoms, _reaches(column), strict=True):
        hit |= (values - atom).abs() <= reach
    return hit


def column_codes(values: Tensor, column: Column) -> Tensor:
    """(n,) values in data units → (n,) int64 codes."""
    missing = torch.isnan(values)
    if column.kind == "levels":
        code = torch.where(missing, float(column.levels), values).long()
    else:
        code = torch.zeros(len(values), dtype=torch.int64, device=values.device)
        for a, (atom, reach) in enumerate(zip(column.atoms, _reaches(column), strict=True)):
            code[(values - atom).abs() <= reach] = 1 + a
        code[missing] = 1 + len(column.atoms)
    return code


def column_values(code: Tensor, values: Tensor, column: Column) -> Tensor:
    """(n,) codes, and the (n,) values of code 0 of a numeric column → (n,) values in data units."""
    if column.kind == "levels":
        values = code.double()
        absent = column.levels
    else:
        for a, atom in enumerate(column.atoms):
            values = torch.where(code == 1 + a, atom, values)
        absent = 1 + len(column.atoms)
    return torch.where(code == absent, math.nan, values) if column.missing else values
