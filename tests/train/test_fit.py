"""Training follows the recipe, stops when it should and, interrupted anywhere, continues with the same bits."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from safetensors.torch import save
from torch import nn

from mixtura.contracts import Batch, Column, InputError, Model, Phase, Space, Stage, single_stage
from mixtura.families import TABLE
from mixtura.ground.rng import generator
from mixtura.train.average import Average
from mixtura.train.devices import choose_device
from mixtura.train.fit import Step, fit
from mixtura.train.recipe import Recipe

torch.set_num_threads(1)
ROWS = 100 + 3 * torch.randn(120, 1, generator=generator(0), dtype=torch.float64)


class Toy(Model):
    """One number, moved by whatever ``loss(model, x)`` says; remembers which rows it saw in training."""

    def __init__(self, loss, space=None):
        super().__init__(space or Space.continuous(1))
        self.loss, self.number = loss, nn.Parameter(torch.zeros(()))
        self.calls, self.seen = 0, set()

    def _sample(self, n, context, rng):
        return self.number.detach().double().expand(n, 1).clone()

    def stages(self):
        return single_stage("likelihood", (self.number,), self._play)

    def _play(self, turn):
        self.calls += self.training
        if self.training:
            self.seen |= set(turn.x.flatten().tolist())
        return self.loss(self, turn.x)


def squared(model, x):
    return (model.number - (x - 100).mean().float()).square()


def play(model, recipe, x=ROWS, seed=1, **options):
    return list(fit(model, x, recipe, rng=generator(seed), **options))


# ---------------------------------------------------------------------------------------------- what is learnt


def test_the_parameter_finds_the_minimum_and_the_record_says_how():
    model = Toy(squared)
    records = play(model, Recipe(steps=400, rate=0.05, every=10, patience=100))
    assert float(model.number.detach()) == pytest.approx(float(ROWS.mean() - 100), abs=0.35)
    assert [r.step for r in records] == list(range(1, 401))
    assert [r.finished for r in records] == [False] * 399 + [True]
    assert all((r.validation is not None) == (r.step % 10 == 0) for r in records)
    assert records[-1].best == min(r.validation for r in records if r.validation is not None)
    assert not model.training


def test_the_held_out_slice_is_never_trained_on():
    model = Toy(squared)
    play(model, Recipe(steps=300, batch=64))
    held = set(ROWS.flatten().tolist()) - model.seen
    assert len(held) == round(0.12 * len(ROWS))


def test_the_rate_warms_up_stays_and_falls_to_zero():
    rates = [r.rate for r in play(Toy(squared), Recipe(steps=90, rate=0.3, every=90))]
    want = [0.3 * min(1, t / 20) * min(1, (90 - t + 1) / 30) for t in range(1, 91)]
    assert rates == pytest.approx(want)


def test_the_best_state_is_kept_not_the_last():
    """In training the number runs away for ever; on the held-out slice 1 is best."""
    model = Toy(lambda m, x: -m.number if m.training else (m.number - 1).square())
    records = play(model, Recipe(steps=200, rate=0.05, every=5, patience=10**6))
    scores = [r.validation for r in records if r.validation is not None]
    assert scores[-1] > 10 * min(scores)
    assert (float(model.number.detach()) - 1) ** 2 == pytest.approx(min(scores), rel=1e-4) == records[-1].best


def test_a_plateau_lowers_the_rate_and_the_last_one_ends_the_run():
    """Nothing ever improves: the first score is progress, then 2 stale ones make a plateau, 2 plateaus the end."""
    model = Toy(lambda m, x: 0 * m.number + 1)
    records = play(model, Recipe(steps=3000, every=10, patience=2, plateaus=2))
    assert records[-1].step == 50 and records[-1].converged and records[-1].seconds_to_converge is None
    assert records[29].rate == 2e-3 and records[30].rate == pytest.approx(0.3 * 2e-3)


def test_a_run_cut_short_says_what_it_would_have_wanted():
    last = play(Toy(squared), Recipe(steps=60, rate=1e-3, every=5))[-1]
    assert last.finished and not last.converged and last.seconds_to_converge > last.seconds
    assert play(Toy(squared), Recipe(steps=10, every=5))[-1].seconds_to_converge is None  # two scores are no curve


def test_a_time_budget_plans_its_steps_and_is_kept():
    records = play(Toy(squared), Recipe(seconds=0.3, every=5, patience=10**6))
    assert records[-1].finished and records[-1].seconds < 0.6
    assert 40 <= records[25].steps <= 200_000


def test_a_replay_stops_mid_plan():
    whole, part = (play(Toy(squared), recipe) for recipe in (Recipe(steps=100), Recipe(plan=((100, 37),))))
    assert len(part) == 37 and part[-1].finished and part[-1].plan == ((100, 37),) and whole[-1].plan == ((100, 100),)
    assert [(r.losses, r.rate) for r in part] == [(r.losses, r.rate) for r in whole[:37]]


# ---------------------------------------------------------------------------------------------- averages


def test_the_average_is_the_one_of_the_formula():
    p = nn.Parameter(torch.tensor([0.0, 10.0], dtype=torch.float64))
    average, want = Average({"p": p}, decay=0.5), p.detach().clone()
    for t, value in enumerate([(1.0, 2.0), (3.0, -4.0), (5.0, 6.0), (7.0, 0.0)] * 4, 1):
        p.data = torch.tensor(value, dtype=torch.float64)
        average.update()
        d = min(0.5, (1 + t) / (10 + t))
        want = d * want + (1 - d) * p.detach()
    torch.testing.assert_close(average.mean["p"], want, rtol=1e-12, atol=0)
    live = p.detach().clone()
    average.swap()
    torch.testing.assert_close(p.detach(), want, rtol=1e-12, atol=0)
    average.swap()
    assert torch.equal(p.detach(), live)


def test_the_average_is_scored_and_kept_when_asked_for():
    model = Toy(squared)
    numbers = [float(model.number.detach())]
    for record in fit(model, ROWS, Recipe(steps=30, rate=0.1, every=30, average=0.8), rng=generator(1)):
        if not record.finished:
            numbers.append(float(model.number.detach()))
    # the live number of the last step, which the average has replaced: the same run without it
    plain = Toy(squared)
    play(plain, Recipe(steps=30, rate=0.1, every=30))
    numbers.append(float(plain.number.detach()))
    want = numbers[0]
    for t, number in enumerate(numbers[1:], 1):
        d = min(0.8, (1 + t) / (10 + t))
        want = d * want + (1 - d) * number
    assert float(model.number.detach()) == pytest.approx(want, rel=1e-5)


# ---------------------------------------------------------------------------------------------- several players


class Duel(Model):
    """A follower that goes where the leader is, and a leader, moved at every second step, that goes to 3."""

    def __init__(self):
        super().__init__(Space.continuous(1))
        self.follower, self.leader = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
        self.moves = {"follow": 0, "lead": 0}

    def _sample(self, n, context, rng):
        return self.follower.detach().double().expand(n, 1).clone()

    def stages(self):
        chase = lambda: (self.follower - self.leader).square()  # noqa: E731
        follow = Phase("follow", (self.follower,), lambda turn: self._move("follow", chase(), turn))
        # the leader's loss also depends on the follower, whom only the first phase may move
        lead = lambda turn: self._move("lead", (self.leader - 3).square() + 0 * chase(), turn)  # noqa: E731
        return (Stage("duel", (follow, Phase("lead", (self.leader,), lead, every=2)), lambda turn: chase()),)

    def _move(self, name, loss, turn):
        self.moves[name] += self.training
        return loss


def test_players_move_their_own_parameters_in_their_own_time():
    model, trace = Duel(), []
    for record in fit(model, ROWS, Recipe(steps=601, rate=0.05, patience=10**6), rng=generator(1)):
        if not record.finished:
            trace.append((float(model.follower.detach()), float(model.leader.detach())))
    assert model.moves == {"follow": 601, "lead": 300}
    assert trace[0][1] == 0 and trace[1][1] > 0  # the leader's first move is the second step
    assert all((b[1] == a[1]) == (step % 2 == 1) for step, (a, b) in enumerate(itertools.pairwise(trace[:100]), 2))
    assert trace[-1][1] == pytest.approx(3, abs=0.05) and trace[-1][0] == pytest.approx(3, abs=0.1)


# ---------------------------------------------------------------------------------------------- going wrong


def _bad_loss(model, x):
    return model.number.square() * (math.nan if model.calls == 3 else 1)


def _bad_gradient(model, x):
    return (model.number - model.number.detach() + (0 if model.calls == 3 else 1)).abs().sqrt()


@pytest.mark.parametrize(("loss", "what"), [(_bad_loss, "loss"), (_bad_gradient, "gradient")])
def test_what_is_not_finite_is_named(loss, what):
    with pytest.raises(FloatingPointError, match=f"^toy: the {what} of phase 'likelihood' is not finite at step 3; .*rate"):
        play(Toy(loss), Recipe(steps=10), name="toy")


def test_a_score_that_is_never_finite_is_named():
    model = Toy(lambda m, x: m.number.square() if m.training else m.number * math.nan)
    with pytest.raises(FloatingPointError, match="toy: no finite score on the held-out slice after 10 steps"):
        play(model, Recipe(steps=10), name="toy")


class Idle(Toy):
    def stages(self):
        return ()


@pytest.mark.parametrize(
    ("attempt", "named"),
    [
        (lambda: Recipe(), "exactly one of steps, seconds and plan"),
        (lambda: Recipe(steps=1, seconds=1.0), "exactly one of steps, seconds and plan"),
        (lambda: Recipe(steps=1, plan=((1, 1),)), "exactly one of steps, seconds and plan"),
        (lambda: Recipe(steps=0), "steps: expected a whole number, 1 or more, got 0"),
        (lambda: play(Toy(squared), Recipe(steps=1), ROWS[:7]), "Toy: expected at least 8 rows to train on, got 7"),
        (lambda: play(Toy(squared), Recipe(steps=1), ROWS[:, :0]), r"training rows: expected shape \(n, 1\)"),
        (lambda: play(Toy(squared), Recipe(steps=1), ROWS * math.nan), "training rows: row 0, column 0 is nan"),
        (lambda: play(Toy(squared), Recipe(steps=1), Batch(x=ROWS, context=torch.zeros(120, 1))), "built without a context"),
        (lambda: play(Idle(squared), Recipe(steps=1)), "nothing to train"),
        (lambda: choose_device("abacus"), "'abacus' is no torch device"),
        (lambda: choose_device("meta"), "device: models are not trained on 'meta'; use auto, cpu or cuda"),
        (lambda: choose_device("cuda:99"), "device: got 'cuda:99', but torch sees [0-9]+ CUDA devices here; use auto or cpu"),
    ],
)
def test_wrong_requests_are_named(attempt, named):
    with pytest.raises(InputError, match=named):
        attempt()


def test_a_device_that_is_not_there_is_named():
    if torch.cuda.is_available():
        assert choose_device("auto").type == "cuda"
    else:
        assert choose_device("auto").type == "cpu"
        with pytest.raises(InputError, match="torch sees 0 CUDA devices here"):
            choose_device("cuda")


# ---------------------------------------------------------------------------------------------- checkpoints

STEPS = 40
MIXED = Space.table((Column(), Column("levels", 3, missing=True), Column(resolution=1.0, low=90, high=110)))


def mixed_rows():
    level = torch.randint(3, (120,), generator=generator(3)).double().masked_fill(torch.arange(120) % 11 == 0, math.nan)
    return torch.cat([ROWS, level[:, None], ROWS.round().clamp(90, 110)], 1)


class Rivals(Duel):
    """A duel whose follower's loss draws noise."""

    def _move(self, name, loss, turn):
        noise = self.follower * torch.randn((), generator=turn.rng) if name == "follow" else 0
        return super()._move(name, loss, turn) + noise


