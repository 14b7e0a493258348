"""Online selection as a whole: arms that behave and arms that do not, stops and resumptions, kills."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import mixtura
from mixtura.arms import ArmError, Exhausted, Function, Pool
from mixtura.contracts import InputError
from mixtura.features.space import FeatureSpace
from mixtura.ground import machine
from mixtura.ledger import Ledger
from mixtura.policies import TABLE, Row
from mixtura.policies.bandit import Policy, first_best
from mixtura.selection.mixture import begin
from mixtura.selection.records import Stop
from mixtura.selection.session import FAILURES
from mixtura.selection.start import conduct

MEANS = np.array([[-3.0, -2.0], [3.0, 1.4], [0.9, 3.2]])
WIDTH = 1.25 * 2**0.5


def pools(n=200, cost=0.0):
    rng = np.random.default_rng(0)
    return [Pool(f"g{i}", m + 0.4 * rng.normal(size=(n, 2)), cost=cost) for i, m in enumerate(MEANS)]


def run(arms, out, pulls=60, **options):
    session = begin(arms, out, options.pop("objective", "rke"), bandwidth=options.pop("bandwidth", WIDTH), pulls=pulls, **options)
    try:
        rounds = list(session.conduct())
        return session.finish(), rounds, session.ledger.pulls(samples=True)
    finally:
        session.close()


def test_a_selection_finds_the_mixture(tmp_path):
    """Three modes far apart: a third each, and nearly three in effect."""
    found, rounds, pulls = run(pools(cost=2.0), tmp_path, pulls=150)
    assert found.by_name == pytest.approx({"g0": 1 / 3, "g1": 1 / 3, "g2": 1 / 3}, abs=0.06)
    assert len(rounds) == len(pulls) == found.pulls == 150 and found.spent == 300.0 == rounds[-1].spent
    assert found.why == "all 150 pulls are made" and found.gap < 1e-12 and found.higher
    assert all(p.status == "told" and p.sample.shape == (2,) for p in pulls)
    assert all(low <= w <= high for (low, high), w in zip(found.intervals, found.weights, strict=True))
    assert "g0" in found.sentence and "150 samples" in found.sentence


def test_watching_changes_nothing_and_stopping_neither(tmp_path):
    """Taken up after 23 and 41 pulls, with more pulls asked for later: the same pulls in the same order."""
    whole = [p.arm for p in run(pools(), tmp_path / "whole")[2]]
    for stop in (23, 41):
        session = begin(pools(), tmp_path / "parts", "rke", bandwidth=WIDTH, pulls=60)
        for r in session.conduct():
            if r.pulls == stop:
                break
        session.close()
    found, rounds, pulls = run(pools(), tmp_path / "parts")
    assert [p.arm for p in pulls] == whole and len(rounds) == 60 - 41
    assert [p.draw for p in pulls] == [whole[:i].count(arm) for i, arm in enumerate(whole)]


@pytest.mark.parametrize("policy", ["variance_ucb", "cab_code", "ogd", "epsilon_greedy", "successive_halving", "sparse"])
def test_every_policy_can_be_taken_up(tmp_path, policy):
    whole = [p.arm for p in run(pools(), tmp_path / "whole", policy=policy)[2]]
    session = begin(pools(), tmp_path / "parts", "rke", bandwidth=WIDTH, pulls=60, policy=policy)
    for r in session.conduct():
        if r.pulls == 37:
            break
    session.close()
    assert [p.arm for p in run(pools(), tmp_path / "parts", policy=policy)[2]] == whole


def broken(seed):
    raise ArmError("broken: no power")


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda seed: 1 / 0, "ZeroDivisionError"),
        (lambda seed: [np.nan, 0.0], "finite"),
        (lambda seed: [1.0, 2.0, 3.0], "3 features, the others have 2"),
        (lambda seed: "text", "text"),
        (lambda seed: [], "0 numbers"),
    ],
)
def test_a_hostile_arm_is_named_and_the_others_go_on(tmp_path, bad, says):
    found, rounds, pulls = run([*pools(), Function("bad", bad, cost=5.0)], tmp_path, pulls=60)
    failed = [r for r in rounds if r.status == "failed"]
    assert len(failed) == FAILURES and all(r.arm == "bad" and says in r.reason for r in failed)
    assert says in found.closed["bad"] and found.by_name["bad"] == 0 and found.pulls == 60
    assert found.counts["bad"] == {"asked": 0, "told": 0, "failed": FAILURES, "unknown": 0} and found.spent == 15.0


def test_the_curve_waits_for_no_arm_that_never_came(tmp_path):
    session = begin([*pools(), Function("bad", broken)], tmp_path, "2*rke", bandwidth=WIDTH, pulls=60)
    shown = [r.pulls for r in session.conduct() if r.value is not None]
    record = session.record(session.finish(), "toy")
    session.close()
    assert [p["pulls"] for p in record["curve"]][-len(shown):] == shown
    w, q = np.array([arm["weight"] for arm in record["arms"]]), record["quadratic"]
    assert 1 / (w @ np.array(q["K"]) @ w) == pytest.approx(record["value"])  # modes, whatever the scale


def fails_from(call):
    """A function that gives samples, and from this call on fails."""
    asked = []

    def f(seed):
        asked.append(seed)
        if len(asked) > call:
            raise OSError("no power")
        return MEANS[0] + 0.01 * np.random.default_rng(seed).normal(size=2)

    return f


@pytest.mark.parametrize("policy", ["variance_ucb", "successive_halving"])
@pytest.mark.parametrize("call", [0, 3, 6])
def test_a_finished_selection_with_a_failed_arm_is_read_again_as_it_was(tmp_path, call, policy):
    """The arm is closed at the same place: a bandwidth is chosen from the same samples, and a half is kept in the same views."""
    given, kept = {f"g{i}": pool.samples for i, pool in enumerate(pools())}, tmp_path / "kept"
    asked = {"pulls": 60, "out": kept, "policy": policy}
    with pytest.warns(mixtura.contracts.Note, match="bad: failed 3 times in a row"):
        found = mixtura.select({**given, "bad": fails_from(call)}, "rke", **asked)
        written = (kept / "selection.json").read_bytes()
        again = mixtura.select({**given, "bad": broken}, "rke", **asked)
    assert (again.weights, again.value, again.error, again.counts) == (found.weights, found.value, found.error, found.counts)
    assert found.closed == again.closed == {"bad": "bad: raised OSError: no power"} and found.counts["bad"]["told"] == call
    assert (kept / "selection.json").read_bytes() == written


@pytest.mark.parametrize("stop", [7, 9, 16, 30])
def test_a_selection_in_which_an_arm_failed_is_taken_up_where_it_stopped(tmp_path, stop):
    whole = run([*pools(), Function("bad", fails_from(3))], tmp_path / "whole", bandwidth=None)
    bad = fails_from(3)
    session = begin([*pools(), Function("bad", bad)], tmp_path / "parts", "rke", pulls=60)
    for r in session.conduct():
        if r.number == stop:
            break
    session.close()
    parts = run([*pools(), Function("bad", bad)], tmp_path / "parts", bandwidth=None)
    assert [(p.arm, p.status, p.place) for p in parts[2]] == [(p.arm, p.status, p.place) for p in whole[2]]
    assert parts[0] == whole[0]


def test_a_policy_that_remembers_sees_every_view_once(tmp_path, monkeypatch):
    """In the first sitting and when it is taken up, whatever fails."""

    class Turns(Policy):
        remembers = True

        def __init__(self):
            self.seen = 0

        def choose(self, view, rng):
            self.seen += 1
            return first_best([(i + self.seen) % 4 for i in range(4)], view)

    row = Row("turns", Turns, True, False, "counts what it sees")
    monkeypatch.setitem(TABLE, "turns", row)
    whole = run([*pools(), Function("bad", fails_from(9))], tmp_path / "whole", policy="turns")
    bad = fails_from(9)
    session = begin([*pools(), Function("bad", bad)], tmp_path / "parts", "rke", bandwidth=WIDTH, pulls=60, policy="turns")
    for r in session.conduct():
        if r.number == 50:
            break
    session.close()
    parts = run([*pools(), Function("bad", bad)], tmp_path / "parts", policy="turns")
    assert [(p.arm, p.status) for p in parts[2]] == [(p.arm, p.status) for p in whole[2]] and "bad" in parts[0].closed


def test_a_stopping_rule_that_is_not_met_changes_no_choice(tmp_path):
    """Beyond 500 samples some wait to join the sums; a check, every 5 pulls, must not add them."""
    arms = [Pool(name, np.random.default_rng(k).normal(size=(400, 2)) + k / 5) for k, name in enumerate("abc")]
    free, checked = (run(arms, tmp_path / f"{stop}", pulls=560, stop=stop) for stop in (None, Stop(1e-9)))
    assert [p.arm for p in free[2]] == [p.arm for p in checked[2]]
    assert [(r.weights, r.value) for r in free[1]] == [(r.weights, r.value) for r in checked[1]]


def test_the_shape_of_an_arm_is_known_to_later_sittings(tmp_path):
    """Rows and columns are told apart, although their features are as many."""
    shapes = iter([(4,)] * 6 + [(2, 2)] * 3)
    arms = [Function("a", lambda seed: np.arange(4.0) + seed), Function("b", lambda seed: np.full(next(shapes), float(seed)))]
    session = begin(arms, tmp_path, "rke", bandwidth=1.0, pulls=12, policy="uniform")
    list(session.conduct())
    session.close()
    again = [Function(arm.name, arm._f) for arm in arms]
    found, rounds, _ = run(again, tmp_path, bandwidth=1.0, pulls=20, policy="uniform")
    assert {r.reason for r in rounds if r.status == "failed"} == {"b: gave a sample of shape (2, 2), its first one had (4,)"}
    assert found.counts["b"] == {"asked": 0, "told": 6, "failed": 3, "unknown": 0}


def test_another_reference_of_the_same_name_is_another_selection(tmp_path):
    real = np.random.default_rng(0).normal(size=(30, 2))
    arms = {f"g{i}": pool.samples for i, pool in enumerate(pools())}
    first = mixtura.select(arms, "mmd", reference=real, pulls=20, out=tmp_path)
    assert mixtura.select(arms, "mmd", reference=real, pulls=20, out=tmp_path) == first
    with pytest.raises(InputError, match=r'holds a selection with reference "ndarray, float64 \[30, 2\] '):
        mixtura.select(arms, "mmd", reference=real + 1, pulls=20, out=tmp_path)


def test_small_pools_are_enough_where_there_is_no_more(tmp_path):
    """Fewer samples than the first of each arm, and all pools are empty."""
    found, _, _ = run(pools(n=3), tmp_path, bandwidth=None, pulls=50)
    assert found.pulls == 9 and found.why == "no arm is left to be asked" and sum(found.weights) == pytest.approx(1)


@pytest.mark.parametrize("size", [1e300, 1e39, 5e18])
def test_features_that_are_too_large_close_their_arm_alone(tmp_path, size):
    big = Function("big", lambda seed: [size, float(seed)], cost=2.0)
    found, rounds, _ = run([*pools(), big], tmp_path, pulls=40)
    reason = "its sample cannot be compared: its features are not finite, or their length is above 1e+18"
    assert found.closed == {"big": reason} and found.pulls == 40 and found.spent == 6.0 == rounds[-1].spent
    assert run([*pools(), big], tmp_path, pulls=40)[0] == found


@pytest.mark.parametrize("bad", [np.full((9, 2), np.inf), np.ones((9, 3)), np.full((9, 2), 1e30)])
def test_of_pools_that_cannot_be_compared_no_truth_is_told(tmp_path, bad):
    session = begin([*pools(), Pool("bad", bad)], tmp_path, "rke", bandwidth=WIDTH, pulls=30)
    list(session.conduct())
    assert session.record(session.finish(), "toy")["truth"] is None and "bad" in session.closed
    session.close()


def test_a_fresh_start_leaves_a_selection_alone_in_which_another_works(tmp_path):
    arms = {f"g{i}": pool.samples for i, pool in enumerate(pools())}
    rounds = conduct(arms, bandwidth=WIDTH, pulls=20, out=tmp_path)
    next(rounds)
    with pytest.raises(InputError, match="another selection works in this folder; wait for it, or give another --out"):
        mixtura.select(arms, bandwidth=WIDTH, pulls=20, out=tmp_path, fresh=True)
    assert [*rounds][-1].pulls == 20
    with machine.held(tmp_path), pytest.raises(InputError, match="another selection starts over in this folder"):
        mixtura.select(arms, bandwidth=WIDTH, pulls=20, out=tmp_path)
    assert mixtura.select(arms, bandwidth=WIDTH, pulls=15, out=tmp_path, fresh=True).pulls == 15


def test_an_exhausted_pool_is_closed_and_its_samples_count_on(tmp_path):
    rng = np.random.default_rng(1)
    small = Pool("small", MEANS[0] + 0.4 * rng.normal(size=(9, 2)))
    found, rounds, _ = run([small, *pools()[1:]], tmp_path, pulls=80)
    assert found.counts["small"]["told"] == 9 and found.closed["small"].startswith("exhausted")
    assert found.by_name["small"] > 0.2 and found.pulls == 80
    assert sum(r.status == "failed" for r in rounds) == 1


def test_it_ends_when_no_arm_is_left(tmp_path):
    found, _, _ = run(pools(n=10), tmp_path, pulls=100)
    assert found.pulls == 30 and found.why == "no arm is left to be asked"


def test_the_stopping_rule(tmp_path):
    found, _, _ = run(pools(n=2000), tmp_path, pulls=2000, stop=Stop(0.05))
    assert found.pulls < 1000 and "asymptotic" in found.why and found.certificates[0].excess <= 0.05
    certified = found.certificates[1]
    assert certified.mode == "certified" and certified.wanted > 2000


def test_costs_join_the_objective(tmp_path):
    """Two equal arms, one dear: cost decides. Without it they share."""
    rng = np.random.default_rng(2)
    equal = [Pool(name, rng.normal(size=(300, 2)), cost=cost) for name, cost in (("dear", 1.0), ("cheap", 0.0))]
    found, _, _ = run([*equal, *pools()], tmp_path, pulls=200, objective="rke+0.1*cost")
    assert found.by_name["dear"] == 0 < found.by_name["cheap"] and found.unit == "sum of losses"


def test_images_are_looked_at_through_features_of_the_reference(tmp_path):
    rng = np.random.default_rng(3)
    real = torch.as_tensor(rng.integers(0, 17, size=(80, 1, 8, 8)).astype(np.float64))
    same = Pool("same", rng.integers(0, 17, size=(50, 8, 8)).astype(np.float64))
    other = Pool("other", np.full((50, 8, 8), 3.0) + rng.integers(0, 2, size=(50, 8, 8)))
    session = begin([same, other], tmp_path, "mmd", reference=real, name="real", extractor="pca:5", pulls=60)
    list(session.conduct())
    assert session.features.name == "pca:5" and session.finish().by_name["same"] > 0.9
    assert session.ledger.pulls(samples=True)[0].sample.shape == (8, 8)
    session.close()


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (1, 8, 8)])
def test_an_image_comes_in_any_layout(shape):
    real = torch.arange(20 * 64, dtype=torch.float64).reshape(20, 1, 8, 8)
    features = FeatureSpace.of_samples(real, "pixels")
    torch.testing.assert_close(features.of_one(real[3].reshape(shape).numpy()), features(real[3:4])[0])


def test_what_does_not_fit_is_refused_before_anything_is_asked(tmp_path):
    run(pools(), tmp_path / "run")
    asked = []
    arm = Function("g0", lambda seed: asked.append(seed))
    for wrong, says in [
        ({"objective": "mmd"}, "reference"),
        ({"objective": "vendi"}, "not quadratic"),
        ({"policy": "best"}, "expected one of variance_ucb"),
        ({"policy": "mixture_oracle"}, "truth"),
        ({"extractor": "pca:2"}, "reference"),
        ({"pulls": 0}, "pulls"),
        ({"stop": Stop(0.0)}, "stop: expected a number above 0"),
    ]:
        options = {"objective": "rke", "bandwidth": 1.0, "pulls": 20} | wrong
        with pytest.raises(InputError, match=says):
            run([arm, Function("g1", lambda seed: asked.append(seed))], tmp_path / "new", **options)
        assert not (tmp_path / "new").exists() or says == "truth"
    with pytest.raises(InputError, match=r"holds a selection with arms .*--fresh"):
        run(pools()[:2], tmp_path / "run")
    assert asked == []


def test_the_record_holds_together(tmp_path):
    session = begin(pools(cost=1.5), tmp_path, "rke", bandwidth=WIDTH, pulls=80)
    rounds = list(session.conduct())
    record = session.record(session.finish(), "toy")
    session.close()
    json.dumps(record, allow_nan=False)
    shown = [(r.pulls, r.value.value) for r in rounds if r.value is not None]
    assert [(p["pulls"], p["value"]) for p in record["curve"]] == shown
    w = np.array([arm["weight"] for arm in record["arms"]])
    q = record["quadratic"]
    assert 1 / (w @ np.array(q["K"]) @ w + np.array(q["f"]) @ w + q["c"]) == pytest.approx(record["value"])
    assert sum(arm["spent"] for arm in record["arms"]) == record["spent"] == 120.0
    # of pools the truth is known; three modes that never meet are a third each, but for what the samples say
    assert record["truth"]["weights"] == pytest.approx({"g0": 1 / 3, "g1": 1 / 3, "g2": 1 / 3}, abs=0.03)
    assert record["truth"]["value"] == pytest.approx(record["value"], rel=0.1)


# ------------------------------------------------------------------------------------------------ mixtura.select


def test_select_takes_samples_and_functions_by_name_and_leaves_a_folder(tmp_path):
    """The same pulls as a session of arms; again from the folder without one more pull; with more pulls it goes on."""
    rng = np.random.default_rng(0)
    given = {f"g{i}": m + 0.4 * rng.normal(size=(200, 2)) for i, m in enumerate(MEANS)}
    found = mixtura.select(given, "rke", bandwidth=WIDTH, pulls=60, out=tmp_path / "kept")
    assert isinstance(found, mixtura.Weights) and found.names == ("g0", "g1", "g2") and found.pulls == 60
    assert sum(found.weights) == pytest.approx(1) and found.gap < 1e-12 and len(found.intervals) == 3 and found.error > 0
    by_arms = run([Pool(name, x) for name, x in given.items()], tmp_path / "arms")[0]
    assert (by_arms.weights, by_arms.value, by_arms.gain) == (found.weights, found.value, found.gain)
    asked = []
    refused = {name: Function(name, lambda seed: asked.append(seed)) for name in given}
    again = mixtura.select(refused, "rke", bandwidth=WIDTH, pulls=60, out=tmp_path / "kept")
    assert again.weights == found.weights and asked == []
    assert mixtura.select(given, "rke", bandwidth=WIDTH, pulls=66, out=tmp_path / "kept").pulls == 66
    assert json.loads((tmp_path / "kept" / "selection.json").read_text())["pulls"] == 66
    fresh = mixtura.select(given, "rke", bandwidth=WIDTH, pulls=20, out=tmp_path / "kept", fresh=True)
    assert fresh.pulls == 20


def test_select_without_a_folder_compares_with_real_rows_and_asks_functions():
    real = np.random.default_rng(1).normal(3, 1, (200, 2))
    draws = {"near": lambda seed: np.random.default_rng(seed).normal(3, 1, 2), "far": lambda seed: [50.0 + seed, 0.0]}
    found = mixtura.select(draws, "mmd", reference=real, pulls=40)
    assert found.by_name == {"near": 1, "far": 0} and found.single[0] == "near" and found.unit == "MMD²"
    assert [type(r).__name__ for r in conduct(draws, "mmd", reference=real, pulls=12)] == ["Round"] * 12 + ["Selected"]


@pytest.mark.parametrize(
    ("arms", "options", "says"),
    [
        ({}, {}, "arms: expected one or more"),
        ({"a": "text"}, {}, "a: expected an array of samples or a function of a seed, got 'text'"),
        ({"a": np.ones((9, 2))}, {"reach": 1.0}, "reach: is for contexts"),
        ({"a": np.ones((9, 2))}, {"contexts": np.ones((3, 1))}, "a: takes no context"),
        ({"a": np.ones((9, 2))}, {"contexts": np.zeros((3, 4, 4), dtype=np.uint8)}, "contexts: expected a table"),
        ({"a": np.ones((9, 2))}, {"pulls": 2.5}, "pulls"),
    ],
)
def test_select_refuses_in_one_sentence(tmp_path, arms, options, says):
    with pytest.raises(InputError, match=says):
        mixtura.select(arms, "rke", out=tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


# ------------------------------------------------------------------------------------------------------------- kills

SCRIPT = """
import json, sys, time
from pathlib import Path
import numpy as np
from mixtura.arms import Arm
from mixtura.policies import TABLE, Row
from mixtura.policies.bandit import Policy, first_best
from mixtura.selection.mixture import begin

