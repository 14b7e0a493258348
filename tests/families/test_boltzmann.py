"""Boltzmann machines against enumeration: log Z, Gibbs steps, conditionals, what is learnt."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from mixtura.contracts import Column, InputError, Space
from mixtura.families import boltzmann
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe


def every_row(levels: list[int]) -> torch.Tensor:
    return torch.tensor(list(itertools.product(*(range(k) for k in levels))), dtype=torch.float64)


def machine(levels: list[int], hidden: int, seed: int = 0, scale: float = 0.5) -> boltzmann.BoltzmannMachine:
    """With seeded weights."""
    space = Space.table(Column("levels", k) for k in levels)
    model = boltzmann.build(space, config=boltzmann.Config(hidden=hidden), rng=generator(seed))
    rng = generator(seed, "weights")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=rng))
    model.columns.prepare(every_row(levels))
    shares = torch.zeros(sum(levels))
    model.log_share = torch.cat([group - group.logsumexp(0) for group in shares.split(levels)])
    return model


def true_law(model: boltzmann.BoltzmannMachine, levels: list[int]) -> tuple[torch.Tensor, torch.Tensor, float]:
    x = every_row(levels)
    with torch.no_grad():
        energy = model.energy(model.columns.encode(x)).double()
    log_z = float(torch.logsumexp(-energy, 0))
    return x, (-energy - log_z).exp(), log_z


def test_log_z_of_an_rbm_of_12_by_8_units():
    """4,096 rows enumerated; annealed importance sampling within .02."""
    levels = [2] * 12
    model = machine(levels, 8)
    _, _, truth = true_law(model, levels)
    found = model.log_partition(generator(7), chains=500, temperatures=1_000)
    assert abs(found.value - truth) < 0.02 and found.error < 0.02


@pytest.mark.parametrize(("levels", "hidden"), [([2, 3, 2, 4], 0), ([2, 3, 2, 4], 5), ([2] * 9, 0)])
def test_log_z_and_samples_of_small_machines(levels, hidden):
    model = machine(levels, hidden, scale=0.8)
    x, p, truth = true_law(model, levels)
    found = model.log_partition(generator(7), chains=1_000, temperatures=300)
    assert abs(found.value - truth) < 4 * found.error + 0.02
    made = model.sample(4_000, rng=generator(8))
    code = lambda rows: sum(int(math.prod(levels[j + 1 :])) * rows[:, j] for j in range(len(levels)))  # noqa: E731
    shares = torch.bincount(code(made).long(), minlength=len(x)).double() / len(made)
    assert float((shares - p).abs().sum()) / 2 < 0.1


@pytest.mark.parametrize("hidden", [0, 4])
def test_a_gibbs_step_leaves_the_law_as_it_is(hidden):
    """Exactly distributed rows stay so, also on the way, at β = .6."""
    levels = [2, 3, 2]
    model = machine(levels, hidden, scale=1.0)
    x = every_row(levels)
    with torch.no_grad():
        v = model.columns.encode(x).float()
        p = torch.softmax(-model._energy(v, 0.6).double(), 0)
        start = v[torch.multinomial(p, 60_000, True, generator=generator(1))]
        moved = model._codes_of(model._gibbs(start, 0.6, generator(2))).double()
    shares = torch.stack([(moved == row).all(1).double().mean() for row in x])
    assert float((shares - p).abs().max()) < 4 * math.sqrt(0.25 / 60_000) + 1e-3


def test_pseudo_likelihood_is_that_of_the_conditionals():
    """Σ_i log p(v_i | others) by enumeration."""
    levels = [2, 3, 2]
    model = machine(levels, 0)
    x, p, _ = true_law(model, levels)
    truth = 0.0
    for row, _ in zip(x, p, strict=True):
        for j in range(3):
            same = (x[:, [k for k in range(3) if k != j]] == row[[k for k in range(3) if k != j]]).all(1)
            truth += math.log(float(p[(x == row).all(1)] / p[same].sum())) / len(x)

    class Seen:
        pass

    seen = Seen()
    seen.x = model.columns.encode(x).float()
    with torch.no_grad():
        assert -float(model._pseudo(seen)) == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("hidden", [0, 12])
def test_a_law_of_codes_is_learnt(hidden):
    """Six columns in a chain, each equal to the one before it with probability .85: total variation to the exact law."""
    rng = generator(0)
    columns = [torch.randint(2, (4_000,), generator=rng)]
    for _ in range(5):
        columns.append(columns[-1] ^ (torch.rand(4_000, generator=rng) < 0.15))
    data = torch.stack(columns, 1).double()
    model = boltzmann.build(Space.levels(6, levels=2), config=boltzmann.Config(hidden=hidden), rng=rng)
    for _ in fit(model, data, Recipe(**{**boltzmann.RECIPE, "steps": 600}), rng=rng):
        pass
    x = every_row([2] * 6)
    changes = (x[:, 1:] != x[:, :-1]).sum(1)
    truth = 0.5 * 0.15**changes * 0.85 ** (5 - changes)
    with torch.no_grad():
        found = torch.softmax(-model.energy(model.columns.encode(x)).double(), 0)
    assert float((found - truth).abs().sum()) / 2 < (0.05 if hidden == 0 else 0.12)
    told = model.diagnose(data, None, generator(1))
    assert told["estimated nats"] == pytest.approx(float((truth * truth.log()).sum()), abs=0.1)


@pytest.mark.parametrize("stop", [7, 31])
def test_a_fit_that_is_taken_up_has_the_same_bits(stop, tmp_path):
    """The chains are part of the state."""
    data = torch.randint(2, (200, 4), generator=generator(0)).double()

    def begin():
        model = boltzmann.build(Space.levels(4, levels=2), config=boltzmann.Config(hidden=3, chains=40), rng=generator(1))
        recipe = Recipe(**{**boltzmann.RECIPE, "steps": 40})
        return model, fit(model, data, recipe, rng=generator(2), checkpoint=tmp_path / "fit", checkpoint_every=0.0)

    whole, steps = begin()
    list(steps)
    _, steps = begin()
    next(step for step in steps if step.step == stop)
    steps.close()
    again, steps = begin()
    list(steps)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())


def test_missing_cells_are_a_level():
    space = Space.table((Column("levels", 2, missing=True), Column("levels", 2)))
    rng = generator(0)
    second = torch.randint(2, (1_000,), generator=rng).double()
    x = torch.stack([torch.where(torch.rand(1_000, generator=rng) < 0.3, math.nan, second), second], 1)
    model = boltzmann.build(space, config=boltzmann.Config(hidden=0), rng=rng)
    for _ in fit(model, x, Recipe(**{**boltzmann.RECIPE, "steps": 300}), rng=rng):
        pass
    made = model.sample(1_000, rng=generator(1))
    there = ~made[:, 0].isnan()
    assert abs(float(there.double().mean()) - 0.7) < 0.06 and float((made[there, 0] == made[there, 1]).double().mean()) > 0.9


def test_what_cannot_be_modelled():
    with pytest.raises(InputError, match="boltzmann: models levels only"):
        boltzmann.build(Space.continuous(2), config=boltzmann.Config(), rng=generator(0))
    with pytest.raises(InputError, match="boltzmann: it takes no context"):
        boltzmann.build(Space.levels(2, levels=2), context_shape=(1,), config=boltzmann.Config(), rng=generator(0))
