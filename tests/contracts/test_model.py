"""Every family keeps what its type promises, on plain, wide-ranging, discrete, rounded and degenerate tables.

A family is enrolled by the types of the models it builds for a table: what samples, what has a density or a bound, what trains,
what fills gaps each have tests of their own, so that a family is tested for all that it can do and for nothing else. Strangers of
one file and one line each stand beside our own. What the final methods of the contracts refuse is in ``test_final_methods.py``.
"""

from __future__ import annotations

import itertools
import math
import random
from functools import cache, partial

import numpy as np
import pytest
import torch
from strangers import energy, gan, random_forest

from mixtura.blending.fill import condition
from mixtura.contracts import (
    ONLY,
    Batch,
    Batches,
    ClosedForm,
    Column,
    Conditional,
    Density,
    Energy,
    InputError,
    LowerBound,
    Model,
    Reparameterised,
    Space,
    Turn,
    density_kind,
)
from mixtura.families import TABLE, Family
from mixtura.folder.models import load_model, save_model
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)
ROWS, STEPS = 160, 40

# ---------------------------------------------------------------------------------------------- tables


def _gaps(x, share, rng):
    return x.masked_fill(torch.rand(x.shape, generator=rng) < share, math.nan)


def _far(rng, n=ROWS, dims=2):
    return 100 + 3 * torch.randn(n, dims, generator=rng, dtype=torch.float64)


def _bits(rng):
    first = torch.randint(2, (ROWS, 1, 1), generator=rng)
    return (first ^ (torch.rand(ROWS, 2, 2, generator=rng) < 0.2)).double()


def _mixed(rng):
    """A rounded column with an atom and gaps, levels with gaps, a small rounded column that follows the levels."""
    kind = torch.randint(3, (ROWS,), generator=rng)
    hours = (100 + 2 * kind + 1.5 * torch.randn(ROWS, generator=rng)).round().clamp(97, 106)
    hours = hours.masked_fill(torch.rand(ROWS, generator=rng) < 0.3, 100)
    small = (kind + 0.6 * torch.randn(ROWS, generator=rng)).div(0.5).round().mul(0.5).clamp(0, 2)
    return torch.stack([_gaps(hours.double(), 0.15, rng), _gaps(kind.double(), 0.1, rng), small.double()], 1)


def _wages(rng):
    """Whole, skewed, with many zeros: the log warp of a rounded column with an atom at its lower edge; and a positive real."""
    log_wage = 7 + 0.8 * torch.randn(ROWS, generator=rng, dtype=torch.float64)
    wage = log_wage.exp().round().masked_fill(torch.rand(ROWS, generator=rng) < 0.4, 0)
    return torch.stack([wage, (0.5 * log_wage + torch.randn(ROWS, generator=rng, dtype=torch.float64)).exp()], 1)


def _stamps(rng):
    """Large offsets with a step of one, one of them negative and without known ends."""
    late = 1e9 + torch.randint(50, (ROWS,), generator=rng).double()
    return torch.stack([late, -1e9 + (9 * torch.randn(ROWS, generator=rng, dtype=torch.float64)).round()], 1)


def _still(rng):
    """Nothing varies: one level, one number, one rounded number, nothing but gaps; and something beside them."""
    x = torch.tensor([0.0, 7.25, 40.0, math.nan], dtype=torch.float64).repeat(ROWS, 1)
    return torch.cat([x, _far(rng, dims=1)], 1)


