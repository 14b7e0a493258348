"""What the final methods of the base classes refuse, and the messages, tested once on toy models."""

from __future__ import annotations

import math

import pytest
import torch

from mixtura.contracts import Column, Conditional, Conditioned, Density, InputError, LowerBound, Space
from mixtura.ground.rng import generator

PLAIN = Space.continuous(2)
TYPED = Space.table((Column(missing=True), Column("levels", 3), Column()))


class Even(Density, Conditional):
    """One nat for every row."""

    def stages(self):
        return ()

    def _sample(self, n, context, rng):
        return torch.rand(n, *self.space.shape, generator=rng, dtype=torch.float64)

    def _log_prob(self, x, context):
        return torch.ones(len(x), dtype=torch.float64)

    def _condition(self, x, known, draws, context, rng):
        values = torch.zeros(draws, *x.shape, dtype=torch.float64)
        return Conditioned(values, torch.zeros(len(x)).double(), torch.ones(len(x)).double())


class Below(LowerBound):
    """No more than one nat."""

    def stages(self):
        return ()

    def _sample(self, n, context, rng):
        return torch.rand(n, *self.space.shape, generator=rng, dtype=torch.float64)

    def _log_prob_bound(self, x, context, draws, rng):
        return torch.ones(len(x), dtype=torch.float64)


def nats(model, x, context=None):
    if isinstance(model, Density):
        return model.log_prob(x, context=context)
    return model.log_prob_bound(x, context=context, rng=generator(0))


either = pytest.mark.parametrize("kind", [Even, Below])


@either
@pytest.mark.parametrize(
    ("x", "named"),
    [
        (torch.zeros(3), r"expected shape \(n, 2\), got \(3\)"),
        (torch.zeros(3, 1), r"got \(3, 1\)"),
        (torch.zeros(3, 2, 1), r"got \(3, 2, 1\)"),
        (torch.zeros(3, 2, dtype=torch.complex64), "complex64"),
        (torch.tensor([[0.0, 0.0], [0.0, math.nan]]), "row 1, column 1 is nan"),
        (torch.tensor([[0.0, 0.0], [-math.inf, 0.0]]), "row 1, column 0 is -inf"),
        ([[0.0, 0.0]], "got list"),
    ],
)
def test_wrong_rows_are_named(kind, x, named):
    with pytest.raises(InputError, match=named):
        nats(kind(PLAIN), x)


@either
@pytest.mark.parametrize(
    ("entry", "value", "named"),
    [(1, 0.5, "row 0, column 1 is 0.5, expected a level code"), (1, -1.0, "is -1"), (2, math.nan, "column 2 is nan")],
)
def test_wrong_entries_are_named(kind, entry, value, named):
    x = torch.tensor([[100.0, 1.0, 1.0]], dtype=torch.float64)
    x[0, entry] = value
    with pytest.raises(InputError, match=named):
        nats(kind(TYPED), x)


@either
@pytest.mark.parametrize("n", [0, -1, 2.0, True, None])
def test_wrong_numbers_of_samples_are_named(kind, n):
    with pytest.raises(InputError, match="n: expected a whole number"):
        kind(PLAIN).sample(n, rng=generator(0))


def calls(model, context, n=3):
    """Everything that takes a context."""
    x = torch.zeros(n, 2, dtype=torch.float64)
    yield lambda: model.sample(n, context=context, rng=generator(0))
    yield lambda: nats(model, x, context=context)
    if isinstance(model, Conditional):
        yield lambda: model.condition(x, torch.ones_like(x, dtype=torch.bool), context=context, rng=generator(0))


@either
def test_a_context_that_is_not_wanted_is_named(kind):
    for call in calls(kind(PLAIN), torch.zeros(3, 1)):
        with pytest.raises(InputError, match="built without a context"):
            call()


@either
@pytest.mark.parametrize(
    ("context", "named"),
    [
        (None, r"context: expected \(3, 1\)"),
        (torch.zeros(2, 1), r"context: expected \(3, 1\)"),
        (torch.zeros(3, 2), r"context: expected \(3, 1\)"),
        (torch.zeros(3), r"context: expected \(3, 1\)"),
        (torch.tensor([[0.0], [math.nan], [0.0]]), "context: row 1, column 0 is nan"),
        ([[0.0], [1.0], [2.0]], "context: expected a torch tensor"),
    ],
)
def test_a_wrong_context_is_named(kind, context, named):
    for call in calls(kind(PLAIN, (1,)), context):
        with pytest.raises(InputError, match=named):
            call()


def test_a_sample_that_is_no_number_is_named():
    class Broken(Even):
        def _sample(self, n, context, rng):
            return torch.tensor([[0.0, 1.0], [0.0, math.nan]])

    with pytest.raises(FloatingPointError, match="Broken sampled nan at row 1, column 1: its training failed"):
        Broken(PLAIN).sample(2, rng=generator(0))


def test_what_is_known_of_a_filled_row_is_copied():
    x = torch.tensor([[1.5, 2.0, 3.0]], dtype=torch.float64)
    known = torch.tensor([[True, False, True]])
    filled = Even(TYPED).condition(x, known, draws=2, rng=generator(0))
    assert filled.values.tolist() == [[[1.5, 0.0, 3.0]]] * 2


def test_no_rows_with_a_context_have_no_nats():
    for kind in (Even, Below):
        assert nats(kind(PLAIN, (1,)), torch.zeros(0, 2), context=torch.zeros(0, 1)).shape == (0,)