def start(name):
    """A fresh model, its rows and recipe, and a fresh generator."""
    rng = generator(4)
    if name == "duel":
        return Rivals(), ROWS, Recipe(steps=STEPS, rate=0.05, every=7, patience=1, plateaus=100, average=0.9), rng
    family = TABLE[name]
    model = family.build(MIXED, config=family.suggest(MIXED, 120), rng=rng)
    settings = {"average": 0.9 if name == "flow" else None, **family.recipe, "every": 7, "steps": STEPS}
    return model, mixed_rows(), Recipe(**settings), rng


def outcome(model, records, rng):
    plain = [(r.step, r.losses, r.rate, r.best, r.validation, r.finished, r.converged) for r in records]
    return plain, {k: v.clone() for k, v in model.state_dict().items()}, rng.get_state()


def same(a, b):
    return (
        a[0] == b[0]
        and a[1].keys() == b[1].keys()
        and all(torch.equal(a[1][k], b[1][k]) for k in a[1])
        and torch.equal(a[2], b[2])
    )


CLOSED = [name for name, row in TABLE.items() if row.fit == "closed"]


# boltzmann is for levels only, and has such a test of its own
@pytest.mark.parametrize("name", ["duel", *(n for n in TABLE if n not in (*CLOSED, "boltzmann"))])
@pytest.mark.parametrize("stop", [8, STEPS - 1, *(pytest.param(stop, marks=pytest.mark.slow) for stop in (2, 23))])
def test_interrupted_and_resumed_is_undisturbed(name, stop, tmp_path):
    model, x, recipe, rng = start(name)
    calm = outcome(model, list(fit(model, x, recipe, rng=rng)), rng)

    file = tmp_path / "checkpoint.safetensors"
    model, x, recipe, rng = start(name)
    run = fit(model, x, recipe, rng=rng, checkpoint=file, checkpoint_every=0)
    before = list(itertools.islice(run, stop))  # the record of the last step is out, its checkpoint not yet written
    run.close()
    assert file.exists()

    model, x, recipe, rng = start(name)
    after = list(fit(model, x, recipe, rng=rng, checkpoint=file, checkpoint_every=0))
    assert same(outcome(model, before[:-1] + after, rng), calm)
    assert [p.name for p in tmp_path.iterdir()] == []