place, pulls = Path(sys.argv[1]), int(sys.argv[2])
kinds = sys.argv[3].split(",")

class Shop(Arm):
    '''Writes down what it makes before it answers; with a key, or a seed if it is repeatable, it makes a thing once.'''
    def __init__(self, name, mean, kind):
        super().__init__(name, takes_key=kind == "keyed", repeatable=kind == "repeatable", cost=1.0)
        self.mean, self.kind, self.book = mean, kind, place / f"{name}.jsonl"
    def _ask(self, seed, key):
        made = [json.loads(line) for line in self.book.read_text().splitlines()] if self.book.exists() else []
        kept = [x for k, x in made if k == key] if self.kind == "keyed" else []
        x = kept[0] if kept else (self.mean + 0.4 * np.random.default_rng([seed, len(self.name)]).normal(size=2)).tolist()
        if not kept:
            with self.book.open("a") as book:
                book.write(json.dumps([key, x]) + "\\n")
        time.sleep(0.002)
        return x

means = np.array([[-3.0, -2.0], [3.0, 1.4], [0.9, 3.2]])
arms = [Shop(f"{kind}{i}", m, kind) for i, (m, kind) in enumerate(zip(means, kinds))]
session = begin(arms, place / "run", "rke", bandwidth=1.7, pulls=pulls)
for _ in session.conduct():
    pass