TABLES = {
    "far": (Space.continuous(2), _far),
    "single": (Space.continuous(1), lambda rng: _far(rng, dims=1)),
    "bits": (Space.levels(2, 2, levels=2), _bits),
    "mixed": (
        Space.table(
            (
                Column(missing=True, resolution=1.0, low=97, high=106, atoms=(100.0,)),
                Column("levels", 3, missing=True),
                Column(resolution=0.5, low=0, high=2),
            )
        ),
        _mixed,
    ),
    "wages": (Space.table((Column(resolution=1.0, low=0, high=20_000, atoms=(0.0,)), Column(low=0.01))), _wages),
    "stamps": (Space.table((Column(resolution=1.0, low=1e9, high=1e9 + 49), Column(resolution=1.0))), _stamps),
    "still": (
        Space.table(
            (Column("levels", 1), Column(), Column(resolution=1.0, low=40, high=40), Column(missing=True), Column(missing=True))
        ),
        _still,
    ),
}
SMALL = "mixed"  # the table whose cells can all be listed
#: families of others: one file and one line of the TABLE each
STRANGERS = {
    name: Family(name, module.Config, module.suggest, module.build, "of a stranger")
    for name, module in (("gan", gan), ("langevin", energy), ("random_forest", random_forest))
}
FAMILIES = {**TABLE, **STRANGERS}
WITH_CONTEXT = [name for name, row in TABLE.items() if row.context != "never"]


def built(family, space, n=100, shape=None):
    """Untrained; with the context it needs where none is asked for."""
    row = FAMILIES[family]
    shape = (1,) if shape is None and row.context == "needs" else shape
    return row.build(space, context_shape=shape, config=row.suggest(space, n), rng=generator(2, family))


def serves(family, table):
    try:
        built(family, TABLES[table][0])
    except InputError:
        return False
    return True


CASES = [(family, table) for family in FAMILIES for table in TABLES if serves(family, table)]


@cache
def promises(family, table, *kinds):
    """Whether the models of this family for this table are of one of the types; those that need a context are densities given
    one, whatever else they are."""
    return isinstance(built(family, TABLES[table][0]), kinds)


def cases(*kinds, tables=tuple(TABLES), but=()):
    """Families and tables whose models are of one of the types, as arguments of a test."""
    found = [case for case in CASES if case[1] in tables and case[0] not in but and promises(*case, *kinds)]
    return pytest.mark.parametrize(("family", "table"), found)


def families(*kinds, table, but=()):
    """The same of one table."""
    found = [name for name in FAMILIES if name not in but and (name, table) in CASES and promises(name, table, *kinds)]
    return pytest.mark.parametrize("family", found)


SCORED = (Density, LowerBound)
#: families that a library or a formula fits: nothing of theirs is trained
CLOSED = tuple(name for name in FAMILIES if serves(name, "far") and promises(name, "far", ClosedForm))


def test_the_tables_not_served_are_these():
    refused = {("flow", "bits"), *(("quantile", table) for table in ("bits", "mixed", "still"))}
    refused |= {("boltzmann", table) for table in TABLES if table != "bits"}
    refused |= {(name, table) for name in STRANGERS for table in TABLES if table not in ("far", "single")}
    assert {(family, table) for family in FAMILIES for table in TABLES} - set(CASES) == refused


def test_what_strangers_are():
    known = (*SCORED, Energy, Reparameterised, ClosedForm)
    kinds = {name: [kind.__name__ for kind in known if promises(name, "far", kind)] for name in STRANGERS}
    assert kinds == {"gan": ["Reparameterised"], "langevin": ["Energy"], "random_forest": ["Density", "ClosedForm"]}


@pytest.fixture(autouse=True)
def strangers_in_the_table(monkeypatch):
    """One line each, and nothing else."""
    for name, row in STRANGERS.items():
        monkeypatch.setitem(TABLE, name, row)


@cache
def rows(table):
    return TABLES[table][1](generator(1, table))


def _globals():
    return torch.random.get_rng_state(), np.random.get_state()[1], random.getstate()


def _same_globals(before):
    now = _globals()
    return torch.equal(now[0], before[0]) and np.array_equal(now[1], before[1]) and now[2] == before[2]


class At(Density):
    """A model that needs a context, where that is 0.3: a law like any other."""

    def __init__(self, model):
        super().__init__(model.space)
        self.model, self.config = model, model.config

    def stages(self):
        return ()

    def _sample(self, n, context, rng):
        return self.model.sample(n, context=torch.full((n, 1), 0.3), rng=rng)

    def _log_prob(self, x, context):
        return self.model.log_prob(x, context=torch.full((len(x), 1), 0.3))


