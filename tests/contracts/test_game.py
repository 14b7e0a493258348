"""The training contracts carry multi-player games: five sketches train, are killed and resume with the same bits."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from players import DiffusionByEnergy, Hierarchy, ManifoldProjection, WassersteinGan, WeightedRatio, slope
from torch import nn

from mixtura.contracts import ONLY, Batch, InputError, Learner, Model, Optimiser, Phase, Space, Stage, Turn, single_stage
from mixtura.ground.rng import generator
from mixtura.train.fit import fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)
PLANE = Space.continuous(2)


def ring(n, seed=0, radius=2.0):
    angle = 6.2831853 * torch.rand(n, generator=generator(seed), dtype=torch.float64)
    noise = 0.1 * torch.randn(n, 2, generator=generator(seed, "noise"), dtype=torch.float64)
    return radius * torch.stack([angle.cos(), angle.sin()], 1) + noise


GAMES = {
    "WGAN-GP": (lambda: WassersteinGan(PLANE, 0), ring(400)),
    "VWKDE": (lambda: WeightedRatio(0), {"one": Batch(x=ring(300)), "two": Batch(x=1 + ring(120, 1))}),
    "MPDR": (lambda: ManifoldProjection(0), Batch(x=ring(400))),
    "DxMI": (lambda: DiffusionByEnergy(PLANE, 0), ring(400)),
    "hierarchy": (Hierarchy, {"system": Batch(x=3 + ring(4000)), "agent": Batch(x=2 + ring(32, 1))}),
}
RECIPE = Recipe(steps=60, batch=64, every=7, patience=2, rate=5e-3, average=0.9)


def told(record):
    """All of it but the time it took."""
    return replace(record, seconds=0.0, seconds_to_converge=None)


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("stop", [3, pytest.param(20, marks=pytest.mark.slow), 31, pytest.param(44, marks=pytest.mark.slow)])
def test_a_game_killed_and_resumed_has_the_same_bits(name, stop, tmp_path):
    make, data = GAMES[name]
    calm, file = make(), tmp_path / "checkpoint"
    whole = list(fit(calm, data, RECIPE, rng=generator(1)))
    run = fit(make(), data, RECIPE, rng=generator(1), checkpoint=file, checkpoint_every=0)
    before = list(itertools.islice(run, stop))
    run.close()
    resumed = make()
    after = list(fit(resumed, data, RECIPE, rng=generator(1), checkpoint=file, checkpoint_every=0))
    assert [*map(told, before[:-1] + after)] == [*map(told, whole)]
    state = calm.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in resumed.state_dict().items())
    assert whole[-1].finished and not file.exists() and not resumed.training


@pytest.mark.parametrize("name", GAMES)
def test_a_game_repeats_its_plan_and_its_shares_grow_to_one(name):
    make, data = GAMES[name]
    whole, again = make(), make()
    records = list(fit(whole, data, RECIPE, rng=generator(1)))
    plan = replace(RECIPE, steps=None, plan=records[-1].plan)
    repeated = list(fit(again, data, plan, rng=generator(1)))
    assert [*map(told, repeated)] == [*map(told, records)]
    shares = [record.share for record in records]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    players = {stage.name: {phase.name for phase in stage.phases} for stage in whole.stages()}
    assert all(set(record.losses) <= players[record.stage] for record in records)


def test_a_player_of_no_weight_leaves_the_others_bits_alone():
    plain, more = WassersteinGan(PLANE, 0), WassersteinGan(PLANE, 0, weightless=True)
    without = list(fit(plain, ring(400), RECIPE, rng=generator(1)))
    beside = list(fit(more, ring(400), RECIPE, rng=generator(1)))
    for part in ("critic", "generator"):
        ours, theirs = (getattr(model, part).state_dict() for model in (plain, more))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert [{k: v for k, v in r.losses.items() if k != "idle"} for r in beside] == [r.losses for r in without]


def test_the_sketches_learn_what_they_should():
    levels = Hierarchy()
    data = {"system": Batch(x=3 + ring(4000)), "agent": Batch(x=1 + ring(32, 1))}
    *_, last = fit(levels, data, Recipe(steps=800, rate=1e-2), rng=generator(1))
    assert (levels.upper[0] - 3).abs().max() < 0.2 and (levels.lower[0] > 1.2).all() and (levels.lower[0] < 2.8).all()
    assert len(last.plan) == 2 and last.stage == "feedback"
    # of equal covariances the bias can be 0: β = ½ (x − μ̄)ᵀ Σ⁻¹ (x − μ̄), so along the means ∇β·d = (x − μ̄)ᵀ Σ⁻¹ d
    ratio, recovery, shift = WeightedRatio(0), ManifoldProjection(0), torch.tensor([1.0, 0.5])
    normal = torch.randn(1500, 2, generator=generator(2))
    data = {"one": Batch(x=normal[:900]), "two": Batch(x=normal[900:] + shift)}
    records = list(fit(ratio, data, Recipe(steps=600), rng=generator(1)))
    assert records[-1].best < 0.05 * records[0].losses["weight"]
    x = normal[:200] + shift / 2
    told = (slope(ratio.beta, x)[1] @ -shift).detach()
    assert float(torch.corrcoef(torch.stack([told, (x - shift / 2) @ -shift]))[0, 1]) > 0.95
    *_, last = fit(recovery, ring(400), Recipe(steps=600), rng=generator(1))
    near, far = (recovery.energy(rows.float()).mean() for rows in (ring(200, 5), torch.zeros(200, 2) + 0.1 * ring(200, 6)))
    assert near < far


# -------------------------------------------------------------------------------------------------- the rules


class Numbers(Learner):
    """Two numbers and a running buffer, under losses that a test gives."""

    def __init__(self, *stages):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.register_buffer("moved", torch.zeros(()))
        self.register_buffer("still", torch.full((), float("inf")))
        self.made = stages

    def stages(self):
        return tuple(make(self) for make in self.made)


def towards(goal, name="a", **options):
    return lambda m: Phase(name, (getattr(m, name),), lambda turn: (getattr(m, name) - goal).square(), **options)


X = Batch(x=torch.randn(100, 1, generator=generator(0)))
#: all of the weight on one row
ONE = Batch(x=torch.zeros(40, 1), weights=torch.eye(40)[0])


def play(*stages):
    return list(fit(Numbers(*stages), X, RECIPE, rng=generator(1)))


def test_players_share_a_minibatch_and_a_rollout_and_no_stream():
    seen = []

    def loss(m, name):
        def play(turn):
            rollout = turn.once("rollout", lambda rng: torch.rand(1, generator=rng))
            seen.append((name, turn.x.sum().item(), rollout.item(), torch.rand(1, generator=turn.rng).item()))
            return getattr(m, name).square()

        return play

    stage = lambda m: Stage("s", (Phase("a", (m.a,), loss(m, "a"), repeats=2), Phase("b", (m.b,), loss(m, "b"))))  # noqa: E731
    list(fit(Numbers(stage), X, Recipe(steps=2, batch=8), rng=generator(1)))
    first, second = seen[:3], seen[3:]
    assert [name for name, *_ in seen] == ["a", "a", "b"] * 2
    assert len({x for _, x, _, _ in first}) == len({r for *_, r, _ in first}) == 1 and len({own for *_, own in seen}) == 6
    assert first[0][1] != second[0][1] and first[0][2] != second[0][2]


def test_each_player_has_an_optimiser_of_its_own():
    stage = lambda m: Stage("s", (  # noqa: E731
        towards(1.0, "a", optimiser=Optimiser(rate=0.5))(m), towards(1.0, "b", optimiser=Optimiser(rate=0.0005))(m),
    ))  # fmt: skip
    m = Numbers(stage)
    *_, last = fit(m, X, Recipe(steps=30, average=0.01), rng=generator(1))
    assert float(m.a.detach()) > 0.5 and 0 < float(m.b.detach()) < 0.02
    clipped, free = (Numbers(lambda m, c=c: Stage("s", (towards(1.0, optimiser=Optimiser(clip=c))(m),))) for c in (1e-12, None))
    for m in (clipped, free):
        list(fit(m, X, Recipe(steps=30, average=0.01), rng=generator(1)))
    assert 0 < float(clipped.a.detach()) < 0.1 * float(free.a.detach())  # below what AdamW adds to a root


def test_a_stage_without_a_stopping_loss_keeps_the_average_buffers_included():
    def play(m):
        def loss(turn):
            m.moved += 1
            return (m.a - 1).square()

        return loss

    m, numbers, buffers = Numbers(lambda m: Stage("s", (Phase("a", (m.a,), play(m)),))), [], []
    for record in fit(m, X, Recipe(steps=40, rate=0.1, average=0.8), rng=generator(1)):
        if not record.finished:
            numbers.append(float(m.a.detach()))
            buffers.append(float(m.moved))
    plain = Numbers(lambda m: Stage("s", (Phase("a", (m.a,), play(m)),)))
    list(fit(plain, X, Recipe(plan=((40, 39),), rate=0.1, average=1e-9), rng=generator(1)))
    mean, d_of = 0.0, lambda t: min(0.8, (1 + t) / (10 + t))
    for t, value in enumerate(numbers, 1):
        mean = d_of(t) * mean + (1 - d_of(t)) * value
    assert float(m.a.detach()) == pytest.approx(mean, abs=0.02) and record.validation is None and record.best == float("inf")
    mean = 1.0
    for t in range(2, 41):
        mean = d_of(t) * mean + (1 - d_of(t)) * t
    assert buffers == [float(k) for k in range(1, 40)]
    assert float(m.moved) == pytest.approx(mean, rel=1e-5) and float(m.still) == float("inf")


def test_the_best_state_has_its_buffers():
    def loss(m):
        def play(turn):
            if m.training:
                m.moved += 1
                return -m.a
            return (m.a - 0.1).square()

        return play

    m = Numbers(lambda m: Stage("s", (Phase("a", (m.a,), loss(m)),), loss(m)))
    records = list(fit(m, X, Recipe(steps=100, rate=0.01, every=5, patience=100), rng=generator(1)))
    best = min((r for r in records if r.validation is not None), key=lambda r: r.validation)
    assert best.step < 100 and float(m.moved) == best.step


def test_a_stopping_loss_may_need_gradients_and_is_not_a_player_s():
    def critic(m):
        return Phase("critic", (m.a,), lambda turn: -m.a)

    def held_out(m):
        def loss(turn):
            x = turn.x.clone().requires_grad_()
            return torch.autograd.grad(((m.b - 1) * x).sum(), x)[0].square().mean()

        return loss

    m = Numbers(lambda m: Stage("s", (critic(m), towards(1.0, "b")(m)), held_out(m)))
    records = list(fit(m, X, Recipe(steps=200, rate=0.05, every=5), rng=generator(1)))
    scores = [record.validation for record in records if record.validation is not None]
    assert abs(float(m.b.detach()) - 1) < 0.05 and records[-1].best == min(scores)


def test_stages_share_steps_and_a_later_one_leaves_the_earlier_alone():
    m = Numbers(
        lambda m: Stage("first", (towards(1.0, "a")(m),), share=1), lambda m: Stage("second", (towards(2.0, "b")(m),), share=3)
    )
    kept = []
    for record in fit(m, X, Recipe(steps=80, rate=0.1), rng=generator(1)):
        if record.stage == "second":
            kept.append(float(m.a.detach()))
    assert record.plan == ((20, 20), (60, 60)) and len(set(kept)) == 1 and kept[0] > 0


def test_seconds_are_shared_too():
    m = Numbers(
        lambda m: Stage("first", (towards(1.0, "a")(m),), share=1), lambda m: Stage("second", (towards(2.0, "b")(m),), share=1)
    )
    *_, last = fit(m, X, Recipe(seconds=0.4), rng=generator(1))
    assert last.finished and last.seconds < 0.8 and all(20 <= end for _, end in last.plan)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda: Batch(x=torch.zeros(3, 1), context=torch.zeros(2, 1)), r"batch: .* got rows: x 3, context 2"),
        (lambda: Batch(), "batch: expected tensors with the same number of rows, got rows: nothing"),
        (lambda: Batch(x=[1, 2]), "batch: .* got rows: x none"),
        (lambda: Turn({"one": X}, generator).x, "no batch is called 'rows'; fit was given one"),
        (lambda: list(fit(WassersteinGan(PLANE, 0), {"one": X}, RECIPE, rng=generator(1))), "expected one batch with rows x"),
        (lambda: list(fit(WeightedRatio(0), {"one": X, "two": Batch(x=torch.zeros(5, 1))}, RECIPE, rng=generator(1))),
         "WeightedRatio: expected at least 8 rows to train on in 'two', got 5"),
        (lambda: list(fit(Numbers(), X, RECIPE, rng=generator(1))), "Numbers: nothing to train"),
        (lambda: play(lambda m: Stage("s", (Phase("a", (m.a,), lambda turn: torch.ones(())),))), "depends on no parameter"),
        (lambda: play(lambda m: Stage("s", (Phase("a", (m.a,), lambda turn: m.a * turn.x),))), r"'a' has shape \(64, 1\)"),
        (lambda: list(fit(Numbers(), [1.0], RECIPE, rng=generator(1))), "expected rows as a tensor, a Batch or batches by name"),
        (lambda: Batch(x=torch.zeros(2, 1), weights=torch.zeros(2)), "weights: expected one finite number of 0 or more"),
        (lambda: play(lambda m: Stage("s", (towards(1.0)(m),), lambda turn: m.a * turn.x)), r"stage 's' is of shape \(12, 1\)"),
        (lambda: play(lambda m: Stage("s", (towards(1.0)(m),), lambda turn: 1.0)), "stopping loss of stage 's' is a float"),
        (lambda: list(fit(Numbers(lambda m: Stage("s", (towards(1.0)(m),), lambda turn: m.a)), ONE, RECIPE, rng=generator(1))),
         "too few rows have a weight above 0"),
        (lambda: Optimiser(rate=0.0), "optimiser: expected a rate above 0 and betas from 0 to below 1"),
        (lambda: Recipe(seconds=float("nan")), "seconds: expected a finite number above 0"),
        (lambda: Recipe(steps=1, every=0), "every, held_out, average: expected 1 or more"),
        (lambda: list(fit(Numbers(lambda m: Stage("s", (towards(1.0)(m),))), X, Recipe(plan=()), rng=generator(1))),
         "plan: expected the steps and the end, 1 or more, of each of 1 stages"),
        (lambda: play(lambda m: Stage("s", ())), "stage 's' has no player, or one without parameters"),
        (lambda: play(lambda m: Stage("s", (Phase("a", (), lambda turn: m.a),))), "stage 's' has no player, or one without"),
        (lambda: play(lambda m: Stage("s", (towards(1.0)(m), towards(2.0)(m)))), "two players of a stage, are called 'a'"),
        (lambda: play(*[lambda m: Stage("s", (towards(1.0)(m),))] * 2), "two stages, or two players of a stage, are called 's'"),
        (lambda: play(lambda m: Stage("s", (towards(1.0, every=0)(m),))), "phase 'a' has every=0, repeats=1, expected 1"),
        (lambda: play(lambda m: Stage("s", (towards(1.0, repeats=0)(m),))), "phase 'a' has every=1, repeats=0"),
    ],
)  # fmt: skip
def test_wrong_games_are_named(attempt, said):
    with pytest.raises(InputError, match=said):
        attempt()


def test_batches():
    rows = Batch(x=torch.arange(6.0).reshape(3, 2), weights=torch.ones(3), context=None)
    assert len(rows) == 3 and rows.get("context") is None and rows.at(torch.tensor([2]))["x"].tolist() == [[4.0, 5.0]]
    assert rows.at(slice(0, 2))["weights"].tolist() == [1.0, 1.0] and list(rows.but(weights=None).rows) == ["x"]


def test_a_single_player_stops_by_its_own_loss():
    m = Numbers()
    (stage,) = single_stage("likelihood", [m.a], lambda turn: (m.a - 1).square())
    assert stage.unit == "nats" and stage.stopping_loss is not None
    with torch.enable_grad():
        assert not stage.stopping_loss(Turn({ONLY: X}, generator)).requires_grad
    assert isinstance(WassersteinGan(PLANE, 0), Model) and not isinstance(WeightedRatio(0), Model)


class Tied(Learner):
    """One number under two names, and a buffer that no file keeps; both move."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
        self.again = self.w
        self.register_buffer("m", torch.zeros(2), persistent=False)

    def stages(self):
        def loss(turn):
            self.m.mul_(0.9).add_(turn.of("agent")["x"].mean())
            return (self.w - self.m).square().sum() + 0.1 * self.again.sum()

        stopping = lambda turn: (self.w - turn.of("agent")["x"].mean()).square().sum()  # noqa: E731
        return (Stage("s", (Phase("w", self.parameters(), loss),), stopping),)