session.finish()
session.close()
"""


def sitting(place: Path, pulls: int, kinds: str, kill_after: float | None) -> bool:
    """One process; whether it was killed."""
    script = place / "script.py"
    script.write_text(SCRIPT)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(script), str(place), str(pulls), kinds], env=env, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        # the clock starts when the first sample is bought: importing takes longer than selecting
        bought = lambda: list(place.glob("*.jsonl")) or process.poll() is not None  # noqa: E731
        while kill_after is not None and not bought() and time.monotonic() < deadline:
            time.sleep(0.01)
        _, said = process.communicate(timeout=kill_after if kill_after is not None else 120)
        assert process.returncode == 0, said.decode()
        return False
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True


def kill_and_check(place: Path, seed: int, pulls: int = 120) -> int:
    """Kill a selection twice, let it end, and hold the ledger against the books of its arms; how many kills landed."""
    place.mkdir()
    chance = random.Random(seed)
    kinds = "keyed,repeatable,plain"
    kills = sum(sitting(place, pulls, kinds, chance.uniform(0.0, 0.5)) for _ in range(2))
    sitting(place, pulls, kinds, None)
    ledger = Ledger(place / "run" / "ledger.sqlite")
    counts, told = ledger.counts(["keyed0", "repeatable1", "plain2"]), ledger.pulls()
    ledger.close()
    books = {arm: [json.loads(line) for line in (place / f"{arm}.jsonl").read_text().splitlines()] for arm in counts}
    assert sum(c["told"] for c in counts.values()) == pulls and all(c["asked"] == c["failed"] == 0 for c in counts.values())
    # a keyed arm made every sample once, and every one of them is in the ledger
    keys = [key for key, _ in books["keyed0"]]
    assert len(set(keys)) == len(keys) == counts["keyed0"]["told"] and counts["keyed0"]["unknown"] == 0
    assert counts["repeatable1"]["unknown"] == 0
    # any other arm lost at most the one request in flight, shown as unknown
    assert counts["plain2"]["unknown"] <= kills and len(books["plain2"]) - counts["plain2"]["told"] <= counts["plain2"]["unknown"]
    assert {p.status for p in told} <= {"told", "unknown"}
    return kills


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_a_kill_loses_nothing_that_was_bought(tmp_path, seed):
    kill_and_check(tmp_path / "place", seed)


def test_a_killed_selection_makes_the_choices_of_an_undisturbed_one(tmp_path):
    sequences = []
    for name, delays in (("calm", []), ("killed", [0.15, 0.2])):
        place = tmp_path / name
        place.mkdir()
        for delay in delays:
            sitting(place, 100, "repeatable,keyed,repeatable", delay)
        sitting(place, 100, "repeatable,keyed,repeatable", None)
        ledger = Ledger(place / "run" / "ledger.sqlite")
        sequences.append([(p.arm, p.draw, p.features.tolist()) for p in ledger.pulls()])
        ledger.close()
    assert sequences[0] == sequences[1]


def test_two_processes_share_a_selection(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    (place / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(place / "script.py"), str(place), "90", "keyed,repeatable,plain"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [(p.communicate(timeout=120)[1].decode(), p.returncode) for p in both] == [("", 0)] * 2
    ledger = Ledger(place / "run" / "ledger.sqlite")
    pulls = ledger.pulls()
    ledger.close()
    assert sum(p.status == "told" for p in pulls) == 90 and len({(p.arm, p.draw) for p in pulls}) == len(pulls)


def test_exhausted_is_said_once():
    assert issubclass(Exhausted, ArmError)


# ------------------------------------------------------------------------------------------- faults that pass


def test_too_little_memory_costs_no_sample_and_closes_no_arm(tmp_path):
    """A look that fails for lack of memory ends the sitting; the sample it was at is looked at again, not bought again."""
    whole = [p.arm for p in run(pools(), tmp_path / "whole", pulls=30)[2]]
    session = begin(pools(), tmp_path / "parts", "rke", bandwidth=WIDTH, pulls=30)
    of_one, looked = session.features.of_one, []

    def scarce(sample):
        looked.append(sample)
        if len(looked) % 10 == 0:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return of_one(sample)

    session.features.of_one = scarce
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            list(session.conduct())
    session.close()
    found, _, pulls = run(pools(), tmp_path / "parts", pulls=30)
    assert [p.arm for p in pulls] == whole and {p.status for p in pulls} == {"told"} and not found.closed


def test_an_interrupted_request_is_taken_up_in_the_same_process(tmp_path):
    """As in a notebook: the first sitting is interrupted while an arm is awaited; the next one does not wait for it."""
    asked = []

    def slow(seed):
        asked.append(seed)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return [float(seed)]

    session = begin([Function("a", slow, repeatable=True)], tmp_path, "rke", bandwidth=1.0, pulls=6)
    with pytest.raises(KeyboardInterrupt):
        list(session.conduct())
    assert len(list(session.conduct())) == 3 and asked == [0, 1, 2, 3, 3, 4, 5]
    session.close()


def test_two_sessions_of_one_process_leave_one_another_s_requests_alone(tmp_path):
    one, two = (begin(pools(), tmp_path, "rke", bandwidth=WIDTH, pulls=20) for _ in range(2))
    with one.ledger.dealing():
        one.ledger.intend("g0")
    assert two.ledger.orphans() == []
    two.ledger.release()
    assert one.ledger.in_flight() == two.ledger.in_flight() == {"g0": 1} and two.ledger.orphans() == []
    one.ledger.release()
    assert [p.arm for p in two.ledger.orphans()] == ["g0"]
    one.close()
    two.close()


def test_a_full_disk_ends_a_selection_in_one_sentence_and_nothing_is_lost(tmp_path):
    code = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np; from mixtura.arms import Pool\n"
        "from mixtura.ground.machine import CannotWrite; from mixtura.selection.mixture import begin\n"
        "arms = [Pool(name, np.random.default_rng(i).normal(size=(300, 50)) + 9 * i) for i, name in enumerate('ab')]\n"
        "sitting = begin(arms, Path(sys.argv[1]), 'rke', bandwidth=5.0, pulls=60)\n"
        "if sys.argv[2] != '0': resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try: print(len(list(sitting.conduct())), *(p.arm for p in sitting.ledger.pulls()))\n"
        "except CannotWrite as error: print(error); sys.exit(2)"
    )

    def sitting(folder, limit):
        done = subprocess.run([sys.executable, "-c", code, tmp_path / folder, str(limit)], capture_output=True, text=True)
        assert done.stderr == ""
        return done.returncode, done.stdout

    ended, whole = sitting("whole", 0)
    assert ended == 0
    ended, said = sitting("full", 150_000)
    assert ended == 2 and said.startswith(f"{tmp_path}/full/ledger.sqlite: cannot be written (")
    assert said.endswith("check the path and the space on the disk; the same command goes on from here\n")
    ended, rest = sitting("full", 0)
    assert ended == 0 and rest.split()[1:] == whole.split()[1:] and int(rest.split()[0]) < 60