def noise(name, n):
    """A context that says nothing, where one is needed."""
    return torch.randn(n, 1, generator=generator(26)) if FAMILIES[name].context == "needs" else None


def train(name, space, x, context=None, steps=STEPS):
    """A model fitted as a study fits it, only shorter."""
    family, rng = FAMILIES[name], generator(2, name)
    given = noise(name, len(x)) if context is None else context
    shape = None if given is None else tuple(given.shape[1:])
    model = family.build(space, context_shape=shape, config=family.suggest(space, len(x)), rng=rng)
    if isinstance(model, ClosedForm):
        model.fit_closed(x, given, rng)
        model.eval()
    else:
        for _ in fit(model, Batch(x=x, context=given), Recipe(steps=steps, **dict(family.recipe)), rng=rng):
            pass
    return model if given is context else At(model)


@cache
def fitted(family, table):
    before = _globals()
    model = train(family, TABLES[table][0], rows(table))
    assert _same_globals(before), "fitting touched a global generator"
    return model


@torch.no_grad()
def nats(model, x, draws=None, context=None):
    """Exact where the model is, else a bound with fixed noise, of 8 draws or as few as a judge takes."""
    if isinstance(model, Density):
        return model.log_prob(x, context=context)
    assert isinstance(model, LowerBound)
    return model.log_prob_bound(x, context=context, draws=draws or min(8, model.draws), rng=generator(3))


# ---------------------------------------------------------------------------------------------- samples


@cases(Model)
def test_samples_are_repeatable_and_touch_no_global_generator(family, table):
    model, (space, _) = fitted(family, table), TABLES[table]
    before = _globals()
    first, second, other = (model.sample(50, rng=generator(seed)) for seed in (5, 5, 6))
    assert _same_globals(before)
    assert first.shape == (50, *space.shape) and first.dtype == torch.float64
    assert torch.equal(first.nan_to_num(-1), second.nan_to_num(-1)) and not torch.equal(
        first.nan_to_num(-1), other.nan_to_num(-1)
    )
    assert model.sample(1, rng=generator(7)).shape == (1, *space.shape)


@cases(Model)
def test_samples_are_possible_rows(family, table):
    """On the lattice, inside the support."""
    model, (space, _) = fitted(family, table), TABLES[table]
    x = space.check(model.sample(300, rng=generator(8)))
    assert not space.outside(x).any()
    for column, values in zip(space.columns, space.flat(x).T, strict=True):
        values = values[~torch.isnan(values)]
        if column.resolution:
            steps = (values - (column.low if math.isfinite(column.low) else 0)) / column.resolution
            assert torch.equal(steps, steps.round())


@cases(Model)
def test_samples_are_in_data_units(family, table):
    """Quartiles within two spreads, for a fit of few steps: standardised values would be dozens away."""
    real, made = (TABLES[table][0].flat(t) for t in (rows(table), fitted(family, table).sample(2000, rng=generator(9))))
    for j, column in enumerate(TABLES[table][0].columns):
        if column.kind != "continuous" or torch.isnan(real[:, j]).all():
            continue
        quantiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
        want, got = (torch.nanquantile(t[:, j], quantiles) for t in (real, made))
        spread = max(float(want[2] - want[0]), column.resolution, 1e-6)
        assert ((got - want).abs() <= 2 * spread).all(), (j, want, got)


@pytest.mark.parametrize("family", [name for name in FAMILIES if (name, "far") in CASES])
def test_mean_100_and_deviation_3_come_back(family):
    if family not in WITH_CONTEXT:  # closed-form fits are as good as they will ever be
        model = fitted(family, "far")
    else:
        model = train(family, Space.continuous(2), _far(generator(11), 300), steps=60)
    # at a single context a regression has few rows to go by
    model, context = (model.model, noise(family, 4000)) if isinstance(model, At) else (model, None)
    x = model.sample(4000, context=context, rng=generator(10))
    assert (x.mean(0) - 100).abs().max() < 0.8
    assert (x.std(0) / 3 - 1).abs().max() < 0.25


