"""Answers of models of one target or two given inputs: whether calibration and the portrait of a run say what is so."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura.blending.given import draw_given
from mixtura.contracts import ClosedForm, Column, Density, Space
from mixtura.data import source
from mixtura.folder.records import Score
from mixtura.ground.inputs import Inputs
from mixtura.ground.rng import generator, normal
from mixtura.job.portrait import portrait
from mixtura.job.scoring import calibrate
from mixtura.metrics import OF_ANSWERS

ROOT_2PI = math.sqrt(2 * math.pi)


def space_of(*columns):
    return Space.table(columns)


class Line(ClosedForm, Density):
    """y ~ N(slope · c_0, 1); in steps of δ where its space has any, then sampled on the lattice; missing with probability ½."""

    def __init__(self, space, features=2, slope=2.0, gone=0.0):
        super().__init__(space, (features,))
        self.slope, self.gone = slope, gone

    def fit_closed(self, x, context, rng):
        """Nothing to learn."""

    def _log_prob(self, x, context):
        return -0.5 * (x[:, 0] - self.slope * context[:, 0]) ** 2 - math.log(ROOT_2PI)

    def _sample(self, n, context, rng):
        y = self.slope * context[:, :1].double() + normal((n, 1), rng, torch.zeros(1, dtype=torch.float64))
        δ = self.space.columns[0].resolution
        y = (y / δ).round() * δ if δ else y
        return torch.where(torch.rand(n, 1, generator=rng) < self.gone, math.nan, y)


class Absent(Line):
    """Two targets that are the same number, each missing with a probability of its own."""

    def _sample(self, n, context, rng):
        y = normal((n, 1), rng, torch.zeros(1, dtype=torch.float64)).expand(n, 2)
        return torch.where(torch.rand(n, 2, generator=rng) < self.gone, math.nan, y)


def test_what_is_mostly_missing_is_answered_as_if_it_were_there():
    model, context = Absent(space_of(Column(missing=True), Column(missing=True)), gone=0.9), torch.zeros(50, 2)
    kept = draw_given(model, context, 40, gaps="kept", rng=generator(0))
    assert 0.88 < kept.isnan().double().mean() < 0.92
    entries = draw_given(model, context, 40, rng=generator(0))
    # rows are drawn again four times as often as they were asked for, then entries are those of other draws of their row
    assert not entries.isnan().any() and len(entries.unique()) > 1_500
    assert entries.mean() == pytest.approx(0, abs=0.1) and entries.std() == pytest.approx(1, abs=0.1)
    # of whole rows one in a hundred is complete; the rows asked for are not, but each of its entries is some draw's
    rows = draw_given(model, context, 40, gaps="rows", rng=generator(0))
    assert not rows.isnan().any() and (rows[..., 0] == rows[..., 1]).double().mean() > 0.4
    model.gone = torch.tensor([0.0, 1.0])
    never = draw_given(model, context[:3], 5, rng=generator(0))
    assert never[..., 1].isnan().all() and not never[..., 0].isnan().any()


@pytest.mark.parametrize("column", [Column(), Column(resolution=0.5, low=-50.0, high=50.0), Column(missing=True)])
def test_answers_of_the_law_itself_are_calibrated(column):
    model = Line(space_of(column), gone=0.5 if column.missing else 0.0)
    context = torch.randn(400, 2, generator=generator(1))
    y = draw_given(model, context, 1, rng=generator(2))[0]
    draws = draw_given(model, context, 99, rng=generator(3))
    assert draws.shape == (99, 400, 1) and not draws.isnan().any() and len(set(draws[:, 0, 0].tolist())) > 5
    found, ranks = calibrate(y, draws, model.space, ["y"], rng=generator(4))
    assert set(found) == set(OF_ANSWERS) and list(ranks) == ["y"]
    assert abs(found["coverage_90"].value - 0.9) < 4 * found["coverage_90"].error
    assert abs(found["coverage_50"].value - 0.5) < 4 * found["coverage_50"].error
    assert found["pit"].value < 1.63 / 20  # the 1 % point of Kolmogorov's law
    assert found["crps"].value == pytest.approx(1 / math.sqrt(math.pi), abs=4 * found["crps"].error)
    assert found["width_90"].value == pytest.approx(3.69, rel=0.08)  # of the range of 19 draws
    narrow, _ = calibrate(3 * y - 2 * draws.mean(0), draws, model.space, ["y"], rng=generator(4))
    assert narrow["coverage_90"].value < 0.6


def test_ties_on_the_lattice_are_ties():
    """Equal values that reach the lattice by other sums differ in their last bit: their ranks must not."""
    column = Column(resolution=0.1, low=0.0, high=1.0)
    y = torch.full((2_000, 1), 0.3, dtype=torch.float64)
    draws = torch.full((19, 2_000, 1), 0.1 + 0.2, dtype=torch.float64)
    assert not torch.equal(y[0], draws[0, 0])
    _, ranks = calibrate(y, draws, space_of(column), ["y"], rng=generator(0))
    assert ranks["y"].min() < 0.02 and ranks["y"].max() > 0.98


def test_rows_without_a_truth_say_nothing_and_several_targets_are_named():
    space = space_of(Column(missing=True), Column("levels", 2), Column())
    y = torch.randn(100, 3, generator=generator(0), dtype=torch.float64)
    y[:30, 0] = math.nan
    draws = torch.randn(19, 100, 3, generator=generator(1), dtype=torch.float64)
    found, ranks = calibrate(y, draws, space, ["a", "b", "c"], rng=generator(2))
    assert found["crps:a"].n == 70 and found["crps:c"].n == 100 and not any(name.endswith("b") for name in found)
    assert ranks["a"][:30].isnan().all() and not ranks["a"][30:].isnan().any()
    score = Score("m", "fitted", metrics={name: asdict(estimate) for name, estimate in found.items()})
    assert score.measured("crps") == (found["crps:a"].value, found["crps:a"].error)
    assert score.measured("mmd2") == (None, None) and list(OF_ANSWERS) == [name[:-2] for name in found if name.endswith(":a")]


def test_a_portrait_is_the_density_along_what_matters():
    inputs = Inputs(space_of(Column(), Column()))
    asked = torch.randn(200, 2, generator=generator(0), dtype=torch.float64) * torch.tensor([3.0, 50.0]) + 100
    inputs.prepare(asked)
    y = (2 * inputs(asked)[:, :1] + torch.randn(200, 1, generator=generator(1))).double()
    [found] = portrait(Line(space_of(Column())), inputs, asked, y, draws=0, seed=0)
    along = found["along"]
    assert along["input"] == 0  # the law does not look at the other
    x, grid, p = torch.tensor(along["x"]).double(), torch.tensor(found["y"]).double(), torch.tensor(along["p"]).double()
    centre = 2 * inputs(torch.stack([x, torch.full_like(x, 100.0)], 1))[:, :1].double()
    assert torch.allclose(p, torch.exp(-0.5 * (grid - centre) ** 2) / ROOT_2PI, atol=1e-5)
    assert [row["truth"] for row in found["rows"]] == sorted(row["truth"] for row in found["rows"]) and len(found["rows"]) == 6
    two = space_of(Column(), Column())
    [first, _] = portrait(Twice(two), inputs, asked, torch.cat([y, y], 1), draws=32_000, seed=0)  # no formula is at hand
    drawn = torch.tensor(first["along"]["p"]).double()
    assert first["drawn"] == 500 and found["drawn"] is None
    assert float((drawn - p).abs().mean()) < 0.015 and first["along"]["input"] == 0


def test_of_many_levels_a_portrait_shows_the_commonest():
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draw.normal(size=2_000), "y": draw.zipf(1.3, 2_000).clip(max=300).astype(str)})
    learnt = source.learn(source.load(frame), kinds={"y": "categorical"})
    x = learnt.encode(frame)
    inputs = Inputs(space_of(learnt.space.columns[0]))
    inputs.prepare(x[:, :1])
    counts = torch.bincount(x[:, 1].long())
    [found] = portrait(Coin(space_of(learnt.space.columns[1]), counts), inputs, x[:, :1], x[:, 1:], draws=64_000, seed=0)
    codes = torch.tensor(found["y"]).long()
    assert len(codes) == 64 < len(counts) and int(counts[codes].min()) >= int(counts.sort(descending=True).values[64])
    drawn = torch.tensor(found["along"]["p"]).double().mean(0)
    assert torch.allclose(drawn, counts[codes].double() / 2_000, atol=0.01)


class Coin(ClosedForm):
    """Codes in these proportions, whatever the context."""

    def __init__(self, space, counts):
        super().__init__(space, (1,))
        self.shares = counts.double() / counts.sum()

    def fit_closed(self, x, context, rng):
        """Nothing to learn."""

    def _sample(self, n, context, rng):
        return torch.multinomial(self.shares, n, replacement=True, generator=rng).double()[:, None]


class Twice(ClosedForm):
    """Two copies of a line's answer."""

    def __init__(self, space):
        super().__init__(space, (2,))

    def fit_closed(self, x, context, rng):
        """Nothing to learn."""

    def _sample(self, n, context, rng):
        y = 2 * context[:, :1].double() + normal((n, 1), rng, torch.zeros(1, dtype=torch.float64))
        return torch.cat([y, y], 1)