def test_tied_numbers_and_buffers_that_no_file_keeps_are_resumed_too(tmp_path):
    data, recipe = {"agent": X}, Recipe(steps=40, every=5, rate=0.05)
    calm, resumed, file = Tied(), Tied(), tmp_path / "checkpoint"
    whole = list(fit(calm, data, recipe, rng=generator(1)))
    run = fit(Tied(), data, recipe, rng=generator(1), checkpoint=file, checkpoint_every=0)
    before = list(itertools.islice(run, 17))
    run.close()
    after = list(fit(resumed, data, recipe, rng=generator(1), checkpoint=file, checkpoint_every=0))
    assert [*map(told, before[:-1] + after)] == [*map(told, whole)]
    assert torch.equal(calm.w, resumed.w) and torch.equal(calm.m, resumed.m)


def test_a_run_that_ends_before_its_steps_are_planned_is_repeated():
    stage = lambda m: Stage("s", (towards(1.0)(m),))  # noqa: E731
    once, again = Numbers(stage), Numbers(stage)
    list(fit(once, X, Recipe(plan=((0, 17),), average=0.5), rng=generator(1)))
    *_, last = fit(again, X, Recipe(plan=((0, 17),), average=0.5), rng=generator(1))
    assert last.step == 17 and last.rate == pytest.approx(2e-3 * 17 / 20) and torch.equal(once.a, again.a)