# ---------------------------------------------------------------------------------------------- training, keeping


@cases(Model, but=CLOSED)
def test_every_parameter_gets_a_finite_gradient(family, table):
    space, x = TABLES[table][0], rows(table)
    model, context = built(family, space, len(x)), noise(family, len(x))
    data: Batches = {ONLY: Batch(x=x, context=context)}
    model.prepare(data, generator(13))
    turn = Turn(model.encode_for_training(data), partial(generator, 14))
    touched = set()
    for phase in [phase for stage in model.stages() for phase in stage.phases]:
        parameters = list(phase.parameters)
        loss = phase.loss(turn.played_by(phase.name, 0))
        assert loss.shape == () and torch.isfinite(loss)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            assert parameter.numel() == 0 or (gradient is not None and torch.isfinite(gradient).all())
            touched.add(id(parameter))
    assert touched == {id(p) for p in model.parameters()} != set()


@cases(Model)
def test_saved_and_loaded_is_the_same_model(family, table, tmp_path):
    model, space = fitted(family, table), TABLES[table][0]
    inner = model.model if isinstance(model, At) else model
    save_model(tmp_path / family, inner, family, inner.config.model_dump())
    again = load_model(tmp_path / family, space, {})
    again = At(again) if isinstance(model, At) else again
    if isinstance(model, SCORED):
        assert torch.equal(nats(again, rows(table)), nats(model, rows(table)))
    mine, its = (m.sample(20, rng=generator(15)).nan_to_num(-1) for m in (model, again))
    assert torch.equal(mine, its)


# ---------------------------------------------------------------------------------------------- densities


@cases(*SCORED)
def test_nats_are_those_of_samples_too_and_touch_no_global_generator(family, table):
    """Of positive density (of a bound: finite)."""
    model, before = fitted(family, table), _globals()
    assert torch.isfinite(nats(model, model.sample(300, rng=generator(8)))).all()
    assert _same_globals(before)


@families(*SCORED, table="single")
def test_density_integrates_to_one_on_the_line(family):
    model = fitted(family, "single")
    grid = torch.linspace(100 - 90, 100 + 90, 4001, dtype=torch.float64)
    density = nats(model, grid[:, None]).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=_slack(family, model) + _floor_share(model, 1))


@families(*SCORED, table="far")
def test_density_integrates_to_one_in_the_plane(family):
    model = fitted(family, "far")
    points = 361 if isinstance(model, Density) else 121
    axis = torch.linspace(100 - 36, 100 + 36, points, dtype=torch.float64)
    density = nats(model, torch.cartesian_prod(axis, axis)).exp().reshape(points, points)
    total = float(torch.trapezoid(torch.trapezoid(density, axis), axis))
    assert total == pytest.approx(1, abs=_slack(family, model) + _floor_share(model, 2))


def _slack(family, model):
    """How far from 1 an integral may be: of a sampled bound, by what its few draws leave open; of a density of steps, by what
    a grid cannot tell of where they are."""
    if family in ("quantile", "forest", "random_forest"):
        return 0.01
    return 1e-3 if isinstance(model, Density) else 0.03


def _floor_share(model, columns):
    """What an open model keeps for the unseen, per column: 1 part in n + 1."""
    return columns / (ROWS + 1) if model.open_support else 0.0


def cells(space):
    """Every possible row of a table of levels and rounded columns, and the volume of its cell."""

    def values(column):
        listed = (
            range(column.levels)
            if column.kind == "levels"
            else np.arange(column.low, column.high + column.resolution / 2, column.resolution)
        )
        return [*map(float, listed), *([math.nan] if column.missing else [])]

    listed = torch.tensor(list(itertools.product(*map(values, space.columns))), dtype=torch.float64)
    step = torch.tensor([c.resolution or 1.0 for c in space.columns], dtype=torch.float64)
    return listed, torch.where(torch.isnan(listed), 1.0, step).prod(1)