def written(tmp_path, name="duel"):
    file = tmp_path / "checkpoint.safetensors"
    model, x, recipe, rng = start(name)
    run = fit(model, x, recipe, rng=rng, checkpoint=file, checkpoint_every=0)
    list(itertools.islice(run, 5))
    run.close()
    return file


DAMAGE = {
    "empty": lambda good: b"",
    "text": lambda good: b"not a checkpoint at all, only words",
    "cut in half": lambda good: good[: len(good) // 2],
    "header only": lambda good: good[:100],
    "a byte short": lambda good: good[:-1],
    "header overwritten": lambda good: good[:8] + b"#" * 40 + good[48:],
    "absurd length": lambda good: b"\xff" * 8 + good[8:],
    "no state": lambda good: save({"learner.follower": torch.zeros(())}),
    "no tensors": lambda good: save({"x": torch.zeros(1)}, {"state": '{"step": 3, "curve": []}'}),
    "state of another version": lambda good: save({"x": torch.zeros(1)}, {"state": '{"steppe": 3, "curve": []}'}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named(damage, tmp_path):
    file = written(tmp_path)
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    model, x, recipe, rng = start("duel")
    with pytest.raises(InputError, match="not a checkpoint of this duel"):
        list(fit(model, x, recipe, rng=rng, checkpoint=file, name="duel"))


def test_the_checkpoint_of_another_model_is_named(tmp_path):
    file = written(tmp_path, "kde")
    model, x, recipe, rng = start("autoregressive")
    with pytest.raises(InputError, match="not a checkpoint of this autoregressive"):
        list(fit(model, x, recipe, rng=rng, checkpoint=file, name="autoregressive"))


def test_a_step_is_a_record():
    step = play(Toy(squared), Recipe(steps=1))[0]
    with pytest.raises(AttributeError):
        step.rate = 0.0
    assert isinstance(step, Step) and step.finished and step.validation == step.best


# ------------------------------------------------------------------------------------------------------------ pauses


HOW = {"rate": 0.05, "every": 20, "patience": 10**6}  # so that the first pause is possible on any machine


@pytest.mark.parametrize(("first", "then"), [(20.0, 0.3), (0.2, 0.5)])
def test_a_fit_that_was_paused_has_the_bits_of_its_plan(first, then, tmp_path):
    """Whether it then has more time than it was planned for, or less."""
    path = tmp_path / "checkpoint"
    *_, last = play(Toy(squared), Recipe(seconds=first, **HOW), checkpoint=path, pause=1e-9)
    assert last.paused and not last.finished and path.exists() and last.curve[-1][0] == last.step
    model = Toy(squared)
    *_, end = play(model, Recipe(seconds=then, **HOW), checkpoint=path)
    assert end.finished and end.step > last.step and not path.exists() and end.plan[0][0] != last.steps
    again = Toy(squared)
    *_, repeated = play(again, Recipe(plan=end.plan, **HOW))
    assert model.number.equal(again.number) and repeated.best == end.best


def test_a_fit_that_was_paused_may_end_there(tmp_path):
    path = tmp_path / "checkpoint"
    *_, last = play(Toy(squared), Recipe(seconds=20.0, **HOW), checkpoint=path, pause=1e-9)
    model = Toy(squared)
    (end,) = play(model, Recipe(seconds=20.0, **HOW), checkpoint=path, stop=True)
    assert end.finished and not end.converged and end.plan[0][1] == last.step and not path.exists()
    again = Toy(squared)
    play(again, Recipe(plan=end.plan, **HOW))
    assert model.number.equal(again.number)


def test_a_fit_by_steps_is_not_paused(tmp_path):
    *_, last = play(Toy(squared), Recipe(steps=40, every=10), checkpoint=tmp_path / "checkpoint", pause=1e-9)
    assert last.finished and not last.paused