def shares(x, listed):
    """How often each listed row is among x."""
    where = {tuple(row): i for i, row in enumerate(listed.nan_to_num(-1).tolist())}
    hits = torch.tensor([where[tuple(row)] for row in x.nan_to_num(-1).tolist()])
    return torch.bincount(hits, minlength=len(listed)) / len(x)


@families(*SCORED, table=SMALL)
def test_cell_masses_sum_to_one(family):
    """A bound may lose what lies beyond the open cells at both ends, and find nothing that is not there. The weight of a
    diffusion's path has a heavy tail: of few draws the mean is most often too low."""
    model = fitted(family, SMALL)
    listed, volume = cells(model.space)
    total = float((nats(model, listed, draws=_many(model)).exp() * volume).sum())
    if isinstance(model, Density):
        assert total == pytest.approx(1, abs=1e-6 + _floor_share(model, 3))
    else:
        assert (0.7 if model.how != "variational" else 0.2) < total < 1.05


def _many(model):
    """Draws for a bound that is nearly as tight as it gets; 40 of those that a judge takes one of."""
    return 40 if getattr(model, "draws", 8) == 1 else 400


@families(*SCORED, table=SMALL)
def test_samples_follow_the_density_cell_by_cell(family):
    """10,000 draws fall into every cell as often as its mass says, or more often than its bound says (5 standard errors)."""
    model, n = fitted(family, SMALL), 10_000
    listed, volume = cells(model.space)
    mass = nats(model, listed, draws=_many(model)).exp() * volume
    share = shares(model.sample(n, rng=generator(16)), listed)
    slack = 5 * (mass * (1 - mass) / n).sqrt() + 5 / n + _floor_share(model, 3)
    if isinstance(model, Density):
        assert ((share - mass).abs() <= slack).all()
    else:
        # 40 paths of a diffusion know the mass of a single cell to about a half
        assert (mass - share <= slack + (0.05 if model.how != "variational" else 0.7) * mass).all()


@families(*SCORED, table="single")
def test_samples_follow_the_density_on_the_line(family):
    """Kolmogorov–Smirnov against the integrated density."""
    model, n = fitted(family, "single"), 4000
    grid = torch.linspace(10, 190, 8001, dtype=torch.float64)
    cdf = torch.cumulative_trapezoid(nats(model, grid[:, None]).exp(), grid)
    x = model.sample(n, rng=generator(17)).squeeze(1).sort().values
    at = cdf[torch.searchsorted(grid[1:].contiguous(), x).clamp(max=7999)]
    rank = (torch.arange(n) + 0.5) / n
    assert float((at - rank).abs().max()) < 1.95 / math.sqrt(n) + _floor_share(model, 1)


@families(*SCORED, table=SMALL, but=("marginals",))
@pytest.mark.parametrize(
    "row",
    [[100.0, 3.0, 1.0], [96.0, 0.0, 1.0], [107.0, 0.0, 1.0], [100.0, 0.0, -0.5], [math.nan, math.nan, 2.5]],
    ids=["unseen level", "below", "above", "below in steps", "beside gaps"],
)
def test_off_the_support_is_impossible(family, row):
    rows = torch.tensor([row, [100.0, 0.0, 1.0]], dtype=torch.float64)
    off, on = nats(fitted(family, SMALL), rows)
    assert off == -math.inf and torch.isfinite(on)


def test_the_floor_gives_the_impossible_a_price():
    rows = torch.tensor([[100.0, 3.0, 1.0], [96.0, 0.0, 1.0], [1e6, 9.0, -4.0]], dtype=torch.float64)
    assert torch.isfinite(fitted("marginals", SMALL).log_prob(rows)).all()


@cases(LowerBound, tables=("mixed", "wages"), but=("diffusion",))  # one path of which is a judge's whole estimate
def test_a_bound_tightens(family, table):
    """E log mean of k draws rises with k towards log p (Burda et al. 2016, theorem 1)."""
    model, x = fitted(family, table), rows(table)[:40]
    assert density_kind(model) == "bound"
    with torch.no_grad():
        each = [
            torch.stack([model.log_prob_bound(x, draws=k, rng=generator(18, k, i)).mean() for i in range(repeats)])
            for k, repeats in ((1, 120), (4, 30), (40, 12))
        ]
    (one, some, many), errors = [float(e.mean()) for e in each], [float(e.std()) / math.sqrt(len(e)) for e in each]
    assert one < some + 3 * math.hypot(*errors[:2]) and some < many + 3 * math.hypot(*errors[1:])
    # a flow's bound, by noise inside cells, always has something to gain; a q that is the posterior has not
    assert one < many - 2 * math.hypot(errors[0], errors[2]) or family == "vae"


# ---------------------------------------------------------------------------------------------- conditionals


every_filler = cases(Conditional)


@every_filler
def test_filled_gaps_keep_what_is_known(family, table):
    model, x = fitted(family, table), rows(table)[:30]
    assert isinstance(model, Conditional)
    known = torch.rand(x.shape, generator=generator(19)) < 0.5
    before = _globals()
    first, second = (model.condition(x, known, draws=3, rng=generator(20)) for _ in range(2))
    assert _same_globals(before)
    assert torch.equal(first.values.nan_to_num(-1), second.values.nan_to_num(-1))
    assert first.values.shape == (3, *x.shape) and first.log_evidence.shape == first.ess.shape == (30,)
    assert torch.equal(first.values[:, known].nan_to_num(-1), x[known].nan_to_num(-1).expand(3, -1))
    assert (
        not torch.isnan(first.values[:, ~known]).any() and not model.space.outside(first.values.reshape(-1, *x.shape[1:])).any()
    )
    assert torch.isfinite(first.log_evidence).all() and (first.ess >= 1 - 1e-9).all()


@every_filler
def test_the_evidence_of_a_whole_row_is_its_density(family, table):
    model, x = fitted(family, table), rows(table)[:30]
    whole = model.condition(x, torch.ones_like(x, dtype=torch.bool), rng=generator(21))
    assert torch.allclose(whole.log_evidence, model.log_prob(x), atol=1e-9)
    assert torch.isinf(whole.ess).all()


@families(Conditional, table=SMALL)
@pytest.mark.parametrize(
    ("row", "known"),
    [
        ([100.0, 1.0, 1.0], [1, 0, 1]),
        ([102.0, 0.0, 1.0], [1, 1, 0]),
        ([0.0, 2.0, 0.5], [0, 1, 1]),
        ([math.nan, 0.0, 0.0], [1, 0, 0]),
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ],
    ids=["atom", "rounded", "levels", "known gap", "nothing"],
)
def test_conditioning_is_bayes_over_all_cells(family, row, known):
    """Evidence and draws against the sum over every completion without gaps."""
    model, draws = fitted(family, SMALL), 4000
    row, known = torch.tensor(row, dtype=torch.float64), torch.tensor(known, dtype=torch.bool)
    listed, volume = cells(model.space)
    fits = ((listed == row) | (torch.isnan(listed) & torch.isnan(row)) | ~known).all(1) & ~torch.isnan(listed[:, ~known]).any(1)
    step = torch.tensor([c.resolution or 1.0 for c in model.space.columns], dtype=torch.float64)
    log_mass = nats(model, listed[fits]) + torch.where(~known, step, 1.0).prod().log()
    got = model.condition(row.expand(40, 3), known.expand(40, 3), draws=draws // 40, rng=generator(22))
    tolerance = 0.15 if family == "autoregressive" else 1e-6 + _floor_share(model, 3)
    assert got.log_evidence.exp().mean().log().item() == pytest.approx(float(torch.logsumexp(log_mass, 0)), abs=tolerance)
    share = torch.softmax(log_mass, 0)
    count = shares(got.values.reshape(-1, 3), listed[fits])
    slack = 0.25 if family == "autoregressive" else 0.0
    assert ((count - share).abs() <= 5 * (share / draws).sqrt() + 5 / draws + (slack + _floor_share(model, 3)) * share).all()


# ---------------------------------------------------------------------------------------------- context


def test_a_family_takes_a_context_as_its_row_says():
    """And one that needs it models nothing without: a run of all columns leaves it out."""
    for family, row in FAMILIES.items():
        space = Space.continuous(2)
        if row.context == "never":
            with pytest.raises(InputError, match=rf"^({family}|energy): .*context"):
                built(family, space, shape=(1,))
        else:
            assert built(family, space, shape=(1,)).context_shape == (1,)


def test_the_floor_ignores_its_context():
    x = rows("mixed")
    alone, given = (train("marginals", TABLES["mixed"][0], x, context=c) for c in (None, torch.ones(ROWS, 1)))
    torch.testing.assert_close(nats(alone, x), nats(given, x, context=torch.zeros(ROWS, 1)))


@pytest.mark.parametrize(
    ("family", "table"), [c for c in CASES if c[0] in WITH_CONTEXT and c[0] != "marginals" and c[1] in ("far", "mixed")]
)
def test_context_moves_the_model(family, table):
    rng = generator(23)
    side = torch.randint(2, (ROWS, 1), generator=rng).double()
    x = rows(table).clone()
    x[:, -1] = 100 + 5 * (2 * side[:, 0] - 1) + torch.randn(ROWS, generator=rng) if table == "far" else 2 * side[:, 0]
    model = train(family, TABLES[table][0], x, context=side, steps=300)
    turns = torch.tensor([0.0, 1.0]).repeat(300)[:, None]  # each row listens to its own context
    made = model.sample(600, context=turns, rng=generator(24))[:, -1]
    assert made[1::2].mean() - made[::2].mean() > (5 if table == "far" else 0.5)
    assert nats(model, x, context=side).mean() > nats(model, x, context=1 - side).mean() + 0.5


def test_a_flow_without_numbers_says_so():
    space = TABLES["bits"][0]
    with pytest.raises(InputError, match="no continuous column"):
        TABLE["flow"].build(space, config=TABLE["flow"].suggest(space, 100), rng=generator(0))


@families(Conditional, table=SMALL, but=("marginals",))
@pytest.mark.parametrize(
    ("row", "known"),
    [([100.0, 7.0, 1.0], [0, 1, 1]), ([50.0, 1.0, 1.0], [1, 1, 0]), ([100.0, 1.0, -3.0], [0, 0, 1])],
    ids=["unseen level", "below", "below in steps"],
)
def test_the_impossible_has_no_evidence(family, row, known):
    model, x, known = fitted(family, SMALL), torch.tensor([row]).double(), torch.tensor([known]).bool()
    assert float(condition(model, x, known, rng=generator(25)).log_evidence) == -math.inf


@cases(Density)
def test_a_row_alone_has_the_nats_it_has_among_others(family, table):
    model, x = fitted(family, table), rows(table)[:6]
    alone = torch.cat([nats(model, row[None]) for row in x])
    torch.testing.assert_close(alone, nats(model, x), rtol=1e-5, atol=1e-4)


@families(*SCORED, table=SMALL)
def test_no_rows_have_no_nats(family):
    assert nats(fitted(family, SMALL), rows(SMALL)[:0]).shape == (0,)


@cases(Model, tables=("single", "mixed"))
def test_a_handful_of_rows_is_enough(family, table):
    model = train(family, TABLES[table][0], rows(table)[:9], steps=3)
    made = model.sample(9, rng=generator(27))
    assert not model.space.outside(made).any()
    assert not isinstance(model, SCORED) or torch.isfinite(nats(model, rows(table)[:9])).all()
